"""docker-compose.yml: the schema of the compose specification, and what we promise of it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings
from tests.commands import run_command
from tools.lock import ROOT

_FILE = ROOT / "docker-compose.yml"
_COMPOSE: dict[str, Any] = yaml.safe_load(_FILE.read_text())
_SERVICES: dict[str, dict[str, Any]] = _COMPOSE["services"]
_OURS = ["sdpose", "sdpose-second", "sdpose-cpu"]


def test_fits_the_schema_of_the_compose_specification() -> None:
    done = run_command(
        Path(sys.executable).parent / "check-jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        _FILE,
    )
    assert done.returncode == 0, done.stdout


def test_nothing_is_reachable_from_outside_unless_asked() -> None:
    ports = [port for service in _SERVICES.values() for port in service["ports"]]
    assert len(ports) > 6
    for port in ports:
        assert re.match(r"(\$\{\w+_BIND:-)?127\.0\.0\.1\}?:\d+:\d+$", port), port


@pytest.mark.parametrize("name", sorted(_SERVICES))
def test_everything_is_bounded_and_comes_back(name: str) -> None:
    service = _SERVICES[name]
    limits = service["deploy"]["resources"]["limits"]
    assert limits["memory"]
    assert limits["pids"]
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]


@pytest.mark.parametrize("name", sorted(_SERVICES))
def test_what_is_mounted_is_there(name: str) -> None:
    for mount in _SERVICES[name].get("volumes", []):
        source = mount.split(":")[0]
        if source == "./deploy/nginx/tls":
            continue  # the operator's own certificate
        if source.startswith("."):
            assert (ROOT / source).exists(), source
        else:
            assert source in _COMPOSE["volumes"]


@pytest.mark.parametrize("name", _OURS)
def test_our_processes_need_no_disk_and_have_time_to_finish(name: str) -> None:
    service = _SERVICES[name]
    assert service["read_only"]
    assert service["tmpfs"]
    grace = float(service["stop_grace_period"].removesuffix("s"))
    # After the drain: answers on their way, threads, traces.
    assert grace >= Settings.model_fields["drain_seconds"].default + 5
    assert service["networks"]["default"]["aliases"] == ["sdpose"]
    built = rf"^FROM \S+ AS {service['build']['target']}$"
    assert re.search(built, (ROOT / "Dockerfile").read_text(), re.MULTILINE)


def test_gpu_processes_reserve_one_gpu_each() -> None:
    taken = []
    for name in ("sdpose", "sdpose-second"):
        (device,) = _SERVICES[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["driver"] == "nvidia"
        assert device["capabilities"] == ["gpu"]
        taken += device["device_ids"]
    assert len(set(taken)) == 2
    assert "devices" not in str(_SERVICES["sdpose-cpu"]["deploy"])


def test_the_environment_file_names_only_what_compose_reads() -> None:
    named = set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env").read_text(), re.MULTILINE))
    read = set(re.findall(r"\$\{([A-Z_]+)", _FILE.read_text()))
    assert named - read == {"COMPOSE_PROFILES"}
    profiles = {
        profile for service in _SERVICES.values() for profile in service.get("profiles", [])
    }
    assert "COMPOSE_PROFILES=gpu" in (ROOT / ".env").read_text()
    assert {"gpu", "cpu"} <= profiles
