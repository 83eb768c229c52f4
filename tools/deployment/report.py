"""Saying what was proved, one line each; the first failure ends the check."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path


class CheckFailed(Exception):
    """A failed check: what was expected and what was found, for its user."""


class Report:
    """Prints each proved statement with the time it took."""

    def __init__(self) -> None:
        self.proved = 0
        self._since = time.monotonic()

    def section(self, title: str) -> None:
        """A heading."""
        self._write(f"\n{title}")

    def prove(self, statement: str, holds: bool = True, *, found: object = None) -> None:
        """Prints `statement`; raises `CheckFailed` with `found` unless it `holds`."""
        if not holds:
            raise CheckFailed(statement if found is None else f"{statement}; found: {found}")
        now = time.monotonic()
        self._write(f"  ok  {statement}  ({now - self._since:.1f} s)")
        self._since = now
        self.proved += 1

    def note(self, text: str) -> None:
        """Something to know that proves nothing."""
        self._write(f"  --  {text}")

    @staticmethod
    def _write(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def run_check(name: str, check: Callable[[Report, Path], None]) -> int:
    """Runs `check` with a new empty folder; the exit status, 1 when something does not hold."""
    report = Report()
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as folder:
        try:
            check(report, Path(folder))
        except CheckFailed as failure:
            sys.stderr.write(f"\nFAILED: {failure}\n")
            return 1
    sys.stdout.write(f"\n{name}: {report.proved} proved\n")
    return 0
