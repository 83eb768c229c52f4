"""The parts of ultralytics that are not its documented interface and that the detector relies on.

A new release of ultralytics that moves one of them fails here, by its name, before anything else.
"""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest

from sdpose_core.detector.ultralytics_quiet import ultralytics_tasks
from sdpose_core.detector.weights import read_safetensors
from sdpose_core.embedded import DETECTOR

NAMES = (
    ("ultralytics.nn.tasks", "DetectionModel"),
    ("ultralytics.nn.tasks", "torch_safe_load"),
    ("ultralytics.nn.modules", "Detect"),
    ("ultralytics.utils", "ASSETS"),
    ("ultralytics.utils", "SETTINGS"),
    ("ultralytics.utils.downloads", "GITHUB_ASSETS_NAMES"),
    ("ultralytics.utils.downloads", "attempt_download_asset"),
    ("ultralytics.utils.nms", "non_max_suppression"),
    ("ultralytics.trackers.basetrack", "TrackState"),
    ("ultralytics.trackers.utils.matching", "iou_distance"),
    ("ultralytics.trackers.utils.matching", "linear_assignment"),
)


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_the_name_is_there(module: str, name: str) -> None:
    ultralytics_tasks()
    assert hasattr(import_module(module), name)


def test_checkpoints_can_be_read_without_running_code_in_them() -> None:
    parameters = inspect.signature(ultralytics_tasks().torch_safe_load).parameters
    assert "safe_only" in parameters


def test_the_tracker_has_the_hooks_that_ours_fills() -> None:
    tracker = import_module("ultralytics.trackers.byte_tracker")
    for name in ("init_track", "get_dists", "_post_first_association", "_apply_matches"):
        assert callable(getattr(tracker.BYTETracker, name)), name
    for name in ("activate", "update", "re_activate", "tlwh", "xywh"):
        assert hasattr(tracker.STrack, name), name
    assert "feats" in inspect.signature(tracker.BYTETracker.update).parameters


def test_a_network_has_the_members_that_the_detector_reads() -> None:
    model = read_safetensors(DETECTOR)
    for name in ("yaml", "names", "save", "fuse", "model"):
        assert hasattr(model, name), name
    *body, head = model.model  # type: ignore[misc]
    for layer in (*body, head):
        assert hasattr(layer, "f"), type(layer)
        assert hasattr(layer, "i"), type(layer)
    for name in ("stride", "reg_max", "dfl", "cv3", "end2end", "one2many", "forward_head"):
        assert hasattr(head, name), name
