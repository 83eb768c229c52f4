"""The envelope of every call, whichever protocol brought it.

It gives the call an id, a trace, a count by outcome and one log line, and turns every
exception into a `ServiceError`. What remains to the front ends is how an error is sent.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

import structlog

from service.errors import ErrorCode, ServiceError, as_service_error
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import Tracer

OK: Final = "ok"
CLIENT_GONE: Final = "client_gone"
"""Outcome of work whose client left before the answer."""

_current: ContextVar[Call] = ContextVar("current_call")
_log = structlog.get_logger(__name__)
_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


@dataclass(slots=True)
class Call:
    """One call in flight. `started` is a `time.monotonic()` moment.

    `outcome` is `OK`, `CLIENT_GONE` or the value of an `ErrorCode`; `key` is the name of the key
    that was shown; `details` go into the log line.
    """

    request_id: str
    started: float = field(default_factory=time.monotonic)
    outcome: str = OK
    key: str | None = None
    details: dict[str, object] = field(default_factory=dict)


def current_call() -> Call:
    """The call that the running task works for."""
    return _current.get()


class Calls:
    """Opens envelopes; one object per runtime."""

    def __init__(self, metrics: Metrics, tracer: Tracer) -> None:
        self._metrics = metrics
        self._tracer = tracer

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
        call = Call(_request_id(header("x-request-id")))
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


def _request_id(given: str | None) -> str:
    """The caller's own id if it is short and plain (it goes into logs), else a new one."""
    if given is not None and _ACCEPTED_ID.fullmatch(given):
        return given
    return uuid.uuid4().hex
