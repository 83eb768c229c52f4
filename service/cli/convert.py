"""`sdpose convert`: a published checkpoint becomes one of our files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def convert(
    source: Annotated[Path, typer.Argument(help="An official SDPose .pth, or a file of ours.")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    precision: Annotated[str, typer.Option(help="How weights are stored: fp16 or fp32.")] = "fp16",
    force: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
) -> None:
    """Convert an official SDPose checkpoint to a self-describing safetensors file."""
    import torch

    from sdpose_core.checkpoints import build_student, read_checkpoint, save_student
    from sdpose_core.files.outputs import check_outputs

    stored = {"fp16": torch.float16, "fp32": torch.float32}
    if precision not in stored:
        raise ValueError(f"--precision {precision}: expected fp16 or fp32")
    if target.suffix != ".safetensors":
        raise ValueError(f"{target}: the target's name must end in .safetensors")
    if target.exists() and not force:
        raise ValueError(f"{target} exists; pass --force to replace it")
    check_outputs([target], [source])
    checkpoint = read_checkpoint(source)
    student = build_student(checkpoint, str(source))
    save_student(student, target, checkpoint.training, dtype=stored[precision])
    size = target.stat().st_size / 1e6
    typer.echo(f"{target}: {student.config.name}, {precision}, {size:.1f} MB")
