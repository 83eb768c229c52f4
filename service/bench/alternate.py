"""Candidates measured side by side, so that a drift of the machine meets all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import TypeVar

Call = Callable[[], object]
Key = TypeVar("Key", bound=Hashable)
T = TypeVar("T")


def in_turns(
    candidates: Mapping[Key, Callable[[], T]], rounds: int, progress: Callable[[str], None]
) -> dict[Key, list[T]]:
    """Results of each candidate: `2 * rounds` values, visited in the order A B B A."""
    values: dict[Key, list[T]] = {key: [] for key in candidates}
    there = list(candidates)
    for number in range(rounds):
        for key in (*there, *reversed(there)):
            progress(f"round {number + 1} of {rounds}: {key}")
            values[key].append(candidates[key]())
    return values


def alternate(
    calls: Mapping[str, Call], rounds: int, seconds: float, progress: Callable[[str], None]
) -> dict[str, list[float]]:
    """Calls per second of each candidate: `2 * rounds` values of `seconds` each, `in_turns`.

    Each is called once before: what the first run of a size costs is none of a server's daily work.
    """
    for call in calls.values():
        call()
    rates = {name: partial(_per_second, call, seconds) for name, call in calls.items()}
    return in_turns(rates, rounds, progress)


def _per_second(call: Call, seconds: float) -> float:
    runs, started = 0, time.perf_counter()
    while True:
        call()
        runs += 1
        spent = time.perf_counter() - started
        if spent >= seconds:
            return runs / spent
