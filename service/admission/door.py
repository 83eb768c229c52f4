"""The door: whether a request may enter. Every refusal before its work begins is decided here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.access.callers import Caller
from service.admission.request_limit import RequestLimit
from service.admission.ticket import Deadlines, Ticket
from service.scheduling.budget import ByteBudget
from service.scheduling.in_flight import InFlight


class Admission:
    """What a request holds that was let in: memory, and whether it was answered."""

    def __init__(self, caller: Caller, memory: ByteBudget) -> None:
        self.is_answered = False
        self._caller = caller
        self._memory = memory
        self._held = 0

    def expect(self, size: int) -> None:
        """So many bytes are announced; raises `ServiceError` overloaded where they do not fit.

        Nothing is set aside for them: else a client that never sends them would shut out others.
        """
        self._memory.check(size, held=self._held, share=self._caller.share)

    def hold(self, size: int) -> None:
        """So many bytes have come; raises `ServiceError` overloaded where they do not fit."""
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
        requests: how many may be in flight, and the forecast of their answers.
        memory: for what all of them have sent.
        deadlines: of the service.
        check_ready: raises `ServiceError` unavailable while no request may enter.
    """

    def __init__(
        self,
        requests: RequestLimit,
        memory: ByteBudget,
        deadlines: Deadlines,
        check_ready: Callable[[], object],
    ) -> None:
        self.inside = InFlight()
        self._requests = requests
        self._memory = memory
        self._deadlines = deadlines
        self._check_ready = check_ready

    def ticket(self, caller: Caller, wanted_s: float | None = None) -> Ticket:
        """That of a request which comes now; `wanted_s` is what its headers leave for an answer."""
        started = time.monotonic()
        due = None if wanted_s is None else started + min(wanted_s, self._deadlines.longest_s)
        return Ticket(caller, self._deadlines, due, started)

    def check(self, ticket: Ticket, *, request: bool = True) -> None:
        """Whether it could enter, asked before it is read; a frame of a stream is no `request`.

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
        this caller's part of it, or where the answer would come too late.
        """
        self._check_ready()
        self._requests.check(ticket.caller.share, ticket.patience_s)

    @contextmanager
    def enter(self, ticket: Ticket) -> Iterator[Admission]:
        """Lets one request in until the block ends. Raises `ServiceError` as `check_room`."""
        self._check_ready()
        with self._requests.taken(ticket.caller.share, ticket.patience_s), self.inside:
            admission = Admission(ticket.caller, self._memory)
            try:
                yield admission
            finally:
                admission.end()
                if admission.is_answered:
                    self._requests.note_answer()
