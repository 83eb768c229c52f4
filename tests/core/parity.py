"""Weights and inputs that the recorded facts of the published implementation were computed from.

Every tensor is filled from its own official name, so no weights need to be stored.
"""

from __future__ import annotations

import json
import re
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdpose_core.checkpoints.official import translate
from sdpose_core.model import PRESETS, Student, StudentConfig

FACTS = Path(__file__).parent.parent / "data" / "parity"
HEAD = "keypoint_head.tokenpose."
PARTS = {
    "norm1.": "0.fn.norm.",
    "attention.qkv.": "0.fn.fn.to_qkv.",
    "attention.out.": "0.fn.fn.to_out.0.",
    "norm2.": "1.fn.norm.",
    "mlp.0.": "1.fn.fn.net.0.",
    "mlp.2.": "1.fn.fn.net.3.",
}


def facts(variant: str) -> dict[str, Any]:
    """What the published implementation computed for a preset."""
    content: dict[str, Any] = json.loads(
        (FACTS / f"{variant.replace('-', '_', 1)}.json").read_text()
    )
    return content


def official_name(key: str) -> str:
    """Our key as the published files call it."""
    if key.startswith("backbone."):
        return key
    layer = re.match(r"encoder\.layers\.(\d+)\.(\w+\.(?:\w+\.)?)(\w+)$", key)
    if layer:
        index, part, leaf = layer.groups()
        return f"{HEAD}transformer_layer1.layers.{index}.{PARTS[part]}{leaf}"
    return HEAD + re.sub("^patch_embedding", "patch_to_embedding", re.sub("^head", "mlp_head", key))


def fill(name: str, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """Values of one tensor by its official name; None for what the model computes itself."""
    if name.endswith(("pos_embedding", "num_batches_tracked")):
        return None
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    noise = generator.standard_normal(shape).astype(np.float32)
    if name.endswith("keypoint_token"):
        return np.float32(0.5) * noise
    if name.endswith("running_mean"):
        return np.float32(0.1) * noise
    if name.endswith("running_var"):
        return np.exp(np.float32(0.2) * noise)
    if len(shape) == 4:
        return noise * np.float32(np.sqrt(2.0 / np.prod(shape[1:])))
    if len(shape) == 2:
        gain = 1.5 if name.endswith("to_qkv.weight") else 1.0
        return noise * np.float32(gain / np.sqrt(shape[1]))
    if name.endswith(".weight"):
        small = ".branches." in name or ".fuse_layers." in name or name.split(".")[-2] == "bn3"
        grown = np.exp(np.float32(0.1) * noise)
        return np.float32(0.2) * grown if small else np.float32(1) + np.float32(0.1) * noise
    return np.float32(0.05) * noise


@cache
def official_state(config: StudentConfig) -> dict[str, Tensor]:
    """A filled state dict as a published file holds it."""
    state = {}
    for key, value in Student(config).state_dict().items():
        name = official_name(key)
        filled = fill(name, tuple(value.shape))
        state[name] = value if filled is None else torch.from_numpy(np.asarray(filled))
    return state


@cache
def filled_student(variant: str) -> Student:
    """A preset with the filled weights, in evaluation mode."""
    student = Student(PRESETS[variant])
    student.load_state_dict(translate(official_state(student.config)))
    return student.eval()


def network_input() -> Tensor:
    """``(2, 3, 256, 192)``, already normalised."""
    noise = np.random.default_rng(7).standard_normal((2, 3, 256, 192))
    return torch.from_numpy(noise.astype(np.float32))


def recorded(tensor: Tensor) -> NDArray[np.float32]:
    """The values of a tensor at the places where the facts hold one."""
    places = np.random.default_rng(tensor.numel()).integers(0, tensor.numel(), 48)
    values: NDArray[np.float32] = tensor.flatten().numpy()[places]
    return values
