"""Detectors other than ours in the service: factories that answer rubbish, and no ultralytics."""

from __future__ import annotations

import gc
import io
import json
import logging
import os
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sdpose_client import ErrorCode, RestPoseClient, Retry
from sdpose_core import PoseEstimator
from service.access.keys import entry
from service.cli.main import app
from service.runtime.models import build_estimator
from tests.fakes import FakeEstimator, marked_png
from tests.service.conftest import quiet_settings, rejected, serving
from tests.service.processes import ROOT, free_port, until

pytestmark = pytest.mark.anyio

FACTORY = '''
import weakref
import numpy as np
from types import SimpleNamespace

SEEN = []

class Moody:
    """People where the image is bright; its blue says what is wrong with the answer."""
    name = "moody"

    def detect(self, images):
        SEEN.extend(map(weakref.ref, images))
        found = []
        for image in images:
            height, width = image.shape[:2]
            boxes = np.array([[0, 0, width, height]], np.float32)
            scores = np.array([0.9], np.float32)
            kind = int(image[0, 0, 2])
            if kind == 41:
                boxes = boxes[:, :3]
            if kind == 42:
                scores = scores * np.nan
            if kind == 43:
                raise KeyError("lost")
            if kind == 44:
                return []
            found.append(SimpleNamespace(boxes=boxes, scores=scores))
        return found
'''


@pytest.fixture
def moody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_moody.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_moody", raising=False)
    return "own_moody:Moody"


async def test_factory_that_answers_rubbish(moody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Pytest keeps log records, with the images in their tracebacks.
    monkeypatch.setattr(logging.getLogger("service.telemetry.calls"), "propagate", False)
    estimator = build_estimator(quiet_settings(detector=moody, device="cpu"))
    async with serving(estimator) as service:
        assert (await service.rest.estimate(marked_png(40))).models["detector"] == "moody"
        for kind in (41, 42, 43, 44):
            for client in (service.rest, service.grpc):
                with rejected(ErrorCode.INTERNAL) as failed:
                    await client.estimate(marked_png(kind))
                assert "moody" not in str(failed.value)
                del failed
        assert (await service.http.get("/readyz")).status_code == 200
        assert len((await service.rest.estimate(marked_png(49))).people) <= 1
        gc.collect()
        seen: list[weakref.ref[object]] = sys.modules["own_moody"].SEEN
        assert len(seen) > 8
        assert sum(one() is not None for one in seen) <= 1
        held = service.runtime.metrics.exposition().decode().splitlines()
        assert 'sdpose_queue_depth{stage="detect"} 0.0' in held


async def test_log_names_the_factory(moody: str, debug_logs: io.StringIO) -> None:
    estimator = PoseEstimator.from_pretrained(detector=moody, device="cpu")
    async with serving(estimator) as service:
        with rejected(ErrorCode.INTERNAL):
            await service.rest.estimate(marked_png(42))
    assert f"{moody}: detect gave a box or a score that is not finite" in debug_logs.getvalue()


async def test_reload_takes_no_factory(moody: str, key_file: Path) -> None:
    """A key for /admin may load models, not run code."""
    admin = {"X-API-Key": "admin"}
    key_file.write_text(entry("operator", "admin") + 'scopes = ["admin"]\n')
    async with serving(FakeEstimator(), key_file=key_file) as service:
        wanted = {"detector": moody}
        answer = await service.http.post("/admin/reload", headers=admin, json=wanted)
        assert answer.status_code == 422
        assert "only from SDPOSE_DETECTOR" in answer.json()["detail"]
        assert "own_moody" not in sys.modules


def test_start_with_a_factory_that_raises(tmp_path: Path) -> None:
    (tmp_path / "own_broken.py").write_text("def make():\n    raise OSError('no weights')\n")
    command = [sys.executable, "-m", "sdpose_core", "serve", "--detector", "own_broken:make"]
    done = subprocess.run(
        [*command, "--http-port", "0", "--grpc-port", "0", "--log-format", "json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    last = json.loads(done.stderr.splitlines()[-1])
    assert last["event"] == "cannot start"
    assert last["reason"].endswith("own_broken:make: the factory failed: OSError: no weights")
    assert "Traceback" not in done.stderr


@pytest.fixture
def without_ultralytics(tmp_path: Path) -> dict[str, str]:
    """An environment in which importing ultralytics ends the process."""
    package = tmp_path / "blocked" / "ultralytics"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import os\nos._exit(77)\n")
    path = f"{package.parent}{os.pathsep}{ROOT}"
    environment = {**os.environ, "PYTHONPATH": path}
    probe = [sys.executable, "-c", "import ultralytics"]
    assert subprocess.run(probe, env=environment).returncode == 77
    return environment


@pytest.mark.parametrize("detector", ["rtmdet-nano", "none"])
def test_serving_imports_no_ultralytics(
    detector: str, without_ultralytics: dict[str, str], bus: bytes
) -> None:
    port = free_port()
    command = [sys.executable, "-m", "sdpose_core", "serve", "--detector", detector]
    with subprocess.Popen(
        [*command, "--http-port", str(port), "--grpc-port", str(free_port())],
        env=without_ultralytics,
        stderr=subprocess.DEVNULL,
    ) as running:
        try:
            with RestPoseClient(f"http://127.0.0.1:{port}", retry=Retry(attempts=1)) as client:
                until(client.ready, running)
                if detector == "none":
                    with rejected(ErrorCode.INVALID_ARGUMENT, "without a detector"):
                        client.estimate(bus)
                else:
                    assert len(client.estimate(bus).people) >= 3
            running.send_signal(signal.SIGTERM)
            assert running.wait(100) == 0
        finally:
            running.kill()


def test_predicting_imports_no_ultralytics(
    without_ultralytics: dict[str, str], bus: bytes, tmp_path: Path
) -> None:
    (tmp_path / "bus.jpg").write_bytes(bus)
    command = [sys.executable, "-m", "sdpose_core", "predict", "--detector", "rtmdet-nano"]
    done = subprocess.run(
        [*command, str(tmp_path / "bus.jpg")],
        env=without_ultralytics,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["people"]) >= 3


def test_command_names_the_class_that_is_not_there(bus: bytes, tmp_path: Path) -> None:
    (tmp_path / "bus.jpg").write_bytes(bus)
    words = ["--detector", "rtmdet-nano", "--detector-classes", "person,dog"]
    done = CliRunner().invoke(app, ["predict", str(tmp_path / "bus.jpg"), *words])
    assert done.exit_code == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("sdpose predict: ")
    assert "no class 'dog': the file does not name its classes and has 1" in line


@pytest.fixture(scope="module")
def bus() -> bytes:
    from ultralytics.utils import ASSETS

    return (ASSETS / "bus.jpg").read_bytes()
