"""The page in a browser, with a camera that plays a file; and what serves it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

pytest.importorskip("playwright", reason="comes with `make test-all`")

from playwright.async_api import (
    Browser,
    BrowserContext,
    Locator,
    Page,
    async_playwright,
    expect,
)
from playwright.async_api import Error as PlaywrightError

from sdpose_core import PoseEstimator
from service.pipeline.estimator import Estimator
from service.scheduling.shares import FairBound
from tests.cameras import camera
from tests.fakes import FakeEstimator
from tests.service.conftest import Service, serving, wait_until
from tests.service.test_tls import Authority, encrypted
from tests.sites import Request, served

WEB = Path(__file__).parents[2] / "service" / "web"
PAN = Path(__file__).parents[2] / "docs" / "images" / "pan.mp4"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
pytestmark = [pytest.mark.anyio, pytest.mark.slow("in a browser, 4 min")]
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
]  # fmt: skip
SLOW_MS = 300_000
expect.set_options(timeout=SLOW_MS)

TWO_PEOPLE = "2 people"


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
    flags = [*FLAGS, f"--use-file-for-fake-video-capture={film}"]
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield opened
        await opened.close()


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


LEFT, RIGHT = (255, 138, 36), (40, 150, 255)
COPIED_AS = ("curl", "Python", "JavaScript")


async def copied(page: Page, name: str) -> str:
    """What the page gives to paste."""
    await page.get_by_role("button", name=f"Copy as {name}").click()
    text: str = await page.evaluate("navigator.clipboard.readText()")
    return text


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


@in_browser
async def test_the_example_and_what_to_do_with_its_answer(
    chromium: Browser, estimator: PoseEstimator, tmp_path: Path
) -> None:
    async with page_of(chromium, estimator, max_cycles=1) as (service, page):
        status = page.get_by_role("status")
        await expect(page.locator("#models")).to_contain_text("sdpose-lite")
        await page.get_by_role("button", name="Example").click()
        await expect(status).to_contain_text(TWO_PEOPLE)
        await expect(page.get_by_role("img")).to_have_attribute(
            "aria-label", re.compile(TWO_PEOPLE)
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


@in_browser
async def test_webcam(chromium: Browser, estimator: PoseEstimator) -> None:
    async with page_of(chromium, estimator, max_cycles=1) as (service, page):
        status = page.get_by_role("status")
        await page.get_by_role("button", name="Webcam").click()
        told = re.compile(r"2 people · \d+\.\d answers a second · \d+ ms · \d+ dropped")
        await expect(status).to_have_text(told)
        people = (await json_of(page))["people"]
        assert sorted(person["id"] for person in people) == [1, 2]  # type: ignore[attr-defined]
        await page.get_by_role("button", name="Stop").click()
        await expect(status).to_have_text("Stopped.")
        await wait_until(lambda: not service.runtime.metrics.streams_active._value.get())


@in_browser
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


@in_browser
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


@in_browser
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


@in_browser
async def test_webcam_goes_on_when_the_connection_breaks(
    chromium: Browser, fake: FakeEstimator
) -> None:
    async with page_of(chromium, fake) as (service, page):
        status = page.get_by_role("status")
        opened: list[str] = []
        page.on("websocket", lambda socket: opened.append(socket.url))
        await page.get_by_role("button", name="Webcam").click()
        await expect(status).to_contain_text("answers a second")
        service.runtime.streams.close("a break for the test")
        await expect(status).to_contain_text("a break for the test Next try in")
        await expect(status).to_contain_text("answers a second")
        first, again = opened  # by one name, so that a balancer finds the same process
        assert first == again
        assert re.search(r"/pose/stream\?stream=[a-z0-9-]{20,}$", first)


@in_browser
async def test_a_key_is_needed(chromium: Browser, fake: FakeEstimator) -> None:
    async with page_of(chromium, fake, api_keys="let-me-in") as (_, page):
        await expect(page.get_by_role("alert")).to_contain_text("needs an API key")
        await expect(page.get_by_label("API key")).to_be_focused()
        await page.get_by_label("API key").fill("let-me-in")
        await page.get_by_label("API key").press("Tab")
        await expect(page.get_by_role("alert")).to_be_hidden()
        await page.get_by_role("button", name="Example").click()
        await expect(page.get_by_role("status")).to_contain_text("1 person")
        for name in COPIED_AS:
            code = await copied(page, name)
            assert "SDPOSE_API_KEY" in code
            assert "let-me-in" not in code
        await page.get_by_role("button", name="Webcam").click()
        await expect(page.get_by_role("status")).to_contain_text("answers")


@in_browser
async def test_no_old_picture_under_an_error_and_another_try(
    chromium: Browser, fake: FakeEstimator
) -> None:
    async with page_of(chromium, fake) as (service, page):
        status, alert = page.get_by_role("status"), page.get_by_role("alert")
        await page.get_by_role("button", name="Example").click()
        await expect(status).to_contain_text("1 person")
        door = service.runtime.door
        limit, door._requests = door._requests, FairBound(0)
        await page.get_by_label("flip test").check()
        await expect(alert).to_contain_text("The service is busy. Worth another try in 1 s.")
        await expect(page.locator("canvas")).to_be_hidden()
        await expect(page.get_by_role("button", name="Download JSON")).to_be_disabled()
        door._requests = limit
        await page.get_by_role("button", name="Try again").click()
        await expect(status).to_contain_text("1 person")
        await expect(alert).to_be_hidden()
        await page.locator("#file").set_input_files(
            {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": b"no image"}
        )
        await expect(alert).to_contain_text("request")
        await expect(page.locator("canvas")).to_be_hidden()
        service.stop.set()
        await asyncio.wait({service.running})
        await page.get_by_role("button", name="Try again").click()
        await expect(alert).to_contain_text("cannot be reached")


@in_browser
async def test_the_page_waits_for_the_models(chromium: Browser, fake: FakeEstimator) -> None:
    loaded = asyncio.Event()
    loop = asyncio.get_running_loop()

    def build(_: object) -> FakeEstimator:
        asyncio.run_coroutine_threadsafe(loaded.wait(), loop).result(300)
        return fake

    async with serving(build, ready=False) as service, window(chromium) as context:
        page = await context.new_page()
        await page.goto(service.addresses.page)
        await expect(page.get_by_role("status")).to_have_text("The models are loading …")
        loaded.set()
        await expect(page.locator("#models")).to_contain_text("fake-student")
        await expect(page.get_by_role("status")).to_have_text("")


@in_browser
async def test_by_keyboard_by_name_and_on_a_phone(chromium: Browser, fake: FakeEstimator) -> None:
    async with (
        serving(fake) as service,
        window(chromium, viewport={"width": 360, "height": 740}) as phone,
    ):
        page = await phone.new_page()
        await page.goto(service.url)
        for name in ("Choose an image or video", "Webcam", "Example"):
            await page.keyboard.press("Tab")
            await expect(page.get_by_role("button", name=name)).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("status")).to_contain_text("1 person")
        assert await page.get_by_role("main").count() == 1
        nameless = await page.evaluate(
            "[...document.querySelectorAll('input:not([hidden]), select, textarea, button')]"
            ".filter((one) => !(one.labels?.length || one.textContent.trim() || one.ariaLabel))"
            ".map((one) => one.id || one.name)"
        )
        assert nameless == []
        wide = await page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0


@in_browser
async def test_page_and_documentation_need_the_files_of_the_package_and_no_other_host(
    chromium: Browser, fake: FakeEstimator
) -> None:
    async with serving(fake) as service, window(chromium) as context:
        page = await context.new_page()
        asked: set[str] = set()
        page.on("request", lambda request: asked.add(request.url))
        await page.goto(service.url)
        await expect(page.locator("#models")).to_contain_text("fake-student")
        package = {f"/web/client/{path.name}" for path in (WEB / "client").glob("*.js")}
        scripts = {url.removeprefix(service.url) for url in asked if url.endswith(".js")}
        assert scripts == package | {"/web/page.js", "/web/snippets.js"}
        await page.goto(f"{service.url}/docs")
        await expect(page.locator(".opblock").first).to_be_visible()
        assert {"/".join(url.split("/")[:3]) for url in asked if url[:5] != "data:"} == {
            service.url
        }


@in_browser
async def test_the_documentation_sends_what_is_chosen(
    chromium: Browser, estimator: PoseEstimator
) -> None:
    """ "Try it out" as it stands: a file, options once each, nothing that was not filled in."""
    async with (
        serving(estimator, api_keys="let-me-in") as service,
        window(chromium) as context,
    ):
        page = await context.new_page()

        async def opened(operation: str) -> Locator:
            await page.goto("about:blank")
            await page.goto(f"{service.url}/docs")
            await page.get_by_role("button", name="Authorize").first.click()
            await page.locator("#api_key_value").fill("let-me-in")
            await page.get_by_role("button", name="Apply credentials").first.click()
            await page.get_by_role("button", name="Close").first.click()
            block = page.locator(f"#operations-pose-{operation}")
            await block.locator(".opblock-summary-control").click()
            await block.get_by_role("button", name="Try it out").click()
            return block

        async def sent(block: Locator, expected: str) -> dict[str, Any]:
            await block.get_by_role("button", name="Execute").click()
            shown = block.locator(".live-responses-table pre code").first
            await expect(shown).to_contain_text(expected)
            answer: dict[str, Any] = json.loads(await shown.inner_text())
            return answer

        pose = await opened("pose_pose_post")
        await pose.locator("input[type=file]").set_input_files(WEB / "example.jpg")
        assert len((await sent(pose, '"people"'))["people"]) == 2
        await expect(pose.locator(".request-url")).to_contain_text(
            f"{service.url}/pose?min_keypoint_score=0&flip_test=false"
        )

        # Two files, and options that are text and numbers.
        await pose.get_by_role("button", name="Add string item").click()
        await pose.locator("input[type=file]").nth(1).set_input_files(WEB / "example.jpg")
        await pose.get_by_placeholder("max_people").fill("1")
        await pose.get_by_placeholder("boxes").fill("[null, [[0, 0, 200, 300], [9, 9, 99, 99]]]")
        results = (await sent(pose, '"results"'))["results"]
        assert [len(one["people"]) for one in results] == [1, 1]

        pose = await opened("pose_pose_post")
        await pose.get_by_label("Request content type").select_option("image/*")
        await pose.locator("input[type=file]").set_input_files(WEB / "example.jpg")
        assert len((await sent(pose, '"people"'))["people"]) == 2

        pose = await opened("pose_pose_post")
        await pose.get_by_label("Request content type").select_option("application/json")
        assert (await sent(pose, '"people"'))["image"] == {"width": 8, "height": 8}

        overlay = await opened("overlay_pose_overlay_post")
        await overlay.locator("input[type=file]").set_input_files(WEB / "example.jpg")
        await overlay.get_by_role("button", name="Execute").click()
        await expect(overlay.locator(".response-col_description img")).to_be_visible()


@in_browser
async def test_a_camera_of_the_service_from_a_page(chromium: Browser, fake: FakeEstimator) -> None:
    """The JavaScript client follows it, with a key, which an EventSource could not send."""
    settings = {"camera_addresses": "http://127.0.0.1:*/*", "api_keys": "secret"}
    with camera(10_000) as address:
        async with page_of(chromium, fake, **settings) as (service, page):
            async with httpx.AsyncClient(headers={"X-API-Key": "secret"}) as client:
                asked = {"name": "door", "address": address}
                await client.post(f"{service.url}/cameras", json=asked)
            told = await page.evaluate(
                """async () => {
                  const { PoseClient } = await import("/web/client/index.js");
                  const seen = [];
                  const client = new PoseClient("", { apiKey: "secret" });
                  for await (const { event, data } of client.camera("door")) {
                    seen.push(event === "pose" ? data.sequence : data.state);
                    if (seen.length > 4) return seen;
                  }
                }"""
            )
            assert told[0] in ("connecting", "live")
            numbers = [one for one in told if isinstance(one, int)]
            assert len(numbers) >= 2
            assert numbers == sorted(numbers)
            missing = await page.evaluate(
                """async () => {
                  const { PoseClient } = await import("/web/client/index.js");
                  try { await new PoseClient("", { apiKey: "secret" }).camera("none").next(); }
                  catch (error) { return [error.code, error.status]; }
                }"""
            )
            assert missing == ["not_found", 404]
