"""Ultralytics leaves other libraries as they were."""

from __future__ import annotations

import subprocess
import sys

import PIL.Image

from sdpose_core.detector.ultralytics_quiet import ultralytics_tasks


def test_pillow_still_opens_images_by_itself() -> None:
    code = (
        "import PIL.Image; original = PIL.Image.open\n"
        "from sdpose_core.detector.ultralytics_quiet import ultralytics_tasks\n"
        "ultralytics_tasks()\n"
        "assert PIL.Image.open is original\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_the_tests_see_what_the_service_sees() -> None:
    ultralytics_tasks()
    assert PIL.Image.open.__module__ == "PIL.Image"
