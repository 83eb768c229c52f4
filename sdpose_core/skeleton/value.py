"""One skeleton as a value. It travels with its student, in the file and in every pose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from sdpose_core.skeleton.names import Side, mirrored_key, name_key, side_of

DEFAULT_SIGMA: Final = 0.079
"""Tolerance of a keypoint without a measured one: COCO's for shoulders, the middle of its range."""
MAX_KEYPOINTS: Final = 300
_LOWER: Final = ("hip", "knee", "ankle", "toe", "heel", "foot", "pelvis")


class SkeletonError(ValueError):
    """A skeleton contradicts itself, or is not the expected one; the message is one sentence."""


@dataclass(frozen=True)
class Skeleton:
    """The keypoints of a student.

    Attributes:
        name: Such as ``"coco17"``.
        keypoints: Their names, in the order of every array.
        edges: Limbs as pairs of indices.
        mirror: The index that each keypoint becomes in a mirrored image.
        sigmas: Tolerance of each in OKS: the standard deviation of annotators, in units of the root
            of the area (COCO keypoint evaluation).
        lower: Indices of the lower body, for training views of half a body; empty for a skeleton
            without halves.
        assumed: Names of the keypoints whose tolerance is ``DEFAULT_SIGMA`` because none was given.
    """

    name: str
    keypoints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    mirror: tuple[int, ...]
    sigmas: tuple[float, ...]
    lower: tuple[int, ...] = ()
    assumed: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.keypoints)

    @cached_property
    def sides(self) -> tuple[Side, ...]:
        """The side of each keypoint, for colours: by its name, if it has a mirror partner."""
        return tuple(
            side_of(name) if self.mirror[i] != i else "middle"
            for i, name in enumerate(self.keypoints)
        )

    @cached_property
    def upper(self) -> tuple[int, ...]:
        """Indices of the upper body; empty for a skeleton without halves."""
        if not self.lower:
            return ()
        return tuple(i for i in range(len(self)) if i not in self.lower)

    @cached_property
    def trunk(self) -> tuple[int, ...]:
        """Indices of shoulders and hips; empty for a skeleton without all four."""
        found = self.places(("left_shoulder", "right_shoulder", "left_hip", "right_hip"))
        return tuple(sorted(i for i in found if i is not None)) if None not in found else ()

    def places(self, names: Sequence[str]) -> list[int | None]:
        """The index here of each of ``names``, whatever its spelling; None if it is not here."""
        keys = {name_key(name): i for i, name in enumerate(self.keypoints)}
        return [keys.get(name_key(name)) for name in names]

    def order_in(self, names: Sequence[str], where: str) -> list[int]:
        """The index in ``names`` of each keypoint here: names are compared, not counts.

        Raises:
            SkeletonError: ``names`` are not those of this skeleton; the sentence begins with
                ``where`` and names the first difference.
        """
        keys = [name_key(name) for name in names]
        own = {name_key(name) for name in self.keypoints}
        for number, key in enumerate(keys):
            if key in keys[:number] or key not in own:
                reason = "comes twice" if key in keys[:number] else f"is none of {self.name}'s"
                raise SkeletonError(
                    f"{where}: number {number + 1}, {names[number]!r}, {reason}; expected "
                    f"{len(self)}, in any order: {', '.join(self.keypoints)}"
                )
        for name in self.keypoints:
            if name_key(name) not in keys:
                raise SkeletonError(f"{where}: {name!r} is missing; expected {len(self)}")
        return [keys.index(name_key(name)) for name in self.keypoints]

    def to_dict(self) -> dict[str, Any]:
        """Plain values by names, ready for JSON; ``make`` reads them."""
        name = self.keypoints.__getitem__
        return {
            "name": self.name,
            "keypoints": list(self.keypoints),
            "edges": [[name(a), name(b)] for a, b in self.edges],
            "mirror": [[name(a), name(b)] for a, b in enumerate(self.mirror) if a < b],
            "sigmas": {
                one: sigma
                for one, sigma in zip(self.keypoints, self.sigmas, strict=True)
                if one not in self.assumed
            },
            "lower_body": [name(i) for i in self.lower],
        }

    @classmethod
    def make(
        cls,
        name: str,
        keypoints: Sequence[str],
        *,
        edges: Iterable[Sequence[str]] = (),
        mirror: Iterable[Sequence[str]] | None = None,
        sigmas: Mapping[str, float] | Sequence[float] | None = None,
        lower_body: Sequence[str] | None = None,
        where: str = "skeleton",
    ) -> Skeleton:
        """A checked skeleton from names.

        Args:
            name: How it is called.
            keypoints: Names in order.
            edges: Limbs as pairs of names.
            mirror: Pairs of names of left and right; None finds them by the names.
            sigmas: By name or in order. Keypoints without one get COCO's if COCO has the name, else
                ``DEFAULT_SIGMA``.
            lower_body: Names; None finds them by the names (hips and below).
            where: What an error begins with, such as the file.

        Raises:
            SkeletonError: no keypoint, a name that repeats, or an unknown one.
        """
        names = [str(one).strip() for one in keypoints]
        if not 1 <= len(names) <= MAX_KEYPOINTS:
            raise SkeletonError(f"{where}: {len(names)} keypoints, expected 1 to {MAX_KEYPOINTS}")
        index: dict[str, int] = {}
        for number, one in enumerate(names):
            if not one:
                raise SkeletonError(f"{where}: keypoint number {number + 1} has no name")
            if name_key(one) in index:
                raise SkeletonError(f"{where}: the keypoint {one!r} comes twice")
            index[name_key(one)] = number

        def place(one: object, what: str) -> int:
            found = index.get(name_key(str(one)))
            if found is None:
                raise SkeletonError(f"{where}: {what} {one!r}, which is none of the keypoints")
            return found

        def pair(given: Sequence[str], what: str) -> tuple[int, int]:
            if isinstance(given, str) or len(given) != 2:
                raise SkeletonError(f"{where}: {what} {given!r}: expected two names")
            first, second = (place(end, f"{what} names") for end in given)
            if first == second:
                raise SkeletonError(f"{where}: {what} {given!r} joins a keypoint with itself")
            return first, second

        limbs = tuple(pair(one, "an edge") for one in edges)
        partners = list(range(len(names)))
        if mirror is None:
            partners = [index.get(mirrored_key(one), i) for i, one in enumerate(names)]
        else:
            for couple in mirror:
                first, second = pair(couple, "a mirror pair")
                for end, other in ((first, second), (second, first)):
                    if partners[end] not in (end, other):
                        raise SkeletonError(
                            f"{where}: the mirror pair {list(couple)!r} is not mutual: "
                            f"{names[end]!r} is paired with {names[partners[end]]!r}, too"
                        )
                    partners[end] = other
        values, assumed = _tolerances(names, sigmas, place, where)
        lower = (
            [i for i, one in enumerate(names) if set(name_key(one).split("_")) & set(_LOWER)]
            if lower_body is None
            else [place(one, "lower_body names") for one in lower_body]
        )
        halves = 0 < len(lower) < len(names)
        return cls(
            name=str(name),
            keypoints=tuple(names),
            edges=limbs,
            mirror=tuple(partners),
            sigmas=values,
            lower=tuple(sorted(lower)) if halves else (),
            assumed=assumed,
        )


def _tolerances(
    names: Sequence[str],
    given: Mapping[str, float] | Sequence[float] | None,
    place: Any,
    where: str,
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Sigmas in order, and the names of those that are assumed."""
    if given is not None and not isinstance(given, Mapping):
        if len(given) != len(names):
            raise SkeletonError(f"{where}: {len(given)} sigmas for {len(names)} keypoints")
        given = dict(zip(names, given, strict=True))
    own = {place(one, "sigmas name"): value for one, value in (given or {}).items()}
    values, assumed = [], []
    for i, one in enumerate(names):
        value = own.get(i, _KNOWN.get(name_key(one)))
        if value is None:
            assumed.append(one)
            value = DEFAULT_SIGMA
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            raise SkeletonError(
                f"{where}: the sigma of {one!r} is {value!r}: expected above 0 to 1, in units of "
                "the root of a person's area"
            )
        values.append(float(value))
    return tuple(values), tuple(assumed)


# cocodataset.org, "Keypoint Evaluation"; left and right are alike.
_BODY: Final = {
    "nose": 0.026,
    "eye": 0.025,
    "ear": 0.035,
    "shoulder": 0.079,
    "elbow": 0.072,
    "wrist": 0.062,
    "hip": 0.107,
    "knee": 0.087,
    "ankle": 0.089,
}
_KNOWN: Final = {
    name: sigma
    for part, sigma in _BODY.items()
    for name in ((part,) if part == "nose" else (f"left_{part}", f"right_{part}"))
}

COCO17: Final = Skeleton.make(
    "coco17",
    tuple(_KNOWN),
    edges=(
        ("left_ankle", "left_knee"),
        ("left_knee", "left_hip"),
        ("right_ankle", "right_knee"),
        ("right_knee", "right_hip"),
        ("left_hip", "right_hip"),
        ("left_shoulder", "left_hip"),
        ("right_shoulder", "right_hip"),
        ("left_shoulder", "right_shoulder"),
        ("left_shoulder", "left_elbow"),
        ("right_shoulder", "right_elbow"),
        ("left_elbow", "left_wrist"),
        ("right_elbow", "right_wrist"),
        ("left_eye", "right_eye"),
        ("nose", "left_eye"),
        ("nose", "right_eye"),
        ("left_eye", "left_ear"),
        ("right_eye", "right_ear"),
        ("left_ear", "left_shoulder"),
        ("right_ear", "right_shoulder"),
    ),
)
"""COCO's 17 keypoints of a person, with its edges in its order."""
