"""Structured log lines: JSON for machines, colours for a terminal; request ids on every line."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor

from sdpose_core.io.addresses import without_secrets

_CHATTY = (
    "uvicorn.access",
    "uvicorn.error",  # a line for every WebSocket, and at debug level its headers, with the key
    "websockets",
    "httpx",
    "httpcore",
    "grpc._cython.cygrpc",
    "asyncio",
)


def configure_logs(level: str = "info", form: str = "auto", stream: TextIO | None = None) -> None:
    """Sends structlog and the standard library's logs through one chain to `stream` (stderr)."""
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    console = form == "console" or (form == "auto" and stream.isatty())
    last: Processor = (
        structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        if console
        else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _hide_secrets,
                last,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    atexit.register(finish_logs)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_worth_a_line)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def finish_logs() -> None:
    """Writes what waits to be written; lines that a full disk does not take are lost.

    Otherwise Python would try once more at its end, and make the exit status 120 of it.
    """
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _hide_secrets(_logger: object, _method: str, line: EventDict) -> EventDict:
    """Addresses of any part of the program or of a library, without their passwords."""
    for name, value in line.items():
        if isinstance(value, str) and "://" in value:
            line[name] = without_secrets(value)
    return line


def _worth_a_line(record: logging.LogRecord) -> bool:
    """False for a WebSocket that was rejected before its handshake: the call's own line has it."""
    return record.msg != "ASGI callable returned without completing handshake."
