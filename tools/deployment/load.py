"""Callers for a check: they ask for poses over REST, gRPC and WebSocket and count the answers."""

from __future__ import annotations

import json
import ssl
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from typing import Self

import grpc
import httpx
from websockets.sync.client import connect
from websockets.typing import Origin

from sdpose_client.v1 import pose_pb2, pose_pb2_grpc


class _Load(ABC):
    """So many callers that ask one after the other until the `with` is left.

    A caller that is rejected waits a second, the time of `Retry-After`.

    Attributes:
        outcomes: how often each answer came, by its status.
    """

    good: int | str

    def __init__(self, callers: int) -> None:
        self.outcomes: Counter[int | str] = Counter()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(callers)]

    @abstractmethod
    def calls(self) -> Iterator[int | str]:
        """The outcomes of one caller, without end."""

    def _ask(self) -> None:
        for outcome in self.calls():
            with self._lock:
                self.outcomes[outcome] += 1
            if outcome != self.good:
                self._stop.wait(1.0)
            if self._stop.is_set():
                return

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=100.0)


class RestLoad(_Load):
    """Callers of `POST /pose`; an answer that did not come counts by the name of its error."""

    good = httpx.codes.OK.value

    def __init__(self, url: str, image: bytes, callers: int, *, verify: str | bool = True) -> None:
        super().__init__(callers)
        self._url, self._image, self._verify = url, image, verify

    def calls(self) -> Iterator[int | str]:
        """HTTP statuses."""
        with httpx.Client(timeout=90.0, verify=self._verify) as http:
            while True:
                try:
                    yield http.post(
                        self._url, content=self._image, headers={"Content-Type": "image/jpeg"}
                    ).status_code
                except httpx.TransportError as error:
                    yield type(error).__name__


class GrpcLoad(_Load):
    """Callers of `EstimatePose`."""

    good = grpc.StatusCode.OK.name

    def __init__(self, address: str, image: bytes, callers: int) -> None:
        super().__init__(callers)
        self._address, self._image = address, image

    def calls(self) -> Iterator[int | str]:
        """Names of gRPC's statuses."""
        with grpc.insecure_channel(self._address) as channel:
            while True:
                try:
                    grpc_people(channel, self._image)
                    yield self.good
                except grpc.RpcError as error:
                    yield error.code().name


def grpc_people(channel: grpc.Channel, image: bytes) -> int:
    """How many people one `EstimatePose` call finds."""
    stub = pose_pb2_grpc.PoseServiceStub(channel)  # type: ignore[no-untyped-call]
    return len(stub.EstimatePose(pose_pb2.EstimatePoseRequest(image=image), timeout=60.0).people)


def stream_frames(channel: grpc.Channel, image: bytes, frames: int, pause_s: float) -> int:
    """How many of the frames sent over one `StreamPose` call were answered with people."""
    stub = pose_pb2_grpc.PoseServiceStub(channel)  # type: ignore[no-untyped-call]

    def requests() -> Iterator[pose_pb2.StreamPoseRequest]:
        for number in range(frames):
            yield pose_pb2.StreamPoseRequest(image=image, sequence=number + 1)
            time.sleep(pause_s)

    answers = list(stub.StreamPose(requests(), timeout=120.0))
    return sum(bool(answer.result.people) for answer in answers)


def websocket_frames(
    url: str, image: bytes, frames: int, *, origin: str, trust: ssl.SSLContext | None = None
) -> int:
    """How many frames were answered with people over one WebSocket of a page from `origin`."""
    answered = 0
    with connect(url, ssl=trust, origin=Origin(origin), proxy=None, open_timeout=30) as stream:
        for _ in range(frames):
            stream.send(image)
            answered += bool(json.loads(stream.recv(timeout=60)).get("people"))
    return answered
