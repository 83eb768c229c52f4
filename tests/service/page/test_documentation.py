"""/docs in a browser, and that no page needs another host."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("playwright", reason="comes with `make test-all`")

from playwright.async_api import Browser, Locator, expect

from sdpose_core import PoseEstimator
from tests.fakes import FakeEstimator
from tests.service.conftest import serving
from tests.service.page.browser import (
    IN_BROWSER,
    WEB,
    window,
)

pytestmark = IN_BROWSER


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
