"""`make image-check`: builds the CPU image from the Dockerfile and runs it, without Docker.

buildah carries out the Dockerfile. Where python:3.11-slim-bookworm cannot be pulled, the base is
made of the same Debian packages (debootstrap; its Python is 3.11 as well). The image then runs as
compose would run it: its own entry point, environment and user, a read-only root file system with
a small writable /tmp, no capabilities, process 1 of its own, and no network but loopback.

Needs root on Linux, and Debian's `buildah`, `debootstrap` and `curl`. What pip needs to find
packages, where it does not use its default, is passed on with `--bind`, such as
`--bind /etc/pip.conf --bind /opt/wheels`.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ultralytics.utils import ASSETS

from tools.deployment.processes import need_programs, run, wait_until
from tools.deployment.report import CheckFailed, Report, run_check
from tools.lock import ROOT

_PROGRAMS = {name: f"Debian's {name}" for name in ("buildah", "debootstrap", "curl")}
_BASE = "localhost/python:3.11-slim-bookworm"
_IMAGE = "localhost/sdpose:cpu"
# $1 is the image's root; then come its user and its command line.
_CONTAINER = """\
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
mount -o remount,ro,bind "$1"
mount -t proc proc "$1/proc"
mount -t tmpfs -o size=512m,mode=1777 tmpfs "$1/tmp"
mount -t tmpfs -o size=1m tmpfs "$1/dev"
for node in null zero random urandom; do
    touch "$1/dev/$node"
    mount --bind "/dev/$node" "$1/dev/$node"
done
mkdir "$1/dev/shm"
mount -t tmpfs -o size=64m,mode=1777 tmpfs "$1/dev/shm"
mount -o remount,ro "$1/dev"
ip link set lo up
exec chroot "$1" setpriv --reuid="$2" --regid="$2" --clear-groups \\
    --bounding-set=-all --no-new-privs -- "${@:3}"
"""


class Builder:
    """buildah with a store of its own."""

    def __init__(self, folder: Path) -> None:
        self._graph = folder / "graph"
        store = folder / "storage.conf"
        store.write_text(
            '[storage]\ndriver = "overlay"\n'
            f'runroot = "{folder / "run"}"\ngraphroot = "{self._graph}"\n'
        )
        self._env = os.environ | {
            "CONTAINERS_STORAGE_CONF": str(store),
            "BUILDAH_ISOLATION": "chroot",
        }

    def __call__(self, *arguments: str) -> str:
        """Output of one buildah command."""
        return run(["buildah", *arguments], env=self._env, cwd=ROOT).strip()

    def close(self) -> None:
        """Removes what is mounted, so that the folder can be removed."""
        self("rm", "--all")
        unmount = ["umount", str(self._graph / "overlay")]
        subprocess.run(unmount, check=False, capture_output=True)

    def has(self, image: str) -> bool:
        """Whether the store has this image."""
        return image in self("images", "--format", "{{.Name}}:{{.Tag}}").splitlines()


def make_base(builder: Builder, folder: Path) -> None:
    """A stand-in for python:3.11-slim-bookworm out of Debian's packages."""
    root = folder / "base"
    shutil.rmtree(root, ignore_errors=True)
    packages = "python3.11,python3.11-venv,python3-pip,ca-certificates"
    run(["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(root)])
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3.11")
    container = builder("from", "scratch")
    run(["cp", "-a", f"{root}/.", builder("mount", container)])
    builder("commit", "--rm", "--quiet", container, _BASE)


def start(root: Path, config: Mapping[str, Any], folder: Path) -> subprocess.Popen[bytes]:
    """The image's command as process 1 of namespaces of its own; its log is in `folder`."""
    command = [*config["Entrypoint"], *config["Cmd"]]
    user = str(config["User"]).split(":")[0]
    # `env` looks the command up in the image's own path, as a container engine does.
    inner = ["env", "-i", f"--chdir={config['WorkingDir']}", *config["Env"], *command]
    outer = [
        "unshare",
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "bash",
        "-c",
        _CONTAINER,
        "image",
    ]
    with (folder / "container.log").open("wb") as log:
        return subprocess.Popen(
            [*outer, str(root), user, *inner],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def first_process(outer: int) -> int:
    """Process 1 of the namespaces, by its number outside."""
    children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
    return int(children[0]) if children else 0


def _entered(pid: int, *command: str) -> str:
    return run(["nsenter", "--target", str(pid), "--net", *command])


def _ready(pid: int) -> bool:
    try:
        return "ready" in _entered(pid, "curl", "-sf", "http://127.0.0.1:8000/readyz")
    except CheckFailed:
        return False


def _status(pid: int, name: str) -> str:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return line.split(":", 1)[1].strip()
    raise CheckFailed(f"no {name} in /proc/{pid}/status")


def check_running(report: Report, outer: subprocess.Popen[bytes], root: Path, log: Path) -> None:
    """What a running container must show."""
    began = time.monotonic()

    def ready() -> bool:
        if outer.poll() is not None:
            raise CheckFailed(f"it ended by itself:\n{log.read_text()[-3000:]}")
        return _ready(first_process(outer.pid))

    wait_until("the container is ready", ready, 240)
    pid = first_process(outer.pid)
    report.prove(
        f"ready after {time.monotonic() - began:.0f} s: read-only root, no network, no capabilities"
    )
    report.prove("its user is 10001", _status(pid, "Uid").split()[0] == "10001")
    report.prove("it has no capabilities", int(_status(pid, "CapEff"), 16) == 0)
    probe = ["nsenter", "--target", str(pid), "--net", "--root", "--wd=/"]
    run([*probe, "/opt/venv/bin/python", "/opt/healthcheck.py"])
    report.prove("the image's health check says 0")
    picture = Path(ASSETS) / "bus.jpg"
    answer = json.loads(
        _entered(pid, "curl", "-sf", "-F", f"image=@{picture}", "http://127.0.0.1:8000/pose")
    )
    report.prove(f"it finds {len(answer['people'])} people", len(answer["people"]) > 1)
    written = run(["nsenter", "--target", str(pid), "--mount", "find", f"{root}/tmp", "-type", "f"])  # noqa: S108 - the image's
    report.note(f"files it wrote below /tmp: {len(written.splitlines())}")
    report.note(f"main memory: {_status(pid, 'VmHWM')} at most")
    os.kill(pid, signal.SIGTERM)
    status = outer.wait(60)
    report.prove("SIGTERM reaches it: it drains and leaves with 0", status == 0, found=status)


def check(report: Report, folder: Path, binds: list[str], base: str) -> None:
    """Base, build, run."""
    need_programs(_PROGRAMS)
    if os.geteuid() != 0:
        raise CheckFailed("mounting and changing the root need root")
    builder = Builder(folder)
    try:
        build_and_run(report, builder, folder, binds, base)
    finally:
        builder.close()


def build_and_run(
    report: Report, builder: Builder, folder: Path, binds: list[str], base: str
) -> None:
    """The check itself."""
    report.section("Building the target cpu")
    if base == _BASE and not builder.has(_BASE):
        make_base(builder, folder)
        report.prove("a base out of Debian's packages")
    pairs = [bind.partition(":") for bind in binds]
    volumes = [f"--volume={source}:{target or source}:ro" for source, _, target in pairs]
    forwarded = [f"--build-arg={name}" for name in ("TORCH_INDEX",) if os.environ.get(name)]
    builder(
        *("bud", "--format", "docker", "--layers", "--target", "cpu", "--tag", _IMAGE),
        *(f"--build-arg=BASE={base}", *forwarded, *volumes, "."),
    )
    report.prove("every step of the Dockerfile's target cpu succeeds")
    image = json.loads(builder("inspect", "--type", "image", _IMAGE))
    config = image["Docker"]["config"]
    report.prove("the image has the health check", bool(config.get("Healthcheck")))
    report.section("Running it")
    root = Path(builder("mount", builder("from", "--pull-never", _IMAGE)))
    whole, packages, own = (
        run(["du", "-sm", str(root / part)]).split()[0] for part in ("", "opt/venv", "opt/sdpose")
    )
    report.note(f"MiB: {whole} in all, packages {packages}, our code and weights {own}")
    outer = start(root, config, folder)
    report.note(f"command: {shlex.join([*config['Entrypoint'], *config['Cmd']])}")
    try:
        check_running(report, outer, root, folder / "container.log")
    finally:
        if outer.poll() is None:
            outer.kill()
            outer.wait()


def main() -> int:
    """The command; 1 when something does not hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--bind", action="append", default=[], help="SOURCE[:TARGET] that pip needs"
    )
    parser.add_argument("--keep", type=Path, help="a folder that keeps the layers for next time")
    parser.add_argument("--base", default=_BASE, help="a base image to pull instead of making one")
    options = parser.parse_args()

    def run(report: Report, scratch: Path) -> None:
        folder = options.keep or scratch
        folder.mkdir(parents=True, exist_ok=True)
        check(report, folder.resolve(), options.bind, options.base)

    return run_check("image-check", run)


if __name__ == "__main__":
    raise SystemExit(main())
