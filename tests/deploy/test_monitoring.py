"""Dashboard and alerts ask for metrics that exist, and Prometheus' own tool accepts them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.metrics_core import Metric

from service.telemetry.metrics import Metrics
from service.telemetry.observers import SHED_REASONS
from tests.commands import need, run_command
from tools.deployment.prometheus import (
    DASHBOARD,
    ROOT,
    alert_rules,
    fit_config,
    panels,
)

# Of Prometheus itself.
_GIVEN = {"up", "ALERTS"}


def _series(metric: Metric) -> set[str]:
    if metric.type == "counter":
        return {f"{metric.name}_total"}
    if metric.type == "histogram":
        return {f"{metric.name}_{part}" for part in ("bucket", "sum", "count")}
    return {metric.name}


@pytest.fixture(scope="module")
def existing() -> set[str]:
    metrics = Metrics()
    metrics.watch_gpu(lambda: [])
    metrics.watch_cameras(lambda: [])
    return _GIVEN.union(*map(_series, metrics.registry.collect()))


def _asked(expression: str) -> set[str]:
    bare = re.sub(r'"[^"]*"', "", expression)
    return set(re.findall(r"\b(?:sdpose_\w+|process_\w+|up|ALERTS)\b", bare))


def test_dashboard_and_alerts_ask_for_metrics_that_exist(existing: set[str]) -> None:
    for name, expression in [*((each.title, each.expression) for each in panels()), *alert_rules()]:
        asked = _asked(expression)
        assert asked, name
        assert asked <= existing, name


def test_every_metric_of_ours_is_on_the_dashboard(existing: set[str]) -> None:
    shown = set().union(*(_asked(panel.expression) for panel in panels()))
    parts = re.compile(r"_(bucket|sum|count)$")
    missing = {parts.sub("", name) for name in existing if name.startswith("sdpose_")} - {
        parts.sub("", name) for name in shown
    }
    assert missing == set()


def test_panels_do_not_overlap_and_use_the_provisioned_source() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    source = yaml.safe_load(
        (ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"][0]
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["datasource"]["uid"] == source["uid"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@pytest.mark.parametrize("requests", ["_x30", "7x30"], ids=["none yet", "none any more"])
def test_panels_of_one_number_say_zero_where_nothing_happens(tmp_path: Path, requests: str) -> None:
    need("promtool")
    zero = {"Requests", "Our errors", "Dropped work", "Processes ready"}
    asked = [
        {
            "expr": panel.concrete("1m"),
            "eval_time": "5m",
            "exp_samples": [{"labels": "{}", "value": 0}],
        }
        for panel in panels()
        if panel.title in zero
    ]
    assert len(asked) == len(zero)
    series = 'sdpose_requests_total{instance="a", api="rest_pose", outcome="ok"}'
    test = {
        "interval": "10s",
        "input_series": [{"series": series, "values": requests}],
        "promql_expr_test": asked,
    }
    path = tmp_path / "panels.test.yml"
    path.write_text(yaml.safe_dump({"tests": [test]}))
    done = run_command("promtool", "test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_explained() -> None:
    guide = (ROOT / "docs" / "deployment.md").read_text()
    assert [name for name, _ in alert_rules() if f"`{name}`" not in guide] == []


def test_every_metric_is_explained_with_what_to_do(existing: set[str]) -> None:
    guide = (ROOT / "docs" / "operations.md").read_text()
    rows = [
        row.split(" | ")
        for row in guide.splitlines()
        if row.startswith(("| `sdpose_", "| `process_"))
    ]
    assert all(len(row) == 3 and len(row[2]) > 20 for row in rows)
    explained = {name for row in rows for name in re.findall(r"`(sdpose_\w+)", row[0])}
    parts = re.compile(r"_(bucket|sum|count)$")
    assert explained == {parts.sub("", name) for name in existing if name.startswith("sdpose_")}


def test_every_reason_for_dropped_work_is_explained() -> None:
    operations, deployment = (
        (ROOT / "docs" / name).read_text() for name in ("operations.md", "deployment.md")
    )
    rows = [
        re.search(r"^\| `sdpose_shed_total.*$", operations, re.MULTILINE),
        re.search(r"^\| `SdposeShedding`.*$", deployment, re.MULTILINE),
    ]
    for row in rows:
        assert row is not None
        assert [reason for reason in SHED_REASONS if f"`{reason}`" not in row[0]] == []


def test_promtool_accepts_the_rules_and_their_tests(tmp_path: Path) -> None:
    need("promtool")
    config = fit_config(tmp_path, ["127.0.0.1:8000"], "127.0.0.1:9090", quick=False)
    for command in (
        ["promtool", "check", "config", str(config)],
        ["promtool", "test", "rules", str(tmp_path / "alerts.test.yml")],
    ):
        done = run_command(*command)
        assert done.returncode == 0, done.stdout + done.stderr
