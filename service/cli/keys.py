"""``sdpose keys``: API keys, made here and kept as hashes only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

keys = typer.Typer(no_args_is_help=True, help="API keys for the service's callers.")


@keys.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Who will use it; appears in metrics and logs.")],
    file: Annotated[
        Path | None,
        typer.Option(help="Key file to add it to (SDPOSE_KEY_FILE); it is made if missing."),
    ] = None,
) -> None:
    """Make a key. It is shown once: the file keeps its hash.

    Limits and scopes are added to its table in the file: docs/operations.md, "Keys".
    """
    from service.access.keys import KeyFileError, entry, new_key, read_key_file

    key = new_key()
    lines = entry(name, key)
    if file is not None:
        known = read_key_file(file) if file.exists() else ()
        if name in {each.name for each in known}:
            raise KeyFileError(f"{file}: there is a key {name} already")
        _append(file, lines, separated=bool(known))
    typer.echo(f"key (shown only now): {key}")
    if file is None:
        typer.echo(f"\nfor the key file:\n\n{lines}", nl=False)
    else:
        typer.echo(f"added to {file} as {name}")


@keys.command("list")
def show(
    file: Annotated[Path, typer.Argument(help="The key file.")],
) -> None:
    """Check a key file, and show its keys without their hashes."""
    from service.access.keys import read_key_file

    for key in read_key_file(file):
        given = key.model_dump(mode="json", exclude={"name", "sha256"}, exclude_none=True)
        given["scopes"] = " ".join(sorted(given["scopes"]))
        typer.echo(f"{key.name}: " + ", ".join(f"{name} {value}" for name, value in given.items()))


def _append(file: Path, lines: str, *, separated: bool) -> None:
    try:
        # Hashes of random keys give nothing away, but names and limits are private.
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(("\n" if separated else "") + lines)
    except OSError as error:
        from service.access.keys import KeyFileError

        raise KeyFileError(f"{file}: cannot be written: {error.strerror}") from None
