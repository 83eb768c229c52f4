"""Keypoint names: compared whatever their spelling, and their sides."""

from __future__ import annotations

import re
from typing import Final, Literal

Side = Literal["left", "right", "middle"]

_CAPITALS: Final = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_GAPS: Final = re.compile(r"[\W_]+")
_SHORT: Final = {"l": "left", "r": "right"}
_OTHER: Final = {"left": "right", "right": "left"}


def name_key(name: str) -> str:
    """The common form of a name's spellings: ``left_eye`` for "Left Eye", "LEye" and "l-eye"."""
    words = [word for word in _GAPS.split(_CAPITALS.sub("_", name).lower()) if word]
    return "_".join(_SHORT.get(word, word) for word in words)


def side_of(name: str) -> Side:
    """The side that a name states: ``left_eye``, ``eye_left``, ``l_eye``, ``LEye``."""
    words = name_key(name).split("_")
    if ("left" in words) == ("right" in words):
        return "middle"
    return "left" if "left" in words else "right"


def mirrored_key(name: str) -> str:
    """The ``name_key`` of the keypoint on the other side; of a middle one, its own."""
    return "_".join(_OTHER.get(word, word) for word in name_key(name).split("_"))
