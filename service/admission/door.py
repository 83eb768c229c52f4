"""Admission control: every rejection of a request before its work begins is decided here."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Final

from service.access.callers import Caller
from service.admission.ticket import Deadlines, Ticket
from service.errors import overloaded
from service.scheduling.budget import ByteBudget
from service.scheduling.in_flight import InFlight
from service.scheduling.shares import FairBound
from service.telemetry.observers import ShedReason

_MARGIN: Final = 1.2
"""The forecast knows nothing of what the requests ahead contain."""
_RECENT: Final = 50
"""Answers over which the pace is averaged."""


class Admission:
    """An admitted request: the memory that it holds, and whether it was answered."""

    def __init__(self, caller: Caller, memory: ByteBudget) -> None:
        self.is_answered = False
        self._caller = caller
        self._memory = memory
        self._held = 0

    def expect(self, size: int) -> None:
        """So many bytes are announced; raises `ServiceError` overloaded if they do not fit.

        Nothing is set aside for them: else a client that never sends them would shut out others.
        """
        self._memory.check(size, held=self._held, share=self._caller.share)

    def hold(self, size: int) -> None:
        """So many bytes have come; raises `ServiceError` overloaded if they do not fit."""
        self._memory.take(size, held=self._held, share=self._caller.share)
        self._held += size

    def answered(self, people: int) -> None:
        """One image of the request is answered, with so many people: its caller is charged."""
        self._caller.charge(people)
        self.is_answered = True

    def end(self) -> None:
        """Gives back what it holds."""
        self._memory.give_back(self._held, share=self._caller.share)


class Door:
    """Lets requests in by their tickets. All of it belongs to the event loop.

    Args:
        max_requests: in flight.
        max_calls: of gRPC that are open.
        memory: for what all requests have sent.
        deadlines: of the service.
        check_ready: raises `ServiceError` unavailable while no request may enter.
        shed: called with the reason of each rejection for load.

    Attributes:
        inside: the requests in flight.
    """

    def __init__(
        self,
        *,
        max_requests: int,
        max_calls: int,
        memory: ByteBudget,
        deadlines: Deadlines,
        check_ready: Callable[[], object],
        shed: Callable[[ShedReason], None],
    ) -> None:
        self.inside = InFlight()
        self._requests = FairBound(max_requests)
        self._calls = FairBound(max_calls)
        self._memory = memory
        self._deadlines = deadlines
        self._check_ready = check_ready
        self._shed = shed
        self._seconds_each = 0.0
        self._answers = 0
        self._since = 0.0

    def ticket(self, caller: Caller, wanted_s: float | None = None) -> Ticket:
        """The ticket of a request that comes now; its headers leave `wanted_s` for the answer."""
        started = time.monotonic()
        due = None if wanted_s is None else started + min(wanted_s, self._deadlines.longest_s)
        return Ticket(caller, self._deadlines, due, started)

    def check(self, ticket: Ticket, *, request: bool = True) -> None:
        """Whether it could enter, checked before it is read; a frame of a stream is no `request`.

        Raises `ServiceError` unauthenticated (its key has expired or is gone), overloaded at a
        limit of its key, or as `check_room`.
        """
        ticket.caller.check(request=request)
        self.check_room(ticket)
        if request:
            ticket.caller.spend_request()

    def check_room(self, ticket: Ticket) -> None:
        """Whether there is room for a request, whatever its key may still do.

        Raises `ServiceError` unavailable unless ready; overloaded at the maximum of requests, at
        this caller's part of it, or if the answer would come too late.
        """
        self._check_ready()
        share = ticket.caller.share
        self._check_bound(self._requests, share)
        late_s = _MARGIN * self.expected_wait_s(share) - ticket.patience_s
        if late_s > 0:
            self._shed("predicted_late")
            raise overloaded("too many requests are ahead for this deadline", late_s)

    def expected_wait_s(self, share: Hashable) -> float:
        """A forecast of the time to the answer of one more request of a share.

        The requests ahead at the pace of the recent answers. Of another share only as many are
        ahead as this one would have, since shares go round.
        """
        return self._requests.ahead(share) * self._seconds_each

    @contextmanager
    def enter(self, ticket: Ticket) -> Iterator[Admission]:
        """Lets one request in until the block ends. Raises `ServiceError` as `check_room`."""
        self.check_room(ticket)
        if not self.inside.count:
            self._since = time.monotonic()
        with self._requests.taken(ticket.caller.share), self.inside:
            admission = Admission(ticket.caller, self._memory)
            try:
                yield admission
            finally:
                admission.end()
                if admission.is_answered:  # errors are quick, and would make the pace look fast
                    self._note_pace()

    @contextmanager
    def call(self, caller: Caller) -> Iterator[None]:
        """One more call of gRPC, bounded apart: it lasts until its client has read the answer.

        Raises `ServiceError` overloaded.
        """
        self._check_bound(self._calls, caller.share)
        with self._calls.taken(caller.share):
            yield

    def _check_bound(self, bound: FairBound, share: Hashable) -> None:
        if not bound.fits(share):
            self._shed("too_many_requests")
            raise overloaded("too many requests are in flight")

    def _note_pace(self) -> None:
        now = time.monotonic()
        self._answers += 1
        weight = 1 / min(self._answers, _RECENT)
        self._seconds_each += weight * (now - self._since - self._seconds_each)
        self._since = now
