"""The measuring tools themselves, on a fake that answers at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage
from typer.testing import CliRunner

from sdpose_core.checkpoints import save_student
from sdpose_core.model import PRESETS, Student
from sdpose_core.types import Image, Poses
from service.bench import core, serve
from service.bench.load import RestConnection, RpcConnection, closed_loop
from service.bench.server import Server
from service.bench.tables import markdown, percentile, spread
from service.cli.main import app
from tests.fakes import FakeEstimator, marked_image
from tests.pictures import encoded
from tests.service.conftest import Service, serving
from tests.service.processes import process
from tools.bench.servers import side_by_side

pytestmark = pytest.mark.anyio

JPEG = encoded(marked_image(0x808080, 32, 32), "JPEG")


def test_statistics() -> None:
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile([0, 10], 0.99) == pytest.approx(9.9)
    assert spread([1, 3, 2]) == "2.0 (1.0 to 3.0)"
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | ---: |\n| 1 | 2 |"


@pytest.mark.parametrize("front", ["rest", "grpc"])
async def test_closed_loop(service: Service, front: str) -> None:
    kind = RestConnection if front == "rest" else RpcConnection
    port = int((service.url if front == "rest" else service.target).rpartition(":")[2])
    load = await closed_loop([kind("127.0.0.1", port) for _ in range(3)], [JPEG], requests=20)
    assert len(load.latencies) == 20
    assert load.errors == 0
    assert load.rate > 0
    assert 0 < load.ms(0.5) <= load.ms(0.99)
    bad = await closed_loop([kind("127.0.0.1", port)], [b"no image"], seconds=0.05)
    assert bad.errors > 0
    assert not bad.latencies
    assert "accepted type" in bad.first_error


async def test_closed_loop_keeps_every_client_busy() -> None:
    fake = FakeEstimator(delay_s=0.01)
    async with serving(fake, max_batch=4) as service:
        port = int(service.url.rpartition(":")[2])
        await closed_loop(
            [RestConnection("127.0.0.1", port) for _ in range(4)], [JPEG], requests=40
        )
    assert max(fake.detected) > 1


class Bare:
    """As much of the estimator as the bare load needs."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def estimate(self, images: list[Image], min_score: float | None = None) -> list[Poses]:
        self.calls.append(len(images))
        box = np.array([[2, 2, 20, 30]], np.float32)
        points = np.zeros((1, 17, 2), np.float32)
        return [Poses(points, points[..., 0], box, np.ones(1, np.float32)) for _ in images]


def test_bare_load_and_cutting() -> None:
    bare = Bare()
    load = serve.bare_load(bare, [JPEG], 0.02, 8)  # type: ignore[arg-type]
    assert set(bare.calls) == {8}
    assert len(load.latencies) == 8 * len(bare.calls)
    (cut,) = serve.one_person_images(bare, [JPEG])  # type: ignore[arg-type]
    assert cut.startswith(b"\xff\xd8\xff")


def test_tables_of_a_short_run() -> None:
    with process() as (running, client):
        port = int(client.base_url.rpartition(":")[2])
        server = Server("127.0.0.1", port, 0, running.pid)
        plan = serve.ServeBench([JPEG], clients=(1, 2), rounds=1, seconds=0.05, fronts=("rest",))
        table = serve.against_bare(Bare(), server, plan, lambda _: None)  # type: ignore[arg-type]
        assert table.count("\n") == 5
        assert "| rest, 2 clients |" in table
        pair = {"one": server, "two": server}
        several = side_by_side(pair, plan, lambda _: None)
        assert several.count("\n") == 5
        assert "| two | 2 |" in several
        assert server.open_files() > 3
        assert server.memory_mib() > 10
        assert server.threads() > 2


@pytest.mark.slow("times networks, 1 min")
def test_core_command_prints_a_table(tmp_path: Path) -> None:
    """A preset is timed with random weights and its row says so; a file with its own."""
    own = tmp_path / "own.safetensors"
    save_student(Student(replace(PRESETS["sdpose-t"], depth=1)), own)
    arguments = ["--variants", f"sdpose-lite:0,sdpose-t,{own}:2", "--backends", "torch"]
    outcome = CliRunner().invoke(
        app, ["bench", "core", *arguments, "--batches", "1,2", "--rounds", "1", "--seconds", "0.1"]
    )
    assert outcome.exit_code == 0, outcome.output
    rows = [line.split(" | ")[:3] for line in outcome.stdout.splitlines() if "torch" in line]
    # On a CPU torch's `auto` is the fp32 that is there already.
    assert rows == [
        [f"| {model}", "torch fp32", batch]
        for model in (
            "sdpose-lite:0, random weights",
            "sdpose-t, random weights",
            f"{own}:2",
            "detector embedded",
        )
        for batch in ("1", "2")
    ]


@pytest.mark.slow("measures a service for seconds")
def test_stream_command_measures_cameras(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the real service; two cameras for a second, whatever keys the user's own service has."""
    monkeypatch.setenv("SDPOSE_API_KEYS", "secret")
    image = tmp_path / "wall.png"
    PillowImage.new("RGB", (64, 48), (90, 120, 60)).save(image)
    outcome = CliRunner().invoke(
        app, ["bench", "stream", str(image), "--fps", "5", "--seconds", "1", "--cameras", "2"]
    )
    assert outcome.exit_code == 0, outcome.output
    rows = [line.split(" | ") for line in outcome.stdout.splitlines() if "2 x 5 fps" in line]
    assert len(rows) == 2
    for row in rows:
        assert float(row[1]) > 0
        assert float(row[6]) == 0, "nobody in an empty image"
        assert all(float(each) > 0 for each in row[8].rstrip(" |").split(", "))


def test_core_command_shows_the_papers_student_beside_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plans: list[core.CoreBench] = []

    def note(plan: core.CoreBench, progress: Callable[[str], None]) -> str:
        plans.append(plan)
        return ""

    monkeypatch.setattr(core, "run_core", note)
    assert CliRunner().invoke(app, ["bench", "core"]).exit_code == 0
    assert plans[0].floor
    assert plans[0].variants == ["sdpose-lite:0", "sdpose-lite:1", "sdpose-t"]


def test_core_leaves_out_what_a_backend_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[str, str, str, str]] = []

    def student(
        name: str, backend: str, precision: str, device: str
    ) -> tuple[str, Callable[[int], Callable[[], object]]]:
        tried.append((name, backend, precision, device))
        if precision == "int8":
            raise ValueError("no int8")
        return f"{backend} {precision}", lambda batch: lambda: None

    monkeypatch.setattr(core, "_student", student)
    plan = core.CoreBench(
        ["a"], ["x", "y"], [4], "cpu", 1, 0.01, precisions=["fp32", "int8"], detectors=[]
    )
    table = core.run_core(plan, lambda _: None)
    assert [line[:15] for line in table.splitlines()[2:]] == ["| a | x fp32 | ", "| a | y fp32 | "]
    assert [one[:3] for one in tried] == [
        ("a", backend, precision) for backend in "xy" for precision in ("fp32", "int8")
    ]
    nothing = replace(plan, precisions=["int8"])
    with pytest.raises(ValueError, match="no int8"):
        core.run_core(nothing, lambda _: None)


@pytest.mark.slow("times networks, 1 min")
def test_the_floor_is_the_fastest_setting_of_the_network_alone() -> None:
    """Measured beside what serving uses, which takes a little longer."""
    plan = core.CoreBench(
        ["sdpose-lite:0"], ["openvino"], [2], "cpu", 1, 0.1, ["auto"], ["embedded"], floor=True
    )
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in core.run_core(plan, lambda text: None).splitlines()[2:]
    ]
    assert [row[0] for row in rows] == ["sdpose-lite:0, random weights"] * 2 + [
        "detector embedded"
    ] * 2
    for served, floor in (rows[:2], rows[2:]):
        assert served[1].startswith("openvino ")
        assert re.fullmatch(r"floor: \w+, (all cores|\d cores?), [12] streams?", floor[1])
        assert float(floor[5]) == 1
        assert float(served[5]) > 0
