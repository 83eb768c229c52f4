"""What Ray Serve adds, measured with the models and HAProxy as they are; its `serve run` file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("ray", reason="comes with `make test-all`")

from ray.serve.schema import ServeDeploySchema
from typer.testing import CliRunner

from service.ray.app import GRPC_SERVICER, build_app
from tests.commands import run_command
from tools.bench.__main__ import command

ROOT = Path(__file__).parents[2]


@pytest.mark.slow("starts Ray Serve twice, 2 min")
def test_the_bench_asks_both() -> None:
    words = ["ray-serve", "--rounds", "1", "--seconds", "0.5", "--clients", "2"]
    done = run_command(sys.executable, "-m", "tools.bench", *words, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| ")]
    measured = [row for row in rows if row[2].strip() == "2"]
    assert [row[1].strip() for row in measured] == ["sdpose serve", "Ray Serve"] * 2
    assert all(float(row[3].split()[0]) > 0 for row in measured)
    assert all(row[-2].strip() == "0" for row in measured), "an error"


def test_a_front_end_that_is_none() -> None:
    refused = CliRunner().invoke(command("ray-serve"), ["--fronts", "rest,soap"])
    assert str(refused.exception) == "--fronts rest,soap: rest, grpc or both"


def test_the_file_for_serve_run() -> None:
    text = (ROOT / "deploy" / "ray" / "serve.yaml").read_text()
    given = ServeDeploySchema.model_validate(yaml.safe_load(text))
    (application,) = given.applications
    assert application.import_path == "service.ray.app:build_app"
    assert given.grpc_options.grpc_servicer_functions == [GRPC_SERVICER]
    built = build_app(application.args)
    (deployment,) = application.deployments
    default = built._bound_deployment
    assert deployment.name == default.name
    # Said in the file to be changed there; it begins with what holds without it.
    assert deployment.max_ongoing_requests == default.max_ongoing_requests
    assert (
        deployment.graceful_shutdown_timeout_s
        == default._deployment_config.graceful_shutdown_timeout_s
    )
    scaling = default._deployment_config.autoscaling_config
    for name, value in deployment.autoscaling_config.items():
        assert getattr(scaling, name) == value
