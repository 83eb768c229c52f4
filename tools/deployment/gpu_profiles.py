"""The compose file's GPU profiles without a GPU: two processes behind nginx, and the rejection."""

from __future__ import annotations

import json
import time
from pathlib import Path

from ultralytics.utils import ASSETS

from tools.deployment.containers import Project
from tools.deployment.front import make_certificate
from tools.deployment.load import RestLoad
from tools.deployment.own_network import Neighbour
from tools.deployment.processes import wait_until
from tools.deployment.report import CheckFailed, Report

_START_S = 240.0
# As for a host with one GPU, without the GPU: the CPU image in the place of the other.
_TWO_PROCESSES = """\
services:
  sdpose: &cpu
    image: sdpose:cpu
    environment: {SDPOSE_DEVICE: cpu}
    deploy: {resources: {reservations: !reset null}}
  sdpose-second: *cpu
  nginx:
    depends_on: !reset []
  grafana: &left-out
    profiles: [left-out]
  prometheus: *left-out
"""
NO_GRAFANA = "services: {grafana: {profiles: [left-out]}}\n"


def check_upgrade(report: Report, project: Project, neighbour: Neighbour, name_server: str) -> None:
    """Two processes behind nginx, each replaced under load, as in docs/deployment.md."""
    report.section("An upgrade behind nginx")
    override = project.folder / "docker-compose.override.yml"
    override.write_text(_TWO_PROCESSES)
    upstreams = project.folder / "deploy/nginx/upstreams-compose.conf"
    upstreams.write_text(upstreams.read_text().replace("127.0.0.11", name_server))
    certificate = make_certificate(project.folder / "deploy/nginx/tls")
    profiles = ("--profile", "gpu", "--profile", "second-gpu")
    with (project.folder / ".env").open("a") as env:
        env.write("NGINX_BIND=0.0.0.0\n")
    project.compose(*profiles, "up", "--detach", "--no-build")
    both = ("sdpose", "sdpose-second")
    for service in both:
        wait_until(f"{service} is healthy", lambda s=service: project.healthy(s), _START_S)
    open_ports = {443: True, 8000: False, 8001: False}
    reached = {port: neighbour.reaches(port) for port in open_ports}
    report.prove("another host reaches nginx on 443, and not the service",
                 reached == open_ports, found=reached)  # fmt: skip
    image = (Path(ASSETS) / "bus.jpg").read_bytes()
    project.engine("tag", "sdpose:cpu", "sdpose:next")
    override.write_text(_TWO_PROCESSES.replace("sdpose:cpu", "sdpose:next"))
    url = "https://localhost:443/pose"
    with RestLoad(url, image, callers=2, verify=str(certificate)) as load:
        wait_until("answers come", lambda: load.outcomes[200] > 6, 60)
        for service in reversed(both):
            command = ("up", "--detach", "--no-deps", "--no-build", service)
            project.compose(*profiles, *command)
            wait_until(f"the new {service}", lambda s=service: project.healthy(s), _START_S)
            time.sleep(10)  # as on the page: until nginx has looked it up
            before = load.outcomes[200]
            wait_until("answers come", lambda n=before: load.outcomes[200] > n + 6, 60)
            image_name = project.engine.inspect("container", project.container(service))[
                "ImageName"
            ]
            report.prove(f"{service} was replaced", "next" in image_name, found=image_name)
    report.prove(f"every request was answered: {dict(load.outcomes)}", set(load.outcomes) == {200})
    reached = {port: neighbour.reaches(port) for port in open_ports}
    report.prove("the new processes are open to nginx alone", reached == open_ports, found=reached)


def check_gpu(report: Report, project: Project, image: str) -> None:
    """The GPU profile on a host without a GPU."""
    report.section("The GPU profile without a GPU")
    (project.folder / "docker-compose.override.yml").write_text(NO_GRAFANA)
    project.engine("tag", image, "sdpose:gpu")
    try:
        project.compose("--profile", "gpu", "up", "--detach", "--no-build", "sdpose")
    except CheckFailed as failure:
        named = "nvidia.com/gpu=0" in str(failure)
        report.prove("the engine rejects it by the name of the GPU", named, found=failure)
    else:
        raise CheckFailed("`docker compose up` began the profile gpu without a GPU")
    try:
        project.engine("run", "--rm", "--env=SDPOSE_DEVICE=cuda", image)
    except CheckFailed as failure:
        message = str(failure)
        report.prove(f"{image} started without one reports it and ends", "GPU" in message,
                     found=message)  # fmt: skip
        report.note(message.splitlines()[-1][:200])
    else:
        raise CheckFailed("the service began without a GPU")


def name_server_of(project: Project) -> str:
    """Address of the name server that containers ask."""
    network = json.loads(project.engine("network", "inspect", "sdpose_default"))[0]
    return str(network["subnets"][0]["gateway"])
