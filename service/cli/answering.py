"""Streams of decoded frames answered by a running service."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from sdpose_client.answers import PoseAnswer
from sdpose_client.grpc_client import GrpcPoseClient
from sdpose_client.reconnect import Reconnect
from sdpose_client.requests import Ask, StreamAsk, StreamFrame
from sdpose_core.io.live import TimedImage
from sdpose_core.skeleton import skeleton_of_names
from sdpose_core.types import Poses
from sdpose_core.vision.image_files import encode_jpeg
from service.errors import ServiceError

_WAITING: Final = 64
"""Maximum number of frames kept for their answers."""


class RemoteAnswering:
    """As `LocalAnswering`, with the models of a service; frames travel as JPEG files.

    Goes on with the same people if the connection breaks.

    Args:
        client: open until the frames end.
        ask: options of each request.
        stream: settings of the stream.
        tell: called with one sentence for a frame without an answer, and a connection that broke.
        attempts: failures to reach the service in a row after which its error is raised.
    """

    def __init__(
        self,
        client: GrpcPoseClient,
        ask: Ask,
        stream: StreamAsk,
        tell: Callable[[str], None],
        attempts: int | None = None,
    ) -> None:
        self._client = client
        self._ask = ask
        self._stream = stream
        self._tell = tell
        self._attempts = attempts

    def __call__(self, frames: Iterable[TimedImage]) -> Iterator[tuple[TimedImage, Poses]]:
        """The answers as they come. Raises `ServiceError` if the stream ends."""
        waiting: dict[int, TimedImage] = {}

        def sent() -> Iterator[StreamFrame]:
            for frame in frames:
                waiting[frame.number] = frame
                while len(waiting) > _WAITING:  # the oldest were dropped on their way
                    waiting.pop(next(iter(waiting)), None)
                yield StreamFrame(encode_jpeg(frame.image), frame.number, frame.time_s)

        reconnect = Reconnect(attempts=self._attempts, tell=self._tell)
        for answer in self._client.follow(sent(), self._ask, self._stream, reconnect=reconnect):
            frame = waiting.pop(answer.sequence, None)
            if frame is None:
                continue
            skipped = [number for number in list(waiting) if number < answer.sequence]
            dropped = frame.dropped + sum(1 + waiting.pop(one).dropped for one in skipped)
            if isinstance(answer.outcome, ServiceError):
                self._tell(f"frame {frame.number}: {answer.outcome}")
                continue
            yield replace(frame, dropped=dropped), poses_of(answer.outcome)


def poses_of(answer: PoseAnswer) -> Poses:
    """The arrays of an answer that has all keypoints of its people."""
    people = answer.people
    if not people:
        return replace(Poses.empty(), ids=np.zeros(0, np.int64))
    values = np.array(
        [[(k.x, k.y, k.score, k.visibility) for k in one.keypoints] for one in people], np.float32
    )  # a visibility of None becomes nan
    skeleton = skeleton_of_names(tuple(point.name for point in people[0].keypoints))
    points, scores, visibility = np.split(values, [2, 3], axis=2)
    boxes = [(b.x, b.y, b.x + b.width, b.y + b.height) for b in (one.box for one in people)]
    return Poses(
        np.ascontiguousarray(points),
        scores[..., 0].copy(),
        np.array(boxes, np.float32),
        np.array([one.score for one in people], np.float32),
        np.array([one.id or 0 for one in people], np.int64),
        skeleton,
        None if np.isnan(visibility).any() else visibility[..., 0].copy(),
    )
