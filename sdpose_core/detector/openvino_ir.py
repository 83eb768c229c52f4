"""The detector's network as an OpenVINO model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sdpose_core.detector.network import PersonNetwork
from sdpose_core.detector.protocol import DetectorError


def convert(network: PersonNetwork) -> Any:
    """An OpenVINO model that takes ``(B, H, W, 3)`` uint8 of any size and has the outputs of
    ``network``.

    What a runner needs beyond the graph (strides, whether suppression is needed) is in the model's
    ``rt_info``.
    """
    from sdpose_core.hardware import openvino_models

    # Two different side lengths and a batch of two: none may end up as a constant in the graph.
    example = torch.zeros(2, 64, 96, 3, dtype=torch.uint8)
    model = openvino_models.convert(network, example, (-1, -1, -1, 3))
    model.set_rt_info(",".join(map(str, network.strides)), ["sdpose", "strides"])
    model.set_rt_info(str(int(network.needs_nms)), ["sdpose", "needs_nms"])
    return model


def facts(model: Any) -> tuple[tuple[int, ...], bool]:
    """Strides and whether suppression is needed, from a model made by ``convert``."""
    strides = str(model.get_rt_info(["sdpose", "strides"]).astype(str))
    needs_nms = str(model.get_rt_info(["sdpose", "needs_nms"]).astype(str))
    return tuple(int(stride) for stride in strides.split(",")), needs_nms == "1"


def read_quantised(path: Path) -> Any:
    """One of our quantised models; its weights are in the ``.bin`` next to the ``.xml``.

    Raises:
        DetectorError: a file is missing or damaged.
    """
    from sdpose_core.hardware.openvino_models import core

    try:
        model = core().read_model(path)
        facts(model)
    except RuntimeError as error:
        raise DetectorError(f"{path}: missing, damaged, or not an sdpose detector") from error
    return model
