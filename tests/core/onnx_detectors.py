"""ONNX files with the layouts of other projects' detectors, whose answers are known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


def save_onnx(
    path: Path,
    outputs: Mapping[str, NDArray[np.generic]],
    *,
    size: tuple[int | str, int | str] = (64, 64),
    batch: int | str = 1,
    gains: Mapping[str, NDArray[np.float32]] | None = None,
    channel: int = 0,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """A network that answers ``outputs`` whatever the image shows.

    Float outputs have a batch of one, repeated for each image, and ``gains`` times the mean of the
    input's ``channel`` is added.
    """
    constants = [
        numpy_helper.from_array(np.array(channel), "channel"),
    ]
    nodes = [
        helper.make_node("Gather", ["images", "channel"], ["plane"], axis=1),
        helper.make_node("ReduceMean", ["plane"], ["mean"], axes=[1, 2], keepdims=0),
    ]
    ports = []
    for name, value in outputs.items():
        shape: list[int | str] = [batch, *value.shape[1:]]
        constants.append(numpy_helper.from_array(value, f"{name}.value"))
        if value.dtype == np.float32:
            gain = (gains or {}).get(name, np.zeros_like(value))
            constants.append(numpy_helper.from_array(gain, f"{name}.gain"))
            axes = list(range(1, value.ndim))
            nodes += [
                helper.make_node("Unsqueeze", ["mean"], [f"{name}.mean"], axes=axes),
                helper.make_node("Mul", [f"{name}.mean", f"{name}.gain"], [f"{name}.added"]),
                helper.make_node("Add", [f"{name}.value", f"{name}.added"], [name]),
            ]
        else:
            nodes.append(helper.make_node("Identity", [f"{name}.value"], [name]))
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        ports.append(helper.make_tensor_value_info(name, kind, shape))
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, *size])
    graph = helper.make_graph(nodes, "detector", [image], ports, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    helper.set_model_props(model, dict(metadata or {}))
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


NAMES = {"names": "{0: 'person', 1: 'dog', 2: 'cat'}", "task": "detect"}
"""As ultralytics' exporter writes them."""


def yolo(boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(1, 4 + classes, anchors)`` from ``(N, 4)`` xyxy and ``(N, classes)``, on 84 anchors."""
    out = np.zeros((1, 4 + scores.shape[1], 84), np.float32)
    count = len(boxes)
    out[0, :2, :count] = (boxes[:, :2] + boxes[:, 2:]).T / 2
    out[0, 2:4, :count] = (boxes[:, 2:] - boxes[:, :2]).T
    out[0, 4:, :count] = scores.T
    return out


def rtmdet(
    cells: Mapping[tuple[int, int, int], tuple[NDArray[np.float32], list[float]]], classes: int
) -> dict[str, NDArray[np.float32]]:
    """Heads of an input of 64 pixels: at (stride, row, column) a box xyxy and its scores."""
    heads = {}
    for stride in (8, 16, 32):
        side = 64 // stride
        head = np.full((1, side, side, classes + 4), -9, np.float32)
        for (of, row, column), (box, scores) in cells.items():
            if of == stride:
                odds = np.array(scores, np.float32)
                point = np.array([column, row], np.float32) * stride
                head[0, row, column, :classes] = np.log(odds / (1 - odds))
                head[0, row, column, classes:] = [*(point - box[:2]), *(box[2:] - point)]
        heads[f"head{stride}"] = head
    return heads
