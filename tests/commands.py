"""Commands that tests run to their end, and programs that a machine may lack."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import Any

import pytest

SDPOSE = (sys.executable, "-c", "from service.cli.main import main; main()")


def run_command(
    *words: object, check: bool = False, **options: Any
) -> subprocess.CompletedProcess[str]:
    """How a command ended, and what it wrote as text."""
    command = [str(word) for word in words]
    return subprocess.run(command, capture_output=True, text=True, check=check, **options)


def need(*programs: str) -> None:
    """Leaves the test out where a program is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
