"""`sdpose models`, `convert` and `export` as a user types them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from sdpose_core.checkpoints import find_checkpoint
from sdpose_core.detector.weights import EMBEDDED, find_detector
from sdpose_core.embedded import (
    COSTS,
    DETECTOR_GMACS,
    DETECTOR_PARAMETERS,
    EMBEDDED_COSTS,
    RTMDET,
    RTMDET_GMACS,
    RTMDET_PARAMETERS,
    embedded_path,
)
from sdpose_core.model import PRESETS, Student, StudentConfig
from service.cli.main import app
from tests.cli.conftest import Done
from tests.core.parity import official_state


def count_gmacs(config: StudentConfig) -> tuple[float, float]:
    """Multiply-accumulates of one crop as it is served in 1e9: all, and without attention's."""
    with torch.device("meta"):
        student = Student(config).eval()
        image = torch.empty(1, 3, *config.input_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        student(image)
    total = counter.get_total_flops()
    attention = counter.get_flop_counts()["Global"].get(torch.ops.aten.bmm, 0)
    return total / 2e9, (total - attention) / 2e9


def count_parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_listed_costs_are_those_of_the_networks(name: str) -> None:
    assert list(COSTS) == list(PRESETS)
    listed = [(PRESETS[name], COSTS[name])]
    if embedded_path(name) is not None:
        listed.append((find_checkpoint(name).config, EMBEDDED_COSTS.get(name, COSTS[name])))
    for config, cost in listed:
        assert count_parameters(Student(config)) == cost.parameters
        assert count_gmacs(config) == pytest.approx((cost.gmacs, cost.gmacs_no_attention), abs=1e-3)


def test_listing_does_not_wait_for_pytorch() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from service.cli.main import app; "
        "assert CliRunner().invoke(app, ['models']).exit_code == 0; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_listed_costs_of_the_detector_are_those_of_its_network() -> None:
    network = find_detector(EMBEDDED).network()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 640, 640, 3))
    assert count_parameters(network) == DETECTOR_PARAMETERS
    assert counter.get_total_flops() / 2e9 == pytest.approx(DETECTOR_GMACS, abs=1e-3)


def test_listed_costs_of_rtmdet_are_those_of_its_file() -> None:
    graph = onnx.shape_inference.infer_shapes(onnx.load(RTMDET)).graph
    weights = {one.name: list(one.dims) for one in graph.initializer}
    sizes = {
        one.name: [side.dim_value for side in one.type.tensor_type.shape.dim]
        for one in (*graph.value_info, *graph.output)
    }
    layers = [node for node in graph.node if node.op_type == "Conv"]
    assert (
        sum(math.prod(weights[name]) for node in layers for name in node.input[1:])
        == RTMDET_PARAMETERS
    )
    gmacs = sum(
        math.prod(sizes[node.output[0]]) * math.prod(weights[node.input[1]][1:]) for node in layers
    )
    assert gmacs / 1e9 == pytest.approx(RTMDET_GMACS, abs=1e-3)


def test_the_list_names_all_models_and_where_the_official_ones_are() -> None:
    shown = CliRunner().invoke(app, ["models"])
    assert shown.exit_code == 0
    assert all(name in shown.output for name in (*PRESETS, "embedded", "github.com"))
    listed = json.loads(CliRunner().invoke(app, ["models", "--json"]).output)
    assert [entry["name"] for entry in listed if entry["embedded"]] == [
        "sdpose-lite",
        "embedded",
        "rtmdet-nano",
    ]
    detector = listed[-2]
    assert listed[-1]["licence"].startswith("Apache-2.0")
    assert "0.576" in shown.output
    assert (detector["ap"], detector["licence"][:8]) == (0.576, "AGPL-3.0")
    assert "COCO val2017" in detector["evaluated_on"]


def test_an_official_file_is_converted_once(tmp_path: Path) -> None:
    source, target = tmp_path / "official.pth", tmp_path / "out.safetensors"
    torch.save({"state_dict": official_state(PRESETS["sdpose-t"])}, source)
    done = CliRunner().invoke(app, ["convert", str(source), str(target)])
    assert done.exit_code == 0, done.output
    assert "sdpose-t, fp16" in done.output
    before = target.read_bytes()
    again = CliRunner().invoke(app, ["convert", str(source), str(target)])
    assert again.exit_code != 0
    assert target.read_bytes() == before


def test_a_file_and_a_student_that_are_not_there_end_with_one_sentence(
    tmp_path: Path, sdpose: Callable[..., Done]
) -> None:
    done = sdpose("convert", tmp_path / "no.pth", tmp_path / "out.safetensors")
    assert done.returncode == 2
    assert done.stderr.endswith("no.pth: no such file\n")
    done = sdpose("export", "--output", tmp_path / "out.onnx", "--student", "sdpose-t")
    assert done.returncode == 2
    assert done.stderr.startswith("sdpose: sdpose-t: this package has no trained weights for it")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_set_says_where_it_is_from(tmp_path: Path) -> None:
    missing = tmp_path / "person_keypoints_val2017.json"
    done = CliRunner().invoke(
        app, ["evaluate", str(missing), str(tmp_path)], env={"COLUMNS": "300"}
    )
    assert done.exit_code == 2
    assert "no such file" in done.output
    assert "https://cocodataset.org/#download" in done.output
