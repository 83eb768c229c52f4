"""The service's certificate, read from files that may be renewed while it runs."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path


class TlsError(ValueError):
    """One sentence that says which file is wrong and why."""


class WatchedFiles:
    """Files that somebody else replaces, such as Kubernetes a secret."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._seen = self._marks()

    def changed(self) -> bool:
        """Whether one was replaced or written since the last time that this was asked."""
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
    """PEM files: the certificate with its chain, its key, and whose clients are let in.

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

        Raises `TlsError`; the context then is as it was, unless the file with the CA is at fault.
        """
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (OSError, ValueError) as error:
            raise TlsError(
                f"{self.certificate} and {self.key}: not a certificate and its key: {_why(error)}"
            ) from None
        if self.client_ca is not None:
            try:
                context.load_verify_locations(self.client_ca)
            except (OSError, ValueError) as error:
                raise TlsError(f"{self.client_ca}: no certificates: {_why(error)}") from None
            context.verify_mode = ssl.CERT_REQUIRED

    def read(self) -> tuple[bytes, bytes, bytes | None]:
        """Key, certificate and CA as they are now. Raises `TlsError`."""
        self.context()  # gRPC itself tells of a wrong one only when somebody connects
        try:
            ca = None if self.client_ca is None else self.client_ca.read_bytes()
            return self.key.read_bytes(), self.certificate.read_bytes(), ca
        except OSError as error:
            raise TlsError(f"{error.filename}: cannot be read: {error.strerror}") from None


def _no_password() -> bytes:
    raise ValueError("the key is encrypted, and nobody is there to type its password")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM").lower().replace("_", " ")
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)
