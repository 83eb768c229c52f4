"""What a request holds that was let in: the way to the models, for one caller."""

from __future__ import annotations

from sdpose_core.types import Floats, Image
from service.access.callers import Caller
from service.admission.request_limit import Place
from service.parameters import PoseParameters, Priority
from service.pipeline.pipeline import PosePipeline
from service.pipeline.results import PoseResult


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
        priority = self._caller.priority(parameters.priority)
        result = await self._pipeline.estimate(
            source,
            parameters.model_copy(update={"priority": priority}),
            boxes,
            deadline=deadline,
            keep_image=keep_image,
            share=self._caller.share,
        )
        self._caller.charge(len(result.poses))
        self._place.answered = True
        return result

    async def draw(
        self, result: PoseResult, *, priority: Priority | None = None, deadline: float
    ) -> bytes:
        """As `PosePipeline.draw`."""
        priority = self._caller.priority(priority)
        return await self._pipeline.draw(
            result, priority=priority, deadline=deadline, share=self._caller.share
        )
