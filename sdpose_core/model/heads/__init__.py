"""How keypoint tokens become heatmaps; a new head is a file here and a line in ``HEADS``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from torch import nn

from sdpose_core.model.heads.correction import CorrectionHead
from sdpose_core.model.heads.people import PersonHead, ranking_of
from sdpose_core.model.heads.scores import ScoreHead
from sdpose_core.model.heads.tokens import token_head

if TYPE_CHECKING:
    from sdpose_core.model.config import StudentConfig

HEADS: Final[dict[str, Callable[[StudentConfig, int], nn.Module]]] = {
    "tokens": lambda config, channels: token_head(config),
    "correction": CorrectionHead,
}
"""Each is built from the config and the number of backbone channels."""

__all__ = ["HEADS", "CorrectionHead", "PersonHead", "ScoreHead", "ranking_of"]
