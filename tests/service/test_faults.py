"""Faults, each injected on the running service; the table in docs/operations.md names them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from ultralytics.utils import ASSETS

from sdpose_client import ErrorCode, GrpcPoseClient, RestPoseClient, Retry, ServiceError
from sdpose_core import PoseEstimator
from sdpose_core.embedded import embedded_path
from service.pipeline.decoding import ImageDecoder
from tests.commands import run_command
from tests.fakes import PNG, FakeEstimator, OutOfMemoryError, marked_png
from tests.pictures import photograph
from tests.service.conftest import (
    ONCE,
    Service,
    both_refuse,
    rejected,
    serving,
    until_metrics_have,
    wait_until,
)
from tests.service.processes import ROOT, a_process, free_port, metrics_of, until
from tests.service.stream_clients import Over, over_grpc, over_websocket
from tests.train.people import crop_samples, write_shards

pytestmark = pytest.mark.anyio


async def answers(service: Service, many: int) -> list[object]:
    """Half of them over each front end, in order."""
    asked = [
        (service.rest if number % 2 else service.grpc).estimate(marked_png(number + 1))
        for number in range(many)
    ]
    return list(await asyncio.gather(*asked, return_exceptions=True))


async def is_well(service: Service) -> bool:
    ready = (await service.http.get("/readyz")).status_code == 200
    return ready and len((await service.rest.estimate(PNG)).people) == 1


async def behind_the_gate(service: Service, fake: FakeEstimator, many: int) -> list[object]:
    """The answers of requests that wait together, so that they share batches."""
    fake.gate.clear()
    asking = asyncio.create_task(answers(service, many))
    decoded = {"stage": "decode"}
    metrics = service.runtime.metrics.registry
    while (metrics.get_sample_value("sdpose_stage_seconds_count", decoded) or 0) < many:
        await asyncio.sleep(0.005)
    fake.gate.set()
    return await asking


@pytest.mark.parametrize("fits", [1, 2, 3])
async def test_a_gpu_without_memory_for_a_batch_takes_smaller_ones(fits: int) -> None:
    fake = FakeEstimator(fits=fits)
    async with serving(fake) as service:
        found = await behind_the_gate(service, fake, 13)
        assert not [answer for answer in found if isinstance(answer, BaseException)]
        assert max(fake.detected) <= fits
        assert await is_well(service)


async def test_an_image_that_never_fits_is_overloaded_and_the_others_are_answered() -> None:
    class Crowded(FakeEstimator):
        def heatmaps(self, crops, **options):  # type: ignore[no-untyped-def]
            if any(each.mark == 5 for each in crops):
                raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
            return super().heatmaps(crops, **options)

    fake = Crowded()
    async with serving(fake) as service:
        found = await behind_the_gate(service, fake, 9)
        (refused,) = (answer for answer in found if isinstance(answer, BaseException))
        assert found.index(refused) == 4
        assert isinstance(refused, ServiceError)
        assert refused.code is ErrorCode.OVERLOADED
        assert refused.retry_after_s
        assert "GiB" not in refused.message
        assert await is_well(service)


def test_torch_s_own_error_is_known_by_its_name() -> None:
    assert torch.OutOfMemoryError.__name__ == OutOfMemoryError.__name__


@contextmanager
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Decoding that does not return while the block lasts."""
    gate = threading.Event()
    decode = ImageDecoder.decode

    def held(self: ImageDecoder, *args: object, **named: object) -> object:
        assert gate.wait(100)
        return decode(self, *args, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(ImageDecoder, "decode", held)
        try:
            yield
        finally:
            gate.set()


async def test_a_stuck_decode_pool_fails_livez_and_holds_no_one_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(FakeEstimator(), default_deadline_ms=150, stall_seconds=3600) as service:
        usual = service.runtime.settings
        with stuck(monkeypatch):
            await both_refuse(service, ErrorCode.DEADLINE_EXCEEDED)
            service.runtime.settings = usual.model_copy(update={"stall_seconds": 0.1})
            answer = await service.http.get("/livez")
            assert answer.status_code == 503
            assert "the decode pool is busy for" in answer.json()["detail"]
            with rejected(ErrorCode.UNAVAILABLE):
                await service.rest.estimate(PNG)
            service.runtime.settings = usual
        assert await is_well(service)


async def test_a_client_that_vanishes_in_the_middle_of_its_upload(fake: FakeEstimator) -> None:
    async with serving(fake) as service:
        host, port = service.url.removeprefix("http://").split(":")
        head = (
            "POST /pose HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 99999\r\n"
        )
        for _ in range(20):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(f"{head}\r\n".encode() + PNG)
            await writer.drain()
            writer.transport.abort()
        await until_metrics_have(
            service, 'sdpose_requests_total{api="rest_pose",outcome="client_gone"} 20.0'
        )
        assert service.runtime.in_flight == 0
        assert service.runtime.bodies.used == 0
        assert not fake.detected
        assert await is_well(service)


@pytest.mark.parametrize("over", [over_grpc, over_websocket])
async def test_a_client_that_vanishes_in_the_middle_of_a_stream(
    fake: FakeEstimator, over: Over
) -> None:
    async with serving(fake) as service:
        fake.gate.clear()
        for _ in range(10):
            async with over(service) as stream:
                await stream.send(PNG)
                await wait_until(lambda: service.runtime.in_flight)
                stream.leave()
        fake.gate.set()
        await until_metrics_have(service, "sdpose_streams_active 0.0")
        await wait_until(lambda: not service.runtime.in_flight)
        assert service.runtime.bodies.used == 0
        assert await is_well(service)


async def test_the_clock_jumps(fake: FakeEstimator, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an hour either way: deadlines, forecasts and streams go by a clock that does not."""
    async with serving(fake) as service:
        now = time.time

        async def frames():  # type: ignore[no-untyped-def]
            for number in range(6):
                yield marked_png(number + 1)
                await asyncio.sleep(0.02)

        stream = service.grpc.stream(frames())
        for shift_s in (0, 3600, -3600):
            monkeypatch.setattr(time, "time", lambda shift_s=shift_s: now() + shift_s)
            answer = await anext(stream)
            assert not isinstance(answer.outcome, ServiceError)
            assert await is_well(service)
        async for answer in stream:
            assert not isinstance(answer.outcome, ServiceError)


@pytest.mark.parametrize("front", ["rest", "grpc"])
def test_a_killed_process_loses_no_answer_of_a_client_that_tries_again(front: str) -> None:
    """SIGKILL with requests in flight, then a supervisor starts it anew on the same ports."""
    http_port, grpc_port = free_port(), free_port()
    patient = Retry(attempts=1000, first_s=0.1, longest_s=0.5)
    client: RestPoseClient | GrpcPoseClient
    if front == "rest":
        client = RestPoseClient(f"http://127.0.0.1:{http_port}", retry=patient)
    else:
        client = GrpcPoseClient(f"127.0.0.1:{grpc_port}", retry=patient)
    found: dict[int, int] = {}

    def ask(number: int) -> None:
        (person,) = client.estimate(marked_png(number), timeout_s=100).people
        found[number] = round(person.keypoints[0].x)

    with client:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(1, 9)]
        with (
            a_process(http_port, grpc_port, SLOW_S="3600") as running,
            RestPoseClient(f"http://127.0.0.1:{http_port}", retry=ONCE) as probe,
        ):
            for thread in threads:
                thread.start()
            line = 'sdpose_queue_wait_seconds_count{stage="decode"} 8.0'
            until(lambda: line in metrics_of(probe), running)
            running.send_signal(signal.SIGKILL)
            assert running.wait(100) == -signal.SIGKILL
        assert not found, "it was killed before any answer"
        with a_process(http_port, grpc_port):
            for thread in threads:
                thread.join(100)
    assert found == {number: number for number in range(1, 9)}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_for_logs_ends_nothing() -> None:
    http_port, grpc_port = free_port(), free_port()
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        with (
            a_process(
                http_port,
                grpc_port,
                stderr=full,
                SDPOSE_LOG_LEVEL="debug",
                PYTHONUNBUFFERED="",  # with a buffer Python would fail once more at its end
            ) as running,
            RestPoseClient(f"http://127.0.0.1:{http_port}", retry=ONCE) as rest,
            GrpcPoseClient(f"127.0.0.1:{grpc_port}", retry=ONCE) as rpc,
        ):
            for client in (rest, rpc, rest, rpc):
                assert len(client.estimate(PNG).people) == 1
                with rejected(ErrorCode.UNSUPPORTED_MEDIA_TYPE):
                    client.estimate(b"no image")
            running.send_signal(signal.SIGTERM)
            assert running.wait(100) == 0
    finally:
        os.close(full)


def _small_disk() -> None:
    """In the child: as if the disk held 20 kB a file and no more."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def on_a_small_disk(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sdpose_core", *words],
        cwd=cwd,
        # No .pyc: Python 3.11 keeps one that did not fit, and each later import of that module
        # fails ("marshal data too short").
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "YOLO_CONFIG_DIR": str(cwd),
        },
        capture_output=True,
        text=True,
        preexec_fn=_small_disk,
    )


def told(done: subprocess.CompletedProcess[str]) -> None:
    """One sentence, no traceback, and a status that says so."""
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr, done.stderr
    assert re.search(r"too large|no space|cannot be written", done.stderr, re.IGNORECASE), (
        done.stderr
    )


def test_a_full_disk_for_what_predict_writes(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(12):
        shutil.copy(ASSETS / "zidane.jpg", pictures / f"{number}.jpg")
    before = {path: path.stat().st_size for path in pictures.iterdir()}
    told(on_a_small_disk("predict", "pictures", "--output", "out.jsonl", cwd=tmp_path))
    told(on_a_small_disk("predict", "pictures", "--overlay", "drawn", cwd=tmp_path))
    names = ("all.csv", "all.json", "all.parquet", "all.jsonl")
    for name in names:
        (tmp_path / name).write_text("the one before")
    words = [word for name in names for word in ("--output", name)]
    told(on_a_small_disk("predict", "pictures", *words, "--force", cwd=tmp_path))
    assert {(tmp_path / name).read_text() for name in names} == {"the one before"}
    for line in (
        (tmp_path / "out.jsonl").read_text().splitlines()
        if (tmp_path / "out.jsonl").exists()
        else ()
    ):
        json.loads(line)
    assert {path: path.stat().st_size for path in pictures.iterdir()} == before


def test_a_full_disk_for_an_export(tmp_path: Path) -> None:
    old = tmp_path / "student.onnx"
    old.write_bytes(b"the one before")
    told(
        on_a_small_disk(
            "export", "--format", "onnx", "--output", "student.onnx", "--force", cwd=tmp_path
        )
    )
    assert old.read_bytes() == b"the one before"
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".onnx"] == ["student.onnx"]


_RECIPE = """
student = "sdpose-lite"
start = "sdpose-lite"
precision = "32-true"
[loss]
tokens = 0.0
[[stages]]
batch = 2
steps = 2
"""


def test_a_full_disk_for_a_training_run(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(_RECIPE)
    write_shards(tmp_path / "shards", crop_samples(4), per_shard=4)
    run = tmp_path / "run"
    told(
        on_a_small_disk(
            "train", "--config", "recipe.toml", "--run", "run", "--shards", "shards", cwd=tmp_path
        )
    )
    assert not [path for path in run.rglob("*") if path.suffix in (".safetensors", ".pt")], (
        "no half a checkpoint that a later run would take up"
    )


def test_damaged_weights_end_the_start_with_that_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_bytes(b"no weights")
    words = ["serve", "--student", "text.safetensors", "--log-format", "json"]
    done = run_command(
        sys.executable,
        "-m",
        "sdpose_core",
        *words,
        "--http-port",
        "0",
        "--grpc-port",
        "0",
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1, done.stderr
    last = json.loads(done.stderr.splitlines()[-1])
    assert last["event"] == "cannot start"
    assert "text.safetensors" in last["reason"]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_a_model_file_that_is_replaced_while_it_serves(backend: str, tmp_path: Path) -> None:
    """Written over in place and cut short, as a careless copy does: nothing reads it any more."""
    file = tmp_path / "student.safetensors"
    shutil.copy(embedded_path("sdpose-lite"), file)
    estimator = PoseEstimator.from_pretrained(str(file), device="cpu", backend=backend)
    image = photograph("zidane.jpg")
    (before,) = estimator.estimate([image])
    with file.open("r+b") as opened:
        opened.write(bytes(4096))
        opened.truncate(4096)
    (after,) = estimator.estimate([image])
    torch.testing.assert_close(
        torch.from_numpy(after.keypoints), torch.from_numpy(before.keypoints), atol=1e-3, rtol=0
    )


def test_every_test_that_the_table_of_faults_names_exists() -> None:
    table = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").split("## Faults")[1]
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", table.split("\n## ")[0])
    assert len(named) >= 15
    for file, test in named:
        assert re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE), test
