"""The architecture of a student, and the four variants of the paper's table."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, get_args

from sdpose_core.model.backbones import BACKBONES, STRIDE
from sdpose_core.skeleton import COCO17, Skeleton
from sdpose_core.types import Cycles, ViewGeometry

HeadName = Literal["tokens", "correction"]


FIXED: Final[dict[str, Any]] = {"heatmap_kind": "gaussian", "pool": 1}
"""Fields of earlier versions' files that have one value left."""


@dataclass(frozen=True, slots=True)
class StudentConfig:
    """Shape of one SDPose student. Everything that depends on a size reads it from here.

    Attributes:
        name: Its name in listings, such as ``"sdpose-t"``.
        backbone: The convolutional part in front of the transformer, a name of ``BACKBONES``.
        head: ``"tokens"``: each keypoint token outputs its heatmap (the published students).
            ``"correction"``: the tokens correct the backbone's own heatmaps, so that the student
            also runs without a cycle.
        patch_size: Height and width of one token's patch, in pixels of the feature map.
        depth: Encoder layers of one cycle.
        train_cycles: How often the encoder runs in training, the maximum that can be served. 0:
            there is no transformer, the backbone's heatmaps are the output.
        served_cycles: How often it runs by default; None is the minimum.
        skeleton: Which keypoints it finds.
        input_size: Height and width of a crop in pixels.
        heatmap_size: Height and width of a heatmap in pixels.
        padding: How much larger than the person's box the crop's view is.
        aligned_flip: Whether the flip test mirrors about the pixel that the heatmaps' columns agree
            with (``heatmaps.mirror``); the published students' scores are made without.
        score_width: Hidden units of the head that computes scores from all peaks and positions of a
            person (``heads.scores``); 0: none, a joint's score comes from its own peak alone.
        person_width: Hidden units of the head that computes a person's score from those of the
            joints (``heads.people``); 0: none, it is their mean.
        stage1_planes: Width of HRNet's first stage. The published SDPose-B has 32 where the
            standard W32 has 64, so its checkpoints need 32.

    Raises:
        ValueError: inconsistent sizes, or an unknown value.
    """

    name: str
    backbone: str = "stemnet"
    head: HeadName = "tokens"
    patch_size: tuple[int, int] = (4, 3)
    depth: int = 6
    train_cycles: int = 3
    served_cycles: int | None = None
    embed_dim: int = 192
    heads: int = 8
    mlp_dim: int = 576
    head_dim: int = 384
    skeleton: Skeleton = COCO17
    input_size: tuple[int, int] = (256, 192)
    heatmap_size: tuple[int, int] = (64, 48)
    padding: float = 1.25
    aligned_flip: bool = False
    score_width: int = 0
    person_width: int = 0
    stage1_planes: int = 32

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            raise ValueError(
                f"unknown backbone {self.backbone!r}: expected one of {', '.join(BACKBONES)}"
            )
        if self.head not in get_args(HeadName):
            known = ", ".join(get_args(HeadName))
            raise ValueError(f"head {self.head!r}: expected one of {known}")
        if self.embed_dim % self.heads or self.embed_dim % 4:
            raise ValueError(
                f"embed_dim {self.embed_dim} must be divisible by 4 and by the {self.heads} heads"
            )
        if self.depth < 1 or self.train_cycles < self.min_cycles:
            raise ValueError(
                f"depth must be at least 1 and train_cycles at least {self.min_cycles}, "
                f"got {self.depth} and {self.train_cycles}"
            )
        for name in ("score_width", "person_width"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected at least 0, got {getattr(self, name)}")
        self.cycles.check(self.served_cycles)
        self._check_sizes()

    def _check_sizes(self) -> None:
        steps = (STRIDE * self.patch_size[0], STRIDE * self.patch_size[1])
        if min(*self.patch_size, *self.input_size, *self.heatmap_size) < 1:
            raise ValueError("patch_size, input_size and heatmap_size must be at least 1")
        if any(size % step for size, step in zip(self.input_size, steps, strict=True)):
            raise ValueError(
                f"patch_size {self.patch_size} needs an input size that is a multiple of {steps} "
                f"(the backbone's stride is {STRIDE}), got {self.input_size}"
            )
        across, down = self.input_size[1], self.input_size[0]
        if across * self.heatmap_size[0] != down * self.heatmap_size[1]:
            raise ValueError(
                f"heatmap_size {self.heatmap_size} has a different aspect from the input size "
                f"{self.input_size}"
            )
        if self.padding <= 0 or not math.isfinite(self.padding):
            raise ValueError(f"padding: expected more than 0, got {self.padding}")
        if self.head != "correction":
            return
        own = tuple(size // STRIDE for size in self.input_size)
        if not BACKBONES[self.backbone].own_heatmaps:
            raise ValueError(
                f"the head 'correction' needs a backbone with its own heatmaps, "
                f"{self.backbone!r} has none"
            )
        if self.heatmap_size != own:
            raise ValueError(
                f"the head 'correction' keeps the backbone's heatmaps: "
                f"expected heatmap_size {own}, got {self.heatmap_size}"
            )

    @property
    def keypoints(self) -> int:
        """How many keypoints it finds: K in the shapes of everything that follows."""
        return len(self.skeleton)

    @property
    def min_cycles(self) -> int:
        """The minimum number of cycles: 0 if the backbone alone gives heatmaps."""
        return 0 if self.head == "correction" else 1

    @property
    def cycles(self) -> Cycles:
        """How often its transformer may run."""
        served = self.min_cycles if self.served_cycles is None else self.served_cycles
        return Cycles(self.min_cycles, self.train_cycles, served)

    @property
    def view(self) -> ViewGeometry:
        """The sizes that coordinates depend on."""
        return ViewGeometry(
            input_size=(self.input_size[1], self.input_size[0]),
            heatmap_size=(self.heatmap_size[1], self.heatmap_size[0]),
            padding=self.padding,
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of visual tokens."""
        return (
            self.input_size[0] // (STRIDE * self.patch_size[0]),
            self.input_size[1] // (STRIDE * self.patch_size[1]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; ``from_dict`` is its inverse.

        Of the skeleton the number of keypoints only: a file holds the rest beside the config.
        """
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {
            "keypoints" if name == "skeleton" else name: len(value) if name == "skeleton" else value
            for name, value in values.items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], skeleton: Skeleton = COCO17) -> StudentConfig:
        """The config written by ``to_dict``, also of an earlier version.

        Args:
            values: What it wrote.
            skeleton: The student's, which its file holds beside it.

        Raises:
            ValueError: an unknown or invalid field.
        """
        for key, value in FIXED.items():
            if values.get(key, value) != value:
                raise ValueError(f"{key} {values[key]!r}: this version runs students of {value!r}")
        pairs = {"patch_size", "input_size", "heatmap_size"}
        plain: dict[str, Any] = {
            key: tuple(value) if key in pairs else value
            for key, value in values.items()
            if key not in FIXED and key != "keypoints"
        }
        if values.get("keypoints", len(skeleton)) != len(skeleton):
            raise ValueError(f"{values['keypoints']} keypoints, and {len(skeleton)} names")
        try:
            return cls(**plain, skeleton=skeleton)
        except TypeError as error:
            raise ValueError(f"not a student config: {error}") from error


PAPER: Final = ("sdpose-t", "sdpose-s-v1", "sdpose-s-v2", "sdpose-b")
"""The presets of the paper (CVPR 2024, arXiv 2404.03518)."""

PRESETS: Final[dict[str, StudentConfig]] = {
    config.name: config
    for config in (
        StudentConfig("sdpose-t", depth=6, train_cycles=3),
        StudentConfig("sdpose-s-v1", depth=12, train_cycles=2),
        StudentConfig("sdpose-s-v2", depth=12, train_cycles=2, patch_size=(2, 2)),
        StudentConfig("sdpose-b", depth=12, train_cycles=2, backbone="hrnet-w32"),
        # A small transformer that corrects the heatmaps of a light backbone.
        StudentConfig(
            "sdpose-lite",
            backbone="lite-hrnet",
            head="correction",
            depth=4,
            train_cycles=2,
            embed_dim=128,
            heads=4,
            mlp_dim=384,
            head_dim=128,
            patch_size=(4, 4),
            padding=1.15,
            aligned_flip=True,
            score_width=64,
            person_width=16,
        ),
    )
}
"""The paper's four students, and a light one from this project."""
