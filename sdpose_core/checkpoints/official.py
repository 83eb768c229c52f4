"""Reading the published SDPose ``.pth`` files: key names, variant from shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from torch import Tensor

from sdpose_core.model import PAPER, PRESETS, StudentConfig

# (pattern of an official key, our key); the first match applies.
_TO_OURS: Final = tuple(
    (re.compile(pattern), ours)
    for pattern, ours in (
        (r"keypoint_head\.tokenpose\.keypoint_token", "keypoint_token"),
        (r"keypoint_head\.tokenpose\.pos_embedding", "pos_embedding"),
        (r"keypoint_head\.tokenpose\.patch_to_embedding\.(.+)", r"patch_embedding.\1"),
        (r"keypoint_head\.tokenpose\.mlp_head\.(.+)", r"head.\1"),
        (r"{layer}0\.fn\.norm\.(.+)", r"encoder.layers.\1.norm1.\2"),
        (r"{layer}0\.fn\.fn\.to_qkv\.(.+)", r"encoder.layers.\1.attention.qkv.\2"),
        (r"{layer}0\.fn\.fn\.to_out\.0\.(.+)", r"encoder.layers.\1.attention.out.\2"),
        (r"{layer}1\.fn\.norm\.(.+)", r"encoder.layers.\1.norm2.\2"),
        (r"{layer}1\.fn\.fn\.net\.0\.(.+)", r"encoder.layers.\1.mlp.0.\2"),
        (r"{layer}1\.fn\.fn\.net\.3\.(.+)", r"encoder.layers.\1.mlp.2.\2"),
        (r"(backbone\..+)", r"\1"),
    )
    for pattern in [
        pattern.replace("{layer}", r"keypoint_head\.tokenpose\.transformer_layer1\.layers\.(\d+)\.")
    ]
)
_LAYER: Final = re.compile(r"encoder\.layers\.(\d+)\.")


def to_ours(key: str) -> str | None:
    """Our name of one official key, or None if it is not part of a student."""
    for pattern, ours in _TO_OURS:
        match = pattern.fullmatch(key)
        if match:
            return match.expand(ours)
    return None


def translate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An official state dict under our key names.

    Raises:
        ValueError: names keys that no SDPose student has.
    """
    names = {key: to_ours(key) for key in state}
    unknown = [key for key, ours in names.items() if ours is None]
    if unknown:
        raise ValueError(
            f"{len(unknown)} keys do not belong to an SDPose student, first {unknown[:3]}"
        )
    return {ours: state[key] for key, ours in names.items() if ours is not None}


def config_from_shapes(state: Mapping[str, Tensor]) -> StudentConfig:
    """The variant that a state dict (our key names) belongs to.

    The file name is no indication: the published links of S-V1 and S-V2 lead to the same file.

    Raises:
        ValueError: no preset has these shapes.
    """
    embedding = state.get("patch_embedding.weight")
    layers = {int(match[1]) for key in state if (match := _LAYER.match(key))}
    stem = state.get("backbone.layer1.0.conv1.weight")
    if embedding is None or stem is None or not layers:
        raise ValueError("it contains no patch embedding, backbone or encoder layers")
    if embedding.ndim != 2 or stem.ndim != 4:
        raise ValueError(
            f"a patch embedding of {tuple(embedding.shape)} and a first convolution of "
            f"{tuple(stem.shape)} match no SDPose variant"
        )
    hrnet = any(key.startswith("backbone.stage3.") for key in state)
    for config in (PRESETS[name] for name in PAPER):
        channels = 32 if config.backbone == "hrnet-w32" else 256
        width = config.patch_size[0] * config.patch_size[1] * channels
        if (
            hrnet == (config.backbone == "hrnet-w32")
            and embedding.shape[1] == width
            and len(layers) == config.depth
        ):
            return replace(config, stage1_planes=int(stem.shape[0])) if hrnet else config
    raise ValueError(
        f"no SDPose variant has a patch embedding of {tuple(embedding.shape)} "
        f"and {len(layers)} encoder layers"
    )
