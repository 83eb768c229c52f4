"""Weights that come with the package, and the list of `sdpose models` with cost and accuracy.

Read without PyTorch, which takes seconds to import.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

from safetensors import safe_open

WEIGHTS: Final = Path(__file__).parent / "weights"
DETECTOR: Final = WEIGHTS / "person-n.safetensors"
RTMDET: Final = WEIGHTS / "rtmdet-nano.onnx"

OFFICIAL_HELP: Final = (
    "download the published checkpoint from the links in the README of "
    "https://github.com/MartyrPenink/SDPose and pass the path of the .pth file"
)


def embedded_path(name: str) -> Path | None:
    """Path of a preset's trained weights in this installation; None if it has none."""
    path = WEIGHTS / f"{name}.safetensors"
    return path if path.is_file() else None


def embedded_facts(path: Path) -> dict[str, Any]:
    """The values in the metadata of a file of ours, by name."""
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    return {key: json.loads(text) for key, text in metadata.items() if key != "format"}


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
}
EMBEDDED_COSTS: Final = {"sdpose-lite": Cost(1_307_748, 0.302, 0.302, None, None)}
"""Costs of embedded networks smaller than their preset, such as one without its transformer."""
DETECTOR_PARAMETERS: Final = 2_597_051
DETECTOR_GMACS: Final = 3.218
RTMDET_PARAMETERS: Final = 985_927
RTMDET_GMACS: Final = 0.308
"""The cost of an image of 320 x 320, its only size."""
LICENCE: Final = "AGPL-3.0-or-later"


def list_models() -> list[dict[str, Any]]:
    """One entry per model; ``ap`` is measured with the embedded weights, else None.

    A student's is for keypoints, the detector's for person boxes; ``evaluated_on`` names the set.
    """
    entries = []
    for name, own in COSTS.items():
        path, cost, facts = embedded_path(name), own, {}
        if path is not None:
            facts = embedded_facts(path).get("training", {})
            cost = EMBEDDED_COSTS.get(name, own)
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
    return entries + _detectors()


def _detectors() -> list[dict[str, Any]]:
    facts = embedded_facts(DETECTOR)
    evaluation = facts.get("evaluation", {})
    ours = {
        "name": "embedded",
        "file_bytes": _size(DETECTOR),
        "parameters": DETECTOR_PARAMETERS,
        "gmacs": DETECTOR_GMACS,
        "ap": evaluation.get("ap"),
        "evaluated_on": evaluation.get("dataset"),
        "licence": facts.get("licence"),
    }
    rtmdet = {
        "name": RTMDET.stem,
        "file_bytes": _size(RTMDET),
        "parameters": RTMDET_PARAMETERS,
        "gmacs": RTMDET_GMACS,
        "ap": None,
        "evaluated_on": None,
        "licence": "Apache-2.0 (OpenMMLab, RTMPose project)",
    }
    same = {"kind": "detector", "embedded": True}
    unknown = {"gmacs_no_attention": None, "paper_gflops": None, "paper_ap": None}
    return [{**same, **unknown, **one} for one in (ours, rtmdet)]


def _size(path: Path | None) -> int | None:
    return path.stat().st_size if path else None
