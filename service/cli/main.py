"""The ``sdpose`` command: one file a command, no heavy import before one is called."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from sdpose_core.io.addresses import without_secrets
from service.cli.bench import bench
from service.cli.convert import convert, convert_detector, convert_results
from service.cli.evaluate import evaluate
from service.cli.export import export
from service.cli.keys import keys
from service.cli.licences import licences
from service.cli.models import models
from service.cli.pack import pack
from service.cli.predict import predict
from service.cli.serve import serve
from service.cli.stream import stream
from service.cli.train import train
from service.cli.train_detector import train_detector

app = typer.Typer(
    name="sdpose",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Human pose: serve, predict, train and evaluate SDPose students.",
)
for command in (
    serve,
    predict,
    stream,
    models,
    evaluate,
    train,
    train_detector,
    pack,
    convert,
    convert_detector,
    convert_results,
    export,
    licences,
):
    app.command()(command)
app.add_typer(keys, name="keys")
app.add_typer(bench, name="bench")


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"sdpose {version('sdpose-service')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options that stand before the command."""


def main() -> None:
    """Entry point. A wrong name, file or value ends with one sentence and status 2, what the system
    rejects with status 1.
    """
    try:
        app()
    except (ValueError, FileNotFoundError) as error:
        typer.echo(f"sdpose: {without_secrets(str(error))}", err=True)
        sys.exit(2)
    except OSError as error:  # such as a full disk
        named = f"{error.filename}: " if error.filename else "a file cannot be written: "
        typer.echo(f"sdpose: {named}{error.strerror or error}", err=True)
        sys.exit(1)
