"""The gRPC contract keeps buf's rules, and does not break what is committed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def buf(*arguments: str) -> str:
    """What buf has to complain; empty when nothing."""
    beside_python = Path(sys.executable).parent / "buf"
    command = str(beside_python) if beside_python.exists() else shutil.which("buf")
    if command is None:
        pytest.skip("buf is not installed (extra dev)")
    done = subprocess.run(
        [command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def test_lint() -> None:
    assert buf("lint") == ""


def test_nothing_breaks_callers_of_the_committed_contract() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: nothing to compare with")
    assert buf("breaking", "--against", ".git#ref=HEAD,subdir=protos") == ""
