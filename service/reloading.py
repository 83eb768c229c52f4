"""Hot reload: key file and certificates when they change, keys and models on SIGHUP."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from service.errors import ServiceError
from service.runtime.runtime import Runtime
from service.tls import TlsError, TlsFiles, WatchedFiles

_log = structlog.get_logger(__name__)


class Reloading:
    """Looks at files and dates whenever `look` is called; gRPC looks at the certificate itself."""

    def __init__(
        self, runtime: Runtime, tls: TlsFiles | None, context: ssl.SSLContext | None
    ) -> None:
        self._runtime = runtime
        self._tls = tls
        self._context = context
        key_file = runtime.settings.key_file
        self._keys = WatchedFiles(*([] if key_file is None else [key_file]))
        self._certificate = WatchedFiles(*([] if tls is None else tls.paths))
        self._reloads: set[asyncio.Task[None]] = set()

    def look(self) -> None:
        """Takes up the files that have changed, and what no longer counts without a change."""
        self._runtime.cameras.end_unauthorised()
        if self._keys.changed():
            self._reload_keys()
        if self._certificate.changed() and self._tls is not None and self._context is not None:
            try:
                self._tls.context()  # a wrong one must not spoil the one in use
                self._tls.load_into(self._context)
                _log.info("certificate renewed")
            except TlsError as error:
                _log.error("certificate not renewed", reason=str(error))

    @contextmanager
    def on_hangup(self) -> Iterator[None]:
        """While it lasts, SIGHUP reloads the keys and the models."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._all)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGHUP)

    def _all(self) -> None:
        self._reload_keys()
        reload = asyncio.create_task(self._reload_models())
        self._reloads.add(reload)
        reload.add_done_callback(self._reloads.discard)

    def _reload_keys(self) -> None:
        try:
            self._runtime.reload_keys()
            _log.info("keys read", keys=self._runtime.access.names)
        except ValueError as error:
            _log.error("keys not read, those before stay", reason=str(error))

    async def _reload_models(self) -> None:
        try:
            await self._runtime.reload()
        except ServiceError as error:
            _log.error("models not loaded, those before stay", reason=error.message)
