"""Archives on a Ray of this machine, with workers that die."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="comes with `make test-all`")

from sdpose_core.commands.archive.output import ArchiveOutput, Part
from sdpose_core.commands.archive.ray_engine import run_on_ray
from sdpose_core.commands.archive.work import parts_of
from sdpose_core.commands.options import RunOptions
from sdpose_core.commands.predict import Estimate, Interrupted
from sdpose_core.commands.tally import Tally
from sdpose_core.files.outputs import OutputError
from sdpose_core.hardware.ray_cluster import ClusterError, cluster
from sdpose_core.io.sources import Source, find_sources
from sdpose_core.types import Image, Poses
from tests.archive.makers import Marks, output_in, picture_files, rows_of
from tests.fakes import mark_of

pytestmark = [
    pytest.mark.slow("starts Ray, 2 min"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray's, of its own settings
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def on_this_machine() -> Iterator[None]:
    with cluster(None):
        yield


@dataclass
class Deadly(Marks):
    """Its process dies at a marked image: once, if a file says so, or every time."""

    mark: int = -1
    once: Path | None = None

    def __call__(self, images: Sequence[Image]) -> list[Poses]:
        if self.mark in map(mark_of, images) and not (self.once and self.once.exists()):
            if self.once:
                self.once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(images)


def run(
    output: ArchiveOutput,
    parts: Sequence[Part],
    build: Callable[[], Estimate] = Marks,
    watch: Marks | None = None,
) -> Tally:
    watch = watch or Marks()
    result = run_on_ray(parts, output, RunOptions(), watch, build=build, workers=1)
    assert watch.reports == result.failures
    return result


class AfterTenParts(Marks):
    """Stops a run that is followed by parts of 250 images."""

    @property
    def stopping(self) -> bool:
        return self.advanced >= 2500


def pictures(folder: Path, count: int) -> list[Source]:
    picture_files(folder, count)
    return find_sources([str(folder)])[0]


def test_five_thousand_pictures_a_killed_worker_and_a_restart(tmp_path: Path) -> None:
    sources = pictures(tmp_path / "in", 5000)
    (tmp_path / "in" / "00007.png").write_bytes(b"no picture")
    output = output_in(tmp_path, "out.parquet")
    number, done = output.begin(resume=False)
    assert done == frozenset()
    parts = list(parts_of(sources, number, 250))
    once = tmp_path / "died"
    with pytest.raises(Interrupted):  # the machine is switched off after ten parts
        run(
            output,
            parts,
            partial(Deadly, mark=1100, once=once),
            AfterTenParts(),
        )
    assert once.exists(), "the worker was killed within the fifth part"
    number, done = output.begin(resume=True)
    assert number == 2
    assert 2500 <= len(done) < 5000
    left = list(parts_of(output.remaining(sources, done), number, 250))
    watch = Marks()
    run(output, left, watch=watch)
    assert watch.advanced == 5000 - len(done)
    output.finish()
    rows = rows_of(tmp_path / "out.parquet")
    assert Counter(row["input"] for row in rows) == Counter(source.name for source in sources)
    (bad,) = [row for row in rows if row["error"]]
    assert bad["input"].endswith("00007.png")


def test_a_part_that_always_kills_its_worker_is_given_up(tmp_path: Path) -> None:
    sources = pictures(tmp_path / "in", 12)
    output = output_in(tmp_path, "out/")
    parts = list(parts_of(sources, output.begin(resume=False)[0], 4))
    result = run(output, parts, partial(Deadly, mark=5))
    rows = rows_of(tmp_path / "out")
    failed = [row for row in rows if row["error"]]
    assert [row["input"][-9:] for row in failed] == [f"0000{n}.png" for n in (4, 5, 6, 7)]
    assert {row["error"] for row in failed} == {"the worker died 3 times over this part"}
    assert len(result.failures) == 4
    assert len(rows) == 12


def broken() -> Estimate:
    raise ValueError("no such student: sdpose-z")


def test_what_a_worker_says_is_the_message(tmp_path: Path) -> None:
    sources = pictures(tmp_path / "in", 2)
    output = output_in(tmp_path, "out/")
    parts = list(parts_of(sources, output.begin(resume=False)[0], 4))
    with pytest.raises(ClusterError, match="no such student: sdpose-z"):
        run(output, parts, broken)
    (tmp_path / "out").rmdir()
    with pytest.raises(OutputError, match="out/: there is no such file"):
        run(output, parts)


def test_a_cluster_that_is_not_there() -> None:
    with (
        pytest.raises(ClusterError, match=r"no Ray cluster at 127\.0\.0\.1:1: "),
        cluster("127.0.0.1:1"),
    ):
        pass
