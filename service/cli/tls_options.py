"""How a command reaches a service over TLS, by the same options everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from service.tls import ClientTls

TlsCa: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="PEM file with the CAs that the service's certificate is checked by."),
]
TlsCertificate: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="PEM file with the certificate to show, where the service wants one."),
]
TlsKey: TypeAlias = Annotated[
    Path | None, typer.Option(help="PEM file with the key of --tls-certificate.")
]


def client_tls(
    server: str | None,
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    **others: object,
) -> ClientTls:
    """The files as they were given, not yet read. Raises `typer.BadParameter`.

    `others`: values of further options that need a server, by name.
    """
    files = {"tls_ca": ca, "tls_certificate": certificate, "tls_key": key, **others}
    given = [f"--{name.replace('_', '-')}" for name, value in files.items() if value]
    if given and server is None:
        raise typer.BadParameter(f"{given[0]} needs --server, the service that it is for")
    if (certificate is None) != (key is None):
        raise typer.BadParameter("--tls-certificate and --tls-key go together: name both")
    return ClientTls(ca, certificate, key)
