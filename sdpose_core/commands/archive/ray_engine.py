"""An archive on a Ray cluster, with Ray Data.

Each part is one item of a dataset, and each worker is an actor with the models loaded that reads,
estimates and writes whole parts. Ray moves names and counts between machines, never
images. Ray starts a worker that died again and gives its part to one that lives; the part then
has the same name as before, so that nothing is there twice.
"""

from __future__ import annotations

import logging
import math
import pickle
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

import ray

from sdpose_core.commands.archive.output import ArchiveOutput, Part
from sdpose_core.commands.archive.work import give_up, work_on
from sdpose_core.commands.options import RunOptions
from sdpose_core.commands.predict import Estimate, Interrupted
from sdpose_core.commands.tally import Tally
from sdpose_core.commands.watch import Watch
from sdpose_core.files.outputs import OutputError
from sdpose_core.hardware.ray_cluster import ClusterError
from sdpose_core.messages import error_line

_ATTEMPTS: Final = 3
"""At a part whose worker died. Ray would go on for ever with one that always kills it."""


class _Attempts:
    """Counts how often each part was begun; outlives the workers."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, name: str) -> int:
        self._begun[name] += 1
        return self._begun[name]


class _Worker:
    """Lives on a machine of the cluster with the models loaded; a row is a part."""

    def __init__(
        self,
        output: ArchiveOutput,
        options: RunOptions,
        build: Callable[[], Estimate],
        attempts: Any,
    ) -> None:
        self._output, self._options, self._attempts = output, options, attempts
        self._estimate: Estimate | Exception
        try:
            self._estimate = build()
        except Exception as error:  # noqa: BLE001 - Ray would bury it, and build again and again
            self._estimate = error

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        part: Part = pickle.loads(row["part"])  # noqa: S301 - of the driver
        try:
            return {"sources": len(part.sources), "result": pickle.dumps(self._result(part))}
        except Exception as error:  # noqa: BLE001 - of whatever kind, the driver raises it
            return {"sources": 0, "result": pickle.dumps(_carried(error))}

    def _result(self, part: Part) -> Tally:
        if isinstance(self._estimate, Exception):
            raise self._estimate
        if ray.get(self._attempts.begin.remote(part.name)) > _ATTEMPTS:
            return give_up(part, self._output, f"the worker died {_ATTEMPTS} times over this part")
        return work_on(part, self._output, self._estimate, self._options)


def _carried(error: Exception) -> Exception:
    """The error that the driver raises in its place; of some kinds only the text can travel."""
    if isinstance(error, OutputError):
        return error
    return ClusterError(str(error) or type(error).__name__)


def run_on_ray(
    parts: Iterable[Part],
    output: ArchiveOutput,
    options: RunOptions,
    watch: Watch,
    *,
    build: Callable[[], Estimate] | None = None,
    workers: int | None = None,
) -> Tally:
    """Work on the parts with the workers of the cluster that is connected to.

    Args:
        parts: what to do.
        output: where it goes: an address or folder that every machine sees.
        options: the models, batch size and their parameters.
        watch: follows the run by parts, and may end it after one.
        build: loads the models; None as the options say.
        workers: at most so many; None for one per GPU, or one per machine without a GPU.

    Raises:
        Interrupted: ``watch`` is stopping; parts that are not complete are not there.
        ClusterError: a part failed, or killed its worker, again and again.
        OutputError: a part cannot be written.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # its errors are raised as well
    gpus = int(ray.cluster_resources().get("GPU", 0))
    machines = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    most = workers or gpus or len(machines)
    # All processors of a machine are its workers': Ray sets the libraries' threads to that.
    cpus = max(1, min(machines) // math.ceil(most / len(machines)))
    attempts = ray.remote(num_cpus=0)(_Attempts).remote()
    items = [{"part": pickle.dumps(part)} for part in parts]
    dataset = ray.data.from_items(items, override_num_blocks=max(1, len(items))).map(
        _Worker,
        fn_constructor_args=(output, options, build or options.build, attempts),
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=most, max_tasks_in_flight_per_actor=2
        ),
        num_cpus=cpus,
        num_gpus=1 if gpus else None,
    )
    total = Tally()
    try:
        for row in dataset.iter_rows():
            result: Tally | Exception = pickle.loads(row["result"])  # noqa: S301 - our worker
            if isinstance(result, Exception):
                raise result
            total += result
            for line in result.failures:
                watch.report(line)
            watch.advance(row["sources"])
            if watch.stopping:
                raise Interrupted
    except ray.exceptions.RayError as error:
        raise ClusterError(f"Ray stopped: {error_line(error)}") from error
    return total
