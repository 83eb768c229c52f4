"""Ultralytics detectors with random weights, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from sdpose_core.detector.ultralytics_quiet import ultralytics_tasks

COCO_START = {0: "person", 1: "bicycle", 2: "car"}


def random_model(design: str, names: dict[int, str], seed: int = 0) -> Any:
    """A detection model of a packaged plan, with batch statistics that are not the trivial ones."""
    torch.manual_seed(seed)
    tasks = ultralytics_tasks()
    model = tasks.DetectionModel(f"{design}.yaml", nc=len(names), verbose=False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    model.names = names
    return model.eval()


def save_pt(model: Any, path: Path) -> Path:
    """The model in a file as ultralytics' trainer writes it."""
    saved = {"epoch": -1, "ema": model.half(), "model": None, "train_args": {"imgsz": 640}}
    torch.save(saved, path)
    model.float()
    return path
