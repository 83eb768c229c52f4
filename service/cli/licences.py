"""``sdpose licences``: what is installed here, and under which licences."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from email.message import Message
from importlib.metadata import distributions
from typing import Annotated

import typer

UNKNOWN = "unknown"
_CLASSIFIER = "License :: "
_LONGEST = 80


@dataclass(frozen=True, order=True)
class Licence:
    """One installed package; `licence` is an SPDX expression if the package gives one."""

    name: str
    version: str
    licence: str
    source: str


def installed() -> Iterator[Licence]:
    """Every package of this Python environment, in no order."""
    for found in distributions():
        metadata = found.metadata
        assert isinstance(metadata, Message)
        yield Licence(
            metadata["Name"], found.version, licence_of(metadata), _source(metadata) or UNKNOWN
        )


def licence_of(metadata: Message) -> str:
    """From a package's own words: expression (PEP 639), else classifiers, else the old field."""
    expression = metadata.get("License-Expression")
    if expression:
        return str(expression)
    given = [
        each.rpartition(" :: ")[2]
        for each in metadata.get_all("Classifier") or ()
        if each.startswith(_CLASSIFIER) and each != "License :: OSI Approved"
    ]
    if given:
        return "; ".join(sorted(given))
    old = (metadata.get("License") or "").strip().splitlines()
    if old and old[0] and len(old[0]) <= _LONGEST:
        return old[0]
    return UNKNOWN


def _source(metadata: Message) -> str:
    if metadata.get("Home-page"):
        return str(metadata["Home-page"])
    named = dict(
        each.lower().split(", ", 1)
        for each in metadata.get_all("Project-URL") or ()
        if ", " in each
    )
    for name in ("source", "repository", "source code", "homepage", "github"):
        if name in named:
            return named[name]
    return next(iter(named.values()), "")


def licences(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array instead of a table.")] = (
        False
    ),
) -> None:
    """List every package installed beside this one, with its licence and where it comes from.

    In an image: docker run IMAGE licences. What the weights are under: NOTICE.
    """
    found = sorted(installed(), key=lambda each: each.name.lower())
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found], indent=1))
        return
    width = max(len(f"{each.name} {each.version}") for each in found)
    for each in found:
        typer.echo(f"{f'{each.name} {each.version}':{width}}  {each.licence}  {each.source}")
