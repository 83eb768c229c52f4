"""The unit for a bare host, by systemd's own checks."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from service.settings import Settings
from tests.commands import need, run_command
from tools.lock import ROOT

UNIT = ROOT / "deploy" / "systemd" / "sdpose.service"
_COMMAND = "/opt/sdpose/venv/bin/sdpose"


def analyze(*words: object) -> subprocess.CompletedProcess[str]:
    need("systemd-analyze")
    return run_command("systemd-analyze", "--no-pager", *words)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a command that is there; systemd looks for it."""
    text = UNIT.read_text()
    assert text.count(f"{_COMMAND} serve") == 1
    path = tmp_path / UNIT.name
    path.write_text(text.replace(_COMMAND, "/bin/true"))
    return path


def test_systemd_accepts_it(unit: Path) -> None:
    done = analyze("verify", unit)
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("KillMode=mixed", "KillMode=some"))
    assert "some" in analyze("verify", unit).stderr, "the check would find a wrong value"


def test_it_may_do_little(unit: Path) -> None:
    done = analyze("security", "--offline=yes", "--threshold=20", unit)  # of 100
    assert done.returncode == 0, done.stdout


def test_it_may_finish_what_it_has() -> None:
    found = re.search(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)
    assert found
    assert int(found[1]) >= Settings().drain_seconds + 5
