"""`python -m tools.quantise_detector IMAGES`: the embedded detector in int8, rebuilt.

Needs NNCF, which is no dependency of the project: `pip install nncf torch==2.13.0`. IMAGES is a
folder of photographs with people, of which a fixed choice, evenly spread over the sorted names,
shows NNCF the range of each layer's values. None of them may be of a set to measure with. Where the
ranges lie, and so the weights, depends a little on the processor; measure what comes out:

    python -m tools.bench detection ANNOTATIONS.json IMAGES --precision fp32,int8
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sdpose_core.detector import openvino_ir
from sdpose_core.detector.letterbox import Letterbox, canvas_for, paste_arrays
from sdpose_core.detector.weights import EMBEDDED, EMBEDDED_INT8_PATH, find_detector

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
SIDES = (640, 416)
"""Longest sides of the calibration inputs, in turns."""

KEPT = (
    r"__module\.layers\.23\.cv[23]\.\d\.2/.*",  # the last layer of each branch
    r"__module\.layers\.23\.dfl.*",  # distributions to distances
    r"__module\.layers\.10\.m\.0\.attn/.*",  # products and softmax of the attention
)
"""Names of the operations that stay in fp32."""


def choose(folder: Path, count: int) -> list[Path]:
    """``count`` images of a folder, evenly spread over the sorted names; all if there are fewer."""
    found = sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in SUFFIXES)
    return [found[i * len(found) // count] for i in range(count)] if len(found) > count else found


def canvas_of(numbered: tuple[int, Path]) -> NDArray[np.uint8]:
    """One image as the detector sees it, ``(1, H, W, 3)``."""
    number, path = numbered
    stored = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if stored is None:
        raise ValueError(f"{path}: cannot be read")
    image = np.asarray(stored, np.uint8)
    size = (image.shape[0], image.shape[1])
    canvas = canvas_for(size, SIDES[number % len(SIDES)], square=False)
    return paste_arrays([image], [Letterbox.fit(size, canvas)], canvas)


def quantise(images: list[Path]) -> Any:
    """The embedded detector as an OpenVINO model in int8."""
    import nncf

    return nncf.quantize(
        openvino_ir.convert(find_detector(EMBEDDED).network()),
        nncf.Dataset(list(enumerate(images)), canvas_of),
        preset=nncf.QuantizationPreset.MIXED,
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(patterns=list(KEPT)),
    )


def store(model: Any, target: Path, calibration: str) -> int:
    """Write the model with its facts; the two files replace older ones once they are complete.

    Returns:
        The size of both files in bytes.
    """
    import openvino as ov

    facts = {
        "origin": "person-n.safetensors: YOLO11n by ultralytics, its row for people",
        "licence": "AGPL-3.0 (network design by ultralytics)",
        "calibration": calibration,
    }
    for key, text in facts.items():
        model.set_rt_info(text, ["sdpose", key])
    with tempfile.TemporaryDirectory(dir=target.parent) as draft:
        whole = Path(draft) / target.name
        ov.save_model(model, whole, compress_to_fp16=False)
        files = [whole.with_suffix(".bin"), whole]
        size = sum(file.stat().st_size for file in files)
        for file in files:
            file.replace(target.parent / file.name)
    return size


def main() -> int:
    """Quantises and writes; 1 where that is not possible."""
    parser = argparse.ArgumentParser(description="The embedded detector in int8, rebuilt.")
    parser.add_argument("images", type=Path, help="folder of photographs with people")
    parser.add_argument("--out", type=Path, default=EMBEDDED_INT8_PATH, help="file to write (.xml)")
    parser.add_argument("--count", type=int, default=300, help="how many of the images to use")
    given = parser.parse_args()
    try:
        import nncf
    except ModuleNotFoundError:
        sys.stderr.write("NNCF is missing: pip install nncf torch==2.13.0\n")
        return 1
    images = choose(given.images, given.count)
    if not images:
        sys.stderr.write(f"{given.images}: no images\n")
        return 1
    sides = " and ".join(map(str, SIDES))
    calibration = f"NNCF {nncf.__version__}, {len(images)} photographs, longest side {sides}"
    size = store(quantise(images), given.out, calibration)
    sys.stdout.write(f"{given.out}: {size / 1e6:.1f} MB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
