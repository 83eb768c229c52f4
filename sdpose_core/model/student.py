"""The student network of SDPose (CVPR 2024, arXiv 2404.03518)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdpose_core.model.backbones import BACKBONES
from sdpose_core.model.config import StudentConfig
from sdpose_core.model.heads import HEADS, CorrectionHead, PersonHead, ScoreHead
from sdpose_core.model.transformer import Encoder, sine_table, split_patches

# ImageNet statistics of RGB values 0..255.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


class CycleOutput(NamedTuple):
    """The output of one cycle of the transformer.

    Attributes:
        heatmaps: ``(B, K, 64, 48)``.
        keypoint_tokens: ``(B, K, 192)``, the encoder's raw output, no norm.
        visual_tokens: ``(B, N, 192)``, likewise.
    """

    heatmaps: Tensor
    keypoint_tokens: Tensor
    visual_tokens: Tensor


class Student(nn.Module):
    """Crops in, heatmaps out.

    Args:
        config: One of ``PRESETS`` or a custom one. Weights are random until a checkpoint is loaded.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    pos_embedding: Tensor

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = BACKBONES[config.backbone].build(config.stage1_planes, config.keypoints)
        channels = int(self.backbone.out_channels)  # type: ignore[arg-type]
        self.corrects = config.head == "correction"
        seen = channels + config.keypoints * self.corrects
        patch_values = config.patch_size[0] * config.patch_size[1] * seen
        if config.train_cycles:
            self.patch_embedding = nn.Linear(patch_values, config.embed_dim)
            self.keypoint_token = nn.Parameter(torch.zeros(1, config.keypoints, config.embed_dim))
            self.encoder = Encoder(config)
            self.head = HEADS[config.head](config, channels)
            # Frozen, but kept in checkpoints: the published files contain it.
            self.register_buffer("pos_embedding", sine_table(*config.grid, config.embed_dim))
        self.scores = ScoreHead(config) if config.score_width else None
        self.people = PersonHead(config) if config.person_width else None
        mean, std = torch.tensor(PIXEL_MEAN), torch.tensor(PIXEL_STD)
        self.register_buffer("pixel_mean", mean.reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", std.reshape(1, 3, 1, 1), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Truncated normal 0.02 for all linear layers and tokens, zero biases.

        The paper's code leaves the transformer's linear layers at the library's default; this
        initialisation learns markedly faster (see ``docs/training_log.md``).
        """
        if not self.config.train_cycles:
            return
        nn.init.trunc_normal_(self.keypoint_token, std=0.02)
        for part in (self.patch_embedding, self.encoder, self.head):
            for module in part.modules():
                if isinstance(module, nn.Linear):
                    nn.init.trunc_normal_(module.weight, std=0.02)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
        if isinstance(self.head, CorrectionHead):
            self.head.reset_parameters()

    def forward(self, images: Tensor, cycles: int | None = None) -> Tensor:
        """The served pass.

        Args:
            images: ``(B, 3, *input_size)`` RGB crops with values 0..255, uint8 or float.
            cycles: How often the encoder runs; 1 is the deployed network of the paper, 0 skips the
                transformer if the backbone alone gives heatmaps. None is the student's served
                number (``config.cycles``).

        Returns:
            ``(B, K, *heatmap_size)`` heatmaps of the last cycle with a peak of about 1 where the
            student is certain.

        Raises:
            ValueError: images of another shape, or an unsupported number of cycles.
        """
        expected = (3, *self.config.input_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(f"images: expected (B, {expected}), got {tuple(images.shape)}")
        cycles = self.config.cycles.check(cycles)
        features = self.features(images)
        if cycles == 0:
            return self.backbone.heatmaps(features)  # type: ignore[no-any-return, operator]
        own = self.own_heatmaps(features)
        tokens, positions = self.embed(features, own)
        for _ in range(cycles):
            tokens = self.encoder(tokens, positions)
        return self.heatmaps(tokens, features, own)

    def features(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` RGB 0..255 to the backbone's map ``(B, C, H/4, W/4)``."""
        pixels = images.to(self.pixel_mean.dtype)
        return self.backbone((pixels - self.pixel_mean) / self.pixel_std)  # type: ignore[no-any-return]

    def early(self, images: Tensor) -> list[Tensor]:
        """Maps before the backbone's last stage, or its output if it cannot be cut there, from
        ``(B, 3, H, W)`` RGB 0..255: the part that stays unchanged when only the last stage and the
        heads are trained.
        """
        pixels = (images.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std
        if not hasattr(self.backbone, "early"):
            return [self.backbone(pixels)]
        return self.backbone.early(pixels)  # type: ignore[no-any-return, operator]

    def late(self, maps: list[Tensor]) -> Tensor:
        """The backbone's map ``(B, C, H/4, W/4)`` from the result of ``early``."""
        if not hasattr(self.backbone, "late"):
            return maps[0]
        return self.backbone.late(maps)  # type: ignore[no-any-return, operator]

    def freeze_early(self) -> None:
        """Take the part that ``early`` runs out of training."""
        self.backbone.requires_grad_(False)
        if hasattr(self.backbone, "late_modules"):
            for module in self.backbone.late_modules():  # type: ignore[operator]
                module.requires_grad_(True)

    def own_heatmaps(self, features: Tensor) -> Tensor | None:
        """The backbone's own heatmaps, if the head corrects them."""
        return self.backbone.heatmaps(features) if self.corrects else None  # type: ignore[operator]

    def cycles(self, features: Tensor, cycles: int | None = None) -> list[CycleOutput]:
        """Every cycle's output from a feature map, for losses and distillation; heatmaps as the
        head outputs them.

        The first is that of ``config.min_cycles``: a student that runs without a cycle begins with
        its backbone's heatmaps and the input tokens. ``cycles`` defaults to
        ``config.train_cycles``.
        """
        count = self.config.train_cycles if cycles is None else cycles
        self.config.cycles.check(count)
        own = self.own_heatmaps(features)
        tokens, positions = self.embed(features, own)
        outputs = [] if own is None else [CycleOutput(own, *self.split(tokens))]
        for _ in range(count):
            tokens = self.encoder(tokens, positions)
            heatmaps = self.heatmaps(tokens, features, own)
            outputs.append(CycleOutput(heatmaps, *self.split(tokens)))
        return outputs

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoint tokens ``(B, K, dim)`` and visual tokens ``(B, N, dim)``."""
        return tokens[:, : self.config.keypoints], tokens[:, self.config.keypoints :]

    def embed(self, features: Tensor, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tokens ``(B, K + N, dim)``, keypoint tokens first, and positions ``(1, N, dim)``.

        ``own``: heatmaps to be corrected. The visual tokens see them, and each keypoint token
        begins with the mean of the visual tokens where its heatmap lies.
        """
        positions = self.pos_embedding
        if own is not None:
            features = torch.cat((features, own), dim=1)
        visual = self.patch_embedding(split_patches(features, self.config.patch_size)) + positions
        keypoint = self.keypoint_token.expand(visual.shape[0], -1, -1).to(visual.dtype)
        if own is not None:
            mass = F.avg_pool2d(F.relu(own), self.config.patch_size).flatten(2)
            share = mass / (mass.sum(dim=2, keepdim=True) + 1e-4)
            keypoint = keypoint + share.to(visual.dtype) @ visual
        return torch.cat((keypoint, visual), dim=1), positions

    def heatmaps(self, tokens: Tensor, features: Tensor, own: Tensor | None) -> Tensor:
        """``(B, K + N, dim)`` tokens to ``(B, K, *heatmap_size)`` heatmaps."""
        keypoint, visual = self.split(tokens)
        if own is not None:
            return self.head(keypoint, visual, features, own)  # type: ignore[no-any-return]
        return self.head(keypoint).unflatten(2, self.config.heatmap_size)  # type: ignore[no-any-return]


class ServedStudent(nn.Module):
    """``Student.forward`` with its cycles fixed: one tensor in, one out, for tracing."""

    def __init__(self, student: Student, cycles: int) -> None:
        super().__init__()
        self.student, self.count = student, cycles

    def forward(self, images: Tensor) -> Tensor:
        """As ``Student.forward``."""
        return self.student(images, self.count)  # type: ignore[no-any-return]
