"""Chromium, with a camera that plays a file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from sdpose_core import PoseEstimator

if TYPE_CHECKING:
    from playwright.async_api import Browser

WEB = Path(__file__).parents[3] / "service" / "web"


@pytest.fixture(scope="module")
def estimator() -> PoseEstimator:
    return PoseEstimator.from_pretrained()


@pytest.fixture(scope="module")
def example() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    image = cv2.imread(str(WEB / "example.jpg"))
    assert image is not None
    return np.asarray(image, np.uint8)


@pytest.fixture(scope="module")
def film(
    tmp_path_factory: pytest.TempPathFactory,
    example: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
) -> Path:
    """What the browser's camera sees."""
    file = tmp_path_factory.mktemp("film") / "camera.mjpeg"
    frame = cv2.imencode(".jpg", cv2.resize(example, (640, 480)))[1].tobytes()
    file.write_bytes(frame * 30)
    return file


@pytest.fixture(scope="module")
async def chromium(film: Path) -> AsyncIterator[Browser]:
    # Not above: without playwright only the tests are left out.
    from playwright.async_api import async_playwright

    from tests.service.page.browser import CHROMIUM, FLAGS

    flags = [*FLAGS, f"--use-file-for-fake-video-capture={film}"]
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield opened
        await opened.close()
