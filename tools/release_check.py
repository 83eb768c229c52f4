"""`make release-check`: builds wheel and sdist and uses the wheel as a stranger would.

The wheel goes into an empty environment, and the README's quick start runs from it in an empty
folder. What is proved is printed. Takes a few minutes, most of them pip's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

from ultralytics.utils import ASSETS

from tools.deployment.processes import Program, free_ports, need_programs, run
from tools.deployment.report import Report, run_check
from tools.lock import ROOT

_START_S = 240.0
_LARGEST_MB = 15.0
_WEIGHTS = {
    f"sdpose_core/weights/{name}"
    for name in (
        "sdpose-lite.safetensors",
        "person-n.safetensors",
        "person-n-int8.xml",
        "person-n-int8.bin",
        "rtmdet-nano.onnx",
    )
}
_NEEDED = _WEIGHTS | {
    "sdpose_core/py.typed",
    "service/py.typed",
    "service/web/index.html",
    "service/web/client/index.js",
    "service/web/client/index.d.ts",
    "service/web/client/package.json",
    "protos/sdpose/v1/pose.proto",
    "protos/sdpose/v1/pose_pb2.py",
    "protos/sdpose/v1/pose_pb2_grpc.py",
}
_ROOMS = {"sdpose_core", "service", "protos"}


def copy_of_the_tree(into: Path) -> Path:
    """The committed and the new files, without what git ignores: builds leave no trace here."""
    names = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT)
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, into / name)
    return into


def check_wheel(report: Report, wheel: Path, project: dict[str, object]) -> None:
    """Content and metadata of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = next(name.split("/")[0] for name in names if ".dist-info/" in name)
        metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
        licences = {name for name in names if name.startswith(f"{info}/licenses/")}
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
    size = wheel.stat().st_size / 2**20
    report.prove(f"the wheel has {size:.1f} MiB, at most {_LARGEST_MB:.0f}", size <= _LARGEST_MB)
    report.prove("weights, page, contract and types are inside", names >= _NEEDED,
                 found=sorted(_NEEDED - names))  # fmt: skip
    weights = {name for name in names if name.startswith("sdpose_core/weights/")}
    report.prove("no other weights are", weights == _WEIGHTS, found=sorted(weights - _WEIGHTS))
    rooms = {name.split("/")[0] for name in names} - {info}
    report.prove("nothing but our packages is: no tests, tools or docs", rooms == _ROOMS,
                 found=sorted(rooms))  # fmt: skip
    for field in ("name", "version", "description"):
        given = metadata["Summary" if field == "description" else field]
        report.prove(f"{field}: {given}", given == project[field])
    report.prove("the README is the long description", "SDPose" in str(metadata.get_payload()))
    licence = metadata["License-Expression"]
    report.prove(f"licence: {licence}, with its text", licence == project["license"])
    report.prove(
        "every licence file is inside",
        {"LICENSE"}
        <= {Path(name).name for name in licences}
        == set(metadata.get_all("License-File") or []),
        found=licences,
    )
    report.prove(
        "the command sdpose is installed", "sdpose = service.cli.main:main" in entry_points
    )


def check_sdist(report: Report, sdist: Path) -> None:
    """Content of the source distribution."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = _NEEDED | {"pyproject.toml", "README.md", "LICENSE"}
    report.prove(
        f"the sdist has {sdist.stat().st_size / 2**20:.1f} MiB and what a build needs",
        names >= needed,
        found=sorted(needed - names),
    )


def check_quick_start(report: Report, wheel: Path, folder: Path, python: str) -> None:
    """An empty environment, an empty folder, the README's commands."""
    report.section("The quick start from the wheel")
    environment, empty = folder / "environment", folder / "empty"
    run([python, "-m", "venv", str(environment)])
    pip = [str(environment / "bin" / "pip"), "--disable-pip-version-check", "install", "--quiet"]
    run([*pip, str(wheel)], cwd=folder)
    report.prove("the wheel installs into an empty environment")
    empty.mkdir()
    sdpose = str(environment / "bin" / "sdpose")
    # As a stranger's shell has it: no path of ours, a home without caches.
    env = {"PYTHONPATH": "", "HOME": str(folder / "home"), "XDG_CACHE_HOME": ""}
    report.prove(run([sdpose, "--version"], cwd=empty, env=os.environ | env).strip())
    http, rpc = free_ports(2)
    ports = {"SDPOSE_HTTP_PORT": str(http), "SDPOSE_GRPC_PORT": str(rpc)}
    shutil.copy(Path(ASSETS) / "bus.jpg", empty / "photo.jpg")
    with Program("served", [sdpose, "serve"], folder / "served", env | ports) as server:
        server.wait_ready(f"http://localhost:{http}/readyz", _START_S)
        report.prove("`sdpose serve` is ready, with the weights of the wheel")
        answer = run(
            ["curl", "-sSf", "-F", "image=@photo.jpg", f"localhost:{http}/pose"], cwd=empty
        )
        people = json.loads(answer)["people"]
        report.prove(
            f"`curl -F image=@photo.jpg` finds {len(people)} people of 17 keypoints each",
            len(people) > 1 and {len(person["keypoints"]) for person in people} == {17},
        )
        page = run(["curl", "-sSf", f"localhost:{http}/"])
        report.prove("the page is served", "<html" in page)
        server.tell(signal.SIGTERM)
        report.prove("SIGTERM ends it with status 0", server.ended(60) == 0)
    predicted = run([sdpose, "predict", "photo.jpg"], cwd=empty, env=os.environ | env)
    report.prove("`sdpose predict photo.jpg` prints the poses", "keypoints" in predicted)
    left = sorted(path.name for path in empty.iterdir())
    report.prove("the folder holds nothing new", left == ["photo.jpg"], found=left)


def check(report: Report, folder: Path, python: str) -> None:
    """Build, look, install, use."""
    need_programs({"git": "git", "curl": "curl"})
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    report.section("Wheel and sdist")
    tree = copy_of_the_tree(folder / "tree")
    run([sys.executable, "-m", "build", "--outdir", str(folder / "dist"), str(tree)])
    (wheel,) = (folder / "dist").glob("*.whl")
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    report.prove(f"built: {wheel.name} (from the sdist) and {sdist.name}")
    check_sdist(report, sdist)
    check_wheel(report, wheel, project)
    check_quick_start(report, wheel, folder, python)


def main() -> int:
    """The command; 1 when something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="makes the empty environment")
    python = parser.parse_args().python
    return run_check("release-check", lambda report, folder: check(report, folder, python))


if __name__ == "__main__":
    raise SystemExit(main())
