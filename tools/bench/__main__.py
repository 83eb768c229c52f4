"""`python -m tools.bench NAME`: measurements for maintainers that print Markdown tables.

What a user runs on their own machine is `sdpose bench`. Each command here is the function `main` of
the module of its name.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

import typer

COMMANDS: Final = {
    "batching": "the same load on services that differ in their largest batch",
    "decoding": "OpenCV and Pillow on the same files",
    "detection": "accuracy and speed of person detectors on a COCO file",
    "gpu": "whether a GPU answers as the CPU does, and how fast",
    "hostile": "what one hostile client does to other callers",
    "overload": "several times more requests than the service can answer",
    "peers": "our students and networks of others on the same crops",
    "people": "the cost of an image by its people, and where the time goes",
    "ray-serve": "the same load on `sdpose serve` and behind Ray Serve",
    "soak": "a long run with cameras and callers that misbehave",
    "suppression": "the time of the last step of an answer, by people",
    "tracking": "identities and smoothing, on people made by arithmetic",
    "training": "the parts of a training step",
}


def command(name: str) -> typer.Typer:
    """The command of a measurement; imports that one alone."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(import_module(f"tools.bench.{name.replace('-', '_')}").main)
    return app


def main(words: Sequence[str]) -> None:
    """Runs the measurement that is named first; a wrong name or value ends with status 2."""
    if not words or words[0] not in COMMANDS:
        lines = [f"  {name:12} {what}" for name, what in COMMANDS.items()]
        sys.exit("\n".join(["python -m tools.bench NAME [OPTIONS]; NAME is one of", *lines]))
    try:
        command(words[0])(words[1:], prog_name=f"python -m tools.bench {words[0]}")
    except (ValueError, FileNotFoundError) as error:
        typer.echo(f"tools.bench: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
