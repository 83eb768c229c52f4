"""`make deploy-check`: real Prometheus, real nginx and two real servers, on loopback.

What is proved is printed. Needs Debian's `prometheus` and `nginx-light` (or `nginx`), `openssl`
and `curl`; takes about four minutes on two cores. `--plot FILE` also draws the load run.
"""

from __future__ import annotations

import argparse
import json
import math
import ssl
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ultralytics.utils import ASSETS

from tools.deployment.front import fit_nginx
from tools.deployment.load import RestLoad, grpc_people, stream_frames, websocket_frames
from tools.deployment.plot import plot_load
from tools.deployment.processes import Program, free_ports, need_programs, run, wait_until
from tools.deployment.prometheus import PrometheusApi, alert_rules, fit_config, panels
from tools.deployment.report import CheckFailed, Report, run_check

_START_S = 240.0
_PROGRAMS = {
    "prometheus": "Debian's prometheus",
    "promtool": "Debian's prometheus",
    "nginx": "Debian's nginx-light",
    "openssl": "openssl",
    "curl": "curl",
}
# Panels that have nothing to show on a CPU, and those that are empty while all is well; the latter
# are queried again under overload.
_GPU_PANELS = {"GPU memory", "GPU utilisation"}
_QUIET_PANELS = {"Alerts", "Dropped work, by reason"}
# These judge the speed of the machine, which a check on two shared cores must not.
_SPEED_ALERTS = {"SdposeQueueAge", "SdposeSlow", "SdposeStreamsDropFrames"}
# So small that a handful of callers is too many.
_FEW_REQUESTS = {"SDPOSE_MAX_REQUESTS": "4", "SDPOSE_MAX_BATCH": "1"}
_RAMP = ((1, 15.0), (4, 15.0), (16, 30.0))


@dataclass(frozen=True, slots=True)
class Server:
    """Where one server listens."""

    http: int
    grpc: int

    @property
    def address(self) -> str:
        """As Prometheus names it."""
        return f"127.0.0.1:{self.http}"

    @property
    def url(self) -> str:
        """Address of its REST front end."""
        return f"http://{self.address}"

    def start(self, folder: Path, name: str, **settings: str) -> Program:
        """`sdpose serve` with these settings."""
        env = {
            "SDPOSE_HTTP_PORT": str(self.http),
            "SDPOSE_GRPC_PORT": str(self.grpc),
            "SDPOSE_DEVICE": "cpu",
            **settings,
        }
        return Program(name, [str(Path(sys.executable).parent / "sdpose"), "serve"], folder, env)


def check_rules(report: Report, folder: Path) -> None:
    """promtool on the committed files."""
    report.section("Prometheus' own opinion")
    config = fit_config(folder, ["127.0.0.1:8000"], "127.0.0.1:9090", quick=False)
    run(["promtool", "check", "config", str(config)])
    report.prove("promtool accepts the configuration and the alert rules")
    run(["promtool", "test", "rules", "alerts.test.yml"], cwd=folder)
    report.prove(f"{len(list(alert_rules()))} alerts fire on what they are for, and only then")


def check_panels(report: Report, api: PrometheusApi, server: Server) -> None:
    """Every expression of the dashboard and of the alerts against live metrics."""
    shown, empty = 0, set()
    for panel in panels():
        found = api.query(panel.concrete("1m"))
        values = [float(sample["value"][1]) for sample in found]
        if panel.title in _GPU_PANELS | _QUIET_PANELS and not values:
            empty.add(panel.title)
            continue
        if not values or not any(map(math.isfinite, values)):
            raise CheckFailed(f"panel {panel.title!r} shows nothing: {panel.concrete('10s')}")
        if any(value < 0 for value in values):
            raise CheckFailed(f"panel {panel.title!r} shows {values}")
        shown += 1
    report.prove(f"{shown} of {len(panels())} panel expressions show live values")
    report.note(f"empty, as they should be (no GPU, nothing wrong): {', '.join(sorted(empty))}")
    stages = {sample["metric"]["stage"] for sample in api.query("sdpose_stage_seconds_count")}
    report.prove("all stages are measured", {"decode", "detect", "pose"} <= stages, found=stages)
    for name, expression in alert_rules():
        hits = [
            sample
            for sample in api.query(expression)
            if sample["metric"].get("instance", server.address) == server.address
        ]
        if hits and name in _SPEED_ALERTS:
            report.note(f"{name} is true on this machine: {hits[0]['value'][1]}")
        elif hits:
            raise CheckFailed(f"{name} is true of a healthy service: {hits}")
    health = api.rules()
    report.prove(
        "no other alert is true of the healthy service, and no expression errs",
        set(health.values()) == {"ok"} and len(health) == len(list(alert_rules())),
        found=health,
    )


def check_overload_panels(report: Report, api: PrometheusApi, small: Server) -> None:
    """The panels that are empty or zero while all is well, while the small server has too much."""
    queries = {panel.title: panel.concrete("10s") for panel in panels()}

    def values(title: str, **labels: str) -> list[float]:
        return [
            float(sample["value"][1])
            for sample in api.query(queries[title])
            if labels.items() <= sample["metric"].items()
        ]

    shed = values("Dropped work")
    report.prove('the panel "Dropped work" shows it', len(shed) == 1 and shed[0] > 0.01,
                 found=shed)  # fmt: skip
    full = values("Dropped work, by reason", reason="queue_full")
    report.prove('"Dropped work, by reason" names queue_full', len(full) == 1 and full[0] > 0,
                 found=full)  # fmt: skip
    firing = values(
        "Alerts", alertname="SdposeShedding", alertstate="firing", instance=small.address
    )
    report.prove('"Alerts" lists the alert', firing == [1.0], found=firing)
    errors = values("Our errors")
    report.prove('"Our errors" stays at 0: rejecting is no fault', errors == [0.0], found=errors)


def check_traffic(report: Report, api: PrometheusApi, server: Server, image: bytes) -> None:
    """Requests of every kind, and what Prometheus then knows."""
    report.section("Prometheus watches a running service")
    with RestLoad(f"{server.url}/pose", image, callers=1) as load:
        time.sleep(8)
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
        people = grpc_people(channel, image)
        answered = stream_frames(channel, image, frames=8, pause_s=1.0)
    check_panels(report, api, server)
    report.prove("the callers got answers", set(load.outcomes) == {200}, found=load.outcomes)
    report.prove(f"gRPC found {people} people, a stream answered {answered} frames", people > 1)
    health = api.targets()
    report.prove("the running process is up", health.get(server.address) == "up", found=health)


def check_front(
    report: Report, folder: Path, port: int, certificate: Path, image_path: Path
) -> None:
    """curl, a WebSocket and gRPC through nginx and TLS."""
    report.section("TLS behind nginx")
    url = f"https://localhost:{port}"
    curl = ["curl", "--silent", "--show-error", "--fail", "--cacert", str(certificate)]
    wait_until("nginx answers", lambda: _succeeds([*curl, f"{url}/readyz"]), 20)
    answer = json.loads(
        run(
            [
                *curl,
                "-F",
                f"image=@{image_path}",
                "-H",
                "X-Request-ID: through-nginx",
                f"{url}/pose",
            ]
        )
    )
    report.prove(f"curl over HTTPS: {len(answer['people'])} people", len(answer["people"]) > 1)
    report.prove(
        "the caller's request id arrives",
        answer["request_id"] == "through-nginx",
        found=answer["request_id"],
    )
    status = run([*curl[:-3], "--cacert", str(certificate), "--output", "/dev/null",
                  "--write-out", "%{http_code}", f"{url}/metrics"])  # fmt: skip
    report.prove("/metrics is hidden", status == "404", found=status)
    image = image_path.read_bytes()
    trusting = ssl.create_default_context(cafile=str(certificate))
    stream = f"wss://localhost:{port}/pose/stream"
    answered = websocket_frames(stream, image, 3, origin=url, trust=trusting)
    report.prove(f"a page's WebSocket through nginx: {answered} frames answered", answered == 3)
    trust = grpc.ssl_channel_credentials(certificate.read_bytes())
    with grpc.secure_channel(f"localhost:{port}", trust) as channel:
        people = grpc_people(channel, image)
        report.prove(f"gRPC over TLS on the same port: {people} people", people > 1)
        answered = stream_frames(channel, image, frames=4, pause_s=0.5)
        report.prove(f"a gRPC stream through nginx: {answered} frames answered", answered > 0)
        health = health_pb2_grpc.HealthStub(channel)
        state = health.Check(health_pb2.HealthCheckRequest(), timeout=10).status
        serving = health_pb2.HealthCheckResponse.SERVING
        report.prove("gRPC health through nginx reports SERVING", state == serving, found=state)


def _succeeds(command: list[str]) -> bool:
    try:
        run(command)
    except CheckFailed:
        return False
    return True


def check_overload(
    report: Report, api: PrometheusApi, small: Server, other: Server, image: bytes
) -> tuple[float, float]:
    """Too many callers for the small one; gives the times of begin and end."""
    report.section("An alert fires under overload")
    alert = ("SdposeShedding", small.address)
    report.prove("before: SdposeShedding is silent", alert not in api.alerts())
    began = time.time()
    for callers, seconds in _RAMP:
        with RestLoad(f"{small.url}/pose", image, callers) as load:
            time.sleep(seconds)
            if callers == _RAMP[-1][0]:
                wait_until("SdposeShedding fires", lambda: alert in api.alerts(), 90)
                check_overload_panels(report, api, small)
        report.note(f"{callers} callers: {dict(sorted(load.outcomes.items(), key=str))}")
    ended = time.time()
    report.prove("SdposeShedding fires for the overloaded process")
    report.prove("and not for the other one", ("SdposeShedding", other.address) not in api.alerts())
    report.prove(
        "the overloaded process answered 200 and 429, nothing else",
        set(load.outcomes) == {200, 429},
        found=load.outcomes,
    )
    memory = float(
        api.query(f'process_resident_memory_bytes{{instance="{small.address}"}}')[0]["value"][1]
    )
    report.note(f"its main memory after the load: {memory / 2**20:.0f} MiB")
    wait_until("SdposeShedding ends", lambda: alert not in api.alerts(), 90)
    report.prove("SdposeShedding ends with the load")
    return began, ended


def check(report: Report, folder: Path, plot: Path | None) -> None:
    """All of it, in order."""
    need_programs(_PROGRAMS)
    check_rules(report, folder / "as-committed")
    picture = Path(ASSETS) / "bus.jpg"
    image = picture.read_bytes()
    ports = free_ports(6)
    first, small = Server(ports[0], ports[1]), Server(ports[2], ports[3])
    own = f"127.0.0.1:{ports[4]}"
    config = fit_config(folder / "quick", [first.address, small.address], own, quick=True)
    report.note("for this check: scraped each second, alert windows 15 times shorter")
    main = fit_nginx(folder / "nginx", ports[5], [(s.http, s.grpc) for s in (first, small)])
    run(["nginx", "-t", "-p", str(folder / "nginx"), "-c", str(main)])
    certificate = folder / "nginx" / "tls" / "pose.crt"
    prometheus = [
        *("prometheus", f"--config.file={config}", f"--web.listen-address={own}"),
        f"--storage.tsdb.path={folder / 'data'}",
    ]
    nginx = ["nginx", "-p", str(folder / "nginx"), "-c", str(main)]
    with (
        first.start(folder / "first", "sdpose") as old,
        Program("prometheus", prometheus, folder / "quick") as watching,
    ):
        watching.wait_ready(f"http://{own}/-/ready", 60)
        old.wait_ready(f"{first.url}/readyz", _START_S)
        api = PrometheusApi(own)
        wait_until("SdposeDown", lambda: ("SdposeDown", small.address) in api.alerts(), 60)
        check_traffic(report, api, first, image)
        report.prove("SdposeDown fires for the address at which nothing runs yet")
        with small.start(folder / "small", "sdpose-small", **_FEW_REQUESTS) as new:
            new.wait_ready(f"{small.url}/readyz", _START_S)
            wait_until("SdposeDown ends", lambda: not api.alerts(), 60)
            report.prove("and ends once a process answers there")
            with Program("nginx", nginx, folder / "nginx"):
                check_front(report, folder, ports[5], certificate, picture)
                began, ended = check_overload(report, api, small, first, image)
                if plot is not None:
                    plot_load(api, small.address, began, ended, plot)
                    report.note(f"drawn: {plot}")


def main() -> int:
    """The command; 1 when something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", type=Path, help="draw the load run into this PNG")
    plot = parser.parse_args().plot
    return run_check("deploy-check", lambda report, folder: check(report, folder, plot))


if __name__ == "__main__":
    raise SystemExit(main())
