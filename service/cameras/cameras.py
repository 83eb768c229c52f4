"""The cameras of one process, by name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import structlog

from service.access.callers import Caller
from service.access.keys import Scope
from service.cameras.addresses import AddressRules
from service.cameras.broadcast import Subscription
from service.cameras.camera import Camera, CameraEvent, CameraServices, CameraStatus
from service.cameras.settings import CameraSettings
from service.errors import ErrorCode, ServiceError
from service.scheduling.shares import FairBound

_log = structlog.get_logger(__name__)


class Cameras:
    """Made before the event loop may run; `start` and everything else belong on it.

    A camera belongs to its caller: its stream and crops count for that key, and no other key sees
    it. Every key with the scope `cameras` may watch those of the operator's file. `admin` with it
    sees and removes any. `max_watchers` bounds the subscriptions to all cameras together.
    """

    def __init__(
        self, rules: AddressRules, services: CameraServices, *, max_cameras: int, max_watchers: int
    ) -> None:
        self._rules = rules
        self._services = services
        self._cameras = FairBound(max_cameras)
        self._watching = FairBound(max_watchers)
        self._running: dict[str, _Running] = {}
        self._ending: list[_Running] = []

    def add(self, settings: CameraSettings, owner: Caller | None) -> CameraStatus:
        """Starts to read one more camera of a caller; None: of the operator.

        Raises `ServiceError`: permission_denied for a priority that is not the caller's,
        invalid_argument for an address that is not allowed, already_exists for a name in use,
        overloaded if there are too many, or too many of this caller.
        """
        if owner is not None:
            owner.priority(settings.parameters.priority)
            self._rules.check(settings.address)
        if settings.name in self._running:
            raise ServiceError(
                ErrorCode.ALREADY_EXISTS, f"there is a camera {settings.name} already", field="name"
            )
        share = None if owner is None else owner.share
        if not self._cameras.fits(share):
            raise ServiceError(
                ErrorCode.OVERLOADED,
                f"no more of the {self._cameras.bound} cameras that are read at a time is free",
                retry_after_s=30.0,
            )
        with ExitStack() as held:
            if owner is not None:
                held.enter_context(owner.stream())
            held.enter_context(self._cameras.taken(share))
            camera = Camera(settings, self._services, owner)
            task = asyncio.create_task(camera.run())
            self._running[settings.name] = _Running(camera, task, held.pop_all())
        task.add_done_callback(lambda done: _report(settings.name, done))
        name = owner.name if owner else None
        _log.info("camera added", camera=settings.name, address=camera.status.address, key=name)
        return camera.status

    def remove(self, name: str, caller: Caller) -> None:
        """Ends one camera and its subscriptions.

        Raises `ServiceError` not_found, or permission_denied for the operator's.
        """
        if self._find(name, caller).owner is None and not caller.may(Scope.ADMIN):
            raise ServiceError(
                ErrorCode.PERMISSION_DENIED,
                f"{name} is a camera of the operator, which a key with the scope admin removes",
                field="name",
            )
        self._end(name)

    def status(self, name: str, caller: Caller) -> CameraStatus:
        """Status of one camera. Raises `ServiceError` not_found."""
        return self._find(name, caller).status

    def all(self, caller: Caller | None = None) -> list[CameraStatus]:
        """Status of every camera that a caller may see, in the order of adding; None: of all."""
        cameras = [running.camera for running in self._running.values()]
        return [each.status for each in cameras if caller is None or _sees(caller, each)]

    @contextmanager
    def watch(
        self, name: str, caller: Caller
    ) -> Iterator[tuple[CameraStatus, Subscription[CameraEvent]]]:
        """A camera's status now, then its answers and every change of its status.

        Counts as a stream of the caller. Raises `ServiceError` not_found or overloaded.
        """
        with self._watched(name, caller) as camera, camera.events.subscribe(caller) as events:
            yield camera.status, events

    @contextmanager
    def watch_pictures(self, name: str, caller: Caller) -> Iterator[Subscription[bytes]]:
        """A camera's frames with the people drawn in, as JPEG. Raises as `watch`."""
        with self._watched(name, caller) as camera, camera.pictures.subscribe(caller) as pictures:
            yield pictures

    def start(self, cameras: Iterable[CameraSettings]) -> None:
        """Starts those of the operator's file."""
        for settings in cameras:
            self.add(settings, None)

    def end_unauthorised(self) -> None:
        """Ends the cameras and subscriptions of keys that no longer count."""
        for name, running in list(self._running.items()):
            owner = running.camera.owner
            if owner is not None and not owner.may(Scope.CAMERAS):
                self._end(name)
        for subscription in self._subscriptions():
            if not subscription.caller.may(Scope.CAMERAS):
                subscription.end()

    def close(self) -> None:
        """Ends all cameras."""
        for name in list(self._running):
            self._end(name)

    def ended(self, timeout_s: float) -> bool:
        """Waits for the reading threads; False if one is still running."""
        until = time.monotonic() + timeout_s
        while (
            reading := any(each.camera.reading for each in self._ending)
        ) and time.monotonic() < until:
            time.sleep(0.01)
        return not reading

    def _end(self, name: str) -> None:
        ending = self._running.pop(name)
        self._ending = [
            each for each in self._ending if each.camera.reading or not each.task.done()
        ]
        self._ending.append(ending)
        ending.camera.stop()
        ending.held.close()
        _log.info("camera removed", camera=name)

    def _find(self, name: str, caller: Caller) -> Camera:
        running = self._running.get(name)
        if running is None or not _sees(caller, running.camera):
            raise ServiceError(ErrorCode.NOT_FOUND, "there is no such camera", field="name")
        return running.camera

    def _subscriptions(self) -> list[Subscription[CameraEvent] | Subscription[bytes]]:
        found: list[Subscription[CameraEvent] | Subscription[bytes]] = []
        for running in self._running.values():
            found += running.camera.events.subscriptions
            found += running.camera.pictures.subscriptions
        return found

    @contextmanager
    def _watched(self, name: str, caller: Caller) -> Iterator[Camera]:
        camera = self._find(name, caller)
        if not self._watching.fits(caller.share):
            raise ServiceError(
                ErrorCode.OVERLOADED,
                f"no more of the {self._watching.bound} places to watch cameras is free",
                retry_after_s=5.0,
            )
        with caller.stream(looking=False), self._watching.taken(caller.share):
            yield camera


@dataclass(frozen=True, slots=True)
class _Running:
    """A camera, what runs it, and what it holds of its owner's limits."""

    camera: Camera
    task: asyncio.Task[None]
    held: ExitStack


def _sees(caller: Caller, camera: Camera) -> bool:
    if not caller.may(Scope.CAMERAS):
        return False
    owner = camera.owner
    return owner is None or owner.share == caller.share or caller.may(Scope.ADMIN)


def _report(name: str, done: asyncio.Task[None]) -> None:
    if not done.cancelled() and done.exception() is not None:
        _log.error("camera stopped unexpectedly", camera=name, exc_info=done.exception())
