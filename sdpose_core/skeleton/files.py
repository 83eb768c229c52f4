"""Skeletons in TOML files, the ready-made ones among them, and in COCO categories."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from sdpose_core.skeleton.value import COCO17, Skeleton, SkeletonError

_FOLDER: Final = Path(__file__).parent
READY_MADE: Final = (
    COCO17.name,
    *sorted(path.stem for path in _FOLDER.glob("*.toml")),
)
"""Names that ``find_skeleton`` knows."""
_FIELDS: Final = {"name", "source", "keypoints", "edges", "mirror", "sigmas", "lower_body"}


def find_skeleton(given: str | os.PathLike[str]) -> Skeleton:
    """A ready-made skeleton by its name, or that of a TOML file.

    Raises:
        SkeletonError: neither; or the file describes none.
    """
    name = os.fspath(given)
    if name == COCO17.name:
        return COCO17
    if name in READY_MADE:
        return read_skeleton(_FOLDER / f"{name}.toml")
    if not Path(name).is_file():
        raise SkeletonError(f"{name}: no such file, and none of {', '.join(READY_MADE)}")
    return read_skeleton(Path(name))


@lru_cache(maxsize=16)
def skeleton_of_names(names: tuple[str, ...]) -> Skeleton:
    """The ready-made skeleton of exactly these names in this order, else one without edges."""
    for name in READY_MADE:
        skeleton = find_skeleton(name)
        if skeleton.keypoints == names:
            return skeleton
    return Skeleton.make("keypoints", names, where="the answer")


def read_skeleton(path: Path) -> Skeleton:
    """The skeleton of a TOML file.

    It has ``keypoints``, and may have ``name``, ``edges``, ``mirror``, ``sigmas`` and
    ``lower_body`` (arguments of ``Skeleton.make``); ``source`` is free text.

    Raises:
        SkeletonError: it cannot be read, or describes none.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SkeletonError(f"{path}: not a readable TOML file ({error})") from error
    if unknown := sorted(content.keys() - _FIELDS):
        expected = ", ".join(sorted(_FIELDS))
        raise SkeletonError(f"{path}: unknown {unknown[0]!r}; expected {expected}")
    return skeleton_of({"name": path.stem, **content}, str(path))


def skeleton_of(values: Mapping[str, Any], where: str) -> Skeleton:
    """The skeleton that ``Skeleton.to_dict`` or a TOML file wrote.

    Raises:
        SkeletonError: they describe none.
    """
    values = {key: value for key, value in values.items() if key != "source"}
    if not isinstance(values.get("keypoints"), list):
        raise SkeletonError(f"{where}: no list of keypoints")
    try:
        return Skeleton.make(**values, where=where)
    except TypeError as error:
        raise SkeletonError(f"{where}: {error}") from error


def skeleton_of_category(category: Mapping[str, Any], where: str) -> Skeleton:
    """The skeleton of a COCO category: ``keypoints``, ``skeleton`` (pairs from 1), ``sigmas``.

    The last two may be missing. COCO's own keypoints in COCO's order are ``COCO17``.

    Raises:
        SkeletonError: it has no keypoints, names that repeat, or edges to none of them.
    """
    names = category.get("keypoints")
    if not isinstance(names, list) or not names:
        raise SkeletonError(f"{where}: no list of keypoint names")
    edges = []
    for one in category.get("skeleton") or []:
        try:
            a, b = (int(end) for end in one)
        except (TypeError, ValueError):
            raise SkeletonError(f"{where}: the edge {one!r}: expected two numbers") from None
        for end in (a, b):
            if not 1 <= end <= len(names):
                raise SkeletonError(
                    f"{where}: the edge {one!r} goes to keypoint {end}, and there are 1 to "
                    f"{len(names)}"
                )
        edges.append((str(names[a - 1]), str(names[b - 1])))
    made = Skeleton.make(
        str(category.get("name") or "keypoints"),
        names,
        edges=edges,
        sigmas=category.get("sigmas"),
        where=where,
    )
    if COCO17.places(made.keypoints) == list(range(len(COCO17))):
        return COCO17
    return made
