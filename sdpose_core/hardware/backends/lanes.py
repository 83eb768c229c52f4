"""A batch in equal parts that run at once, each on separate cores.

If all cores share one inference they meet after each of its some four hundred operations, and
the slowest sets the pace: with anything else running on a core that doubles the time. Parts wait
for each other only at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from sdpose_core.hardware.openvino_models import compile_model

PARTS: Final = (2, 1)
"""Items of a part; larger ones are no faster, and each size is a network to compile."""


class Lanes:
    """One network for parts of each size; one caller at a time.

    Args:
        model: Takes ``(B, *shape)``.
        shape: Of one item.
        precision: As for ``compile_model``.
        threads: Cores to use; 0 leaves the choice to OpenVINO.
        parts: Sizes of the parts, descending to 1.

    Attributes:
        count: How many parts run at once, as OpenVINO sees fit for this processor.
    """

    def __init__(
        self,
        model: ov.Model,
        shape: tuple[int, ...],
        precision: str,
        threads: int,
        parts: Sequence[int] = PARTS,
    ) -> None:
        self._requests: dict[int, list[ov.InferRequest]] = {}
        # Kept so that they outlive their requests, and so end in the thread that drops them: a
        # request may be released last by a thread of the network that would go with it.
        self._networks: list[ov.CompiledModel] = []
        for part in parts:
            sized = model.clone()  # shares the weights
            sized.reshape([part, *shape])
            compiled = compile_model(sized, precision, threads, throughput=True)
            self._networks.append(compiled)
            lanes = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
            self._requests[part] = [compiled.create_infer_request() for _ in range(lanes)]
        self.count = min(len(requests) for requests in self._requests.values())

    def run(self, items: NDArray[Any]) -> list[list[NDArray[Any]]]:
        """All outputs for as many of the first items as fill all lanes, part by part."""
        answers: list[list[NDArray[Any]]] = []
        start = 0
        for part, made in self._requests.items():
            requests = made[: self.count]
            while len(items) - start >= part * self.count:
                for request in requests:
                    request.start_async([items[start : start + part]], share_inputs=True)
                    start += part
                for request in requests:
                    request.wait()
                    answers.append([np.array(tensor.data) for tensor in request.output_tensors])
        return answers
