"""Candidates timed side by side, so that a drift of the machine meets all alike."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping

Call = Callable[[], object]


def alternate(
    calls: Mapping[str, Call], rounds: int, seconds: float, progress: Callable[[str], None]
) -> dict[str, list[float]]:
    """Calls per second of each candidate: `2 * rounds` values of `seconds` each.

    They are visited in the order A B B A. Each is called once before: what the first run of a size
    costs is none of a server's daily work.
    """
    for call in calls.values():
        call()
    rates: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}")
        there = list(calls.items())
        for name, call in [*there, *reversed(there)]:
            rates[name].append(_per_second(call, seconds))
    return rates


def _per_second(call: Call, seconds: float) -> float:
    runs, started = 0, time.perf_counter()
    while True:
        call()
        runs += 1
        spent = time.perf_counter() - started
        if spent >= seconds:
            return runs / spent
