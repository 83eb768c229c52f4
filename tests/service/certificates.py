"""Certificates made with openssl, and the service under them."""

from __future__ import annotations

import ssl
import subprocess
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from sdpose_client import AsyncGrpcPoseClient
from tests.commands import need
from tests.fakes import FakeEstimator
from tests.service.conftest import ONCE, Service, serving


@dataclass(frozen=True)
class Authority:
    """A CA in a folder, that signs with openssl."""

    folder: Path

    @classmethod
    def made(cls, folder: Path) -> Authority:
        need("openssl")
        folder.mkdir(exist_ok=True)
        names = "-subj /CN=test-ca -addext basicConstraints=critical,CA:TRUE"
        names += " -addext keyUsage=critical,keyCertSign"  # which Python 3.13 and newer want
        made = "req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.pem"
        _openssl(folder, f"{made} {names}")
        return cls(folder)

    def sign(self, name: str, hosts: str = "DNS:localhost,IP:127.0.0.1") -> tuple[Path, Path]:
        """Certificate and key of `hosts` under a name."""
        names = f"-subj /CN={name} -addext subjectAltName={hosts}"
        request = f"req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr {names}"
        signed = f"-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out {name}.pem"
        _openssl(self.folder, request)
        _openssl(self.folder, f"x509 -req -in {name}.csr -copy_extensions copy {signed}")
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def trusting(self, shown: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        if shown is not None:
            context.load_cert_chain(*shown)
        return context

    def rpc_client(
        self, target: str, shown: tuple[Path, Path] | None = None
    ) -> AsyncGrpcPoseClient:
        """A client that trusts this one, and shows a certificate."""
        pair = None if shown is None else (shown[1].read_bytes(), shown[0].read_bytes())
        ca = self.ca.read_bytes()
        return AsyncGrpcPoseClient(
            target, root_certificates=ca, client_certificate=pair, retry=ONCE
        )


def _openssl(folder: Path, command: str) -> None:
    subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)


def encrypted(files: tuple[Path, Path], **more: object) -> AbstractAsyncContextManager[Service]:
    """The service under these; certificates are for localhost."""
    named = {"host": "localhost", "tls_certificate": files[0], "tls_key": files[1]}
    return serving(FakeEstimator(), **named, **more)
