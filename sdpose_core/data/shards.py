"""Person crops in WebDataset tar shards: reading them into memory and writing them.

A shard is a ``.tar`` or ``.tar.gz`` whose members come in pairs ``<key>.webp`` and ``<key>.json``.
The image is a *context crop*: the person's padded 3:4 view (192x256 pixels) in the middle of a
larger image (usually 1.4 times as wide and high), so that a training view can be shifted, turned
and scaled. All images of a run have the same size. The JSON holds ``keypoints`` (rows of x, y,
confidence; x and y in pixels of the context crop, (0, 0) the centre of its top-left pixel;
confidence 0 = unknown), ``names`` if they are not COCO's 17, ``source``, ``label`` ("human" or
"pseudo") and ``image``.
"""

from __future__ import annotations

import io
import json
import lzma
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sdpose_core.files.whole_file import PartialFile
from sdpose_core.skeleton import COCO17, Skeleton
from sdpose_core.types import PUBLISHED_VIEW, Image, Regions, ViewGeometry

CONTEXT_SIZE = (269, 358)
"""Width and height of a context crop in pixels: 1.4 times the 192x256 view."""

WIDE_CONTEXT_SIZE = (496, 516)
"""A context that holds every view of the published augmentation: scaled by 1.35, turned by any
angle and shifted by 0.16 of its size. Views of the smaller one show black at some corners."""

UNFINISHED = "unfinished.txt"
"""In a folder of shards while they are written, and after that was ended."""

PICTURES = ("webp", "jpg", "jpeg", "png")
"""Suffixes of a shard's images, lower case."""

VIEW_SIZE = (192.0, 256.0)
"""Width and height of the view in pixels of the context crop; its centre, pixel (96, 128) of the
192x256 crop, is at half the width and height of the context crop."""


@dataclass(frozen=True)
class CropSample:
    """One labelled person: an encoded context crop and its joints.

    ``keypoints`` is (K, 3): x, y in context-crop pixels, confidence 0..1 (0 = unknown); ``names``
    are theirs.
    """

    key: str
    image: bytes
    keypoints: NDArray[np.float32]
    source: str
    human: bool
    image_name: str = ""
    names: tuple[str, ...] = COCO17.keypoints


@dataclass(frozen=True)
class CropSet:
    """Person crops held encoded in memory; decoding happens per batch.

    ``images`` are encoded images, ``keypoints`` is (N, K, 3) with its ``names``, ``human`` (N,)
    marks labels made by people.
    """

    images: tuple[bytes, ...]
    keypoints: NDArray[np.float32]
    sources: tuple[str, ...]
    human: NDArray[np.bool_]
    names: tuple[str, ...] = COCO17.keypoints

    def __post_init__(self) -> None:
        count = len(self.images)
        expected = (count, len(self.names), 3)
        if self.keypoints.shape != expected:
            raise ValueError(f"expected keypoints {expected}, got {self.keypoints.shape}")
        if len(self.sources) != count or self.human.shape != (count,):
            raise ValueError(
                f"expected {count} sources and human flags, got {len(self.sources)} "
                f"and {self.human.shape}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def decode(self, index: int) -> Image:
        """The context crop as RGB uint8 HWC; raises ``ValueError`` when it does not decode."""
        try:
            return decode_rgb(self.images[index])
        except ValueError as error:
            raise ValueError(
                f"sample {index} of source {self.sources[index]!r}: {error}"
            ) from error

    def select(self, indices: Sequence[int]) -> CropSet:
        """The people at these places of the set, in this order."""
        kept = list(indices)
        return CropSet(
            images=tuple(self.images[i] for i in kept),
            keypoints=self.keypoints[kept],
            sources=tuple(self.sources[i] for i in kept),
            human=self.human[kept],
            names=self.names,
        )

    def ordered(self, skeleton: Skeleton) -> CropSet:
        """The same people with the keypoints of ``skeleton`` in its order.

        Raises:
            SkeletonError: they have others; names are compared.
        """
        if self.names == skeleton.keypoints:
            return self
        order = skeleton.order_in(self.names, "the shards")
        return replace(self, keypoints=self.keypoints[:, order], names=skeleton.keypoints)

    @classmethod
    def from_samples(cls, samples: Iterable[CropSample]) -> CropSet:
        """Collect samples; raises ``ValueError`` if there are none."""
        held = list(samples)
        if not held:
            raise ValueError("no samples: the crop set would be empty")
        return cls(
            images=tuple(s.image for s in held),
            keypoints=np.stack([s.keypoints for s in held]).astype(np.float32),
            sources=tuple(s.source for s in held),
            human=np.array([s.human for s in held], dtype=bool),
            names=held[0].names,
        )


def context_regions(
    count: int, size: tuple[int, int], view: ViewGeometry = PUBLISHED_VIEW
) -> Regions:
    """Where a student of ``view`` looks in ``count`` context crops of ``size`` (width, height).

    The shard's own view scaled to the student's padding, and grown to its aspect: a shard knows the
    person's box only grown to 3:4.
    """
    width, height = (side * view.padding / PUBLISHED_VIEW.padding for side in VIEW_SIZE)
    aspect = view.input_size[0] / view.input_size[1]
    sides = (max(width, height * aspect), max(height, width / aspect))
    return Regions(
        np.tile(np.array((size[0] / 2, size[1] / 2), np.float32), (count, 1)),
        np.tile(np.array(sides, np.float32), (count, 1)),
        view,
    )


def decode_rgb(data: bytes) -> Image:
    """Encoded image bytes -> RGB uint8 HWC; raises ``ValueError`` when they do not decode."""
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        raise ValueError(f"image of {len(data)} bytes does not decode")
    return np.ascontiguousarray(decoded[:, :, ::-1])


def cut_short(data: bytes) -> bool:
    """Whether the end of a JPEG, PNG or WebP file is missing, without decoding it.

    Some decoders fill what is missing with grey, and a run would learn from that.
    """
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in data[-64:]  # some writers add a few bytes behind the end
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data[-64:]
    if data[:4] == b"RIFF":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    return False


def read_shard(path: Path) -> Iterator[CropSample]:
    """Samples of one ``.tar`` or ``.tar.gz`` shard, in order; other members are passed over.

    Raises ``ValueError`` naming the shard when it breaks off, and the key when an image or its
    JSON is missing or damaged, the joints are not finite numbers of shape (K, 3), or a
    confidence is not 0 to 1.
    """
    try:
        yield from _read_members(path)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{path}: not a whole tar file ({error})") from error


def _read_members(path: Path) -> Iterator[CropSample]:
    pending: dict[str, dict[str, bytes]] = {}
    try:
        opened = tarfile.open(path, "r|*")  # noqa: SIM115 - closed below
    except TypeError as error:  # raised by tarfile itself for a truncated gzip head
        raise tarfile.ReadError("its head is truncated") from error
    with opened as tar:
        for member in tar:
            stem, _, suffix = member.name.rpartition(".")
            if not member.isfile() or suffix.lower() not in (*PICTURES, "json"):
                continue
            handle = tar.extractfile(member)
            if handle is None:
                raise ValueError(f"{path}: member {member.name} cannot be read")
            parts = pending.setdefault(stem, {})
            parts[suffix.lower()] = handle.read()
            picture = next((parts[s] for s in PICTURES if s in parts), None)
            if picture is not None and "json" in parts:
                del pending[stem]
                yield _sample(path, stem, picture, parts["json"])
    if pending:
        raise ValueError(f"{path}: incomplete samples {sorted(pending)[:5]}")


def _sample(path: Path, key: str, picture: bytes, text: bytes) -> CropSample:
    try:
        facts = json.loads(text)
        keypoints = np.asarray(facts["keypoints"], dtype=np.float32)
        names = tuple(map(str, facts.get("names", COCO17.keypoints)))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: {key}: no keypoints can be read ({error})") from error
    if not np.isfinite(keypoints).all():
        raise ValueError(f"{path}: {key}: keypoints are not finite")
    if keypoints.shape != (len(names), 3):
        expected = (len(names), 3)
        raise ValueError(f"{path}: {key}: expected keypoints {expected}, got {keypoints.shape}")
    confidences = keypoints[:, 2]
    if confidences.min() < 0 or confidences.max() > 1:
        raise ValueError(
            f"{path}: {key}: confidences must be 0 to 1, got {confidences.min():g} to "
            f"{confidences.max():g}; COCO's flags become shards with sdpose pack"
        )
    if cut_short(picture):
        raise ValueError(f"{path}: {key}: the image of {len(picture)} bytes is truncated")
    return CropSample(
        key=key,
        image=picture,
        keypoints=keypoints,
        source=str(facts.get("source", "")),
        human=facts.get("label", "human") == "human",
        image_name=str(facts.get("image", "")),
        names=names,
    )


def find_shards(patterns: Sequence[str | Path]) -> list[Path]:
    """Shard files named by files, folders (every ``*.tar``/``*.tar.gz`` inside) or globs, sorted.

    Raises ``FileNotFoundError`` naming the pattern that matches nothing, and ``ValueError`` naming
    a folder whose shards are not complete.
    """
    found: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        if path.is_file():
            matches = [path]
        elif path.is_dir():
            matches = sorted([*path.glob("*.tar"), *path.glob("*.tar.gz")])
        else:
            matches = sorted(path.parent.glob(path.name))
        if not matches:
            raise FileNotFoundError(f"no shards match {pattern}")
        for folder in {match.parent for match in matches}:
            if (folder / UNFINISHED).exists():
                raise ValueError(
                    f"{folder}: its shards are not complete: sdpose pack is writing them or was "
                    "ended; wait, or run it again"
                )
        found.extend(matches)
    return found


def load_shards(patterns: Sequence[str | Path]) -> CropSet:
    """Read every shard into memory, encoded (about 4.5 kB a person).

    Raises ``FileNotFoundError`` or ``ValueError`` naming the shard that is missing, damaged or of
    another size of images than those before; the first image of each shard is checked.
    """
    return CropSet.from_samples(_alike(find_shards(patterns)))


def _alike(paths: Sequence[Path]) -> Iterator[CropSample]:
    first: tuple[Path, tuple[int, ...], tuple[str, ...]] | None = None
    for path in paths:
        for number, sample in enumerate(read_shard(path)):
            if number == 0:
                try:
                    size = decode_rgb(sample.image).shape[:2][::-1]
                except ValueError as error:
                    raise ValueError(f"{path}: {sample.key}: {error}") from error
                first = first or (path, size, sample.names)
                if size != first[1]:
                    raise ValueError(
                        f"{path} holds images of {size} pixels, {first[0]} of {first[1]}: all "
                        "shards of a run must be of one size"
                    )
            if first is not None and sample.names != first[2]:
                raise ValueError(
                    f"{path}: {sample.key}: has other keypoints than {first[0]}: all shards of a "
                    "run must have the same"
                )
            yield sample


class ShardWriter:
    """Writes samples to numbered tar shards ``<prefix>-0000.tar`` of at most ``per_shard`` each.

    A context manager; a shard appears under its final name only when it is complete. After an
    exception the one in work is deleted, those that are full stay.
    """

    def __init__(self, folder: Path, prefix: str = "pose", per_shard: int = 5000) -> None:
        if per_shard < 1:
            raise ValueError(f"per_shard must be at least 1, got {per_shard}")
        self._folder = folder
        self._prefix = prefix
        self._per_shard = per_shard
        self._tar: tarfile.TarFile | None = None
        self._partial: PartialFile | None = None
        self._in_shard = 0
        self.paths: list[Path] = []

    def __enter__(self) -> ShardWriter:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._close()
        elif self._tar is not None and self._partial is not None:
            self._tar.close()
            self._partial.discard()
            self._tar = self._partial = None

    def write(self, sample: CropSample) -> None:
        """Append one sample, opening the next shard when the current one is full."""
        if self._tar is None or self._in_shard == self._per_shard:
            self._close()
            name = f"{self._prefix}-{len(self.paths):04d}.tar"
            self._partial = PartialFile(self._folder / name)
            self._tar = tarfile.open(self._partial.path, "w")  # noqa: SIM115 - closed in _close
            self._in_shard = 0
        facts = {
            "keypoints": [[round(float(v), 3) for v in row] for row in sample.keypoints],
            "source": sample.source,
            "label": "human" if sample.human else "pseudo",
            "image": sample.image_name,
        }
        if sample.names != COCO17.keypoints:
            facts["names"] = list(sample.names)
        # WebDataset groups members by the name up to the first dot.
        key = sample.key.replace(".", "_")
        _add(self._tar, f"{key}.webp", sample.image)
        _add(self._tar, f"{key}.json", json.dumps(facts).encode())
        self._in_shard += 1

    def _close(self) -> None:
        if self._tar is None or self._partial is None:
            return
        self._tar.close()
        self._partial.finish()
        self.paths.append(self._partial.target)
        self._tar = self._partial = None


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
