"""Converting an ultralytics detector to our file format."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from sdpose_core.detector.classes import PERSON, class_numbers
from sdpose_core.detector.network import keep_rows
from sdpose_core.detector.protocol import DetectorError
from sdpose_core.detector.weights import FORMAT, build, plan_of, read_pt
from sdpose_core.files.whole_file import whole_file


def write_embedded(
    pt: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    facts: dict[str, Any] | None = None,
) -> int:
    """Write the person part of an ultralytics ``.pt`` as a safetensors file of ours.

    Only the ``person`` row of the class layers is kept; all weights are stored in fp16 with batch
    normalisation unfolded, so that training can continue from the file.

    Args:
        pt: a YOLOv8, YOLO11 or YOLO26 detection model with a class named ``person``.
        out: where to write; replaced only once the new file is complete.
        facts: further metadata about the weights (training, measured quality).

    Returns:
        The size of the file in bytes.

    Raises:
        DetectorError: ``pt`` cannot be used; nothing is written.
    """
    source = Path(pt)
    model, names = read_pt(source)
    keep_rows(model, class_numbers((), names, len(names), str(source)))
    plan = plan_of(model)
    state = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in model.state_dict().items()
    }
    expected = build(plan, str(source)).state_dict()
    if {key: value.shape for key, value in state.items()} != {
        key: value.shape for key, value in expected.items()
    }:
        raise DetectorError(
            f"{source}: the network does not match its own architecture; pass an unfused one"
        )
    if not all(torch.isfinite(value).all() for value in state.values()):
        raise DetectorError(f"{source}: a weight is not finite in fp16")
    described = {
        "plan": plan,
        "names": [PERSON],
        "origin": source.name,
        "licence": "AGPL-3.0 (network design by ultralytics)",
        **(facts or {}),
    }
    metadata = {"format": FORMAT, **{key: json.dumps(value) for key, value in described.items()}}
    target = Path(out)
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as partial:
        save_file(state, partial, metadata)
        partial.chmod(0o644)  # the library makes it private; a service may run as another user
    return target.stat().st_size
