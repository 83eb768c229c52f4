"""Pages in the browser, and what is read off them."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import cv2
import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from service.pipeline.estimator import Estimator
from tests.service.conftest import Service, serving

ROOT = Path(__file__).parents[3]
WEB = ROOT / "service" / "web"
PAN = ROOT / "docs" / "images" / "pan.mp4"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
IN_BROWSER = [
    pytest.mark.anyio,
    pytest.mark.slow("in a browser, 4 min"),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
]  # fmt: skip
SLOW_MS = 300_000
expect.set_options(timeout=SLOW_MS)
LEFT, RIGHT = (255, 138, 36), (40, 150, 255)
"""Colours of the sides in drawings."""
COPIED_AS = ("curl", "Python", "JavaScript")


@asynccontextmanager
async def window(chromium: Browser, **options: object) -> AsyncIterator[BrowserContext]:
    permissions = ["camera", "clipboard-read", "clipboard-write"]
    context = await chromium.new_context(permissions=permissions, **options)  # type: ignore[arg-type]
    context.set_default_timeout(SLOW_MS)
    yield context
    await context.close()


@asynccontextmanager
async def page_of(
    chromium: Browser, estimator: Estimator, **settings: object
) -> AsyncIterator[tuple[Service, Page]]:
    """The page on a running service; any script error fails the test."""
    async with serving(estimator, **settings) as service, window(chromium) as context:  # type: ignore[arg-type]
        page = await context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        await page.goto(service.url)
        yield service, page
        assert errors == []


async def json_of(page: Page) -> dict[str, object]:
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Download JSON").click()
    path = await (await download.value).path()
    answer: dict[str, object] = json.loads(Path(path).read_text())
    return answer


async def colours(page: Page) -> set[tuple[int, ...]]:
    """Those of the canvas."""
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Download picture").click()
    drawn = cv2.imread(str(await (await download.value).path()))
    assert drawn is not None
    return set(map(tuple, drawn.reshape(-1, 3)[:, ::-1].tolist()))


async def copied(page: Page, name: str) -> str:
    """What the page gives to paste."""
    await page.get_by_role("button", name=f"Copy as {name}").click()
    text: str = await page.evaluate("navigator.clipboard.readText()")
    return text
