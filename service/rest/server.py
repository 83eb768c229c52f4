"""The HTTP servers: one for callers, and a separate one for the operator if configured."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn

from service.rest.app import create_app, create_operator_app
from service.rest.connections import Connections
from service.rest.protocol import BoundedHttpProtocol, BoundedWebSocketProtocol, Bounds
from service.runtime.runtime import Runtime

# For answers that are on their way; the work itself has had its grace time before.
_GRACE_S = 1
# Longer than a proxy keeps an idle connection (nginx: 60 s), which must not meet a closed one.
_KEEP_ALIVE_S = 75
# Of the files that the process may open. The rest is for gRPC, cameras and models.
_CALLERS_PART, _OPERATOR_PART = 0.5, 0.1


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the process as a whole, not to one of its servers."""
        yield


class HttpServers:
    """Serve on sockets that listen already; `tls` encrypts the callers' one."""

    def __init__(self, runtime: Runtime, tls: ssl.SSLContext | None = None) -> None:
        settings = runtime.settings
        self._tls = tls
        self._callers = _server(
            create_app(runtime),
            Connections(
                _CALLERS_PART, partial(runtime.metrics.shed, "http", "too_many_connections")
            ),
            settings.max_deadline_ms / 1e3,
            # A margin over the image bound, so that a frame just over it gets our own error.
            ws_max_size=int(settings.max_image_mb * 2**20) + 2**20,
            ws_per_message_deflate=False,  # image files do not get smaller
        )
        self._operator = _server(
            create_operator_app(runtime),
            Connections(_OPERATOR_PART),
            settings.max_deadline_ms / 1e3,
        )

    async def serve(self, callers: socket.socket, operator: socket.socket | None) -> None:
        """Until `stop`, or until one of them ends."""
        self._callers.config.load()
        self._callers.config.ssl = self._tls
        serving = [asyncio.create_task(self._callers.serve([callers]))]
        if operator is not None:
            serving.append(asyncio.create_task(self._operator.serve([operator])))
        try:
            await asyncio.wait(serving, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.stop()
            await asyncio.gather(*serving)

    def stop(self) -> None:
        """Ends them after the answers that are on their way."""
        self._callers.should_exit = self._operator.should_exit = True


def _server(app: Any, connections: Connections, longest_s: float, **more: Any) -> _Server:
    bounds = Bounds(connections, longest_s)
    return _Server(
        uvicorn.Config(
            app,
            log_config=None,
            log_level="error",  # what callers do wrong would fill the log, a line each
            access_log=False,
            lifespan="off",
            server_header=False,
            http=partial(BoundedHttpProtocol, bounds=bounds),  # type: ignore[arg-type]
            ws=partial(BoundedWebSocketProtocol, bounds=bounds),  # type: ignore[arg-type]
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_GRACE_S,
            **more,
        )
    )
