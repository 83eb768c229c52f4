"""The set-up that make runs: which Python it takes, and what it says where it cannot go on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from tests.commands import run_command
from tools import set_up
from tools.lock import PYTHONS, ROOT

_FINDER = ROOT / "tools" / "find_python.sh"


def _find(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The choice with the programs of `folder` alone on PATH."""
    return run_command("/bin/sh", _FINDER, *arguments, cwd=folder, env={"PATH": str(folder)})


def _program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def _works(path: Path) -> Path:
    return _program(path, f'exec "{sys.executable}" "$@"')


def test_the_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    stated = [
        line.rpartition(" ")[2]
        for line in project["classifiers"]
        if line.startswith("Programming Language :: Python :: 3.")
    ]
    assert stated == list(PYTHONS)
    allowed = SpecifierSet(project["requires-python"])
    minors = [minor for minor in range(30) if allowed.contains(f"3.{minor}.0")]
    assert [f"3.{minor}" for minor in minors] == list(PYTHONS)
    finder = _FINDER.read_text()
    (listed,) = re.findall(r'^minors="(.+)"$', finder, re.MULTILINE)
    assert [f"3.{minor}" for minor in reversed(listed.split())] == list(PYTHONS)
    first, last = PYTHONS[0], PYTHONS[-1]
    assert (
        f"({first.replace('.', ', ')}) <= sys.version_info[:2] <= ({last.replace('.', ', ')})"
        in finder
    )
    assert finder.count(f"{first} to {last}") == 2
    assert f"Python {first} to {last}" in (ROOT / "README.md").read_text()


def test_the_newest_that_runs_is_taken(tmp_path: Path) -> None:
    _program(tmp_path / "python3.14", "echo pyenv: python3.14: command not found >&2; exit 127")
    _works(tmp_path / "python3.12")
    _works(tmp_path / "python3.11")
    found = _find(tmp_path)
    assert (found.returncode, found.stdout, found.stderr) == (0, "python3.12\n", "")


def test_the_environment_that_is_there_comes_first(tmp_path: Path) -> None:
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    _works(tmp_path / ".venv" / "bin" / "python")
    _works(tmp_path / "python3.14")
    assert _find(tmp_path).stdout == ".venv/bin/python\n"
    assert _find(tmp_path, "python3.14").stdout == "python3.14\n"


def test_without_one_a_sentence_names_what_was_looked_for(tmp_path: Path) -> None:
    found = _find(tmp_path)
    (told,) = found.stderr.splitlines()
    assert (found.returncode, found.stdout) == (1, "")
    assert "python3.14 python3.13 python3.12 python3.11 python3 python on PATH" in told


@pytest.mark.parametrize("script", ["exit 1", "exit 127"])
def test_a_named_one_that_is_too_old_is_refused(tmp_path: Path, script: str) -> None:
    old = _program(
        tmp_path / "mine", f'case "$2" in *platform*) echo 3.8.1 64bit;; *) {script};; esac'
    )
    found = _find(tmp_path, str(old))
    assert found.returncode == 1
    assert f"PYTHON={old} is 3.8.1 64bit, expected a 64-bit Python 3.11 to 3.14" in found.stderr


def test_one_without_venv_says_what_to_install(tmp_path: Path) -> None:
    _program(
        tmp_path / "python3.13",
        f'case "$2" in *ensurepip*) exit 1;; esac; exec "{sys.executable}" "$@"',
    )
    found = _find(tmp_path)
    assert found.returncode == 1
    assert "python3.13 cannot make an environment" in found.stderr
    assert "python3-venv" in found.stderr


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
         "the disk is full"),
        ("WARNING: Retrying after connection broken by 'NewConnectionError(...)'\n"
         "ERROR: No matching distribution found for av==18.1.0", "cannot be reached"),
        ("ERROR: No matching distribution found for av==18.1.0",
         "no av==18.1.0 ready for Python 3"),
        ("ERROR: Cannot do it\nmore", "pip failed: Cannot do it; mend that"),
        ("", "pip ended without a word"),
    ],
)  # fmt: skip
def test_what_pip_says_becomes_a_sentence(printed: str, told: str) -> None:
    sentence = set_up.reason(printed)
    assert told in sentence
    assert "\n" not in sentence


def test_a_half_installed_package_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    for name in ("whole-1.dist-info", "half-1.dist-info", "~eing-replaced"):
        (packages / name).mkdir(parents=True)
        (packages / name / "METADATA").touch()
    (packages / "whole-1.dist-info" / "INSTALLER").touch()
    monkeypatch.setattr(set_up, "VENV", tmp_path)
    set_up.remove_half_installed()
    assert sorted(each.name for each in packages.iterdir()) == ["whole-1.dist-info"]


@pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")
def test_make_ends_with_the_sentence(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "tools/find_python.sh", "tools/set_up.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    done = run_command(
        "make", "setup", "PYTHON=/nowhere/python", cwd=tmp_path, env={"PATH": os.environ["PATH"]}
    )
    assert done.returncode == 2
    assert "PYTHON=/nowhere/python is no Python that runs" in done.stderr
