"""A person's score from all joint scores and places together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sdpose_core.types import Floats, Poses
from sdpose_core.vision.ranking import PersonRanking, feature_count, mean_scores

if TYPE_CHECKING:
    from sdpose_core.model.config import StudentConfig


class PersonHead(nn.Module):
    """The weights of ``ranking.PersonRanking``: a perceptron that expects a person's OKS.

    Fitted separately from the network (``sdpose_core.train.scores``) and applied in NumPy, to the
    people of an image after all other steps; its parameters get no gradient elsewhere.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        features = feature_count(config.keypoints)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.layers = nn.Sequential(
            nn.Linear(features, config.person_width),
            nn.ReLU(),
            nn.Linear(config.person_width, 1),
        )
        self.requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``(N,)`` of the OKS that people will reach, from their ``pose_features``."""
        values: Tensor = self.layers((features - self.mean) / self.scale)
        return values[:, 0]


def ranking_of(head: PersonHead | None, config: StudentConfig) -> Callable[[Poses], Floats]:
    """Gives people their scores: by a student's head, or as published if it has none."""
    if head is None:
        return mean_scores
    weights = {name: value.numpy().copy() for name, value in head.state_dict().items()}
    return PersonRanking(config.view, weights)
