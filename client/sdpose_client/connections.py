"""Addresses, keys and certificates as a client takes them, and what fails when it connects."""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from sdpose_client.errors import ErrorCode, ServiceError, invalid_argument, shortened

# What OpenSSL and gRPC's BoringSSL report, in the order of their search: the error of a name
# holds CERTIFICATE_VERIFY_FAILED too.
_TLS_MISTAKES: Final = (
    ("WRONG_VERSION_NUMBER", "{} does not speak TLS"),
    ("RECORD_LAYER_FAILURE", "{} does not speak TLS"),
    ("PACKET_LENGTH_TOO_LONG", "{} does not speak TLS"),
    ("mismatch", "the certificate of {} is for another name"),
    ("Hostname Verification Check failed", "the certificate of {} is for another name"),
    ("CERTIFICATE_VERIFY_FAILED", "the certificate of {} is not trusted"),
)
_CLOSED_SILENTLY: Final = (
    "",
    "Server disconnected without sending a response.",
    "did not receive a valid HTTP response",
    "Socket closed",
    os.strerror(errno.ECONNRESET),
    os.strerror(errno.EPIPE),
)
"""Texts of libraries and systems for a connection that ended before an answer."""


def checked_url(field: str, url: str) -> str:
    """An HTTP address. Raises `ServiceError` for what is none."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https", "ws", "wss") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, or too large
        good = False
    if not good:
        raise invalid_argument(
            field, f"expected an address such as http://localhost:8000, got {shortened(url)}"
        )
    return url.rstrip("/")


def checked_target(target: str) -> str:
    """An address of gRPC. Raises `ServiceError` for a web address and for a port that is none."""
    port = target.rpartition(":")[2]
    if "://" in target.partition(":///")[0] or (port.isdecimal() and not 0 < int(port) < 2**16):
        raise invalid_argument(
            "target", f"expected host and port such as localhost:8001, got {shortened(target)}"
        )
    return target


def checked_header(field: str, value: str | None) -> str | None:
    """A value that a header can hold. Raises `ServiceError`, without the value: it may be a key."""
    if value is not None and not (value.isascii() and value.isprintable()):
        raise invalid_argument(field, "expected printable ASCII characters")
    return value


def checked_certificates(
    root_certificates: bytes | None, client_certificate: tuple[bytes, bytes] | None
) -> None:
    """Raises `ServiceError` for what is not PEM: gRPC takes anything, and then never connects."""
    if root_certificates is not None:
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(cadata=root_certificates.decode("ascii"))
        except (ssl.SSLError, ValueError):
            raise invalid_argument("root_certificates", "no certificates in PEM") from None
    if client_certificate is not None:
        key, certificate = client_certificate
        if b"PRIVATE KEY-----" not in key or b"-----BEGIN CERTIFICATE-----" not in certificate:
            raise invalid_argument(
                "client_certificate", "expected a key and its certificate, both in PEM"
            )


def unreached(address: str, error: Exception, *, encrypted: bool) -> ServiceError:
    """The error of a connection that was not made, or broke before the answer."""
    text = str(error)
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            reason = getattr(cause, "verify_message", "")
            if (mistake := tls_mistake(address, str(cause), reason)) is not None:
                return mistake
        elif isinstance(cause, OSError) and cause.errno:  # negative for names that are not known
            text = os.strerror(cause.errno) if cause.errno > 0 else str(cause.strerror)
    return not_connected(address, text, encrypted=encrypted)


def not_connected(address: str, reason: str, *, encrypted: bool) -> ServiceError:
    """The error of a connection that was not made; `reason` is the library's or the system's."""
    if reason not in _CLOSED_SILENTLY:
        return ServiceError(ErrorCode.UNAVAILABLE, f"{address} cannot be reached: {reason}")
    expected = "a client certificate" if encrypted else "TLS"
    return ServiceError(
        ErrorCode.UNAVAILABLE,
        f"{address} cannot be reached: it closed the connection without an answer; "
        f"it may expect {expected}",
    )


def tls_mistake(address: str, report: str, reason: str) -> ServiceError | None:
    """The error of a failed handshake that the next try will not mend; None for any other.

    Args:
        address: of the service.
        report: the library's whole text.
        reason: the part of it about the certificate, if it has one.
    """
    for mark, sentence in _TLS_MISTAKES:
        if mark in report:
            why = f" ({reason.strip('. ')})" if reason else ""
            return invalid_argument("tls", sentence.format(address) + why)
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        several = getattr(error, "exceptions", None)  # an ExceptionGroup: one per address tried
        error = several[0] if several else error.__cause__ or error.__context__
