"""The envelope of a call: every way in which one can end."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from service.errors import INTERNAL_MESSAGE, ServiceError, invalid_argument
from service.telemetry.calls import Calls, current_call
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import SilentTracer

HEADERS = {"x-request-id": "mine"}


class Stand:
    def __init__(self) -> None:
        self.metrics = Metrics()
        self.calls = Calls(self.metrics, SilentTracer())

    def end_by(self, error: BaseException | None, api: str | None = "rest_pose") -> None:
        with self.calls.open("POST /pose", HEADERS.get, api):
            if error is not None:
                raise error

    def counted(self, outcome: str) -> float:
        value = self.metrics.registry.get_sample_value(
            "sdpose_requests_total", {"api": "rest_pose", "outcome": outcome}
        )
        return value or 0.0


@pytest.mark.parametrize(
    ("error", "outcome", "raised"),
    [
        (invalid_argument("cycles", "too many"), "invalid_argument", ServiceError),
        (RuntimeError("a secret"), "internal", ServiceError),
        (asyncio.CancelledError(), "client_gone", asyncio.CancelledError),
    ],
)
def test_each_end_is_counted_and_logged_once(
    error: BaseException, outcome: str, raised: type[BaseException]
) -> None:
    stand = Stand()
    with capture_logs() as lines, pytest.raises(raised) as told:
        stand.end_by(error)
    assert stand.counted(outcome) == 1
    (line,) = (line for line in lines if line["event"] == "call")
    assert (line["call"], line["outcome"]) == ("POST /pose", outcome)
    if isinstance(told.value, ServiceError):
        assert told.value.code.value == outcome
    if outcome == "internal":
        assert str(told.value) == INTERNAL_MESSAGE
        assert told.value.__cause__ is error


def test_a_good_call_is_counted_and_knows_itself() -> None:
    stand = Stand()
    with stand.calls.open("POST /pose", HEADERS.get, "rest_pose") as call:
        assert current_call() is call
        assert call.request_id == "mine"
    assert stand.counted("ok") == 1
    with pytest.raises(LookupError):
        current_call()


def test_what_is_no_api_is_not_counted() -> None:
    stand = Stand()
    stand.end_by(None, api=None)
    assert stand.counted("ok") == 0
