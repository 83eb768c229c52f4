"""Requests of the clients, the same over REST, gRPC and WebSocket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from sdpose_client.answers import Box


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """The options of one image; unset leaves the choice to the server.

    `boxes` are people known already (xywh pixels): the detector is then skipped.
    """

    boxes: Sequence[Box] | None = None
    max_people: int | None = None
    min_score: float | None = None
    min_keypoint_score: float | None = None
    cycles: int | None = None
    flip_test: bool = False
    priority: Literal["high", "normal", "low"] | None = None
    suppress: bool | None = None


@dataclass(frozen=True, slots=True)
class StreamFrame:
    """An image file of a stream with the caller's own number and time in seconds.

    Numbers must rise and may begin at 0; unset: the one before plus one, first 1. With `boxes`
    the person detector is skipped for this frame.
    """

    image: bytes
    sequence: int | None = None
    timestamp: float | None = None
    boxes: Sequence[Box] | None = None


@dataclass(frozen=True, slots=True)
class StreamAsk:
    """How the frames of one stream belong together; None leaves the choice to the server.

    Attributes:
        tracking: give people ids that stay over time.
        smoothing: steady the joints of people that are tracked.
        detect_every: detect people in every so many frames; in between, boxes follow the joints.
        drop: `latest`: of frames that come too fast the latest wins; `none`: the sender waits.
        resume_token: of an earlier stream, whose people keep their ids.
        affinity: name of the stream for a balancer, which brings streams of one name to one
            process if it can: only there the resume token is known. `follow` makes one.
    """

    tracking: bool | None = None
    smoothing: bool | None = None
    detect_every: int | Literal["auto"] | None = None
    drop: Literal["latest", "none"] | None = None
    resume_token: str | None = None
    affinity: str | None = None


AFFINITY_HEADER: Final = "x-sdpose-stream"
"""HTTP header and gRPC metadata with `StreamAsk.affinity`; the balancers' examples hash it."""
