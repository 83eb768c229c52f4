"""The nginx example: nginx itself accepts it, and its parts fit each other and compose."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.commands import need, run_command
from tools.deployment.front import NGINX, fit_nginx
from tools.lock import ROOT

_SITE = (NGINX / "sdpose.conf").read_text()
_COMPOSE = (NGINX / "upstreams-compose.conf").read_text()
_HOST = (NGINX / "upstreams-host.conf").read_text()


def _test(folder: Path, main: Path) -> None:
    command = ["nginx", "-t", "-p", str(folder), "-c", str(main)]
    done = run_command(*command)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def fitted(tmp_path: Path) -> Path:
    need("nginx", "openssl")
    return fit_nginx(tmp_path, 8443, [(8000, 8001), (8010, 8011)])


def test_nginx_accepts_the_example_for_a_host(fitted: Path, tmp_path: Path) -> None:
    upstreams = (tmp_path / "conf.d" / "upstreams.conf").read_text()
    assert upstreams.count("server 127.0.0.1:") == 8
    _test(tmp_path, fitted)


def test_nginx_accepts_the_example_for_compose(fitted: Path, tmp_path: Path) -> None:
    # Debian's nginx is older than `resolve`, and there is no such name here.
    older = _COMPOSE.replace(" resolve ", " ").replace("server sdpose:", "server 127.0.0.1:")
    (tmp_path / "conf.d" / "upstreams.conf").write_text(older)
    _test(tmp_path, fitted)


def test_composes_nginx_can_look_names_up_again() -> None:
    assert re.findall(r"server (\S+) resolve", _COMPOSE) == ["sdpose:8000", "sdpose:8001"] * 2
    assert len(re.findall(r"^    zone \w+ 64k;$", _COMPOSE, re.MULTILINE)) == 4
    assert "resolver 127.0.0.11 " in _COMPOSE
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["nginx"]
    (version,) = re.findall(r"nginx:(\d+)\.(\d+)\.\d+-", service["image"])
    # 1.27.3 brought `resolve`, so of the stable series 1.28 is the first.
    assert tuple(map(int, version)) >= (1, 28)


def test_both_upstream_files_name_what_the_example_passes_to() -> None:
    asked = set(re.findall(r"_pass \w+://(\w+);", _SITE))
    for text in (_COMPOSE, _HOST):
        assert set(re.findall(r"^upstream (\w+)", text, re.MULTILINE)) == asked


def test_a_websocket_gets_through() -> None:
    server, _, locations = _SITE.partition("    location ")
    for header in ("Upgrade $http_upgrade", "Connection $sdpose_connection", "Host $http_host"):
        assert f"proxy_set_header {header};" in server
    # One set in a location would hide those of the server.
    assert "proxy_set_header" not in locations
    assert "location = /pose/stream {" in f"location {locations}"
