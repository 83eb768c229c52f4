"""`make release-check`: builds wheels and sdists and uses the wheels as a stranger would.

The service's wheel goes into an empty environment, and the README's quick start runs from it in an
empty folder; the client's goes into another, and calls that service. What is proved is printed.
Takes a few minutes, most of them pip's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tarfile
import time
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
    "sdpose_client/py.typed",
    "sdpose_client/v1/pose.proto",
    "sdpose_client/v1/pose_pb2.py",
    "sdpose_client/v1/pose_pb2_grpc.py",
}
_ROOMS = {"sdpose_core", "service", "sdpose_client"}
_CLIENT_MB = 30.0
_CLIENT = """
import sys
from pathlib import Path
from sdpose_client import GrpcPoseClient
with GrpcPoseClient(sys.argv[1]) as client:
    frame = Path("photo.jpg").read_bytes()
    print(sum(len(answer.outcome.people) for answer in client.follow([frame] * 3)))
"""


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
    sources = {f"client/{name}" if name.startswith("sdpose_client/") else name for name in _NEEDED}
    needed = sources | {"pyproject.toml", "README.md", "LICENSE"}
    report.prove(
        f"the sdist has {sdist.stat().st_size / 2**20:.1f} MiB and what a build needs",
        names >= needed,
        found=sorted(needed - names),
    )


def check_client(report: Report, wheel: Path, services: Path, folder: Path, python: str) -> Path:
    """The client's wheel, installed alone; returns the interpreter that has it."""
    report.section("The client's wheel")
    with zipfile.ZipFile(wheel) as archive, zipfile.ZipFile(services) as other:
        ours = {name for name in archive.namelist() if name.startswith("sdpose_client/")}
        same = {name for name in other.namelist() if name.startswith("sdpose_client/")} == ours
        same = same and all(archive.read(name) == other.read(name) for name in ours)
    report.prove(f"{wheel.name} has the files that the service's wheel has", same)
    environment = folder / "client"
    run([python, "-m", "venv", str(environment)])
    before, began = _megabytes(environment), time.monotonic()
    pip = [str(environment / "bin" / "pip"), "--disable-pip-version-check", "install", "--quiet"]
    run([*pip, str(wheel)], cwd=folder)
    took, size = time.monotonic() - began, _megabytes(environment) - before
    report.prove(
        f"installs in {took:.1f} s and {size:.1f} MB, at most {_CLIENT_MB:.0f}", size <= _CLIENT_MB
    )
    return environment / "bin" / "python"


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def check_quick_start(
    report: Report, wheel: Path, folder: Path, python: str, client_python: Path
) -> None:
    """An empty environment, an empty folder, the README's commands; the client from its own."""
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
        mine = folder / "mine"
        for name in ("service", "protos"):
            (mine / name).mkdir(parents=True)
            (mine / name / "__init__.py").write_text("raise ImportError('the user has this one')")
        shutil.copy(empty / "photo.jpg", mine)
        (mine / "camera.py").write_text(_CLIENT)
        found = run([str(client_python), "camera.py", f"localhost:{rpc}"], cwd=mine)
        report.prove(
            "the client, beside folders named service and protos, finds them in a stream",
            int(found) > 0,
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
    run([sys.executable, "-m", "build", "--outdir", str(folder / "dist"), str(tree / "client")])
    (wheel,) = (folder / "dist").glob("sdpose_service-*.whl")
    (sdist,) = (folder / "dist").glob("sdpose_service-*.tar.gz")
    (client,) = (folder / "dist").glob("sdpose_client-*.whl")
    report.prove(f"built: {wheel.name} (from the sdist) and {sdist.name}")
    check_sdist(report, sdist)
    check_wheel(report, wheel, project)
    client_python = check_client(report, client, wheel, folder, python)
    check_quick_start(report, wheel, folder, python, client_python)


def main() -> int:
    """The command; 1 when something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="makes the empty environment")
    python = parser.parse_args().python
    return run_check("release-check", lambda report, folder: check(report, folder, python))


if __name__ == "__main__":
    raise SystemExit(main())
