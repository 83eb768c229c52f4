"""What all tests share."""

from __future__ import annotations

from sdpose_core.detector.ultralytics_quiet import ultralytics_tasks

# Before any test module imports ultralytics by itself: what it changes in other libraries on
# import must not reach the code under test (the service never imports it in another way).
ultralytics_tasks()
