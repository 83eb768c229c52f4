"""Images of the worst cases: predictions (red) beside annotations (green)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sdpose_core.evaluate.breakdown import PersonScore
from sdpose_core.io.overlay import save_picture
from sdpose_core.skeleton import Skeleton

_TRUTH, _FOUND = (60, 220, 60), (230, 50, 50)


def draw_worst(scored: Sequence[PersonScore], folder: Path, count: int = 16) -> list[Path]:
    """Write a JPEG of each of the ``count`` people with the lowest OKS, worst first."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for rank, case in enumerate(sorted(scored, key=lambda s: s.oks)[:count]):
        picture = _view(case)
        path = folder / f"{rank:02d}-oks{case.oks:.2f}-{case.image.path.stem}.jpg"
        save_picture(path, picture)
        written.append(path)
    return written


def worst_sheet(
    scored: Sequence[PersonScore], count: int = 12, columns: int = 4, side: int = 320
) -> NDArray[np.uint8]:
    """The ``count`` people with the lowest OKS on one RGB image, worst first, with their OKS."""
    tiles = []
    for case in sorted(scored, key=lambda s: s.oks)[:count]:
        view = _view(case)
        scale = side / max(view.shape[:2])
        size = (max(1, round(view.shape[1] * scale)), max(1, round(view.shape[0] * scale)))
        small = cv2.resize(view, size, interpolation=cv2.INTER_AREA)
        tile = np.full((side, side, 3), 255, np.uint8)
        tile[: size[1], : size[0]] = small
        text = f"OKS {case.oks:.2f} {case.image.path.name[-28:]}"
        for colour, width in (((255, 255, 255), 3), ((0, 0, 0), 1)):
            at = (6, side - 8)
            cv2.putText(tile, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, width, cv2.LINE_AA)
        tiles.append(tile)
    tiles += [np.full((side, side, 3), 255, np.uint8)] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[at : at + columns]) for at in range(0, len(tiles), columns)]
    return np.asarray(np.vstack(rows), np.uint8)


def _view(case: PersonScore) -> NDArray[np.uint8]:
    """The person with a margin, enlarged to at least 384 pixels, RGB."""
    image = case.image.read()
    x1, y1, x2, y2 = case.person.box
    margin = 0.25 * max(x2 - x1, y2 - y1)
    left, top = max(0, int(x1 - margin)), max(0, int(y1 - margin))
    cut = image[top : int(y2 + margin) + 1, left : int(x2 + margin) + 1]
    scale = max(1.0, 384 / max(cut.shape[:2]))
    view = np.ascontiguousarray(cv2.resize(cut, None, fx=scale, fy=scale), np.uint8)
    truth, skeleton = case.person.keypoints, case.image.skeleton
    corner = np.array([left, top])
    _draw(view, (truth[:, :2] - corner) * scale, truth[:, 2] > 0, _TRUTH, skeleton)
    if case.keypoints is not None and case.keypoint_scores is not None:
        _draw(view, (case.keypoints - corner) * scale, case.keypoint_scores > 0, _FOUND, skeleton)
    return view


def _draw(
    view: NDArray[np.uint8],
    points: NDArray[np.floating],
    shown: NDArray[np.bool_],
    colour: tuple[int, int, int],
    skeleton: Skeleton,
) -> None:
    at = [(round(float(x)), round(float(y))) for x, y in np.clip(points, -5000, 5000)]
    for a, b in skeleton.edges:
        if shown[a] and shown[b]:
            cv2.line(view, at[a], at[b], colour, 1, cv2.LINE_AA)
    for point, visible in zip(at, shown, strict=True):
        if visible:
            cv2.circle(view, point, 3, colour, -1, cv2.LINE_AA)
