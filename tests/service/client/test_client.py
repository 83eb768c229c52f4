"""The clients against services that refuse first."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import grpc
import httpx
import pytest

from sdpose_client import (
    AsyncGrpcPoseClient,
    AsyncRestPoseClient,
    ErrorCode,
    GrpcPoseClient,
    PoseAnswer,
    RestPoseClient,
    Retry,
    ServiceError,
)
from sdpose_client.answers import Box
from sdpose_client.requests import Ask
from sdpose_client.v1 import pose_pb2, pose_pb2_grpc
from service.rest.errors import problem
from tests.fakes import PNG, FakeEstimator
from tests.service.conftest import ONCE, rejected, serving, wait_until

pytestmark = pytest.mark.anyio

ANSWER = {
    "people": [],
    "image": {"width": 1, "height": 2},
    "timings_ms": {},
    "models": {},
    "request_id": "r",
}


class Moody:
    """Refuses with the given errors in turn, then answers."""

    def __init__(self, *errors: ServiceError) -> None:
        self.errors = list(errors)
        self.asked = 0
        self.requests: list[httpx.Request] = []

    def refusal(self) -> ServiceError | None:
        self.asked += 1
        return self.errors.pop(0) if self.errors else None

    def http(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        error = self.refusal()
        if error is None:
            return httpx.Response(200, json=ANSWER)
        refused = problem(error, "r")
        return httpx.Response(
            refused.status_code, headers=dict(refused.headers), content=refused.body
        )

    async def EstimatePose(  # the contract's name
        self, request: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pose_pb2.EstimatePoseResponse:
        error = self.refusal()
        if error is not None:
            await context.abort(
                grpc.StatusCode.UNAVAILABLE,
                error.message,
                (("sdpose-error-code", error.code.value), ("retry-after", "0")),
            )
        size = pose_pb2.ImageSize(width=1, height=2)
        return pose_pb2.EstimatePoseResponse(image=size, request_id="r")


def overloaded() -> ServiceError:
    return ServiceError(ErrorCode.OVERLOADED, "later")


FAST = Retry(attempts=3, first_s=0.01, longest_s=0.02)


def asking(moody: Moody, retry: Retry = FAST, **more: Any) -> RestPoseClient:
    return RestPoseClient(retry=retry, transport=httpx.MockTransport(moody.http), **more)


def test_rest_tries_again_when_overloaded() -> None:
    moody = Moody(overloaded(), ServiceError(ErrorCode.UNAVAILABLE, "later"))
    with asking(moody) as client:
        assert client.estimate(PNG).request_id == "r"
    assert moody.asked == 3


async def test_async_rest_tries_again_when_overloaded() -> None:
    moody = Moody(overloaded())
    transport = httpx.MockTransport(moody.http)
    async with AsyncRestPoseClient(retry=FAST, transport=transport) as client:
        assert (await client.estimate(PNG)).request_id == "r"
    assert moody.asked == 2


def test_gives_up_after_the_last_try() -> None:
    moody = Moody(*(overloaded() for _ in range(5)))
    with asking(moody) as client, pytest.raises(ServiceError) as refused:
        client.estimate(PNG)
    assert refused.value.code is ErrorCode.OVERLOADED
    assert moody.asked == 3


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Those between tries, which are not slept."""
    slept: list[float] = []
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=slept.append)
    monkeypatch.setattr("sdpose_client.retry.time", clock)
    return slept


def test_waits_as_long_as_it_is_told(pauses: list[float]) -> None:
    moody = Moody(overloaded())  # over REST that says Retry-After: 1
    with asking(moody, Retry()) as client:
        client.estimate(PNG)
    assert pauses == [1.0]
    assert moody.asked == 2


def test_a_pause_beyond_the_deadline_is_not_begun(pauses: list[float]) -> None:
    moody = Moody(ServiceError(ErrorCode.OVERLOADED, "later", retry_after_s=100))
    with asking(moody, Retry(longest_s=100)) as client, pytest.raises(ServiceError):
        client.estimate(PNG, timeout_s=99)
    assert pauses == []
    assert moody.asked == 1


def test_other_errors_are_not_tried_again() -> None:
    moody = Moody(ServiceError(ErrorCode.INVALID_IMAGE, "broken"))
    with asking(moody) as client, pytest.raises(ServiceError, match="broken"):
        client.estimate(PNG)
    assert moody.asked == 1


def test_what_is_asked_reaches_the_wire() -> None:
    moody = Moody()
    asked = Ask(boxes=[Box(1, 2, 3, 4)], max_people=3, flip_test=True, cycles=0)
    with asking(moody, api_key="key") as client:
        client.estimate(PNG, asked, timeout_s=2, request_id="mine")
    (request,) = moody.requests
    assert dict(request.url.params) | {"deadline_ms": ""} == {
        "boxes": '[{"x": 1, "y": 2, "width": 3, "height": 4}]',
        "max_people": "3",
        "flip_test": "true",
        "cycles": "0",
        "deadline_ms": "",
    }
    assert 1000 < float(request.url.params["deadline_ms"]) <= 2000
    assert request.headers["x-api-key"] == "key"
    assert request.headers["x-request-id"] == "mine"


def test_nobody_listens() -> None:
    with (
        RestPoseClient("http://127.0.0.1:9", retry=ONCE) as rest,
        GrpcPoseClient("127.0.0.1:9", retry=ONCE) as rpc,
    ):
        assert not rest.ready()
        for client in (rest, rpc):
            with rejected(ErrorCode.UNAVAILABLE):
                client.estimate(PNG)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_a_proxy_says_for_a_while_is_tried_again(status: int) -> None:
    said: list[int] = []

    def proxy(request: httpx.Request) -> httpx.Response:
        said.append(status if not said else 200)
        if said[-1] == 200:
            return httpx.Response(200, json=ANSWER)
        return httpx.Response(status, text="<html>bad gateway</html>", headers={"Retry-After": "0"})

    with RestPoseClient(retry=FAST, transport=httpx.MockTransport(proxy)) as client:
        assert client.estimate(PNG).request_id == "r"
    assert said == [status, 200]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (httpx.Response(502, text="<html>"), ErrorCode.UNAVAILABLE),
        (httpx.Response(413, text="<html>"), ErrorCode.PAYLOAD_TOO_LARGE),
        (httpx.Response(401, text=""), ErrorCode.UNAUTHENTICATED),
        (httpx.Response(404, json=["nothing"]), ErrorCode.INTERNAL),
    ],
    ids=str,
)
def test_an_answer_of_a_proxy(answer: httpx.Response, code: ErrorCode) -> None:
    with (
        RestPoseClient(retry=ONCE, transport=httpx.MockTransport(lambda _: answer)) as client,
        rejected(code, match=f"status {answer.status_code} that is not the service's"),
    ):
        client.estimate(PNG)


async def test_many_images_are_one_entry_each(fake: FakeEstimator) -> None:
    async with serving(fake, api_keys="key", api_key="key") as service:
        assert await service.rest.estimate_many([]) == []
        (bad,) = await service.rest.estimate_many([b"no image"])
        assert isinstance(bad, ServiceError)
        assert bad.code is ErrorCode.UNSUPPORTED_MEDIA_TYPE
        (good,) = await service.rest.estimate_many([PNG])
        assert isinstance(good, PoseAnswer)
        async with AsyncRestPoseClient(service.url, api_key="wrong") as stranger:
            for images in ([PNG], [PNG, PNG]):
                with rejected(ErrorCode.UNAUTHENTICATED):
                    await stranger.estimate_many(images)


async def test_boxes_of_each_image(fake: FakeEstimator) -> None:
    def boxes_in(answers: list[PoseAnswer | ServiceError]) -> list[list[Box]]:
        return [
            [person.box for person in answer.people]
            for answer in answers
            if isinstance(answer, PoseAnswer)
        ]

    one, two, whole = Box(1, 1, 2, 2), Box(2, 2, 3, 3), Box(0, 0, 8, 8)
    async with serving(fake) as service:
        ask = service.rest.estimate_many
        assert boxes_in(await ask([PNG] * 3, boxes=[[one], None, [two, one]])) == [
            [one],
            [whole],
            [two, one],
        ]
        assert boxes_in(await ask([PNG], boxes=[[two]])) == [[two]]
        assert boxes_in(await ask([PNG], boxes=[None])) == [[whole]]
        assert boxes_in(await ask([PNG] * 2, Ask(boxes=[one]))) == [[one], [one]]
        assert boxes_in(await ask([PNG] * 2, boxes=[[], []])) == [[], []]
        for wrong in ({"boxes": [[one]]}, {"ask": Ask(boxes=[one]), "boxes": [[one], [one]]}):
            with pytest.raises(ServiceError, match="boxes"):
                await ask([PNG] * 2, **wrong)


@asynccontextmanager
async def moody_grpc(moody: Moody) -> AsyncIterator[str]:
    server = grpc.aio.server()
    pose_pb2_grpc.add_PoseServiceServicer_to_server(moody, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


class MoodyService(Moody, pose_pb2_grpc.PoseServiceServicer):
    """The same as a gRPC servicer."""


async def test_async_grpc_tries_again() -> None:
    moody = MoodyService(overloaded(), ServiceError(ErrorCode.UNAVAILABLE, "later"))
    async with moody_grpc(moody) as target, AsyncGrpcPoseClient(target, retry=FAST) as client:
        assert (await client.estimate(PNG)).request_id == "r"
    assert moody.asked == 3


async def test_sync_grpc_tries_again() -> None:
    moody = MoodyService(overloaded())

    def ask(target: str) -> str:
        with GrpcPoseClient(target, retry=FAST) as client:
            return client.estimate(PNG, timeout_s=10).request_id

    async with moody_grpc(moody) as target:
        assert await asyncio.to_thread(ask, target) == "r"
    assert moody.asked == 2


async def test_sync_clients_in_threads(fake: FakeEstimator) -> None:
    def run(ask: Callable[[], object], results: list[object]) -> threading.Thread:
        thread = threading.Thread(target=lambda: results.append(ask()))
        thread.start()
        return thread

    results: list[Any] = []
    async with serving(fake) as service:
        with RestPoseClient(service.url) as rest, GrpcPoseClient(service.target) as rpc:
            threads = [run(lambda: rest.estimate(PNG), results) for _ in range(4)]
            threads += [run(lambda: rpc.estimate(PNG), results) for _ in range(4)]
            threads += [run(lambda: rest.estimate_many([PNG])[0], results)]
            threads += [run(rest.ready, results)]
            await wait_until(lambda: not any(thread.is_alive() for thread in threads))
    assert len(results) == 10
    assert all(result is True or len(result.people) == 1 for result in results)
