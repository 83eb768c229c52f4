"""Whose message is read next, and how many at a time."""

from __future__ import annotations

import asyncio

import pytest

from service.admission.incoming import Incoming
from service.errors import ErrorCode
from service.scheduling.budget import ByteBudget
from tests.service.conftest import rejected

pytestmark = pytest.mark.anyio


class Stand:
    """Room for ten messages of 10 bytes; notes who is read, and holds them until told."""

    def __init__(self) -> None:
        self.budget = ByteBudget(200, "bytes", lambda: None)
        self.incoming = Incoming(self.budget, 10)
        self.reading: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}

    def start(self, name: str, patience_s: float = 5.0) -> asyncio.Task[None]:
        self.gates[name] = asyncio.Event()
        return asyncio.create_task(self._read(name, patience_s))

    async def _read(self, name: str, patience_s: float) -> None:
        async with self.incoming.message(name[0], patience_s):
            self.reading.append(name)
            await self.gates[name].wait()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_burst_of_one_caller_waits_and_is_not_refused() -> None:
    stand = Stand()
    tasks = [stand.start(f"a{number}") for number in range(40)]
    await settled()
    assert len(stand.reading) == 8, "four fifths of the ten"
    assert stand.budget.used == 80
    for gate in stand.gates.values():
        gate.set()
    await asyncio.gather(*tasks)
    assert len(stand.reading) == 40
    assert stand.budget.used == 0


async def test_slow_lines_of_one_caller_leave_room_for_others() -> None:
    stand = Stand()
    slow = [stand.start(f"a{number}") for number in range(30)]
    await settled()
    for number in range(5):
        quick = stand.start(f"b{number}")
        await settled()
        assert f"b{number}" in stand.reading
        stand.gates[f"b{number}"].set()
        await quick
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    assert stand.budget.used == 0
    last = stand.start("c")
    await settled()
    assert "c" in stand.reading, "those that went away hold nothing"
    last.cancel()


async def test_who_waits_too_long_is_overloaded() -> None:
    stand = Stand()
    held = [stand.start(f"{share}{number}") for share in "abcd" for number in range(3)]
    await settled()
    assert len(stand.reading) == 10
    with rejected(ErrorCode.OVERLOADED):
        await stand.start("e1", 0.02)
    for gate in stand.gates.values():
        gate.set()
    await asyncio.gather(*held)
    assert stand.budget.used == 0
    assert not stand.incoming._waiting
    assert not stand.incoming._room._held
