"""A survey of labels before training: what they hold, and what is odd about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sdpose_core.data.coco import CocoPerson, eligible
from sdpose_core.skeleton import DEFAULT_SIGMA, Skeleton
from sdpose_core.train.tuning.labels import Labels

SHOWN: Final = 3
"""Examples of each oddity in the summary; the run's ``labels.txt`` names all."""
FLAGS: Final = (0, 1, 2)


@dataclass
class Survey:
    """Counts of labels.

    Attributes:
        skeleton: Of the labels.
        images: Ids of images with people to train on.
        people: Number of people to train on, by image.
        labelled: How often each keypoint is labelled, in order.
        left_out: Annotations by why they are left out.
        odd: Annotations and files by what is odd about them; they are trained on if they can be.
    """

    skeleton: Skeleton
    images: list[int] = field(default_factory=list)
    people: Counter[int] = field(default_factory=Counter)
    labelled: list[int] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    odd: dict[str, list[str]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """People to train on."""
        return self.people.total()

    def lines(self, *, shown: int | None = SHOWN) -> list[str]:
        """Sentences for the user, with ``shown`` examples each; None: all."""
        shares = [
            f"{name} {count / max(1, self.total):.0%}"
            for name, count in zip(self.skeleton.keypoints, self.labelled, strict=True)
        ]
        found = [
            f"{self.total} people with {len(self.skeleton)} keypoints in {len(self.images)} images",
            f"labelled: {', '.join(shares)}",
        ]
        if never := [
            name
            for name, count in zip(self.skeleton.keypoints, self.labelled, strict=True)
            if not count
        ]:
            found.append(f"never labelled, so not learned: {', '.join(never)}")
        if self.skeleton.assumed:
            found.append(
                f"no tolerance (sigma) for {', '.join(self.skeleton.assumed)}: AP counts with "
                f"{DEFAULT_SIGMA}"
            )
        for title, what in (("left out", self.left_out), ("odd", self.odd)):
            for reason, entries in what.items():
                found.append(f"{title}: {len(entries)} {reason}: {_named(entries, shown)}")
        return found


def survey(labels: Labels) -> Survey:
    """Look at every annotation; reads no image."""
    file = labels.file
    made = Survey(file.skeleton, labelled=[0] * len(file.skeleton))
    sizes = {one["id"]: (one["width"], one["height"], one["file_name"]) for one in file.images}
    for entry in file.people:
        width, height, name = sizes[entry["image_id"]]
        where = f"annotation {entry['said_id']} ({name})"
        person = eligible(entry, width, height)
        if not isinstance(person, CocoPerson):
            made.left_out.setdefault(person, []).append(where)
            continue
        made.people[entry["image_id"]] += 1
        for place, (x, y, flag) in enumerate(_joints(entry)):
            made.labelled[place] += flag > 0
            joint = f"{where}, {file.skeleton.keypoints[place]}"
            if flag > 0 and not (0 <= x <= width and 0 <= y <= height):
                outside = f"{joint} at ({x:g}, {y:g}) of {width}x{height}"
                made.odd.setdefault("keypoints outside their image", []).append(outside)
            if flag not in FLAGS:
                made.odd.setdefault("flags other than 0, 1 and 2", []).append(f"{joint}: {flag:g}")
            if flag == 0 and (x or y):
                reason = "keypoints with a place but flag 0, so not labelled"
                made.odd.setdefault(reason, []).append(joint)
        if "box" in entry["mended"]:
            made.odd.setdefault("boxes without area, that of the keypoints taken", []).append(where)
        if "area" in entry["mended"]:
            made.odd.setdefault("people without an area, that of the box taken", []).append(where)
    made.images = [one["id"] for one in file.images if one["id"] in made.people]
    empty = [one["file_name"] for one in file.images if one["id"] not in made.people]
    if labels.grown:
        made.odd["boxes that end at their keypoints, grown by an eighth"] = [
            f"annotation {one}" for one in labels.grown
        ]
    if empty:
        made.odd["images without people to train on"] = empty
    if labels.missing:
        made.left_out["labelled images that are not in the folder"] = list(labels.missing)
    return made


def _joints(entry: dict[str, Any]) -> list[list[float]]:
    values = entry["keypoints"]
    return [values[at : at + 3] for at in range(0, len(values), 3)]


def _named(entries: Sequence[str], shown: int | None) -> str:
    if shown is None or len(entries) <= shown:
        return "; ".join(entries)
    return "; ".join(entries[:shown]) + "; ..."
