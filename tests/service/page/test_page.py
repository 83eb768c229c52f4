"""The page in a browser, with a camera that plays a file."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest

pytest.importorskip("playwright", reason="comes with `make test-all`")

from playwright.async_api import Browser, expect

from sdpose_core import PoseEstimator
from service.scheduling.shares import FairBound
from tests.cameras import camera
from tests.fakes import FakeEstimator
from tests.service.conftest import serving, wait_until
from tests.service.page.browser import (
    COPIED_AS,
    IN_BROWSER,
    copied,
    json_of,
    page_of,
    window,
)

pytestmark = IN_BROWSER


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
