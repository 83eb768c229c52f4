"""What `make compose-check` takes from the committed files is there."""

from __future__ import annotations

import re

import yaml

from tools.deployment.prometheus import PROMETHEUS, quick_rules
from tools.deployment.stand_ins import default_image
from tools.lock import ROOT


def test_the_images_of_others_by_their_full_names() -> None:
    assert default_image("BASE") == "docker.io/library/python:3.11-slim-bookworm"
    assert default_image("PROMETHEUS_IMAGE").startswith("docker.io/prom/prometheus:v")
    assert default_image("NGINX_IMAGE").startswith("docker.io/library/nginx:")


def test_quick_rules_shorten_windows_and_waiting_alone() -> None:
    rules = (PROMETHEUS / "alerts.yml").read_text()
    quick = quick_rules(rules)
    assert "for: 1m" in rules
    assert not re.search(r"for: \d+m|\[\d+m\]", quick)
    names = [
        [rule["alert"] for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
        for text in (rules, quick)
    ]
    assert names[0] == names[1]


def test_what_the_check_changes_is_in_the_files() -> None:
    config = (PROMETHEUS / "prometheus.yml").read_text()
    assert config.count("interval: 10s") == 2
    assert "refresh_interval: 15s" in config
    assert "127.0.0.11" in (ROOT / "deploy" / "nginx" / "upstreams-compose.conf").read_text()
