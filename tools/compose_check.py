"""`make compose-check`: builds the CPU image and runs the compose file, by Podman.

In a copy of the clone it follows docs/deployment.md, with podman-compose in the place of
`docker compose`, and checks the result: health, answers, a camera, alerts, restarts, the
end under load, an upgrade behind nginx, rights and ports. The containers have a separate
network, so ports in use do not matter and the service has no way out.

Needs root on Linux and Debian's `podman`, `runc`, `iptables`, `iproute2`, `debootstrap`, `git` and
`openssl`. Images of others are made of Debian's packages (`tools/deployment/stand_ins.py`), or
pulled with `--pull`. What pip needs to find packages, where it does not use its default, is passed
on with `--bind`, such as `--bind /etc/pip.conf --bind /opt/wheels`; `TORCH_INDEX` and the other
variables of `.env` count as they do for compose. `--keep FOLDER` keeps the layers for next time.

Where Docker does otherwise than Podman:

- Docker runs the health check itself; Podman leaves that to systemd, so it is run from here.
- Docker's name server is 127.0.0.11, Podman's the gateway: `upstreams-compose.conf` is changed.
- `up --no-deps` of podman-compose would restart nginx with the service it depends on: that
  `depends_on` is left out. `--wait` does nothing there: waited for from here.
- Podman makes /run and /var/tmp writable beside /tmp in a read-only container; nothing may be
  written there.
- Docker builds stages side by side, and rejects a GPU that its toolkit does not know with another
  message ("could not select device driver").
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from pathlib import Path

import grpc
import httpx
from ultralytics.utils import ASSETS

from tools.deployment.containers import Engine, Project
from tools.deployment.gpu_profiles import NO_GRAFANA, check_gpu, check_upgrade, name_server_of
from tools.deployment.load import GrpcLoad, RestLoad, grpc_people, stream_frames
from tools.deployment.own_network import Neighbour, enter_own_network
from tools.deployment.processes import answers, need_programs, run, wait_until
from tools.deployment.prometheus import PrometheusApi, quick_rules
from tools.deployment.report import CheckFailed, Report, run_check
from tools.deployment.stand_ins import make_stand_ins

_PROGRAMS = {
    name: f"Debian's {package}"
    for name, package in {
        "podman": "podman",
        "runc": "runc",
        "iptables": "iptables",
        "ip": "iproute2",
        "debootstrap": "debootstrap",
        "git": "git",
        "openssl": "openssl",
    }.items()
}
_URL = "http://127.0.0.1:8000"
_START_S = 240.0
_LARGEST_MB = 1200
_CAMERA = Path(__file__).parent / "deployment" / "mjpeg_camera.py"
# Empty and in main memory; the second one is Podman's.
_MOUNTED = {"/tmp", "/var/tmp"}  # noqa: S108 - a container's
_SETTINGS = "SDPOSE_CAMERA_ADDRESSES=http://camera:8080/*\n"


def check_build(report: Report, project: Project) -> None:
    """The Dockerfile, by the compose file."""
    report.section("Building the target cpu")
    project.compose("--profile", "cpu", "build")
    report.prove("`docker compose --profile cpu build`: every step succeeds")
    image = project.engine.inspect("image", "sdpose:cpu")
    report.prove("the image has the health check", bool(image.get("Healthcheck")))
    report.prove("its user is not root", image["Config"]["User"] == "10001:10001")
    with project.engine.mounted("sdpose:cpu") as root:
        for part in ("opt/venv", "opt/sdpose", "opt/cache", "usr"):
            report.note(f"{part}: {run(['du', '-sm', str(root / part)]).split()[0]} MiB")
    picture = Path(ASSETS) / "bus.jpg"
    command = ("run", "--rm", f"--volume={picture.parent}:/in:ro", "sdpose:cpu", "predict")
    lines = project.engine(*command, f"/in/{picture.name}").splitlines()
    people = sum('"people"' in line for line in lines)
    report.prove("`docker run sdpose:cpu predict` answers for one image", people == 1, found=lines)
    size = image["Size"] / 1e6
    report.prove(f"it has {size:.0f} MB, at most {_LARGEST_MB}", size <= _LARGEST_MB)


def check_rights(report: Report, project: Project, neighbour: Neighbour) -> None:
    """User, capabilities, what can be written, limits, ports."""
    report.section("What a container may")
    engine, name = project.engine, project.container("sdpose-cpu")
    state = engine.inspect("container", name)
    for service, user in (("sdpose-cpu", "10001"), ("prometheus", "65534")):
        for process in _processes(project, service):
            status = dict(
                line.split(":\t", 1)
                for line in Path(f"/proc/{process}/status").read_text().splitlines()
            )
            what = f"{service}'s {status['Name']}"
            report.prove(f"{what} is user {user}", set(status["Uid"].split()) == {user},
                         found=status["Uid"])  # fmt: skip
            sets = {key: int(value, 16) for key, value in status.items() if key.startswith("Cap")}
            report.prove(
                f"{what} has no capabilities and can get none", not any(sets.values()), found=sets
            )
            report.prove(f"{what} gains no rights by a program", status["NoNewPrivs"] == "1")
    limits = state["HostConfig"]
    given = (limits["Memory"], limits["PidsLimit"])
    report.prove("its limits are 4 GiB and 1024 processes", given == (4 * 2**30, 1024), found=given)
    report.prove("its root is read-only", limits["ReadonlyRootfs"])
    search = "find / -xdev -writable ! -type l; find /run /var/tmp /dev/shm -type f -writable"
    written = engine("exec", name, "sh", "-c", f"{{ {search}; }} 2>/dev/null; true").split()
    elsewhere = [path for path in written if path not in _MOUNTED]
    report.prove("it can write to nothing but its /tmp", not elsewhere, found=elsewhere)
    files = engine("exec", name, "find", "/tmp", "-type", "f").split()  # noqa: S108 - the image's
    report.note(f"files below /tmp: {len(files)}")
    reached = {port: neighbour.reaches(port) for port in (8000, 8001, 9090)}
    report.prove("no other host reaches the service or Prometheus", not any(reached.values()),
                 found=reached)  # fmt: skip


def _processes(project: Project, service: str) -> list[int]:
    """The first process of a service's container, and the one that it started if it is an init."""
    state = project.engine.inspect("container", project.container(service))["State"]
    first = int(state["Pid"])
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    return [first, *map(int, children[:1])]


def check_answers(report: Report, project: Project, picture: Path) -> None:
    """REST, gRPC, a stream and a camera."""
    report.section("Requests")
    image = picture.read_bytes()
    answer = httpx.post(f"{_URL}/pose", files={"image": image}, timeout=60.0).json()
    report.prove(f"POST /pose: {len(answer['people'])} people", len(answer["people"]) > 1)
    with grpc.insecure_channel("127.0.0.1:8001") as channel:
        people = grpc_people(channel, image)
        report.prove(f"gRPC: {people} people", people > 1)
        frames = stream_frames(channel, image, frames=4, pause_s=1.0)
        report.prove(f"a gRPC stream: {frames} of 4 frames answered with people", frames == 4)
    project.engine(
        *("run", "--detach", "--name=camera", "--network=sdpose_default"),
        *(f"--volume={_CAMERA}:/camera.py:ro", f"--volume={picture}:/image.jpg:ro"),
        *("python:3.11-slim-bookworm", "python", "/camera.py", "/image.jpg", "8080"),
    )
    refused = _add_camera("http://prometheus:9090/")
    report.prove("a camera that no pattern allows is rejected", refused.status_code == 422)
    added = _add_camera("http://camera:8080/live")
    report.prove("one that a pattern allows is taken", added.status_code == 201, found=added.text)
    people = _people_of_camera()
    report.prove(f"its events have poses: {people} people", people > 1)


def _add_camera(address: str) -> httpx.Response:
    return httpx.post(f"{_URL}/cameras", json={"name": "door", "address": address}, timeout=20.0)


def _people_of_camera() -> int:
    """People in the first pose that the camera's events give."""
    pose = False
    with httpx.stream("GET", f"{_URL}/cameras/door/events", timeout=60.0) as events:
        for line in events.iter_lines():
            pose = pose or line == "event: pose"
            if pose and line.startswith("data:"):
                return len(json.loads(line.removeprefix("data:"))["people"])
    raise CheckFailed("the camera's events ended without a pose")


def check_watched(report: Report, project: Project, api: PrometheusApi) -> None:
    """Prometheus finds the service by its name; an alert comes and goes."""
    report.section("Prometheus")
    wait_until("Prometheus scrapes the service", lambda: "up" in api.targets().values(), 60)
    report.prove(f"finds the service by DNS and scrapes it: {api.targets()}")
    alert = "SdposeCameraDown"
    report.prove(f"{alert} is silent", alert not in _firing(api))
    project.engine("stop", "--time=1", "camera")
    wait_until(f"{alert} fires", lambda: alert in _firing(api), 90)
    report.prove(f"{alert} fires when the camera is gone")
    project.engine("start", "camera")
    wait_until(f"{alert} ends", lambda: alert not in _firing(api), 90)
    report.prove("and ends when it is back")


def _firing(api: PrometheusApi) -> set[str]:
    return {name for name, _ in api.alerts()}


def check_restart(report: Report, project: Project) -> None:
    """The process is killed."""
    report.section("The process is killed")
    name = project.container("sdpose-cpu")
    first = project.engine.inspect("container", name)["State"]["Pid"]
    os.kill(_processes(project, "sdpose-cpu")[-1], signal.SIGKILL)

    def started_again() -> bool:
        state = project.engine.inspect("container", name)["State"]
        return state["Running"] and state["Pid"] != first and project.healthy("sdpose-cpu")

    wait_until("the service is started again and healthy", started_again, _START_S)
    report.prove("it is started again, and healthy")


def check_end(report: Report, project: Project, api: PrometheusApi, image: bytes) -> None:
    """It is stopped under load, and started again."""
    report.section("Stopped under load")
    name = project.container("sdpose-cpu")
    with (
        RestLoad(f"{_URL}/pose", image, callers=6) as rest,
        GrpcLoad("127.0.0.1:8001", image, callers=2) as calls,
    ):
        wait_until("answers come", lambda: rest.outcomes[200] > 6 and calls.outcomes["OK"] > 2, 60)
        began = time.monotonic()
        project.compose("--profile", "cpu", "stop", "sdpose-cpu")
        took = time.monotonic() - began
    state = project.engine.inspect("container", name)["State"]
    report.prove(f"`docker compose stop` ends it after {took:.1f} s with 0, not by force",
                 state["ExitCode"] == 0, found=state["ExitCode"])  # fmt: skip
    finished = '"finished": true' in project.engine("logs", "--tail=1", name)
    report.prove("its last line reports that all work in flight was finished", finished)
    # Every call was answered, or rejected before it began: none broke off. CANCELLED is gRPC's own
    # word for a call that comes while the server closes.
    for outcomes, allowed in (
        (rest.outcomes, {200, 429, 503, "ConnectError"}),
        (calls.outcomes, {"OK", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "CANCELLED"}),
    ):
        report.prove(f"no call was cut off: {dict(outcomes)}", set(outcomes) <= allowed)
    wait_until("SdposeDown fires", lambda: "SdposeDown" in _firing(api), 90)
    report.prove("SdposeDown fires")
    project.compose("--profile", "cpu", "up", "--detach", "--no-build")
    wait_until("it is healthy", lambda: project.healthy("sdpose-cpu"), _START_S)
    wait_until("SdposeDown ends", lambda: "SdposeDown" not in _firing(api), 60)
    report.prove("and ends after `docker compose up`")


def check_cpu_profile(report: Report, project: Project, neighbour: Neighbour) -> None:
    """`docker compose --profile cpu up`, and what comes of it."""
    (project.folder / "docker-compose.override.yml").write_text(NO_GRAFANA)
    (project.folder / "sdpose.env").write_text(_SETTINGS)
    rules = project.folder / "deploy/prometheus/alerts.yml"
    rules.write_text(quick_rules(rules.read_text()))
    config = project.folder / "deploy/prometheus/prometheus.yml"
    intervals = config.read_text().replace("interval: 10s", "interval: 1s")
    config.write_text(intervals.replace("refresh_interval: 15s", "refresh_interval: 2s"))
    report.section("docker compose --profile cpu up")
    report.note("for this check: scraped each second, alert windows 15 times shorter, no Grafana")
    began = time.monotonic()
    project.compose("--profile", "cpu", "up", "--detach", "--no-build")
    wait_until("it is healthy", lambda: project.healthy("sdpose-cpu"), _START_S)
    report.prove(f"healthy {time.monotonic() - began:.0f} s after `up`")
    wait_until("Prometheus is ready", lambda: answers("http://127.0.0.1:9090/-/ready"), 60)
    api = PrometheusApi("127.0.0.1:9090")
    picture = Path(ASSETS) / "bus.jpg"
    check_answers(report, project, picture)
    check_rights(report, project, neighbour)
    check_watched(report, project, api)
    peak = Path(f"/proc/{_processes(project, 'sdpose-cpu')[-1]}/status").read_text()
    report.note(next(line for line in peak.splitlines() if line.startswith("VmHWM")))
    check_restart(report, project)
    check_end(report, project, api, picture.read_bytes())
    project.engine("rm", "--force", "--time=1", "camera")


def check(report: Report, folder: Path, scratch: Path, options: argparse.Namespace) -> None:
    """Base, build, run."""
    need_programs(_PROGRAMS)
    if os.geteuid() != 0:
        raise CheckFailed("separate networks and mounts need root")
    binds = [f"{bind}:{bind}" if ":" not in bind else bind for bind in options.bind]
    engine = Engine(folder)
    build = ["--network=host", "--layers", *(f"--volume={bind}:ro" for bind in binds)]
    try:
        if not options.pull:
            report.section("Stand-ins for images of others")
            report.prove(f"made: {make_stand_ins(engine, folder) or 'none, all are there'}")
        project = Project(engine, scratch, build)
        check_build(report, project)
        if options.gpu:
            project.compose("--profile", "gpu", "build")
            size = engine.inspect("image", "sdpose:gpu")["Size"] / 1e6
            report.prove(f"`docker compose --profile gpu build`: every step; {size:.0f} MB")
        enter_own_network()
        with Neighbour() as neighbour:
            check_cpu_profile(report, project, neighbour)
            name_server = name_server_of(project)
            project.compose("--profile", "cpu", "down", "--volumes")
            check_upgrade(report, project, neighbour, name_server)
            project.engine("rm", "--all", "--force", "--time=1")
            check_gpu(report, project, "sdpose:gpu" if options.gpu else "sdpose:cpu")
    finally:
        engine.close()


def main() -> int:
    """The command; 1 when something does not hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bind", action="append", default=[], help="SOURCE[:TARGET] for pip")
    parser.add_argument("--keep", type=Path, help="a folder that keeps the layers for next time")
    parser.add_argument("--pull", action="store_true", help="pull the images of others")
    parser.add_argument("--gpu", action="store_true", help="build the GPU image too: gigabytes")
    options = parser.parse_args()

    def run(report: Report, scratch: Path) -> None:
        folder = options.keep.resolve() if options.keep else scratch / "store"
        folder.mkdir(parents=True, exist_ok=True)
        project = scratch / "clone"
        project.mkdir()
        check(report, folder, project, options)

    return run_check("compose-check", run)


if __name__ == "__main__":
    raise SystemExit(main())
