"""Bounds of the pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field

from sdpose_core.types import Cycles
from sdpose_core.vision.image_files import ImageLimits
from service.scheduling.batch_run import BatchLimits


@dataclass(frozen=True, slots=True)
class PipelineLimits:
    """Bounds of the pipeline as plain values; `least_side` as `ImageDecoder` has it.

    `suppress`, `cycles`: if a request names none.
    """

    images: ImageLimits = field(default_factory=ImageLimits)
    detect: BatchLimits = field(default_factory=lambda: BatchLimits(8, 0.0, 64))
    pose: BatchLimits = field(default_factory=BatchLimits)
    decode_threads: int = 2
    max_decode_queue: int = 64
    max_decoded_bytes: int = 2**30
    least_side: int = 1280
    max_people: int = 100
    suppress: bool = True
    cycles: int | None = None
    max_cycles: int = 2


def allowed_cycles(able: Cycles, limits: PipelineLimits) -> Cycles:
    """The cycles that the student can run and the service allows.

    Raises:
        ValueError: the service is set to a number that the student cannot run.
    """
    highest = max(able.lowest, min(able.highest, limits.max_cycles))
    served = min(able.check(limits.cycles), highest)
    return Cycles(able.lowest, highest, served)
