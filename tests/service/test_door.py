"""The door: who may enter, what that costs, and when an answer is due."""

from __future__ import annotations

from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from service.access.callers import Access, Caller
from service.access.keys import Key
from service.admission.door import Door
from service.admission.ticket import Deadlines, Ticket
from service.errors import ErrorCode, ServiceError
from service.parameters import Priority
from service.scheduling.budget import ByteBudget
from tests.service.conftest import rejected
from tests.service.keys import KEY, a_key

pytestmark = pytest.mark.anyio

DEADLINES = Deadlines(longest_s=5.0, default_s=2.0, max_queue_s=1.5)
ANYONE = Caller("anyone")


class Stand:
    """A door for few requests and 100 bytes; `ready` may be taken back."""

    def __init__(self, *keys: Key, max_requests: int = 1) -> None:
        self.shed: list[str] = []
        self.ready = True
        self.access = Access(keys, Priority.NORMAL, lambda: self.shed.append("key_limit"))
        self.memory = ByteBudget(100, "bytes", lambda: self.shed.append("memory"))
        self.door = Door(
            max_requests=max_requests,
            max_calls=2,
            memory=self.memory,
            deadlines=DEADLINES,
            check_ready=self._check_ready,
            shed=self.shed.append,
        )

    def _check_ready(self) -> None:
        if not self.ready:
            raise ServiceError(ErrorCode.UNAVAILABLE, "the service is draining")

    def ticket(self) -> Ticket:
        caller = ANYONE if self.access.open else self.access.identify(KEY, None, None)
        return self.door.ticket(caller)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The moment that tickets and the door see; a test moves it."""
    now = [0.0]
    seen = SimpleNamespace(monotonic=lambda: now[0])
    for module in ("ticket", "door"):
        monkeypatch.setattr(f"service.admission.{module}.time", seen)
    return now


@pytest.mark.parametrize(("requested_ms", "due"), [(1000.0, 11.0), (9000.0, 15.0), (0.0, 10.0)])
def test_deadline(requested_ms: float, due: float) -> None:
    """0 is a deadline that has passed already."""
    ticket = Ticket(ANYONE, DEADLINES, None, started=10.0)
    assert ticket.turn(deadline_ms=requested_ms).deadline == due


@pytest.mark.parametrize(("read_after_s", "due_s"), [(0.0, 2.0), (1.5, 3.5), (4.0, 5.0)])
def test_the_default_deadline_counts_from_when_the_request_was_read(
    clock: list[float], read_after_s: float, due_s: float
) -> None:
    clock[0] = 100.0 + read_after_s
    due = Ticket(ANYONE, DEADLINES, None, started=100.0).turn().deadline
    assert due is not None
    assert due - 100.0 == pytest.approx(due_s)


@pytest.mark.parametrize(("wanted_s", "due_s"), [(1.0, 1.0), (9.0, 5.0), (-1.0, -1.0)])
def test_a_deadline_of_the_headers_is_a_moment(
    clock: list[float], wanted_s: float, due_s: float
) -> None:
    ticket = Stand().door.ticket(ANYONE, wanted_s)
    assert (ticket.started, ticket.due) == (0.0, due_s)
    clock[0] = 0.25
    assert ticket.turn().deadline == ticket.due
    assert ticket.patience_s == pytest.approx(max(0.0, due_s - 0.25))


def test_patience_without_a_deadline_does_not_run_out(clock: list[float]) -> None:
    clock[0] = 60.0
    assert Ticket(ANYONE, DEADLINES, None, started=0.0).patience_s == 1.5
    brief = Deadlines(longest_s=5.0, default_s=0.5, max_queue_s=1.5)
    assert Ticket(ANYONE, brief, None, started=0.0).patience_s == 0.5


def test_a_turn_has_the_share_and_the_priority_of_its_caller() -> None:
    ticket = Ticket(Caller("a", max_priority=Priority.LOW), DEADLINES, None, started=0.0)
    assert (ticket.turn().share, ticket.turn().priority) == ("a", Priority.LOW.order)
    with rejected(ErrorCode.PERMISSION_DENIED):
        ticket.turn(Priority.NORMAL)


async def test_what_is_refused_for_load_is_not_counted_for_its_key() -> None:
    stand = Stand(a_key(requests_per_second=1))
    with stand.door.enter(stand.ticket()):
        for _ in range(3):
            with pytest.raises(ServiceError, match="too many requests are in flight"):
                stand.door.check(stand.ticket())
    stand.ready = False
    for ask in (stand.door.check, lambda ticket: stand.door.enter(ticket).__enter__()):
        with pytest.raises(ServiceError, match="draining"):
            ask(stand.ticket())
    stand.ready = True
    stand.door.check(stand.ticket())
    with pytest.raises(ServiceError, match="requests a second"):
        stand.door.check(stand.ticket())
    stand.door.check(stand.ticket(), request=False)  # a frame of a stream
    assert stand.shed == ["too_many_requests"] * 3 + ["key_limit"]


async def test_what_a_request_held_is_free_when_it_ends() -> None:
    stand = Stand()

    def fail() -> None:
        with stand.door.enter(stand.ticket()) as admission:
            admission.hold(60)
            assert (stand.door.inside.count, stand.memory.used) == (1, 60)
            admission.hold(200)  # alone, so it always fits
            raise ServiceError(ErrorCode.INTERNAL, "failed")

    with pytest.raises(ServiceError, match="failed"):
        fail()
    assert (stand.door.inside.count, stand.memory.used) == (0, 0)
    with stand.door.enter(stand.ticket()):
        pass


async def test_memory_that_others_hold_is_refused() -> None:
    stand = Stand()
    stand.memory.take(90)
    with stand.door.enter(stand.ticket()) as admission:
        admission.expect(10)
        for refused in (admission.expect, admission.hold):
            with pytest.raises(ServiceError, match="too many bytes"):
                refused(11)
        admission.hold(10)
    assert stand.memory.used == 90
    assert stand.shed == ["memory", "memory"]


async def test_people_are_charged_as_they_are_answered() -> None:
    stand = Stand(a_key(crops_per_second=10))
    with stand.door.enter(stand.ticket()) as admission:
        admission.answered(30)
    with pytest.raises(ServiceError, match="crops a second"):
        stand.door.check(stand.ticket())
    with stand.door.enter(stand.ticket()):  # what was let in before goes on
        pass


async def answer(stand: Stand, clock: list[float], *, answered: bool = True) -> None:
    with stand.door.enter(stand.door.ticket(Caller("a"), 1.0)) as admission:
        clock[0] += 0.02
        if answered:
            admission.answered(1)


async def test_a_forecast_tells_early_who_would_wait_too_long(clock: list[float]) -> None:
    stand = Stand(max_requests=100)
    door = stand.door
    for _ in range(20):
        await answer(stand, clock)
    with ExitStack() as inside:
        for _ in range(4):
            inside.enter_context(door.enter(door.ticket(Caller("a"), 5)))
        assert door.inside.count == 4
        assert door.expected_wait_s("a") == pytest.approx(4 * door.expected_wait_s("b"))
        with rejected(ErrorCode.OVERLOADED, match="ahead for this deadline") as refused:
            door.check(door.ticket(Caller("a"), 0.05))
        assert refused.value.retry_after_s == pytest.approx(1.2 * 4 * 0.02 - 0.05)
        door.check(door.ticket(Caller("b"), 0.05))
        door.check(door.ticket(Caller("a"), 1.0))
    assert stand.shed == ["predicted_late"]
    assert door.inside.count == 0
    assert door.expected_wait_s("a") == 0, "an idle service refuses nobody"


async def test_what_fails_early_says_nothing_of_the_pace(clock: list[float]) -> None:
    stand = Stand(max_requests=10)
    for _ in range(5):
        await answer(stand, clock)
    pace = stand.door._seconds_each
    assert pace > 0
    for _ in range(100):
        await answer(stand, clock, answered=False)
    assert stand.door._seconds_each == pace


async def test_open_calls_are_bounded_apart_from_requests() -> None:
    stand = Stand()
    with stand.door.call(ANYONE), stand.door.call(Caller("another")):
        with (
            pytest.raises(ServiceError, match="too many requests are in flight"),
            stand.door.call(Caller("third")),
        ):
            pass
        stand.door.check(stand.ticket())
    assert stand.shed == ["too_many_requests"]
