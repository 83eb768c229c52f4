"""``python -m sdpose_core`` and ``sdpose`` without arguments."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.commands import run_command


def _help_of(*command: str) -> str:
    done = run_command(*command)
    text = done.stdout + done.stderr  # click prints a help that was not asked for as an error
    assert "Traceback" not in text
    return text


def test_the_module_is_the_command() -> None:
    text = _help_of(sys.executable, "-m", "sdpose_core")
    assert "python -m sdpose_core [OPTIONS] COMMAND" in text
    for command in ("serve", "predict", "models"):
        assert f"\n  {command} " in text


def test_the_command_without_arguments_helps() -> None:
    text = _help_of(str(Path(sys.executable).parent / "sdpose"))
    assert "Usage: sdpose [OPTIONS] COMMAND" in text
