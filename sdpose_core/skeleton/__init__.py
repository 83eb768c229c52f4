"""Skeletons: which keypoints there are, which belong together, how exactly each can be placed."""

from sdpose_core.skeleton.files import READY_MADE, find_skeleton, skeleton_of_names
from sdpose_core.skeleton.names import name_key
from sdpose_core.skeleton.value import COCO17, DEFAULT_SIGMA, Skeleton, SkeletonError

__all__ = [
    "COCO17",
    "DEFAULT_SIGMA",
    "READY_MADE",
    "Skeleton",
    "SkeletonError",
    "find_skeleton",
    "name_key",
    "skeleton_of_names",
]
