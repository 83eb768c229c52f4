"""What students and detectors there are, with their cost and their measured accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from sdpose_core.checkpoints import WEIGHTS, embedded_path, read_checkpoint
from sdpose_core.model import PRESETS, Student, StudentConfig


class Cost(NamedTuple):
    """Of one crop and one cycle, and the paper's accuracy (CVPR 2024, table of COCO val2017).

    Attributes:
        parameters: Trainable ones.
        gmacs: All multiply-accumulates, in 1e9.
        gmacs_no_attention: Without the two products of attention, which the paper leaves out.
        paper_gflops: What the paper prints.
        paper_ap: Of the official weights with the paper's detector boxes and flip test.
    """

    parameters: int
    gmacs: float
    gmacs_no_attention: float
    paper_gflops: float
    paper_ap: float


COSTS: Final = {
    "sdpose-t": Cost(4_398_528, 1.951, 1.779, 1.80, 0.697),
    "sdpose-s-v1": Cost(6_620_736, 2.726, 2.383, 2.40, 0.723),
    "sdpose-s-v2": Cost(6_227_520, 7.487, 4.648, 4.67, 0.735),
    "sdpose-b": Cost(13_145_984, 5.471, 5.127, 5.16, 0.737),
}
LICENCE: Final = "AGPL-3.0-or-later"


def count_gmacs(config: StudentConfig) -> tuple[float, float]:
    """Multiply-accumulates of one crop and one cycle in 1e9: all, and without attention's."""
    with torch.device("meta"):
        student = Student(config).eval()
        image = torch.empty(1, 3, *config.input_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        student(image)
    total = counter.get_total_flops()
    attention = counter.get_flop_counts()["Global"][torch.ops.aten.bmm]
    return total / 2e9, (total - attention) / 2e9


def list_models() -> list[dict[str, Any]]:
    """One entry a model; ``ap`` is what was measured of the embedded weights, else None."""
    entries = []
    for name in PRESETS:
        cost, path, facts = COSTS[name], embedded_path(name), {}
        if path is not None:
            checkpoint = read_checkpoint(path)
            facts = checkpoint.training
            # The embedded network may be a smaller one, such as one that pools its crops.
            gmacs, rest = count_gmacs(checkpoint.config)
            cost = cost._replace(gmacs=round(gmacs, 3), gmacs_no_attention=round(rest, 3))
        entries.append(
            {
                "name": name,
                "kind": "student",
                "embedded": path is not None,
                "file_bytes": _size(path),
                **cost._asdict(),
                "ap": facts.get("evaluation", {}).get("ap"),
                "evaluated_on": facts.get("evaluation", {}).get("dataset"),
                "licence": LICENCE if path else None,
            }
        )
    entries.append(_detector())
    return entries


def _detector() -> dict[str, Any]:
    # Costs of the network at its default 640x640 input, from its publisher's table of YOLO11n,
    # less the class rows that were cut off (2.60 M of 2.62 M parameters stay).
    path = WEIGHTS / "person-n.safetensors"
    return {
        "name": "embedded",
        "kind": "detector",
        "embedded": True,
        "file_bytes": _size(path),
        "parameters": 2_600_000,
        "gmacs": 3.25,
        "gmacs_no_attention": None,
        "paper_gflops": None,
        "paper_ap": None,
        "ap": None,
        "evaluated_on": None,
        "licence": "AGPL-3.0",
    }


def _size(path: Path | None) -> int | None:
    return path.stat().st_size if path else None
