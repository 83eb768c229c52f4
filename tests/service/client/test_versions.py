"""Answers of other versions of the service, damaged ones, and those of something else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from websockets.asyncio.server import ServerConnection, serve

from sdpose_client import Box, ErrorCode, Keypoint, Person, PoseAnswer
from sdpose_client.grpc_messages import stream_answer_from
from sdpose_client.v1 import pose_pb2
from tests.service.client.ways import answers
from tests.service.conftest import rejected
from tests.sites import Request, served

pytestmark = pytest.mark.anyio
POINT = {"name": "nose", "x": 1.0, "y": 2.0, "score": 0.5}
BOX = {"x": 1.0, "y": 2.0, "width": 3.0, "height": 4.0}
PERSON = {"box": BOX, "score": 0.75, "keypoints": [POINT]}
MODELS = {"student": "s", "detector": "d", "backend": "b", "device": "cpu"}
ANSWER: dict[str, Any] = {
    "people": [PERSON],
    "image": {"width": 8, "height": 9},
    "timings_ms": {"total": 1.0},
    "models": MODELS,
    "request_id": "r",
}
PEOPLE = (Person(Box(1, 2, 3, 4), 0.75, (Keypoint("nose", 1, 2, 0.5),)),)


def newer(value: Any) -> Any:
    """The same with one more field in each object."""
    if isinstance(value, dict):
        return {**{name: newer(each) for name, each in value.items()}, "later": {"a": [1]}}
    return [newer(each) for each in value] if isinstance(value, list) else value


def without(value: Any, path: str) -> Any:
    """The same without the field of a path such as `people.0.box`."""
    head, _, rest = path.partition(".")
    if isinstance(value, list):
        return [without(each, rest) for each in value]
    if not rest:
        return {name: each for name, each in value.items() if name != head}
    return {**value, head: without(value[head], rest)}


def respond(
    request: Request, body: bytes, *, status: int = 200, length: int | None = None, **headers: str
) -> None:
    request.rfile.read(int(request.headers["Content-Length"]))
    request.head(status, Content_Length=length or len(body), **headers)
    request.wfile.write(body)


async def over_rest(body: bytes) -> list[PoseAnswer]:
    def answer(request: Request) -> None:
        respond(request, body)

    with served(answer) as address:
        return await answers("rest", address)


async def over_websocket(body: bytes) -> list[PoseAnswer]:
    async def answer(connection: ServerConnection) -> None:
        async for message in connection:
            if isinstance(message, bytes):
                await connection.send(body.decode(errors="replace"))

    async with serve(answer, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        return await answers("websocket", f"http://127.0.0.1:{port}")


JSON = pytest.mark.parametrize("over", [over_rest, over_websocket])
Over = Callable[[bytes], Awaitable[list[PoseAnswer]]]


def text(value: Any) -> bytes:
    """An answer, and what streams add to it."""
    if isinstance(value, dict):
        value = {"sequence": 1, "dropped": 0, **value}
    return json.dumps(value).encode()


@JSON
async def test_more_fields_are_left_out(over: Over) -> None:
    for given in await over(text(newer(ANSWER))):
        assert given.people == PEOPLE
        assert (given.width, given.height, given.request_id) == (8, 9, "r")
        assert given.models["student"] == "s"


@JSON
@pytest.mark.parametrize(
    "path",
    ["people", "image", "models", "image.width", "people.0.box", "people.0.box.height",
     "people.0.score", "people.0.keypoints", "people.0.keypoints.0.score"],
)  # fmt: skip
async def test_a_missing_field_is_named(over: Over, path: str) -> None:
    name = path.rpartition(".")[2]
    with rejected(ErrorCode.INTERNAL, match=f"^an answer without '{name}': .*another version"):
        await over(text(without(ANSWER, path)))


@JSON
@pytest.mark.parametrize("value", [[], "people", 5, None, {**ANSWER, "people": [None]}], ids=str)
async def test_another_form(over: Over, value: object) -> None:
    with rejected(ErrorCode.INTERNAL, match="^an answer of another form: "):
        await over(text(value))


@JSON
@pytest.mark.parametrize(
    "body", [text(ANSWER)[:-20], b"", b"<html>", b"[" * 100_000], ids=["cut", "", "html", "deep"]
)
async def test_what_is_no_json(over: Over, body: bytes) -> None:
    with rejected(ErrorCode.INTERNAL, match="^an answer that is no JSON"):
        await over(body)


async def test_a_body_that_breaks_off() -> None:
    def answer(request: Request) -> None:
        respond(request, text(ANSWER)[:50], length=1000)

    with (
        served(answer) as address,
        rejected(ErrorCode.UNAVAILABLE, match="cannot be reached: peer closed .*complete"),
    ):
        await answers("rest", address)


async def test_a_body_that_is_not_compressed_as_its_header_has_it() -> None:
    def answer(request: Request) -> None:
        respond(request, text(ANSWER), Content_Encoding="gzip")

    with served(answer) as address, rejected(ErrorCode.INTERNAL, match="damaged answer"):
        await answers("rest", address)


async def test_an_error_that_only_newer_services_have() -> None:
    problem = json.dumps({"code": "quota", "detail": "no more today"}).encode()

    def answer(request: Request) -> None:
        respond(request, problem, status=429)

    with served(answer) as address, rejected(ErrorCode.OVERLOADED, match="^quota: no more today$"):
        await answers("rest", address)
    frame = {"error": {"code": "quota", "detail": "no more today"}}
    with rejected(ErrorCode.INTERNAL, match="^quota: no more today$"):
        await over_websocket(text(frame))
    async with grpc_service(status=grpc.StatusCode.PERMISSION_DENIED, code="quota") as target:
        with rejected(ErrorCode.PERMISSION_DENIED, match="^quota: no more today$"):
            await answers("grpc", target)


@asynccontextmanager
async def grpc_service(
    body: bytes = b"",
    *,
    method: str = "EstimatePose",
    status: grpc.StatusCode | None = None,
    code: str = "",
) -> AsyncIterator[str]:
    """A server with one method that answers with these very bytes, or with an error."""

    async def answer(_: bytes, context: Any) -> bytes:
        if status is not None:
            await context.abort(status, "no more today", (("sdpose-error-code", code),))
        return body

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("sdpose.v1.PoseService", {method: handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


GRPC_ANSWER = pose_pb2.EstimatePoseResponse(
    people=[
        pose_pb2.Person(
            box=pose_pb2.Box(**BOX),
            score=0.75,
            keypoints=[pose_pb2.Keypoint(**POINT)],  # type: ignore[arg-type]
        )
    ],
    image=pose_pb2.ImageSize(width=8, height=9),
    request_id="r",
)
_LATER = b"\xfa\x3f\x03new"
"""Field 1023 of a message, with three bytes."""


async def test_more_fields_of_a_message_are_left_out() -> None:
    async with grpc_service(GRPC_ANSWER.SerializeToString() + _LATER) as target:
        for given in await answers("grpc", target):
            assert given.people == PEOPLE


async def test_a_message_without_the_image() -> None:
    async with grpc_service(
        pose_pb2.EstimatePoseResponse(request_id="r").SerializeToString()
    ) as to:
        with rejected(ErrorCode.INTERNAL, match="^an answer without 'image': .*another version"):
            await answers("grpc", to)


async def test_a_message_that_is_cut() -> None:
    async with grpc_service(GRPC_ANSWER.SerializeToString()[:-1]) as target:
        with rejected(ErrorCode.INTERNAL, match="^a damaged answer"):
            await answers("grpc", target)


async def test_a_service_without_the_method() -> None:
    async with grpc_service(method="Estimate") as target:
        with rejected(ErrorCode.INTERNAL, match="has no such method: .*another version"):
            await answers("grpc", target)


async def test_a_frame_with_another_outcome_than_ours() -> None:
    frame = pose_pb2.StreamPoseResponse.FromString(b"\x08\x01" + _LATER)
    assert frame.sequence == 1
    with rejected(ErrorCode.INTERNAL, match="^an answer without 'outcome'"):
        stream_answer_from(frame)
