"""Heatmaps of a trained network as targets: knowledge distillation on the training views.

A student that learns its own flip test (the mean over a view and its mirror image, which is more
accurate than either) becomes as accurate without the second pass, as far as its size allows. The
target belongs to the very view that the student sees, with all the network's doubts in it, so a
student that starts as its own teacher begins near the minimum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdpose_core.checkpoints import load_student
from sdpose_core.heatmaps import merge_flip, mirror
from sdpose_core.model import Student
from sdpose_core.train.recipe.config import TeacherConfig


class HeatmapTeacher:
    """A frozen network that answers the views of a student with the same sizes.

    Args:
        network: Trained; it is moved to ``device`` and, on a GPU, converted to half precision.
        mirrored: Whether the answer is the mean over the view and its mirror image.

    Raises:
        ValueError: its heatmaps are not Gaussians of the student's ``view``.
    """

    def __init__(
        self, network: Student, student: Student, device: torch.device, *, mirrored: bool
    ) -> None:
        of = network.config
        if of.view != student.config.view or of.heatmap_kind != "gaussian":
            raise ValueError(
                f"teacher: {of.name} answers {of.heatmap_kind} maps of {of.view}, "
                f"{student.config.name} needs gaussian maps of {student.config.view}"
            )
        half = device.type == "cuda"
        self.dtype = torch.float16 if half else torch.float32
        self._network = network.eval().requires_grad_(False).to(device, self.dtype)
        self._mirrored = mirrored

    @classmethod
    def of(
        cls, config: TeacherConfig, student: Student, device: torch.device
    ) -> HeatmapTeacher | None:
        """The teacher that a config names, if any; errors as the class has them, and those of
        ``load_student``."""
        if config.network is None:
            return None
        return cls(load_student(config.network), student, device, mirrored=config.mirrored)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Targets (B, 17, *heatmap_size) float32 for views (B, 3, H, W), 0..255, on its device."""
        with torch.autocast(images.device.type, enabled=False):
            maps: Tensor = self._network(images).float()
            if self._mirrored:
                mirrored = self._network(mirror(images, aligned=True)).float()
                maps = merge_flip(maps, mirrored)
        return maps
