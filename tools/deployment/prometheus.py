"""The committed Prometheus files, fitted to a check on loopback, and questions to a Prometheus."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

ROOT = Path(__file__).parent.parent.parent
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "sdpose.json"


def fit_config(into: Path, targets: list[str], own: str, *, quick: bool) -> Path:
    """Copies config and rules into a folder, with these addresses in place of compose's names.

    `quick` also makes a minute of alert windows and waiting into four seconds, and scrapes each
    second, so that an alert fires within seconds.
    """
    into.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    if quick:
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    for job in config["scrape_configs"]:
        job.pop("dns_sd_configs", None)
        addresses = targets if job["job_name"] == "sdpose" else [own]
        job["static_configs"] = [{"targets": addresses}]
    path = into / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    rules = (PROMETHEUS / "alerts.yml").read_text()
    if quick:
        rules = quick_rules(rules)
    (into / "alerts.yml").write_text(rules)
    shutil.copy(PROMETHEUS / "alerts.test.yml", into)
    return path


def quick_rules(rules: str) -> str:
    """The alert rules with four seconds for each minute of their windows and waiting."""
    rules = re.sub(r"(?<=\[)(\d+)m(?=\])", lambda m: f"{4 * int(m[1])}s", rules)
    return re.sub(r"(?<=for: )(\d+)m", lambda m: f"{4 * int(m[1])}s", rules)


@dataclass(frozen=True, slots=True)
class Panel:
    """One expression of the dashboard."""

    title: str
    expression: str

    def concrete(self, window: str) -> str:
        """As Grafana would send it, for all processes."""
        filled = self.expression.replace("$__rate_interval", window)
        return filled.replace("$instance", ".*")


def panels(dashboard: Path = DASHBOARD) -> list[Panel]:
    """All expressions of the dashboard in order."""
    content = json.loads(dashboard.read_text())
    return [
        Panel(panel["title"], target["expr"])
        for panel in content["panels"]
        for target in panel["targets"]
    ]


def alert_rules(rules: Path = PROMETHEUS / "alerts.yml") -> Iterator[tuple[str, str]]:
    """Name and expression of every alert."""
    for group in yaml.safe_load(rules.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


class PrometheusApi:
    """Questions to a running Prometheus."""

    def __init__(self, address: str) -> None:
        self._http = httpx.Client(base_url=f"http://{address}/api/v1", timeout=20.0)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query, each with `metric` and `value`."""
        return list(self._get("/query", query=expression)["result"])

    def query_range(
        self, expression: str, start: float, end: float, step_s: float
    ) -> list[dict[str, Any]]:
        """The series of a range query, each with `metric` and `values`."""
        options = {"query": expression, "start": start, "end": end, "step": step_s}
        return list(self._get("/query_range", **options)["result"])

    def targets(self) -> dict[str, str]:
        """Health (`up`, `down`, `unknown`) by address of the service's processes."""
        active = self._get("/targets", state="active")["activeTargets"]
        return {
            target["labels"]["instance"]: target["health"]
            for target in active
            if target["labels"]["job"] == "sdpose"
        }

    def alerts(self, state: str = "firing") -> set[tuple[str, str]]:
        """Name and process of the alerts in a state."""
        found = self._get("/alerts")["alerts"]
        return {
            (alert["labels"]["alertname"], alert["labels"].get("instance", ""))
            for alert in found
            if alert["state"] == state
        }

    def rules(self) -> dict[str, str]:
        """Health (`ok` or `err`) by alert."""
        groups = self._get("/rules")["groups"]
        return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}

    def _get(self, path: str, **options: object) -> dict[str, Any]:
        response = self._http.get(path, params=options)  # type: ignore[arg-type]
        response.raise_for_status()
        return dict(response.json()["data"])
