"""The callers behind the keys: what each may do, how much it has used, and whose turn is whose."""

from __future__ import annotations

import hmac
import ipaddress
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from service.access.keys import UNLIMITED, Key, Scope, digest_of
from service.errors import ErrorCode, ServiceError, overloaded
from service.parameters import Priority


class Rate:
    """A token bucket that may be overdrawn: what is spent beyond it must flow in again first.

    It holds what flows in within a second, and at least one. `clock` gives seconds.
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_second = per_second
        self._most = max(1.0, per_second)
        self._level = self._most
        self._clock = clock
        self._then = clock()

    def wait_s(self) -> float:
        """Seconds until one may be spent; 0 now."""
        now = self._clock()
        self._level = min(self._most, self._level + (now - self._then) * self.per_second)
        self._then = now
        return max(0.0, (min(1.0, self._most) - self._level) / self.per_second)

    def spend(self, amount: float) -> None:
        """Takes so much, whether it is there or not."""
        self._level -= amount


@dataclass(slots=True)
class _Usage:
    """Consumption of a key; outlives a reload of the key file."""

    requests: Rate | None = None
    crops: Rate | None = None
    streams: int = 0


@dataclass(frozen=True, slots=True)
class Caller:
    """Someone who calls, with what it may still do.

    Attributes:
        share: with whom it shares its turns: its key, or without keys its address.
        name: of its key; None without one.
    """

    share: Hashable
    name: str | None = None
    max_priority: Priority = Priority.HIGH
    _access: Access | None = field(default=None, repr=False)

    def check(self, *, request: bool = False) -> None:
        """Whether it may have one more image looked at now, and one more request if it is one.

        Raises `ServiceError` unauthenticated (its key has expired or is gone) or overloaded.
        """
        key, usage = self._current_key()
        if key is None:
            return
        for rate, what in (
            (usage.requests if request else None, "requests"),
            (usage.crops, "crops"),
        ):
            after_s = rate.wait_s() if rate is not None else 0.0
            if rate is not None and after_s > 0:
                raise self._limited(
                    f"the key {key.name} may have {rate.per_second:g} {what} a second", after_s
                )

    def spend_request(self) -> None:
        """Counts one request of it that could be admitted."""
        _, usage = self._current_key(quiet=True)
        if usage.requests is not None:
            usage.requests.spend(1)

    def charge(self, crops: int) -> None:
        """So many people were looked at for it; an image without any counts as one."""
        _, usage = self._current_key(quiet=True)
        if usage.crops is not None:
            usage.crops.spend(max(1, crops))

    def may(self, scope: Scope) -> bool:
        """Whether its key, which still counts, opens `scope`; without keys all but `admin` is."""
        if self._access is None or self.name is None:
            return scope in UNLIMITED
        try:
            return scope in self._access.current_key(self.name)[0].scopes
        except ServiceError:
            return False

    def priority(self, requested: Priority | None) -> Priority:
        """The priority that it gets; unset means normal or, if that is too high, its highest.

        Raises `ServiceError` permission_denied for a higher one than it may request.
        """
        if requested is None:
            return max(Priority.NORMAL, self.max_priority, key=lambda each: each.order)
        if requested.order < self.max_priority.order:
            raise ServiceError(
                ErrorCode.PERMISSION_DENIED,
                f"priority: {requested.value} is more than the {self.max_priority.value} "
                "that this caller may request",
                field="priority",
            )
        return requested

    @contextmanager
    def stream(self, *, looking: bool = True) -> Iterator[None]:
        """One more open stream, `looking` at images. Raises `ServiceError` as `check`."""
        if looking:
            self.check()
        key, usage = self._current_key()
        if key is not None and key.max_streams is not None and usage.streams >= key.max_streams:
            raise self._limited(f"the key {key.name} may have {key.max_streams} streams open", 5.0)
        usage.streams += 1
        try:
            yield
        finally:
            usage.streams -= 1

    def _current_key(self, *, quiet: bool = False) -> tuple[Key | None, _Usage]:
        if self._access is None or self.name is None:
            return None, _Usage()
        try:
            return self._access.current_key(self.name)
        except ServiceError:
            if quiet:
                return None, _Usage()
            raise

    def _limited(self, message: str, after_s: float) -> ServiceError:
        assert self._access is not None
        self._access.shed()
        return overloaded(message, after_s)


class Access:
    """Identifies callers by their keys. All of it belongs to the event loop.

    Args:
        keys: known at first; none lets everyone in.
        max_priority: of callers whose key names none.
        shed: called at each rejection by a key's own limit.
    """

    def __init__(
        self, keys: Iterable[Key], max_priority: Priority, shed: Callable[[], None]
    ) -> None:
        self.shed = shed
        self._max_priority = max_priority
        self._keys: dict[str, Key] = {}
        self._usage: dict[str, _Usage] = {}
        self.replace(keys)

    @property
    def open(self) -> bool:
        """Whether every caller is admitted."""
        return not self._keys

    @property
    def names(self) -> list[str]:
        """Names of the keys."""
        return sorted(self._keys)

    def replace(self, keys: Iterable[Key]) -> None:
        """Other keys from now on; what a name that stays has used, such as open streams, stays."""
        known = {key.name: key for key in keys}
        before, self._keys = self._keys, known
        for name, key in known.items():
            usage = self._usage.setdefault(name, _Usage())
            old = before.get(name)
            if old is None or old.requests_per_second != key.requests_per_second:
                usage.requests = _rate(key.requests_per_second)
            if old is None or old.crops_per_second != key.crops_per_second:
                usage.crops = _rate(key.crops_per_second)
        for name in self._usage.keys() - known.keys():
            if not self._usage[name].streams:
                del self._usage[name]

    def identify(
        self, api_key: str | None, authorization: str | None, address: str | None
    ) -> Caller:
        """The caller. Raises `ServiceError` unauthenticated.

        `api_key` is the value of `X-API-Key`, `authorization` that of `Authorization: Bearer KEY`,
        `address` the caller's IP address.
        """
        if self.open:
            return Caller(("address", network(address)), None, self._max_priority)
        shown = api_key
        if shown is None and authorization is not None:
            scheme, _, token = authorization.partition(" ")
            shown = token.strip() if scheme.lower() == "bearer" else None
        if shown is None:
            raise _unknown("an API key is required")
        given = digest_of(shown)
        found = None
        for key in self._keys.values():  # all of them: the time must not show which comes close
            if hmac.compare_digest(given, key.digest):
                found = key
        if found is None:
            raise _unknown("the API key is not known")
        self.current_key(found.name)
        return Caller(
            ("key", found.name), found.name, found.max_priority or self._max_priority, self
        )

    def current_key(self, name: str) -> tuple[Key, _Usage]:
        """A key that still counts, with its usage. Raises `ServiceError` unauthenticated."""
        key = self._keys.get(name)
        if key is None:
            raise _unknown("the API key is not known any more")
        if key.expires is not None and datetime.now(UTC) >= key.expires:
            raise _unknown("the API key has expired")
        return key, self._usage[name]

    def check_scope(self, caller: Caller, scope: Scope) -> None:
        """Raises `ServiceError` permission_denied unless the caller's key opens `scope`."""
        if not caller.may(scope):
            raise ServiceError(
                ErrorCode.PERMISSION_DENIED, f"this needs a key with the scope {scope.value}"
            )


def _rate(per_second: float | None) -> Rate | None:
    return None if per_second is None else Rate(per_second)


def _unknown(message: str) -> ServiceError:
    return ServiceError(ErrorCode.UNAUTHENTICATED, message)


def network(address: str | None) -> str:
    """Network that counts as one caller: an IPv4 address, or the /64 of an IPv6 host."""
    try:
        known = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return address or "unknown"
    if isinstance(known, ipaddress.IPv6Address):
        if known.ipv4_mapped is not None:
            return str(known.ipv4_mapped)
        return str(ipaddress.ip_network((known, 64), strict=False))
    return str(known)
