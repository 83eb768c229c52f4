"""What a request holds that was let in: the way to the models, for one caller."""

from __future__ import annotations

from sdpose_core.types import Floats, Image
from service.access.callers import Caller
from service.admission.request_limit import Place
from service.parameters import PoseParameters, Priority
from service.pipeline.pipeline import PosePipeline
from service.pipeline.results import PoseResult
from service.scheduling.turns import Turn


class Permit:
    """Made by `Runtime.permit`, and good until that block ends."""

    def __init__(self, pipeline: PosePipeline, caller: Caller, place: Place) -> None:
        self._pipeline = pipeline
        self._caller = caller
        self._place = place

    async def estimate(
        self,
        source: bytes | Image,
        parameters: PoseParameters,
        boxes: Floats | None = None,
        *,
        deadline: float,
        keep_image: bool = False,
    ) -> PoseResult:
        """As `PosePipeline.estimate`, in the caller's turn and at its cost.

        Raises `ServiceError`, also permission_denied for a priority that is not the caller's.
        """
        turn = self._turn(parameters.priority, deadline)
        result = await self._pipeline.estimate(
            source, parameters, boxes, turn=turn, keep_image=keep_image
        )
        self._caller.charge(len(result.poses))
        self._place.answered = True
        return result

    async def draw(
        self, result: PoseResult, *, priority: Priority | None = None, deadline: float
    ) -> bytes:
        """As `PosePipeline.draw`."""
        return await self._pipeline.draw(result, self._turn(priority, deadline))

    def _turn(self, priority: Priority | None, deadline: float) -> Turn:
        return Turn(self._caller.share, self._caller.priority(priority).order, deadline)
