"""What comes with the package: weights and their facts, read without PyTorch.

`sdpose models` only names them, and PyTorch takes seconds to import.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from safetensors import safe_open

WEIGHTS: Final = Path(__file__).parent / "weights"
DETECTOR: Final = WEIGHTS / "person-n.safetensors"

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
