"""`sdpose-client` alone: its wheel in an empty environment, beside folders of other names."""

from __future__ import annotations

import ast
import asyncio
import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sdpose_client
from tests.commands import run_command
from tests.fakes import PNG, FakeEstimator
from tests.service.conftest import serving
from tools.lock import ROOT

CLIENT = ROOT / "client"
PROJECT = tomllib.loads((CLIENT / "pyproject.toml").read_text())
SERVICE = tomllib.loads((ROOT / "pyproject.toml").read_text())
_LARGEST_MB = 30.0
_USES_ALL = """
import sys
from pathlib import Path
import sdpose_client
early = {"grpc", "httpx", "websockets", "asyncio"} & set(sys.modules)
assert not early, early
from sdpose_client import GrpcPoseClient, RestPoseClient, ServiceError, WebSocketPoseClient
image, (url, target) = Path("image.png").read_bytes(), sys.argv[1:]
with RestPoseClient(url) as rest, GrpcPoseClient(target) as rpc, WebSocketPoseClient(url) as ws:
    found = [rest.estimate(image), rpc.estimate(image)]
    found += [answer.outcome for way in (rpc, ws) for answer in way.follow([image])]
print([len(answer.people) for answer in found])
with RestPoseClient("http://127.0.0.1:9", retry=sdpose_client.Retry(attempts=1)) as nowhere:
    try:
        nowhere.estimate(image)
    except ServiceError as error:
        print(error.code)
"""


def test_what_both_distributions_state_is_the_same() -> None:
    ours, services = PROJECT["project"], SERVICE["project"]
    for field in ("version", "license"):
        assert ours[field] == services[field]
    assert set(ours["dependencies"]) <= set(services["dependencies"])
    name = "sdpose_client"
    data = (each["tool"]["setuptools"]["package-data"][name] for each in (PROJECT, SERVICE))
    assert next(data) == next(data)
    assert (CLIENT / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_its_syntax_is_that_of_its_oldest_python() -> None:
    """Names of newer libraries are mypy's part: `make check` reads the package as 3.10 too."""
    assert PROJECT["project"]["requires-python"] == ">=3.10"
    assert PROJECT["tool"]["ruff"]["target-version"] == "py310"
    assert "--python-version 3.10 --package sdpose_client" in (ROOT / "Makefile").read_text()
    for path in CLIENT.rglob("sdpose_client/**/*.py"):
        ast.parse(path.read_text(), path.name, feature_version=(3, 10))


def test_every_name_of_the_package_is_there_and_no_other() -> None:
    for name in sdpose_client.__all__:
        assert getattr(sdpose_client, name).__name__ == name
    assert dir(sdpose_client) == sorted(sdpose_client.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Pose'"):
        sdpose_client.Pose  # type: ignore[attr-defined]  # noqa: B018


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built of a copy: a build leaves its folders beside the source."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(CLIENT, folder / "client", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    options = "--no-deps --no-index --no-build-isolation --disable-pip-version-check --quiet"
    command = [sys.executable, "-m", "pip", "wheel", *options.split(), "--wheel-dir", folder]
    done = run_command(*command, folder / "client")
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name: archive.read(name) for name in archive.namelist()}
    info = {name for name in inside if name.startswith("sdpose_client-")}
    assert any(name.endswith("licenses/LICENSE") for name in info)
    source = {
        str(path.relative_to(CLIENT)): path.read_bytes()
        for path in (CLIENT / "sdpose_client").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name: inside[name] for name in inside.keys() - info} == source
    assert {"sdpose_client/py.typed", "sdpose_client/v1/pose.proto"} <= source.keys()


def _needed(names: set[str]) -> set[str]:
    """These packages and all that they require here, without extras."""
    found: set[str] = set()
    while names:
        name = names.pop()
        found.add(name)
        required = map(Requirement, distribution(name).requires or [])
        fitting = (each for each in required if not each.marker or each.marker.evaluate())
        names |= {canonicalize_name(each.name) for each in fitting} - found
    return found


@pytest.fixture
def environment(wheel: Path, tmp_path: Path) -> Path:
    """An environment with the wheel and links to what it requires, as pip would install them."""
    made = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made], check=True)
    (packages,) = made.glob("lib/python3.*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    size = sum(path.stat().st_size for path in packages.rglob("*") if path.is_file())
    needs = map(Requirement, PROJECT["project"]["dependencies"])
    for name in _needed({canonicalize_name(each.name) for each in needs}):
        files = [file for file in distribution(name).files or [] if file.parts[0] != ".."]
        size += sum(Path(str(file.locate())).stat().st_size for file in files)
        for top in {file.parts[0] for file in files}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(str(distribution(name).locate_file(top))))
    assert size < _LARGEST_MB * 1e6, f"{size / 1e6:.1f} MB"
    return made


@pytest.mark.anyio
async def test_alone_beside_folders_named_service_and_protos(
    environment: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    for name in ("service", "protos"):
        (mine / name).mkdir(parents=True)
        (mine / name / "__init__.py").write_text("raise ImportError('the user has this package')")
    (mine / "image.png").write_bytes(PNG)
    (mine / "all.py").write_text(_USES_ALL)
    python = environment / "bin" / "python"
    async with serving(FakeEstimator()) as service:
        done: Any = await asyncio.to_thread(
            run_command, python, "all.py", service.url, service.target, cwd=mine
        )
    assert done.returncode == 0, done.stderr
    people, code = done.stdout.splitlines()
    assert (json.loads(people), code) == ([1, 1, 1, 1], "unavailable")
    installed = run_command(python, "-c", "import numpy", cwd=mine)
    assert "No module named 'numpy'" in installed.stderr, "the environment is not empty"
