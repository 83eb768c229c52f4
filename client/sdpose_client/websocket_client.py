"""Clients of `WS /pose/stream`, for where gRPC does not pass."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, suppress
from dataclasses import asdict
from functools import partial
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from sdpose_client.answers import StreamAnswer, read_json, stream_answer_of
from sdpose_client.blocking import iterate
from sdpose_client.connections import checked_header, checked_url, unreached
from sdpose_client.errors import ErrorCode, ServiceError, invalid_argument
from sdpose_client.following import AsyncFollowing, Following
from sdpose_client.frames import Frames, each_of
from sdpose_client.requests import AFFINITY_HEADER, Ask, StreamAsk, StreamFrame
from sdpose_client.rest_messages import problem_error

_LARGEST_ANSWER: Final = 64 * 2**20
_OPENING_S: Final = 10.0
# Closes without a reason of ours, such as those of a proxy (RFC 6455).
_BY_CLOSE: Final = {1008: ErrorCode.INVALID_ARGUMENT, 1009: ErrorCode.PAYLOAD_TOO_LARGE}


class AsyncWebSocketPoseClient(AsyncFollowing):
    """Streams over a WebSocket, on an event loop. `url` such as `http://localhost:8000`."""

    def __init__(
        self,
        url: str = "http://localhost:8000",
        *,
        api_key: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        scheme, _, rest = checked_url("url", url).partition("://")
        encrypted = scheme in ("https", "wss")
        self._tls = tls or (True if encrypted else None)  # True: the CAs that the system trusts
        self._url = f"{'wss' if encrypted else 'ws'}://{rest}/pose/stream"
        self._api_key = checked_header("api_key", api_key)

    async def stream(
        self,
        frames: Frames,
        ask: Ask | None = None,
        stream: StreamAsk | None = None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> AsyncGenerator[StreamAnswer, None]:
        """As the gRPC client's: the answers to the frames of one stream, in order, as they come."""
        stream = stream or StreamAsk()
        config = _config(ask or Ask(), stream)
        given = (
            ("X-API-Key", self._api_key),
            ("X-Request-ID", checked_header("request_id", request_id)),
            (AFFINITY_HEADER, checked_header("affinity", stream.affinity)),
        )
        headers = {name: value for name, value in given if value is not None}
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            connection = await connect(
                self._url,
                additional_headers=headers,
                max_size=_LARGEST_ANSWER,
                compression=None,
                ssl=self._tls,
                open_timeout=_OPENING_S if timeout_s is None else min(timeout_s, _OPENING_S),
            )
        except InvalidStatus as error:
            rejection = error.response
            raise problem_error(
                rejection.status_code, rejection.headers, bytes(rejection.body or b"")
            ) from None
        except asyncio.TimeoutError as error:
            if deadline is not None and time.monotonic() >= deadline:
                raise _too_late(self._url) from None
            raise unreached(self._url, error, encrypted=self._tls is not None) from None
        except (OSError, WebSocketException) as error:
            raise unreached(self._url, error, encrypted=self._tls is not None) from None
        sender = _Sender(connection, config, frames)
        sending = asyncio.create_task(sender.run())
        try:
            while (
                text := await _received(self._url, connection, sending, sender, deadline)
            ) is not None:
                answer = read_json(text, stream_answer_of)
                sender.answered = answer.sequence
                yield answer
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            with suppress(WebSocketException, OSError):
                await connection.close()


class WebSocketPoseClient(Following):
    """The same for blocking code. `frames` is read in another thread."""

    def __init__(
        self,
        url: str = "http://localhost:8000",
        *,
        api_key: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._as_async = partial(AsyncWebSocketPoseClient, url, api_key=api_key, tls=tls)

    def stream(
        self,
        frames: Frames,
        ask: Ask | None = None,
        stream: StreamAsk | None = None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Generator[StreamAnswer, None, None]:
        """The answers to the frames of one stream, in order, as they come."""
        return iterate(
            lambda: self._as_async().stream(
                frames, ask, stream, timeout_s=timeout_s, request_id=request_id
            )
        )


class _Sender:
    """Sends the settings and the frames. All is answered once `answered` is the last number."""

    def __init__(self, connection: ClientConnection, config: str, frames: Frames) -> None:
        self._connection = connection
        self._config = config
        self._frames = frames
        self._last = 0
        self.answered: int | None = None
        self._begun = False

    @property
    def all_answered(self) -> bool:
        """Whether the last frame that was sent has its answer."""
        return not self._begun or self.answered == self._last

    async def run(self) -> None:
        """Until the frames end. Raises what they raise; a connection that closes ends it."""
        with suppress(ConnectionClosed):  # the one who reads learns why
            await self._connection.send(self._config)
            async with aclosing(each_of(self._frames)) as frames:
                async for frame in frames:
                    await self._send(frame)

    async def _send(self, frame: StreamFrame) -> None:
        self._last = self._last + 1 if frame.sequence is None else frame.sequence
        self._begun = True
        if about := _about(frame):
            await self._connection.send(json.dumps({"frame": about}))
        await self._connection.send(frame.image)


async def _received(
    url: str,
    connection: ClientConnection,
    sending: asyncio.Task[None],
    sender: _Sender,
    deadline: float | None,
) -> str | bytes | None:
    """The next answer; None if all frames have theirs. Raises what the frames raise."""
    receiving = asyncio.ensure_future(connection.recv())
    try:
        while not receiving.done():
            if sending.done():
                sending.result()
                if sender.all_answered:
                    return None
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            waiting = {receiving} if sending.done() else {receiving, sending}
            done, _ = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                raise _too_late(url)
        return receiving.result()
    except ConnectionClosed as closed:
        raise _closed(closed) from None
    finally:
        receiving.cancel()


def _too_late(url: str) -> ServiceError:
    return ServiceError(ErrorCode.DEADLINE_EXCEEDED, f"no answer of {url} in time")


def _config(ask: Ask, stream: StreamAsk) -> str:
    if ask.boxes is not None:
        raise invalid_argument("boxes", "boxes of a stream belong to its frames")
    options = {name: value for name, value in asdict(ask).items() if value is not None}
    options.pop("boxes", None)
    settings = {name: value for name, value in asdict(stream).items() if value is not None}
    settings.pop("affinity", None)
    return json.dumps({"config": {**settings, "options": options}})


def _about(frame: StreamFrame) -> dict[str, Any]:
    about: dict[str, Any] = {
        name: getattr(frame, name)
        for name in ("sequence", "timestamp")
        if getattr(frame, name) is not None
    }
    if frame.boxes is not None:
        about["boxes"] = [asdict(box) for box in frame.boxes]
    return about


def _closed(closed: ConnectionClosed) -> ServiceError:
    """The error of the vocabulary in the reason of a close, which is `code: message`."""
    frame = closed.rcvd
    if frame is None:
        return ServiceError(ErrorCode.UNAVAILABLE, "the connection broke off")
    name, _, message = frame.reason.partition(": ")
    if name in set(ErrorCode):
        field = message.partition(": ")[0] if name == ErrorCode.INVALID_ARGUMENT else None
        return ServiceError(ErrorCode(name), message, field=field)
    code = _BY_CLOSE.get(frame.code, ErrorCode.UNAVAILABLE)
    return ServiceError(code, f"the connection was closed with {frame.code} {frame.reason}".strip())
