"""Available students and detectors, with their cost and measured accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from sdpose_core.checkpoints import embedded_path, read_checkpoint
from sdpose_core.detector.weights import EMBEDDED, EMBEDDED_PATH, find_detector, read_metadata
from sdpose_core.model import PRESETS, Student, StudentConfig


class Cost(NamedTuple):
    """For one crop and one cycle, and the paper's accuracy (CVPR 2024, table of COCO val2017).

    Attributes:
        parameters: Trainable parameters.
        gmacs: All multiply-accumulates, in 1e9.
        gmacs_no_attention: Without the two products of attention, which the paper leaves out.
        paper_gflops: As printed in the paper, for its students.
        paper_ap: Of the official weights with the paper's detector boxes and flip test.
    """

    parameters: int
    gmacs: float
    gmacs_no_attention: float
    paper_gflops: float | None
    paper_ap: float | None


COSTS: Final = {
    "sdpose-t": Cost(4_398_528, 1.951, 1.779, 1.80, 0.697),
    "sdpose-s-v1": Cost(6_620_736, 2.726, 2.383, 2.40, 0.723),
    "sdpose-s-v2": Cost(6_227_520, 7.487, 4.648, 4.67, 0.735),
    "sdpose-b": Cost(13_145_984, 5.471, 5.127, 5.16, 0.737),
    "sdpose-lite": Cost(2_144_157, 0.302, 0.302, None, None),
    "sdpose-lite-s": Cost(5_263_064, 0.677, 0.677, None, None),
}
DETECTOR_PARAMETERS: Final = 2_597_051
DETECTOR_GMACS: Final = 3.218
LICENCE: Final = "AGPL-3.0-or-later"


def count_gmacs(config: StudentConfig) -> tuple[float, float]:
    """Multiply-accumulates of one crop as it is served in 1e9: all, and without attention's."""
    with torch.device("meta"):
        student = Student(config).eval()
        image = torch.empty(1, 3, *config.input_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        student(image)
    total = counter.get_total_flops()
    attention = counter.get_flop_counts()["Global"].get(torch.ops.aten.bmm, 0)
    return total / 2e9, (total - attention) / 2e9


def count_parameters(config: StudentConfig) -> int:
    """All parameters of a student, trainable or fitted separately."""
    with torch.device("meta"):
        return sum(p.numel() for p in Student(config).parameters())


def list_models() -> list[dict[str, Any]]:
    """One entry per model; ``ap`` is measured with the embedded weights, else None.

    A student's is for keypoints, the detector's for person boxes; ``evaluated_on`` names the set.
    """
    entries = []
    for name in PRESETS:
        cost, path, facts = COSTS[name], embedded_path(name), {}
        if path is not None:
            checkpoint = read_checkpoint(path)
            facts = checkpoint.training
            # The embedded network may be a smaller one, such as one that pools its crops.
            gmacs, rest = count_gmacs(checkpoint.config)
            cost = cost._replace(
                parameters=count_parameters(checkpoint.config),
                gmacs=round(gmacs, 3),
                gmacs_no_attention=round(rest, 3),
            )
        entries.append(
            {
                "name": name,
                "kind": "student",
                "embedded": path is not None,
                "file_bytes": _size(path),
                **cost._asdict(),
                "ap": facts.get("evaluation", {}).get("ap"),
                "evaluated_on": facts.get("evaluation", {}).get("dataset"),
                "licence": facts.get("licence", LICENCE) if path else None,
            }
        )
    entries.append(_detector())
    return entries


def count_detector() -> tuple[int, float]:
    """Parameters of the embedded detector as it runs, and 1e9 multiply-accumulates at 640x640."""
    network = find_detector(EMBEDDED).network()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 640, 640, 3))
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() / 2e9


def _detector() -> dict[str, Any]:
    facts = read_metadata(EMBEDDED_PATH)
    evaluation = facts.get("evaluation", {})
    return {
        "name": EMBEDDED,
        "kind": "detector",
        "embedded": True,
        "file_bytes": _size(EMBEDDED_PATH),
        "parameters": DETECTOR_PARAMETERS,
        "gmacs": DETECTOR_GMACS,
        "gmacs_no_attention": None,
        "paper_gflops": None,
        "paper_ap": None,
        "ap": evaluation.get("ap"),
        "evaluated_on": evaluation.get("dataset"),
        "licence": facts.get("licence"),
    }


def _size(path: Path | None) -> int | None:
    return path.stat().st_size if path else None
