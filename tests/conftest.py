"""What all tests share: an environment of their own, and nothing left behind."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tools.environment import clean

# Before anything else is imported, as some packages read variables then. The workers of
# pytest-xdist start in the environment of the process that started them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    home = tempfile.mkdtemp(prefix="sdpose-tests-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    own = clean(os.environ, home) | {"HYPOTHESIS_STORAGE_DIRECTORY": f"{home}/hypothesis"}
    os.environ.clear()
    os.environ.update(own)

from sdpose_core.detector.ultralytics_quiet import ultralytics_tasks

# Before any test module imports ultralytics by itself: what it changes in other libraries on
# import must not reach the code under test (the service never imports it in another way).
ultralytics_tasks()

_ROOT = Path(__file__).parent.parent
_OTHERS = {".git", ".venv", "__pycache__", "build", "sdpose_service.egg-info"}


def _files() -> set[Path]:
    found: set[Path] = set()
    for folder, folders, names in os.walk(_ROOT):
        folders[:] = [each for each in folders if each not in _OTHERS]
        found.update(Path(folder, name) for name in names)
    return found


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has ended
        return ""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--slow`, for `make test-all`."""
    parser.addoption("--slow", action="store_true", help="run the tests marked slow, and no others")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what is marked `slow("how long")`, by a skip, so that the summary of `make test`
    names and counts it, with the reason; `--slow` runs it and nothing else."""
    slow = [(item, item.get_closest_marker("slow")) for item in items]
    if config.getoption("--slow"):
        items[:] = [item for item, mark in slow if mark]
        return
    for item, mark in slow:
        if mark:
            item.add_marker(pytest.mark.skip(reason=f"{mark.args[0]}; `make test-all` runs it"))


@pytest.fixture(scope="session", autouse=True)
def nothing_left() -> Iterator[None]:
    """Fails the last test where any leaves a process, or a file in the project's folder."""
    files = _files()
    yield
    children = {each: _command(each) for each in psutil.Process().children(True)}
    # Not those that have ended, nor Python's own, which ends with this process.
    ours = [one for one, said in children.items() if said and "resource_tracker" not in said]
    _, alive = psutil.wait_procs(ours, timeout=60)
    for each in alive:
        each.kill()
    assert [children[each] for each in alive] == [], "tests left these processes"
    assert sorted(map(str, _files() - files)) == [], "tests left these files"
