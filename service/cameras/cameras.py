"""The cameras of one process, by name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import structlog

from service.cameras.addresses import AddressRules
from service.cameras.camera import Camera, CameraEvent, CameraStatus, Host
from service.cameras.feed import Watcher
from service.cameras.settings import CameraSettings
from service.errors import ErrorCode, ServiceError

_log = structlog.get_logger(__name__)


class Cameras:
    """Made before the event loop may run; `start` and all the rest belong on it.

    `max_watchers` bounds those who watch, of all cameras together.
    """

    def __init__(
        self, rules: AddressRules, host: Host, *, max_cameras: int, max_watchers: int
    ) -> None:
        self._rules = rules
        self._host = host
        self._max_cameras = max_cameras
        self._max_watchers = max_watchers
        self._running: dict[str, tuple[Camera, asyncio.Task[None]]] = {}
        self._leaving: list[tuple[Camera, asyncio.Task[None]]] = []

    def add(self, settings: CameraSettings) -> CameraStatus:
        """Starts to read one more.

        Raises `ServiceError`: invalid_argument for an address that is not allowed, already_exists
        for a name in use, overloaded where there are too many.
        """
        if not settings.trusted:
            self._rules.check(settings.address)
        if settings.name in self._running:
            raise ServiceError(
                ErrorCode.ALREADY_EXISTS, f"there is a camera {settings.name} already", field="name"
            )
        if len(self._running) >= self._max_cameras:
            raise ServiceError(
                ErrorCode.OVERLOADED,
                f"{self._max_cameras} cameras are read already",
                retry_after_s=30.0,
            )
        camera = Camera(settings, self._host)
        task = asyncio.create_task(camera.run())
        task.add_done_callback(lambda done: _report(settings.name, done))
        self._running[settings.name] = camera, task
        _log.info("camera added", camera=settings.name, address=camera.status.address)
        return camera.status

    def remove(self, name: str) -> None:
        """Ends one camera and what watches it. Raises `ServiceError` not_found."""
        self._find(name)
        camera, task = self._running.pop(name)
        self._leaving = [(one, its) for one, its in self._leaving if one.reading or not its.done()]
        self._leaving.append((camera, task))
        camera.stop()
        _log.info("camera removed", camera=name)

    def status(self, name: str) -> CameraStatus:
        """Raises `ServiceError` not_found."""
        return self._find(name).status

    def all(self) -> list[CameraStatus]:
        """Each as it is now, in the order in which they came."""
        return [camera.status for camera, _ in self._running.values()]

    @contextmanager
    def watch(self, name: str) -> Iterator[tuple[CameraStatus, Watcher[CameraEvent]]]:
        """Its status now, then its answers and every change of its status.

        Raises `ServiceError` not_found or overloaded.
        """
        camera = self._watched(name)
        with camera.events.watch() as watcher:
            yield camera.status, watcher

    @contextmanager
    def watch_pictures(self, name: str) -> Iterator[Watcher[bytes]]:
        """Its frames with the people drawn in, as JPEG. Raises `ServiceError` as `watch`."""
        with self._watched(name).pictures.watch() as watcher:
            yield watcher

    def start(self, cameras: Iterable[CameraSettings]) -> None:
        """Starts those of the operator's file."""
        for settings in cameras:
            self.add(settings)

    def close(self) -> None:
        """Ends all of them."""
        for name in list(self._running):
            self.remove(name)

    def ended(self, timeout_s: float) -> bool:
        """Waits for the threads that read; whether none is left."""
        until = time.monotonic() + timeout_s
        while (
            reading := any(one.reading for one, _ in self._leaving)
        ) and time.monotonic() < until:
            time.sleep(0.01)
        return not reading

    def _find(self, name: str) -> Camera:
        if name not in self._running:
            raise ServiceError(ErrorCode.NOT_FOUND, "there is no such camera", field="name")
        return self._running[name][0]

    def _watched(self, name: str) -> Camera:
        camera = self._find(name)
        watching = sum(len(one.events) + len(one.pictures) for one, _ in self._running.values())
        if watching >= self._max_watchers:
            raise ServiceError(
                ErrorCode.OVERLOADED,
                f"{self._max_watchers} watch cameras already",
                retry_after_s=5.0,
            )
        return camera


def _report(name: str, done: asyncio.Task[None]) -> None:
    if not done.cancelled() and done.exception() is not None:
        _log.error("camera stopped unexpectedly", camera=name, exc_info=done.exception())
