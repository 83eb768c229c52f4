"""Runs the inputs of one kind in a process of its own, which a crash ends and not the whole."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

SLOWEST_S = 1.0
MOST_MEMORY = 512 * 2**20


@dataclass
class Outcome:
    """What became of the inputs of one kind."""

    kind: str
    tried: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    grown_bytes: int = 0
    faults: list[str] = field(default_factory=list)


def run(kind: str, numbers: range) -> Outcome:
    """Every input of these numbers; goes on behind one that crashes its process."""
    outcome = Outcome(kind)
    start = numbers.start
    context = multiprocessing.get_context("spawn")
    while start < numbers.stop:
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(kind, range(start, numbers.stop), there))
        process.start()
        there.close()
        reached = _listen(here, outcome, start)
        process.join(30)
        if reached is None:
            outcome.faults.append(f"{kind}: cannot be tried: {process.exitcode}")
            break
        if reached >= numbers.stop:
            break
        outcome.faults.append(f"{kind} {reached}: the process ended with {process.exitcode}")
        outcome.tried += 1
        start = reached + 1
    return outcome


def _listen(connection: Connection, outcome: Outcome, start: int) -> int | None:
    """Takes what the process tells; returns the number at which it ended, None before the first."""
    number = None
    try:
        connection.recv()
        number = start
        while True:
            told = connection.recv()
            if told is None:
                outcome.grown_bytes = max(outcome.grown_bytes, connection.recv())
                return number
            number, answer, seconds, fault = told
            number += 1
            outcome.tried += 1
            outcome.answers[answer] += 1
            outcome.slowest_s = max(outcome.slowest_s, seconds)
            if fault:
                outcome.faults.append(fault)
    except EOFError:
        return number


def _work(kind: str, numbers: range, connection: Connection) -> None:
    import io

    from service.telemetry.logs import configure_logs
    from tests.fuzz.kinds import KINDS, VALUES

    configure_logs("error", "json", io.StringIO())
    made = {**KINDS, **VALUES}[kind][0]()
    with made.opened() as (read, memory):
        for seed in made.seeds[:3]:  # what is loaded at the first use takes its time then
            read(seed)
        before = memory()
        connection.send("ready")
        for number in numbers:
            data = made.input(kind, number)
            answer, fault = "fault", ""
            seconds = float("inf")
            for _ in range(3):  # a machine that others use may be slow once
                began = time.perf_counter()
                try:
                    answer = read(data)
                except BaseException:  # noqa: BLE001 - told as a fault
                    fault = f"{kind} {number}: {traceback.format_exc()}"
                seconds = min(seconds, time.perf_counter() - began)
                if fault or seconds <= SLOWEST_S:
                    break
            else:
                fault = f"{kind} {number}: took {seconds:.1f} s"
            connection.send((number, answer, seconds, fault))
        connection.send(None)
        connection.send(memory() - before)
