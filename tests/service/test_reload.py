"""Other models without a restart: nothing in flight is lost, and a failed load changes nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from service.access.keys import entry
from service.errors import ErrorCode
from service.runtime.runtime import Runtime
from service.runtime.state import State
from service.settings import Settings
from tests.fakes import PNG, FakeEstimator
from tests.service.conftest import rejected, serving, wait_until

pytestmark = pytest.mark.anyio
ADMIN = {"X-API-Key": "admin"}
POSE = {"X-API-Key": "pose"}
IMAGE = {"Content-Type": "image/png"}


@dataclass
class Loader:
    """Builds a fake of the name that the settings ask for; may be held up or fail."""

    wanted: list[str] = field(default_factory=list)
    made: list[FakeEstimator] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    delay_s: float = 0.0

    def __call__(self, settings: Settings) -> FakeEstimator:
        self.wanted.append(settings.student)
        assert self.gate.wait(100)
        if settings.student == "damaged":
            raise ValueError("damaged: not a checkpoint")
        self.made.append(FakeEstimator(student_name=settings.student, delay_s=self.delay_s))
        return self.made[-1]


@dataclass
class Running:
    runtime: Runtime
    url: str
    http: httpx.AsyncClient
    loader: Loader

    async def reload(self, **wanted: str) -> httpx.Response:
        body = {"json": wanted} if wanted else {}
        return await self.http.post(f"{self.url}/admin/reload", headers=ADMIN, timeout=100, **body)

    async def student(self) -> str:
        answer = await self.http.post(
            f"{self.url}/pose", content=PNG, headers={**POSE, **IMAGE}, timeout=100
        )
        answer.raise_for_status()
        return str(answer.json()["models"]["student"])


@asynccontextmanager
async def running(tmp_path: Path, **more: object) -> AsyncIterator[Running]:
    file = tmp_path / "keys.toml"
    scope = 'scopes = ["admin"]\n'
    file.write_text(entry("operator", "admin") + scope + entry("caller", "pose"))
    loader = Loader()
    loader.gate.set()
    patience = {"max_queue_ms": 600_000, **more}  # a busy machine rejects nothing here
    async with serving(loader, student="first", key_file=file, **patience) as service:
        yield Running(service.runtime, service.url, service.http, loader)
    assert service.running.result().clean


async def until_retired(runtime: Runtime) -> None:
    await wait_until(lambda: not runtime._retiring)


async def test_the_next_request_has_the_new_models(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        assert await service.student() == "first"
        before = weakref.ref(service.loader.made.pop())
        answer = await service.reload(student="second")
        assert (answer.status_code, answer.json()["student"]) == (200, "second")
        assert await service.student() == "second"
        assert (await service.reload()).json()["student"] == "second", "as it was set last"
        text = service.runtime.metrics.exposition().decode()
        assert text.count("sdpose_model_info{") == 1
        assert 'student="second"' in text
        assert service.runtime.state is State.READY
        await until_retired(service.runtime)
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("sdpose-pose") == 1
        assert before() is None, "the old models hold no memory"


async def test_requests_in_flight_finish_on_the_old_models(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        (old,) = service.loader.made
        old.gate.clear()
        in_flight = [asyncio.create_task(service.student()) for _ in range(5)]
        await wait_until(lambda: service.runtime.in_flight >= 5)
        assert (await service.reload(student="second")).status_code == 200
        assert await service.student() == "second"
        assert not any(task.done() for task in in_flight)
        old.gate.set()
        assert await asyncio.gather(*in_flight) == ["first"] * 5
        await until_retired(service.runtime)


async def test_nothing_is_lost_under_load(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        service.loader.delay_s = 0.002
        answers: list[str] = []
        stop = asyncio.Event()

        async def ask() -> None:
            while not stop.is_set():
                answers.append(await service.student())

        asking = [asyncio.create_task(ask()) for _ in range(8)]
        names = ["first", *(f"model-{number}" for number in range(5))]
        for name in names:
            if name != "first":
                assert (await service.reload(student=name)).status_code == 200
            while answers.count(name) < 10:
                await asyncio.sleep(0.01)
        stop.set()
        await asyncio.gather(*asking)
        assert set(answers) == set(names)


async def test_a_failed_load_keeps_the_old_and_says_why(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        answer = await service.reload(student="damaged")
        assert answer.status_code == 422
        assert answer.json()["detail"] == "the models do not load: damaged: not a checkpoint"
        assert await service.student() == "first"
        assert (await service.reload()).json()["student"] == "first"


async def test_one_reload_at_a_time_and_the_service_answers_meanwhile(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        service.loader.gate.clear()
        first = asyncio.create_task(service.reload(student="second"))
        await wait_until(lambda: len(service.loader.wanted) >= 2)
        assert (await service.reload(student="third")).status_code == 409
        assert await service.student() == "first"
        service.loader.gate.set()
        assert (await first).status_code == 200


async def test_a_stop_in_the_middle_of_a_reload(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        service.loader.gate.clear()
        reload = asyncio.create_task(service.runtime.reload(student="second"))
        await wait_until(lambda: len(service.loader.wanted) >= 2)
        service.runtime.reject_new_work()
        service.loader.gate.set()
        with rejected(ErrorCode.UNAVAILABLE):
            await reload


async def test_only_an_admin_key_may(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        for headers, status in (({}, 401), ({"X-API-Key": "wrong"}, 401), (POSE, 403)):
            answer = await service.http.post("/admin/reload", headers=headers)
            assert answer.status_code == status
        for content, kind, status in (
            (b'{"student": 3}', "application/json", 422),
            (b'{"teacher": "a"}', "application/json", 422),
            (b"[]", "application/json", 422),
            (b"{", "application/json", 422),
            (b"student=a", "application/x-www-form-urlencoded", 415),
        ):
            answer = await service.http.post(
                f"{service.url}/admin/reload",
                headers={**ADMIN, "Content-Type": kind},
                content=content,
            )
            assert answer.status_code == status, (content, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
        assert service.loader.wanted == ["first"]


async def test_without_keys_nobody_may() -> None:
    async with serving(FakeEstimator()) as service:
        assert (await service.http.post("/admin/reload")).status_code == 403


async def test_a_hangup_loads_models_and_keys_anew(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        (tmp_path / "keys.toml").write_text(entry("caller", "pose"))
        os.kill(os.getpid(), signal.SIGHUP)
        await wait_until(lambda: len(service.loader.made) >= 2)
        assert service.runtime.access.names == ["caller"]
        assert await service.student() == "first"
