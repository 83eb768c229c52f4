"""Traces of requests, one span per stage, through OpenTelemetry if enabled."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


class TracingError(RuntimeError):
    """Traces are enabled but not available."""


class Tracer(Protocol):
    """Tracer that the front ends and the pipeline report to."""

    def request(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager[None]:
        """Everything inside belongs to one request; `headers` may name the caller's own trace."""

    def stage(self, name: str, seconds: float, queued_s: float = 0.0) -> None:
        """A stage of the current request ended just now, after so many seconds of work."""

    def stop(self) -> None:
        """Sends what is left."""


class SilentTracer:
    """Traces nothing."""

    def request(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager[None]:
        """Nothing."""
        return nullcontext()

    def stage(self, name: str, seconds: float, queued_s: float = 0.0) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""


class OpenTelemetryTracer:
    """Spans by OpenTelemetry; the caller's `traceparent` is honoured."""

    def __init__(self, provider: TracerProvider, *, longest_stop_s: float = 2.0) -> None:
        self._provider = provider
        self._longest_stop_s = longest_stop_s
        self._tracer = provider.get_tracer("sdpose")

    @contextmanager
    def request(self, name: str, headers: Mapping[str, str]) -> Iterator[None]:
        """A server span around one request."""
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind

        with self._tracer.start_as_current_span(
            name, context=extract(dict(headers)), kind=SpanKind.SERVER
        ):
            yield

    def stage(self, name: str, seconds: float, queued_s: float = 0.0) -> None:
        """A child span that ends now; it is made afterwards, as the work was in other threads."""
        ended = time.time_ns()
        span = self._tracer.start_span(
            name,
            start_time=ended - int(seconds * 1e9),
            attributes={"sdpose.queued_ms": round(queued_s * 1e3, 3)},
        )
        span.end(ended)

    def stop(self) -> None:
        """Flushes the exporter; does not wait the 30 s that a missing collector takes."""
        flushing = threading.Thread(target=self._provider.shutdown, daemon=True)
        flushing.start()
        flushing.join(self._longest_stop_s)


def make_tracer(*, enabled: bool) -> Tracer:
    """A tracer that sends over OTLP/HTTP to the address in the `OTEL_*` variables.

    Raises `TracingError` if the extra is not installed.
    """
    if not enabled:
        return SilentTracer()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise TracingError(
            f"SDPOSE_TRACING needs the extra: pip install -e '.[otel]' ({error})"
        ) from None
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: "sdpose"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return OpenTelemetryTracer(provider)
