"""Clients over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator
from contextlib import aclosing
from functools import partial
from typing import Any

import grpc

from sdpose_client.answers import PoseAnswer, StreamAnswer
from sdpose_client.connections import checked_certificates, checked_header, checked_target
from sdpose_client.following import AsyncFollowing, Following
from sdpose_client.frames import Frames, each_of
from sdpose_client.grpc_messages import (
    answer_from,
    call_metadata,
    error_from,
    frame_message,
    request_message,
    stream_answer_from,
    stream_config,
)
from sdpose_client.requests import Ask, StreamAsk, StreamFrame
from sdpose_client.retry import Retry
from sdpose_client.v1 import pose_pb2, pose_pb2_grpc

_NOTHING_ASKED = Ask()
_STREAM_AS_SERVED = StreamAsk()
_OPTIONS = (
    ("grpc.max_receive_message_length", 64 * 2**20),
    ("grpc.max_send_message_length", 64 * 2**20),
    # One connection per client, else all of a process to one target share one.
    ("grpc.use_local_subchannel_pool", 1),
)


class GrpcPoseClient(Following):
    """Blocking client. `target` such as `localhost:8001`; close it, or use `with`.

    `tls` encrypts; `root_certificates` (PEM) are trusted then in place of gRPC's own, and
    `client_certificate` (key and certificate, PEM) is shown if the service requires one. Its own
    certificate is for `server_name`, if that is not the host of `target`.
    """

    def __init__(
        self,
        target: str = "localhost:8001",
        *,
        api_key: str | None = None,
        retry: Retry | None = None,
        tls: bool = False,
        root_certificates: bytes | None = None,
        client_certificate: tuple[bytes, bytes] | None = None,
        server_name: str | None = None,
    ) -> None:
        encrypted = tls or (root_certificates, client_certificate, server_name) != (None,) * 3
        self._channel = _channel(
            grpc, target, encrypted, root_certificates, client_certificate, server_name
        )
        self._error_from = partial(error_from, target=target, encrypted=encrypted)
        self._stub = pose_pb2_grpc.PoseServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._api_key = checked_header("api_key", api_key)
        self._retry = retry or Retry()
        self._as_async = partial(
            AsyncGrpcPoseClient,
            target,
            api_key=api_key,
            tls=tls,
            root_certificates=root_certificates,
            client_certificate=client_certificate,
            server_name=server_name,
        )

    def estimate(
        self,
        image: bytes,
        ask: Ask = _NOTHING_ASKED,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> PoseAnswer:
        """The people of one image file. Raises `ServiceError`."""
        message = request_message(image, ask)
        metadata = call_metadata(self._api_key, request_id)

        def attempt(left: float | None) -> PoseAnswer:
            try:
                return answer_from(
                    self._stub.EstimatePose(message, timeout=left, metadata=metadata)
                )
            except grpc.RpcError as error:
                raise self._error_from(error) from None

        return self._retry.run(attempt, timeout_s)

    def stream(
        self,
        frames: Iterable[bytes | StreamFrame],
        ask: Ask = _NOTHING_ASKED,
        stream: StreamAsk = _STREAM_AS_SERVED,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Generator[StreamAnswer, None, None]:
        """The answers to the frames of one stream, in order, as they come.

        `frames` is read in another thread, as fast as it gives; of those that come while the
        server is busy it takes the latest, and counts the others as dropped, unless `stream` allows
        no drops. Raises
        `ServiceError` if the stream itself ends (nothing is tried again), or what `frames`
        raised.
        """
        config = stream_config(ask, stream)
        raised: list[Exception] = []

        def messages() -> Iterator[pose_pb2.StreamPoseRequest]:
            yield config
            try:
                for frame in frames:
                    yield frame_message(frame)
            except Exception as error:
                raised.append(error)
                raise

        metadata = call_metadata(self._api_key, request_id, stream.affinity)
        call = self._stub.StreamPose(messages(), timeout=timeout_s, metadata=metadata)
        try:
            for message in call:
                yield stream_answer_from(message)
        except grpc.RpcError as error:
            raise (raised[0] if raised else self._error_from(error)) from None
        finally:
            call.cancel()

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()


class AsyncGrpcPoseClient(AsyncFollowing):
    """The same on an event loop; close it, or use `async with`."""

    def __init__(
        self,
        target: str = "localhost:8001",
        *,
        api_key: str | None = None,
        retry: Retry | None = None,
        tls: bool = False,
        root_certificates: bytes | None = None,
        client_certificate: tuple[bytes, bytes] | None = None,
        server_name: str | None = None,
    ) -> None:
        encrypted = tls or (root_certificates, client_certificate, server_name) != (None,) * 3
        self._channel = _channel(
            grpc.aio, target, encrypted, root_certificates, client_certificate, server_name
        )
        self._error_from = partial(error_from, target=target, encrypted=encrypted)
        self.stub: Any = pose_pb2_grpc.PoseServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._api_key = checked_header("api_key", api_key)
        self._retry = retry or Retry()

    async def estimate(
        self,
        image: bytes,
        ask: Ask = _NOTHING_ASKED,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> PoseAnswer:
        """The people of one image file. Raises `ServiceError`."""
        message = request_message(image, ask)
        metadata = call_metadata(self._api_key, request_id)

        async def attempt(left: float | None) -> PoseAnswer:
            try:
                return answer_from(
                    await self.stub.EstimatePose(message, timeout=left, metadata=metadata)
                )
            except grpc.RpcError as error:
                raise self._error_from(error) from None

        return await self._retry.run_async(attempt, timeout_s)

    async def stream(
        self,
        frames: Frames,
        ask: Ask = _NOTHING_ASKED,
        stream: StreamAsk = _STREAM_AS_SERVED,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> AsyncGenerator[StreamAnswer, None]:
        """As the blocking client's; a task reads `frames` beside, in a thread if they block."""
        config = stream_config(ask, stream)
        metadata = call_metadata(self._api_key, request_id, stream.affinity)
        call = self.stub.StreamPose(timeout=timeout_s, metadata=metadata)
        sending = asyncio.create_task(_send(call, config, frames))
        try:
            async for message in call:
                yield stream_answer_from(message)
        except grpc.RpcError as error:
            raise self._error_from(error) from None
        except asyncio.CancelledError:
            if sending.done():
                sending.result()  # what `frames` raised, for which the call was cancelled
            raise
        finally:
            call.cancel()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close(None)


async def _send(
    call: Any,
    config: pose_pb2.StreamPoseRequest,
    frames: Frames,
) -> None:
    try:
        await call.write(config)
        async with aclosing(each_of(frames)) as given:
            async for frame in given:
                await call.write(frame_message(frame))
        await call.done_writing()
    except (grpc.RpcError, asyncio.InvalidStateError):
        pass  # the stream is over; its reader gets the reason
    except Exception:
        call.cancel()
        raise


def _channel(
    kind: Any,
    target: str,
    encrypted: bool,
    root_certificates: bytes | None,
    client_certificate: tuple[bytes, bytes] | None,
    server_name: str | None,
) -> Any:
    """A channel of `grpc` or of `grpc.aio`. Raises `ServiceError` for what none can be made of."""
    checked_target(target)
    checked_certificates(root_certificates, client_certificate)
    if not encrypted:
        return kind.insecure_channel(target, options=_OPTIONS)
    key, certificate = client_certificate or (None, None)
    credentials = grpc.ssl_channel_credentials(root_certificates, key, certificate)
    named = () if server_name is None else (("grpc.ssl_target_name_override", server_name),)
    return kind.secure_channel(target, credentials, options=(*_OPTIONS, *named))
