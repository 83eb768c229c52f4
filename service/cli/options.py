"""Shared parts of the commands: options, the models that they name, checks."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from service.tls import ClientTls

if TYPE_CHECKING:
    from sdpose_core import PoseEstimator

Student: TypeAlias = Annotated[str, typer.Option(help="Pose model, a name or a path.")]
Detector: TypeAlias = Annotated[
    str,
    typer.Option(
        help="Person detector: embedded, rtmdet-nano, a file (.safetensors, .pt, .onnx, .xml), a "
        "name as yolo11n.pt, or package.module:factory."
    ),
]
DetectorClasses: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="NAME,...",
        help="Classes of the detector's file to look for, names or numbers; person if not given.",
    ),
]
Device: TypeAlias = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Backend: TypeAlias = Annotated[str, typer.Option(help="auto, torch or openvino.")]
MinScore: TypeAlias = Annotated[
    float | None, typer.Option(min=0, max=1, help="Leave out people that score lower.")
]
Suppress: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--suppress/--no-suppress", help="Leave out copies: people with a better one's joints."
    ),
]
MinKeypointScore: TypeAlias = Annotated[
    float,
    typer.Option(min=0, max=1, help="Joints that score lower are not drawn; in COCO, v is 0."),
]
TlsCa: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="PEM file with the CAs that the service's certificate is checked by."),
]
TlsCertificate: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="PEM file with the certificate to show, if the service requires one."),
]
TlsKey: TypeAlias = Annotated[
    Path | None, typer.Option(help="PEM file with the key of --tls-certificate.")
]


@dataclass(frozen=True, slots=True)
class Models:
    """The models that a command line names, not yet loaded."""

    student: str
    detector: str
    device: str
    backend: str = "auto"
    precision: str = "auto"
    detector_classes: str = ""

    @property
    def files(self) -> list[Path]:
        """Paths of the models, if their names are paths."""
        return [Path(name) for name in (self.student, self.detector) if name]

    def estimator(self, **others: Any) -> PoseEstimator:
        """Loads them; `others` and errors as of `PoseEstimator.from_pretrained`."""
        from sdpose_core import PoseEstimator

        return PoseEstimator.from_pretrained(**asdict(self), **others)


def reject_typed(context: typer.Context, names: Iterable[str], why: str) -> None:
    """Raises `typer.BadParameter`, that they `why`, for options that are on the command line."""
    typed = [
        f"--{name.replace('_', '-')}"
        for name in names
        if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    ]
    if typed:
        raise typer.BadParameter(f"{', '.join(typed)} {why}")


def client_tls(
    server: str | None,
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    **others: object,
) -> ClientTls:
    """The given files, not yet read. Raises `typer.BadParameter`.

    `others`: values of further options that need a server, by name.
    """
    files = {"tls_ca": ca, "tls_certificate": certificate, "tls_key": key, **others}
    given = [f"--{name.replace('_', '-')}" for name, value in files.items() if value]
    if given and server is None:
        raise typer.BadParameter(f"{given[0]} needs --server, the service that it is for")
    if (certificate is None) != (key is None):
        raise typer.BadParameter("--tls-certificate and --tls-key go together: name both")
    return ClientTls(ca, certificate, key)


def need(extra: str, *modules: str) -> None:
    """Check that an optional part is installed, before anything is read or written.

    Raises:
        ValueError: a module of it is missing; the message names what to install.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"this command needs {', '.join(missing)}: pip install -e '.[{extra}]' in a clone, in "
            'images as in docs/deployment.md, "The images"'
        )
