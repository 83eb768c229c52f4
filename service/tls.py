"""Certificates in files: the service's own, which may be renewed while it runs, and a client's."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path


class TlsError(ValueError):
    """One sentence on which file is wrong and why."""


class WatchedFiles:
    """Files that somebody else replaces, such as Kubernetes a secret."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._seen = self._marks()

    def changed(self) -> bool:
        """Whether one was replaced or written since the last call."""
        before, self._seen = self._seen, self._marks()
        return self._seen != before

    def _marks(self) -> list[tuple[int, int, int] | None]:
        return [_mark(path) for path in self._paths]


def _mark(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the certificate with its chain, its key, and the CA whose clients are admitted.

    Without `client_ca` no client need show a certificate.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them."""
        both = (self.certificate, self.key)
        return both if self.client_ca is None else (*both, self.client_ca)

    def context(self) -> ssl.SSLContext:
        """For a server. Raises `TlsError`."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.load_into(context)
        return context

    def load_into(self, context: ssl.SSLContext) -> None:
        """Reads the files into a context that may be in use: later connections get them.

        Raises `TlsError`; the context then is unchanged, unless the file with the CA is at fault.
        """
        _load_pair(context, self.certificate, self.key)
        if self.client_ca is not None:
            _load_ca(context, self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED

    def read(self) -> tuple[bytes, bytes, bytes | None]:
        """The current key, certificate and CA. Raises `TlsError`."""
        self.context()  # gRPC itself reports a wrong one only when a client connects
        ca = None if self.client_ca is None else _bytes_of(self.client_ca)
        return _bytes_of(self.key), _bytes_of(self.certificate), ca


@dataclass(frozen=True, slots=True)
class ClientTls:
    """PEM files of a client: whom it trusts in place of the system's CAs, and what it shows.

    `certificate` and `key` go together.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext | None:
        """For HTTPS; None as usual, if no file is named. Raises `TlsError`."""
        if self == ClientTls():
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca is None:
            context.load_default_certs()
        else:
            _load_ca(context, self.ca)
        if self.certificate is not None and self.key is not None:
            _load_pair(context, self.certificate, self.key)
        return context

    def read(self) -> tuple[bytes | None, tuple[bytes, bytes] | None]:
        """The CAs, and key and certificate, as the clients over gRPC take them.

        Raises `TlsError`.
        """
        self.context()  # gRPC itself takes anything, and then never connects
        ca = None if self.ca is None else _bytes_of(self.ca)
        if self.certificate is None or self.key is None:
            return ca, None
        return ca, (_bytes_of(self.key), _bytes_of(self.certificate))


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:
        raise TlsError(
            f"{certificate} and {key}: not a certificate and its key: {_why(error)}"
        ) from None


def _load_ca(context: ssl.SSLContext, ca: Path) -> None:
    try:
        context.load_verify_locations(ca)
    except (OSError, ValueError) as error:
        raise TlsError(f"{ca}: no certificates: {_why(error)}") from None


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsError(f"{path}: cannot be read: {error.strerror}") from None


def _no_password() -> bytes:
    raise ValueError("the key is encrypted, and there is no way to enter its password")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM").lower().replace("_", " ")
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)
