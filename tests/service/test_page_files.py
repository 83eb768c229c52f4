"""What serves the page, and its files without a browser."""

from __future__ import annotations

import io
import json
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from service.runtime.runtime import Runtime
from tests.fakes import FakeEstimator
from tests.service.conftest import Service, quiet_settings, serving

WEB = Path(__file__).parents[2] / "service" / "web"
pytestmark = pytest.mark.anyio


def _luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    values = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("scheme", [0, 1])
def test_contrast(scheme: int) -> None:
    """WCAG 2: text 4.5 to 1 on each ground it stands on, in both schemes."""
    blocks = re.findall(r":root \{([^}]*)\}", (WEB / "style.css").read_text())
    colours = dict(re.findall(r"--([\w-]+): (#\w+)", blocks[scheme]))
    pairs = [
        ("text", "back"), ("text", "panel"), ("quiet", "back"), ("accent", "back"),
        ("on-accent", "accent"), ("bad", "back"),
    ]  # fmt: skip
    for text, ground in pairs:
        dark, light = sorted([_luminance(colours[text]), _luminance(colours[ground])])
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


@pytest.fixture
def archive() -> Iterator[zipfile.ZipFile]:
    from service.rest.page import _archive

    with zipfile.ZipFile(io.BytesIO(_archive())) as opened:
        yield opened


async def test_the_source_that_runs(service: Service, archive: zipfile.ZipFile) -> None:
    answer = await service.http.get("/source")
    assert answer.headers["content-type"] == "application/zip"
    page = await service.http.get(service.url)
    assert 'href="source"' in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    script = await service.http.get("/web/page.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert script.headers["cache-control"] == "no-cache"
    assert (await service.http.get("/web/../settings.py")).status_code == 404
    assert len(answer.content) == len(archive.fp.getvalue())  # type: ignore[union-attr]
    names = archive.namelist()
    assert {"service/rest/page.py", "sdpose_core/estimator.py", "LICENSE", "NOTICE"} <= set(names)
    assert not [name for name in names if "weights/" in name or name.endswith(".pyc")]


async def test_the_package_of_the_javascript_client(service: Service) -> None:
    answer = await service.http.get("/sdpose-client.tgz")
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as package:
        files = {entry.name: package.extractfile(entry) for entry in package if entry.isfile()}
        inside = {name: file.read() for name, file in files.items() if file is not None}
    for path in (WEB / "client").iterdir():
        assert inside.pop(f"package/{path.name}") == path.read_bytes()
        served = await service.http.get(f"/web/client/{path.name}")
        assert served.content == path.read_bytes()
    assert inside == {}
    facts = json.loads((WEB / "client" / "package.json").read_text())
    assert not facts.keys() & {"dependencies", "peerDependencies", "optionalDependencies"}
    assert facts["license"] == "AGPL-3.0-or-later"


@pytest.mark.parametrize(
    ("origins", "origin", "welcome"),
    [
        (None, "https://app.example", False),
        ("https://app.example", "https://app.example", True),
        ("https://app.example", "https://other.example", False),
        ("*", "https://other.example", True),
    ],
)
async def test_pages_of_other_origins(
    fake: FakeEstimator, origins: str | None, origin: str, welcome: bool
) -> None:
    async with serving(fake, **({"cors_origins": origins} if origins else {})) as service:
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        asked = await service.http.options("/pose", headers=headers)
        answer = await service.http.get("/models", headers={"Origin": origin})
        allowed = {origin, "*"} & {asked.headers.get("access-control-allow-origin")}
        assert bool(allowed) is welcome
        assert ("access-control-allow-origin" in answer.headers) is welcome
        url = f"{service.url.replace('http', 'ws')}/pose/stream"
        if welcome:
            async with connect(url, origin=origin, proxy=None):  # type: ignore[arg-type]
                return
        with pytest.raises(InvalidStatus):
            await connect(url, origin=origin, proxy=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("origin", ["app.example", "https://app.example/", "https://*.example"])
def test_origins_that_match_nothing(origin: str) -> None:
    from service.settings import SettingsError

    with pytest.raises(SettingsError, match="such as https"):
        Runtime(quiet_settings(cors_origins=origin))
