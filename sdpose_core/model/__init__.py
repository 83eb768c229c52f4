"""The SDPose student: backbone, multi-cycled transformer and heatmap head."""

from sdpose_core.model.config import PAPER, PRESETS, StudentConfig
from sdpose_core.model.heads import PersonHead, ScoreHead, ranking_of
from sdpose_core.model.joints import JointReader
from sdpose_core.model.student import CycleOutput, ServedStudent, Student

__all__ = [
    "PAPER",
    "PRESETS",
    "CycleOutput",
    "JointReader",
    "PersonHead",
    "ScoreHead",
    "ServedStudent",
    "Student",
    "StudentConfig",
    "ranking_of",
]
