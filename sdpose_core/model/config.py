"""What a student is made of, and the four variants of the paper's table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from sdpose_core.skeleton import NUM_KEYPOINTS

BackboneName = Literal["stemnet", "hrnet-w32"]
HeatmapKind = Literal["gaussian", "logits"]


@dataclass(frozen=True, slots=True)
class StudentConfig:
    """Shape of one SDPose student.

    Attributes:
        name: What it is called in listings, such as ``"sdpose-t"``.
        backbone: The convolutional part in front of the transformer.
        patch_size: Height and width of one token's patch, in pixels of the 64x48 feature map.
        depth: Encoder layers of one cycle.
        train_cycles: How often the encoder runs in training; serving runs one.
        stage1_planes: Width of HRNet's first stage. The published SDPose-B has 32 where the
            usual W32 has 64, so 32 is what its checkpoints need.
        heatmap_kind: What training taught the head. ``"gaussian"``: heatmaps as they are, peak
            about 1 (squared error, the published students). ``"logits"``: values whose softmax
            over the map is a Gaussian of sum 1 (spatial cross-entropy).
        pool: Crops are averaged over squares of this side first. 2 makes a student that looks
            at 128x96 pixels: a quarter of the work, for weights that were trained so.
    """

    name: str
    backbone: BackboneName = "stemnet"
    patch_size: tuple[int, int] = (4, 3)
    depth: int = 6
    train_cycles: int = 3
    embed_dim: int = 192
    heads: int = 8
    mlp_dim: int = 576
    head_dim: int = 384
    keypoints: int = NUM_KEYPOINTS
    input_size: tuple[int, int] = (256, 192)
    heatmap_size: tuple[int, int] = (64, 48)
    stage1_planes: int = 32
    heatmap_kind: HeatmapKind = "gaussian"
    pool: int = 1

    def __post_init__(self) -> None:
        for size, patch, axis in zip(self.heatmap_size, self.patch_size, "hw", strict=True):
            if size % patch:
                raise ValueError(
                    f"patch_size {self.patch_size} does not divide the {self.heatmap_size} "
                    f"feature map along {axis}"
                )
        if self.embed_dim % self.heads or self.embed_dim % 4:
            raise ValueError(
                f"embed_dim {self.embed_dim} must divide by 4 and by the {self.heads} heads"
            )
        if self.depth < 1 or self.train_cycles < 1:
            raise ValueError("depth and train_cycles must be at least 1")
        if self.pool < 1 or any(size % self.pool for size in self.input_size):
            raise ValueError(f"pool {self.pool} does not divide the input size {self.input_size}")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of visual tokens."""
        return (
            self.heatmap_size[0] // self.patch_size[0],
            self.heatmap_size[1] // self.patch_size[1],
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; ``from_dict`` is its inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> StudentConfig:
        """The config that ``to_dict`` wrote.

        Raises:
            ValueError: an unknown field, or a value that the config refuses.
        """
        pairs = {"patch_size", "input_size", "heatmap_size"}
        plain: dict[str, Any] = {
            key: tuple(value) if key in pairs else value for key, value in values.items()
        }
        try:
            return cls(**plain)
        except TypeError as error:
            raise ValueError(f"not a student config: {error}") from error


PRESETS: Final[dict[str, StudentConfig]] = {
    config.name: config
    for config in (
        StudentConfig("sdpose-t", depth=6, train_cycles=3),
        StudentConfig("sdpose-s-v1", depth=12, train_cycles=2),
        StudentConfig("sdpose-s-v2", depth=12, train_cycles=2, patch_size=(2, 2)),
        StudentConfig("sdpose-b", depth=12, train_cycles=2, backbone="hrnet-w32"),
    )
}
"""The paper's four students (CVPR 2024, arXiv 2404.03518)."""
