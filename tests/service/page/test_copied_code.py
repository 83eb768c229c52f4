"""What the page copies, run as copied: curl, Python and JavaScript."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("playwright", reason="comes with `make test-all`")

from playwright.async_api import Browser, Page, expect
from playwright.async_api import Error as PlaywrightError

from sdpose_core import PoseEstimator
from tests.fakes import FakeEstimator
from tests.service.conftest import serving
from tests.service.page.browser import (
    COPIED_AS,
    IN_BROWSER,
    LEFT,
    PAN,
    RIGHT,
    WEB,
    colours,
    copied,
    json_of,
    page_of,
    window,
)
from tests.service.test_tls import Authority, encrypted
from tests.sites import Request, served

pytestmark = IN_BROWSER


async def ran(name: str, code: str, folder: Path, **environment: str) -> str:
    """What copied code prints in a folder; JavaScript beside the package that it names."""
    command = {
        "curl": ["bash", "-c", code],
        "Python": [sys.executable, "-c", code],
        "JavaScript": ["node", "--input-type=module", "--eval", code],
    }[name]
    if name == "JavaScript":
        if shutil.which("node") is None:
            pytest.skip("node is not installed")
        package = folder / "node_modules" / "sdpose-client"
        shutil.copytree(WEB / "client", package, dirs_exist_ok=True)
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def in_console(page: Page, code: str) -> asyncio.Task[Any]:
    """Runs copied code as the console of the browser does; the task ends with it."""
    session = await page.context.new_cdp_session(page)
    asked = {"expression": code, "replMode": True, "awaitPromise": True}
    return asyncio.create_task(session.send("Runtime.evaluate", asked))


async def canvas_colours(page: Page) -> set[tuple[int, ...]]:
    """Those of the canvas that copied code has put first."""
    url = await page.evaluate("document.querySelector('body > canvas').toDataURL()")
    drawn = cv2.imdecode(np.frombuffer(base64.b64decode(url.split(",")[1]), np.uint8), 1)
    assert drawn is not None
    return set(map(tuple, drawn.reshape(-1, 3)[:, ::-1].tolist()))


async def test_the_example_and_what_to_do_with_its_answer(
    chromium: Browser, estimator: PoseEstimator, tmp_path: Path
) -> None:
    async with page_of(chromium, estimator, max_cycles=1) as (service, page):
        status = page.get_by_role("status")
        await expect(page.locator("#models")).to_contain_text("sdpose-lite")
        await page.get_by_role("button", name="Example").click()
        await expect(status).to_contain_text("2 people")
        await expect(page.get_by_role("img")).to_have_attribute(
            "aria-label", re.compile("2 people")
        )
        assert {LEFT, RIGHT} <= await colours(page)

        # What is shown is a matter of the view: the JSON keeps every joint.
        whole = await json_of(page)
        await page.get_by_label("joints from score").fill("1")
        assert not {LEFT, RIGHT} & await colours(page)
        assert await json_of(page) == whole
        assert [len(person["keypoints"]) for person in whole["people"]] == [17, 17]  # type: ignore[attr-defined]

        # What is requested changes the answer, and the copied texts.
        await page.get_by_label("people at most").fill("1")
        await page.get_by_label("people at most").press("Tab")
        await expect(status).to_contain_text("1 person")
        shutil.copy(WEB / "example.jpg", tmp_path)
        commands = {}
        for name in COPIED_AS:
            commands[name] = await copied(page, name)
            await expect(status).to_have_text("Copied.")

    async with serving(estimator, max_cycles=1, http_port=int(service.url.rsplit(":", 1)[1])):
        for name, command in commands.items():
            told = await ran(name, command, tmp_path)
            assert told.count("nose") == 1, "one person, as requested"


async def test_a_webcam_copied_into_a_page_of_another_origin(
    chromium: Browser, estimator: PoseEstimator, tmp_path: Path
) -> None:
    """As a module script there; and as Python, which reads a video in place of the camera."""
    code: dict[str, str] = {}

    def answer(request: Request) -> None:
        body = f"<body><script type=module>{code['JavaScript']}</script>"
        request.head(Content_Type="text/html")
        request.wfile.write(body.encode())

    with served(answer) as mine:
        origin = mine.rpartition("/")[0]
        async with page_of(chromium, estimator, max_cycles=1, cors_origins=origin) as (_, page):
            await page.get_by_role("button", name="Webcam").click()
            await expect(page.get_by_role("status")).to_contain_text("answers a second")
            await expect(page.get_by_role("button", name="Copy as curl")).to_be_hidden()
            await page.get_by_label("people at most").fill("1")
            for name in COPIED_AS[1:]:
                code[name] = await copied(page, name)
            await page.get_by_role("button", name="Stop").click()

            await page.goto(mine)
            await expect(page.locator("body > canvas")).to_have_attribute("width", "640")
            while not {LEFT, RIGHT} <= await canvas_colours(page):
                await asyncio.sleep(0.05)
            await page.goto("about:blank")

            shutil.copy(PAN, tmp_path / "pan.mp4")
            assert "VideoCapture(0)" in code["Python"]
            filmed = code["Python"].replace("VideoCapture(0)", 'VideoCapture("pan.mp4")')
            assert "people=(Person(" in await ran("Python", filmed, tmp_path)


async def test_a_video_and_its_copied_code(
    chromium: Browser, estimator: PoseEstimator, tmp_path: Path
) -> None:
    async with page_of(chromium, estimator, max_cycles=1) as (_, page):
        if not await page.evaluate("document.createElement('video').canPlayType('video/mp4')"):
            pytest.skip("this chromium plays no mp4")
        await page.locator("#file").set_input_files(PAN)
        await expect(page.get_by_role("status")).to_contain_text("answers a second")
        await expect(page.get_by_role("button", name="Copy as curl")).to_be_hidden()
        await expect(page.get_by_role("button", name="Stop")).to_be_hidden()
        assert (await json_of(page))["people"]
        code = {name: await copied(page, name) for name in COPIED_AS[1:]}

        running = await in_console(page, code["JavaScript"])
        await page.locator("body > input").set_input_files(PAN)
        ended = await running
        assert "exceptionDetails" not in ended, ended
        assert {LEFT, RIGHT} <= await canvas_colours(page)

        shutil.copy(PAN, tmp_path)
        told = (await ran("Python", code["Python"], tmp_path)).splitlines()
        frames = int(cv2.VideoCapture(str(PAN)).get(cv2.CAP_PROP_FRAME_COUNT))
        assert [int(line.split()[0]) for line in told] == list(range(1, frames + 1))


async def test_copied_code_with_a_key_and_a_certificate(
    chromium: Browser, fake: FakeEstimator, tmp_path: Path
) -> None:
    authority = Authority.made(tmp_path / "ca")
    shutil.copy(WEB / "example.jpg", tmp_path)
    shutil.copy(PAN, tmp_path)
    variables = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
    trusting = dict.fromkeys(variables, str(authority.ca))
    async with (
        encrypted(authority.sign("server"), api_keys="secret") as service,
        window(chromium, ignore_https_errors=True) as context,
    ):
        page = await context.new_page()
        await page.goto(service.url)
        await page.get_by_label("API key").fill("secret")
        await page.get_by_label("API key").press("Tab")
        await page.get_by_role("button", name="Example").click()
        await expect(page.get_by_role("status")).to_contain_text("1 person")
        for name in COPIED_AS:
            code = await copied(page, name)
            told = await ran(name, code, tmp_path, SDPOSE_API_KEY="secret", **trusting)
            assert "nose" in told
        await page.locator("#file").set_input_files(PAN)
        await expect(page.get_by_role("status")).to_contain_text("answers a second")
        code = await copied(page, "Python")
        told = await ran("Python", code, tmp_path, SDPOSE_API_KEY="secret", **trusting)
        assert told.startswith("1 PoseAnswer(")
        await page.get_by_role("button", name="Webcam").click()
        await expect(page.get_by_role("status")).to_contain_text("answers a second")
        code = await copied(page, "JavaScript")
        await page.get_by_role("button", name="Stop").click()
        page.on("dialog", lambda dialog: dialog.accept("secret"))
        running = await in_console(page, code)
        await expect(page.locator("body > canvas")).to_have_attribute("width", "640")
    ended = await asyncio.gather(running, return_exceptions=True)  # with its page
    assert isinstance(ended[0], PlaywrightError)
