"""The envelope of every call, whichever protocol brought it.

It gives the call an id, a deadline, a trace, a count by outcome and one log line, and turns every
exception into a `ServiceError`. What remains to the front ends is how an error is sent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

import structlog

from service.errors import ErrorCode, ServiceError, as_service_error
from service.telemetry.metrics import Metrics
from service.telemetry.request_ids import request_id_from
from service.telemetry.tracing import Tracer

OK: Final = "ok"
CLIENT_GONE: Final = "client_gone"
"""Outcome of work whose client left before the answer."""

_current: ContextVar[Call] = ContextVar("current_call")
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Call:
    """One call in flight. `started` and deadlines are `time.monotonic()` moments.

    `outcome` is `OK`, `CLIENT_GONE` or the value of an `ErrorCode`; `key` is the name of the key
    that was shown; `details` go into the log line.
    """

    request_id: str
    max_deadline_ms: float
    default_deadline_ms: float
    started: float = field(default_factory=time.monotonic)
    outcome: str = OK
    key: str | None = None
    details: dict[str, object] = field(default_factory=dict)

    def deadline(self, requested_ms: float | None = None) -> float:
        """When the answer is due: after what the client requested, at most the server's limit.

        The server's default counts from now, when the request has been read: a slow line is not
        the caller's fault.
        """
        if requested_ms is None:
            return self.due_in(self.default_deadline_ms / 1e3)
        return self.started + min(requested_ms, self.max_deadline_ms) / 1e3

    def due_in(self, seconds: float) -> float:
        """When the answer is due that is wanted in so many seconds from now."""
        return min(self.started + self.max_deadline_ms / 1e3, time.monotonic() + seconds)


def current_call() -> Call:
    """The call that the running task works for."""
    return _current.get()


class Calls:
    """Opens envelopes; one object per runtime."""

    def __init__(
        self, metrics: Metrics, tracer: Tracer, max_deadline_ms: float, default_deadline_ms: float
    ) -> None:
        self._metrics = metrics
        self._tracer = tracer
        self._max_deadline_ms = max_deadline_ms
        self._default_deadline_ms = default_deadline_ms

    @contextmanager
    def open(
        self, name: str, header: Callable[[str], str | None], api: str | None
    ) -> Iterator[Call]:
        """Everything inside the block belongs to one call.

        Args:
            name: of the span and in the log, such as `POST /pose`.
            header: looks up a header of the call by its name in lower case.
            api: label of the request metrics; None: neither counted nor traced.

        Raises:
            ServiceError: for any exception of the block; unknown ones are logged and become
                `internal` without detail. Cancellation passes through.
        """
        call = Call(
            request_id_from(header("x-request-id")),
            self._max_deadline_ms,
            self._default_deadline_ms,
        )
        token = _current.set(call)
        with structlog.contextvars.bound_contextvars(request_id=call.request_id):
            try:
                traceparent = {"traceparent": header("traceparent") or ""}
                with self._tracer.request(name, traceparent) if api else nullcontext():
                    yield call
            except ServiceError as error:
                call.outcome = error.code.value
                call.details["detail"] = error.message
                raise
            except Exception as error:
                call.outcome = ErrorCode.INTERNAL.value
                _log.exception("call failed", call=name)
                raise as_service_error(error) from error
            except BaseException:
                if call.outcome == OK:
                    call.outcome = CLIENT_GONE
                raise
            finally:
                _current.reset(token)
                self._end(call, name, api)

    def _end(self, call: Call, name: str, api: str | None) -> None:
        seconds = time.monotonic() - call.started
        if api:
            self._metrics.request(api, call.outcome, seconds, call.key)
        if call.key is not None:
            call.details["key"] = call.key
        _log.log(
            logging.DEBUG if call.outcome == OK or not api else logging.INFO,
            "call",
            call=name,
            outcome=call.outcome,
            ms=round(seconds * 1e3, 2),
            **call.details,
        )
