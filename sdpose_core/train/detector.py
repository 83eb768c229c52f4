"""Training the person detector: a thin wrapper over ultralytics' own trainer."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import yaml

from sdpose_core.detector.classes import class_numbers
from sdpose_core.detector.embed import write_embedded
from sdpose_core.detector.network import keep_rows
from sdpose_core.detector.protocol import DetectorError
from sdpose_core.detector.ultralytics_quiet import ultralytics_tasks
from sdpose_core.detector.weights import find_detector, read_pt
from sdpose_core.files.outputs import check_outputs

_WRITTEN: Final = (
    *("start.pt", "data.yaml", "person.safetensors"),
    *("run/args.yaml", "run/weights/best.pt", "run/weights/last.pt"),
)
"""Files of a run's folder."""


@dataclass(frozen=True)
class DetectorRecipe:
    """Settings for ultralytics. ``minutes`` replaces ``epochs`` if given.

    ``start`` is an ultralytics ``.pt`` or the name of a published one. ``freeze``: how many of the
    first layers stay frozen.
    """

    start: str = "yolo11n.pt"
    epochs: int = 50
    minutes: float | None = None
    image_size: int = 640
    batch: int = 16
    rate: float = 0.001
    freeze: int = 0
    workers: int = 4
    device: str = "auto"
    seed: int = 0


def check_trainer() -> None:
    """Raises ``DetectorError`` if what ultralytics' trainer needs beyond serving does not load.

    The usual cause is a torchvision built for CUDA beside a torch built for the CPU.
    """
    try:
        importlib.import_module("polars")
        importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        raise DetectorError(
            f"ultralytics' trainer needs {error.name}: pip install {error.name}"
        ) from error
    except (ImportError, RuntimeError) as error:
        raise DetectorError(
            f"ultralytics' trainer needs torchvision, which does not load with torch "
            f"{torch.__version__} ({error}); install torch and torchvision from the same index"
        ) from error


def single_class_start(start: str, folder: Path) -> Path:
    """A copy of a detector whose class layers keep only the person row, as a ``.pt`` to train.

    Ultralytics would otherwise start from random class layers, since the number of classes differs.
    """
    source = find_detector(start).path
    if source.suffix != ".pt":
        raise DetectorError(f"{source}: training starts from an ultralytics .pt file")
    model, names = read_pt(source)
    keep_rows(model, class_numbers((), names, len(names), str(source)))
    described: Any = model
    described.names = {0: "person"}
    described.nc = 1
    described.yaml = {**described.yaml, "nc": 1}
    path = folder / "start.pt"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model, "train_args": {}}, path)
    return path


def people_only(data: Path) -> dict[str, Any]:
    """A set's ``data.yaml``, its relative ``path`` made absolute.

    Ultralytics looks for a relative path in the working folder and in a folder from its settings;
    it is resolved against the file's folder if the set is there.

    Raises:
        FileNotFoundError: no such file.
        DetectorError: not a description of a YOLO-format set, or its only class is not ``person``.
    """
    if not data.is_file():
        raise FileNotFoundError(f"{data}: no such file")
    try:
        content = yaml.safe_load(data.read_text())
        names = content["names"]
        beside = data.parent / (content.get("path") or ".")
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise DetectorError(f"{data}: not a description of a YOLO-format set") from error
    listed = list(names.values()) if isinstance(names, dict) else list(names)
    if listed != ["person"]:
        raise DetectorError(f"{data}: expected the one class 'person', got {listed}")
    return {**content, "path": str(beside.resolve())} if beside.is_dir() else dict(content)


def train_detector(data: Path, recipe: DetectorRecipe, folder: Path) -> Path:
    """Fine-tune on a YOLO-format person set and write ``folder/person.safetensors``.

    Args:
        data: The set's ``data.yaml``; its one class is ``person``.
        folder: Where ultralytics puts its run (``folder/run``) and we put the result.

    Raises:
        DetectorError: the trainer lacks a package, or the set or the start cannot be used.
        FileNotFoundError: no such ``data.yaml``.
        OutputError: ``data`` or the start is a file that would be written.
    """
    check_outputs([folder / name for name in _WRITTEN], [data, Path(recipe.start)])
    described = people_only(data)
    folder = folder.resolve()  # ultralytics puts a relative one below a folder of its settings
    check_trainer()
    start = single_class_start(recipe.start, folder)
    ready = folder / "data.yaml"
    ready.write_text(yaml.safe_dump(described))
    ultralytics_tasks()
    from ultralytics.models.yolo.detect import DetectionTrainer

    settings: dict[str, Any] = {
        "model": str(start),
        "data": str(ready),
        "epochs": recipe.epochs,
        "imgsz": recipe.image_size,
        "batch": recipe.batch,
        "optimizer": "AdamW",
        "lr0": recipe.rate,
        "workers": recipe.workers,
        "seed": recipe.seed,
        "freeze": recipe.freeze or None,
        "plots": False,
        "project": str(folder),
        "name": "run",
        "exist_ok": True,
    }
    if recipe.minutes is not None:
        settings["time"] = recipe.minutes / 60
    if recipe.device != "auto":
        settings["device"] = recipe.device
    try:
        trainer = DetectionTrainer(overrides=settings)
    except RuntimeError as error:  # what it raises for a missing set
        raise DetectorError(f"{data}: {error}") from error
    trainer.train()
    best = Path(trainer.best) if Path(trainer.best).is_file() else Path(trainer.last)
    result = folder / "person.safetensors"
    write_embedded(
        best,
        result,
        facts={
            "training": {
                "data": data.parent.name,
                "start": Path(recipe.start).name,
                "epochs": trainer.epoch + 1,
                **({} if recipe.minutes is None else {"minutes": recipe.minutes}),
                "image_size": recipe.image_size,
            }
        },
    )
    return result
