"""The SDPose student: backbone, multi-cycled transformer and heatmap head."""

from sdpose_core.model.config import PRESETS, StudentConfig
from sdpose_core.model.student import CycleOutput, ServedStudent, Student

__all__ = ["PRESETS", "CycleOutput", "ServedStudent", "Student", "StudentConfig"]
