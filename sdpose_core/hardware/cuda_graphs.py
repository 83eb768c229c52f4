"""Networks as CUDA graphs: one launch for a whole forward pass.

A small network on a large GPU spends most of its time launching kernels. A CUDA graph records the
launches of one input shape once and repeats them with a single call (PyTorch,
``torch.cuda.CUDAGraph``).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor

Function: TypeAlias = Callable[..., Tensor]
"""Takes a tensor and hashable options, gives a tensor; only work on the device, no copies to the
host."""
Capture: TypeAlias = Callable[[Function, Tensor, tuple[Hashable, ...]], Callable[[Tensor], Tensor]]

_log = logging.getLogger(__name__)

TOLERANCE: Final = 0.02
"""Largest difference between a replay and a call, in units of the largest value: libraries may pick
other kernels for each."""
WARM_RUNS: Final = 3
"""Calls before a capture, in which libraries pick kernels and allocate their workspaces."""


class GraphedCalls:
    """A function whose calls are replayed from a CUDA graph, one per shape of its input.

    The first call with a shape records it, which takes a fraction of a second, and compares the
    replay with a call: if recording fails or the two differ, that shape runs without a graph and
    a warning is logged. Any number of threads may call; their calls follow each other, on whatever
    streams.

    Args:
        function: See ``Function``. Its output must depend on nothing else that changes.
        limit: Maximum number of graphs, each of which keeps its input and output on the device;
            further shapes run without one.
        capture: Records one call; for tests.
    """

    def __init__(
        self, function: Function, *, limit: int = 64, capture: Capture | None = None
    ) -> None:
        self._function = function
        self._limit = limit
        self._capture = capture or CudaCapture()
        self._lock = threading.Lock()
        self._replays: dict[Hashable, Callable[[Tensor], Tensor] | None] = {}

    @property
    def recorded(self) -> int:
        """For how many shapes recording was tried."""
        return len(self._replays)

    @torch.inference_mode()
    def __call__(self, inputs: Tensor, *options: Hashable) -> Tensor:
        """As the function; the result is the caller's own."""
        key = (inputs.shape, inputs.dtype, inputs.stride(), options)
        with self._lock:
            if key not in self._replays and self.recorded < self._limit:
                self._replays[key] = self._record(inputs, options)
            replay = self._replays.get(key)
            return self._function(inputs, *options) if replay is None else replay(inputs)

    def _record(
        self, inputs: Tensor, options: tuple[Hashable, ...]
    ) -> Callable[[Tensor], Tensor] | None:
        expected = self._function(inputs, *options)
        try:
            replay = self._capture(self._function, inputs, options)
            found = replay(inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            _log.warning("no CUDA graph for inputs of %s: %s", tuple(inputs.shape), error)
            return None
        allowed = TOLERANCE * float(expected.abs().max())
        if not float((found - expected).abs().max()) <= allowed:
            _log.warning("no CUDA graph for inputs of %s: it replays wrongly", tuple(inputs.shape))
            return None
        return replay


class CudaCapture:
    """Records calls as CUDA graphs that share their intermediate memory.

    Sharing is safe because ``GraphedCalls`` replays one at a time and copies each result; replays
    on different streams wait for each other here.
    """

    def __init__(self) -> None:
        self._pool: Any = None
        self._done: torch.cuda.Event | None = None

    def __call__(
        self, function: Function, inputs: Tensor, options: tuple[Hashable, ...]
    ) -> Callable[[Tensor], Tensor]:
        """A call that repeats ``function`` for inputs of the same shape, type and layout."""
        with torch.cuda.device(inputs.device):
            if self._pool is None or self._done is None:
                self._pool = torch.cuda.graph_pool_handle()
                self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done = self._done
            held = inputs.clone()
            present, aside = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
            present.wait_event(done)
            aside.wait_stream(present)
            with torch.cuda.stream(aside):
                for _ in range(WARM_RUNS):
                    function(held, *options)
            present.wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            # Other threads go on allocating and copying meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                answer = function(held, *options)

        def replay(given: Tensor) -> Tensor:
            with torch.cuda.device(given.device):
                stream = torch.cuda.current_stream()
                stream.wait_event(done)
                held.copy_(given)
                graph.replay()
                result = answer.clone()
                done.record(stream)
            return result

        return replay
