"""`sdpose models`: students and detectors, and how good they are."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer


def models(
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """List the students and detectors: size, cost, measured accuracy, licence."""
    from sdpose_core.embedded import OFFICIAL_HELP, list_models

    listed = list_models()
    if as_json:
        typer.echo(json.dumps(listed, indent=2))
        return

    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("name", "kind", "params M", "GMACs", "paper GFLOPs", "file MB", "AP", "licence"):
        table.add_column(column, justify="left" if column in ("name", "kind") else "right")
    for entry in listed:
        table.add_row(
            entry["name"],
            entry["kind"],
            _number(entry["parameters"], 1e6),
            _number(entry["gmacs"]),
            _number(entry["paper_gflops"]),
            _number(entry["file_bytes"], 1e6) if entry["embedded"] else "not embedded",
            _number(entry["ap"], digits=3),
            (entry["licence"] or "-").partition(" (")[0],
        )
    Console(width=120).print(table)
    typer.echo("\nGMACs: all multiply-accumulates of one cycle; the paper's figure leaves the two")
    typer.echo(
        "attention products out. A detector's are for 640 x 640, rtmdet-nano's 320 x 320. AP: of"
    )
    typer.echo(
        "the embedded weights, of keypoints and, for the detector, of boxes; --json and the model"
    )
    typer.echo(f"card say on what. For the official weights: {OFFICIAL_HELP}.")


def _number(value: Any, unit: float = 1, digits: int = 2) -> str:
    return "-" if value is None else f"{value / unit:.{digits}f}"
