"""Overload: what is answered, how fast the rest is rejected, and the time after.

Requests arrive at fixed times, whether or not earlier ones have been answered (an open loop, as
many independent callers make it): a closed loop would slow down with the service and show nothing.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from service.bench.load import RestConnection, closed_loop
from service.bench.server import Server, started
from service.bench.tables import machine, markdown, percentile
from service.cli.bench_shared import Images, progress_line, read_images

Progress = Callable[[str], None]
_AFTER_S = 6.0
_CALM = 0.25
"""Load before and after, as a part of the peak."""
_FEW = 0.05
_KINDS = (
    (200, "answered", "tab:blue"),
    (429, "rejected (429)", "tab:orange"),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One request: when it was sent (seconds from the start), when answered, and the status."""

    sent_s: float
    done_s: float
    status: int
    retry_after: bool

    @property
    def took_s(self) -> float:
        """From sending to the answer."""
        return self.done_s - self.sent_s


@dataclass(slots=True)
class Run:
    """Calm, then overload from `begin_s` to `end_s`, then calm again; `peak` is in answers/s."""

    peak: float
    times: float
    begin_s: float
    end_s: float
    answers: list[Answer] = field(default_factory=list)

    def between(self, begin_s: float, end_s: float) -> list[Answer]:
        """Those that were sent then."""
        return [each for each in self.answers if begin_s <= each.sent_s < end_s]

    @property
    def goodput(self) -> float:
        """Answers a second with people in them, that came while the overload lasted."""
        # From its second second on: before, the queue fills.
        came = [
            each
            for each in self.answers
            if each.status == 200 and self.begin_s + 1 <= each.done_s < self.end_s
        ]
        return len(came) / (self.end_s - self.begin_s - 1)

    def recovery_s(self) -> float:
        """Time after the overload from which on 95 of 100 take at most twice the usual time."""
        usual = median(each.took_s for each in self.between(0, self.begin_s))
        after = sorted(self.between(self.end_s, float("inf")), key=lambda each: each.sent_s)
        late = [each.status != 200 or each.took_s > 2 * usual for each in after]
        for number, each in enumerate(after):
            if sum(late[number:]) <= _FEW * len(late[number:]):
                return each.sent_s - self.end_s
        return float("inf")

    def table(self) -> str:
        """Requests, answers and rejections; in Markdown."""
        calm = self.between(0, self.begin_s)
        hard = self.between(self.begin_s, self.end_s)
        good = [each.took_s * 1e3 for each in hard if each.status == 200]
        rejected = [each for each in hard if each.status == 429]
        others = [each.status for each in hard if each.status not in (200, 429)]
        waits = [each.took_s * 1e3 for each in rejected]
        rows = [
            ["peak, closed loop, images/s", f"{self.peak:.1f}"],
            ["requested, images/s", f"{len(hard) / (self.end_s - self.begin_s):.1f}"],
            ["answered, images/s", f"{self.goodput:.1f}"],
            ["answered, of peak", f"{self.goodput / self.peak:.2f}"],
            ["calm before, p50 ms", _ms([each.took_s * 1e3 for each in calm], 0.5)],
            ["accepted, p50 and p99 ms", f"{_ms(good, 0.5)} and {_ms(good, 0.99)}"],
            ["rejected with 429", str(len(rejected))],
            ["of them without Retry-After", str(sum(not each.retry_after for each in rejected))],
            ["rejection, p50 and p99 ms", f"{_ms(waits, 0.5)} and {_ms(waits, 0.99)}"],
            ["any other answer", str(len(others)) + (f": {sorted(set(others))}" if others else "")],
            ["as before after, s", f"{self.recovery_s():.1f}"],
        ]
        return markdown(["overload", f"{self.times:g} times the peak"], rows)


def _ms(values: Sequence[float], share: float) -> str:
    return f"{percentile(values, share):.0f}" if values else "none"


def run_overload(
    server: Server, images: Sequence[bytes], times: float, seconds: float, progress: Progress
) -> Run:
    """Calm for as long as afterwards, then `times` the peak for `seconds`."""
    return asyncio.run(_run(server, images, times, seconds, progress))


async def _run(
    server: Server, images: Sequence[bytes], times: float, seconds: float, progress: Progress
) -> Run:
    progress("measuring the peak")
    before = await _peak(server, images, seconds)
    peak = before
    run = Run(peak, times, _AFTER_S, _AFTER_S + seconds)
    progress(f"{times:g} times {peak:.0f} images per second")
    async with AsyncExitStack() as stack:
        callers = _Callers(server, stack, run.answers)
        for rate, end_s in (
            (_CALM * peak, run.begin_s),
            (times * peak, run.end_s),
            (_CALM * peak, run.end_s + _AFTER_S),
        ):
            await callers.ask(images, rate, end_s)
        await callers.all_answered()
    progress("measuring the peak again")
    # Machines change their pace: the overload lies between the two.
    return replace(run, peak=(before + await _peak(server, images, seconds)) / 2)


async def _peak(server: Server, images: Sequence[bytes], seconds: float) -> float:
    connections = [RestConnection(server.host, server.http_port) for _ in range(16)]
    return (await closed_loop(connections, images, seconds=seconds)).rate


class _Callers:
    """As many connections as there are requests in flight."""

    def __init__(self, server: Server, stack: AsyncExitStack, answers: list[Answer]) -> None:
        self._server = server
        self._stack = stack
        self._answers = answers
        self._idle: list[RestConnection] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._began = time.perf_counter()
        self._next_s = 0.0
        # In turn, an even pace of rejections would admit the same image again and again.
        self._dice = random.Random(1)  # noqa: S311 - only which image is next

    async def ask(self, images: Sequence[bytes], rate: float, end_s: float) -> None:
        """Requests at a fixed rate until then."""
        while self._next_s < end_s:
            wait_s = self._began + self._next_s - time.perf_counter()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            task = asyncio.create_task(self._one(self._dice.choice(images)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self._next_s += 1 / rate

    async def all_answered(self) -> None:
        """Returns when nothing is in flight."""
        await asyncio.gather(*self._tasks)

    async def _one(self, image: bytes) -> None:
        if self._idle:
            connection = self._idle.pop()
        else:
            connection = RestConnection(self._server.host, self._server.http_port)
            await self._stack.enter_async_context(connection)
        sent_s = time.perf_counter() - self._began
        status, head, _ = await connection.exchange(image)
        done_s = time.perf_counter() - self._began
        self._answers.append(Answer(sent_s, done_s, status, "retry-after:" in head))
        self._idle.append(connection)


def draw(run: Run, path: Path) -> None:
    """Writes a PNG: latency over the time of sending, and answers a second below."""
    # No pyplot: it would look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    latency, rate = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for status, name, colour in _KINDS:
        of_kind = [each for each in run.answers if each.status == status]
        latency.scatter(
            [each.sent_s for each in of_kind],
            [max(each.took_s * 1e3, 0.1) for each in of_kind],
            s=5,
            alpha=0.6,
            label=name,
            color=colour,
        )
    latency.set_yscale("log")
    latency.set_ylabel("ms until the answer")
    latency.legend(loc="upper left")
    whole = range(int(run.answers[-1].sent_s) + 1)
    for status, name, colour in _KINDS:
        a_second = _each_second(run.answers, status, len(whole))
        rate.step(whole, a_second, where="post", label=name, color=colour)
    rate.axhline(run.peak, color="grey", linestyle="--", linewidth=1)
    rate.text(0, run.peak, " peak, closed loop", va="bottom", color="grey", fontsize=8)
    rate.set_ylabel("a second")
    rate.set_xlabel("seconds")
    for axes in (latency, rate):
        axes.axvspan(run.begin_s, run.end_s, color="grey", alpha=0.1, linewidth=0)
        axes.grid(alpha=0.3)
    latency.set_title(f"{run.times:g} times the peak while grey")
    figure.savefig(path, dpi=110)


def _each_second(answers: list[Answer], status: int, seconds: int) -> list[int]:
    done = [int(each.done_s) for each in answers if each.status == status]
    return [done.count(second) for second in range(seconds)]


def main(
    images: Images = None,
    times: Annotated[float, typer.Option(min=1, help="Of the peak rate.")] = 5.0,
    seconds: Annotated[float, typer.Option(min=3, help="Length of the overload.")] = 15.0,
    plot: Annotated[Path | None, typer.Option(help="PNG file to draw; needs matplotlib.")] = None,
    large: Annotated[bool, typer.Option(help="Whole images, not their people.")] = False,
) -> None:
    """Several times more requests than the service can answer, and the time after."""
    typer.echo(f"{machine()}\n")
    files = read_images(images, small=not large)
    with started({}) as server:
        run = run_overload(server, files, times, seconds, progress_line)
    typer.echo(run.table())
    if plot is not None:
        draw(run, plot)
