"""Archives in this process: what the Parquet holds, going on after a stop, what is refused."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdpose_core.checkpoints import trained_path
from sdpose_core.commands.archive.output import ArchiveOutput, Part
from sdpose_core.commands.archive.work import parts_of, work_on
from sdpose_core.commands.options import RunOptions, model_digests
from sdpose_core.commands.predict import Interrupted
from sdpose_core.commands.tally import Tally
from sdpose_core.files.outputs import OutputError
from sdpose_core.io.results.parquet import SchemaError, check_schema, results_schema
from sdpose_core.io.sources import Source, find_sources
from sdpose_core.skeleton import COCO17
from sdpose_core.types import Image, Poses
from tests.archive.makers import SETTINGS, Marks, output_in, picture_files, rows_of
from tests.videos import flat_video


def run(
    output: ArchiveOutput,
    sources: Sequence[Source],
    *,
    resume: bool = False,
    retry_failed: bool = False,
    size: int = 4,
    estimate: Marks | None = None,
    options: RunOptions | None = None,
) -> Tally:
    with output.held():
        number, done = output.begin(resume, retry_failed)
        parts = list(parts_of(output.remaining(sources, done), number, size))
        marks = estimate or Marks()
        made = options or RunOptions()
        result = sum((work_on(part, output, marks, made, marks) for part in parts), Tally())
        output.finish()
        return result


def found(*inputs: Path) -> list[Source]:
    sources, problems = find_sources([str(each) for each in inputs])
    assert problems == []
    return sources


def test_a_row_an_image_in_order_with_people_in_pixels(tmp_path: Path) -> None:
    paths = picture_files(tmp_path / "in", 10)
    output = output_in(tmp_path, "out.parquet")
    marks = Marks()
    result = run(output, found(*paths), estimate=marks)
    assert marks.advanced == 10
    rows = rows_of(tmp_path / "out.parquet")
    assert [row["input"] for row in rows] == [str(path) for path in paths]
    assert result == Tally(images=10, people=10)
    assert not (tmp_path / "out.parquet.parts").exists()
    row = rows[3]
    assert (row["width"], row["height"], row["error"], row["frame"]) == (43, 8, None, None)
    (person,) = row["people"]
    assert person["box"] == {"x": 1, "y": 2, "width": 3, "height": 4}
    assert len(person["keypoints"]) == 17
    point = person["keypoints"][2]
    assert point.pop("visibility") == pytest.approx(0.75)
    assert point == pytest.approx({"x": 3, "y": 2, "score": 0.5})


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    run(output_in(tmp_path, "out.parquet"), found(*picture_files(tmp_path / "in", 1)))
    metadata = pq.read_schema(tmp_path / "out.parquet").metadata
    assert metadata[b"sdpose.schema_version"] == b"3"
    assert json.loads(metadata[b"sdpose.keypoints"]) == list(COCO17.keypoints)
    assert json.loads(metadata[b"sdpose.settings"]) == SETTINGS


def test_a_folder_of_parts(tmp_path: Path) -> None:
    paths = picture_files(tmp_path / "in", 10)
    output = output_in(tmp_path, "out/")
    run(output, found(*paths), size=4)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert [name[:16] for name in names] == [f"part-0001-00000{n}" for n in range(3)]
    assert pq.read_table(tmp_path / "out")["input"].to_pylist() == [str(path) for path in paths]


def test_videos_have_rows_a_frame_with_time_and_ids(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    flat_video(tmp_path / "in" / "clip.mp4", frames=7)
    picture_files(tmp_path / "in", 2)
    output = output_in(tmp_path, "out.parquet")
    marks = Marks()
    run(output, found(tmp_path / "in"), estimate=marks, options=RunOptions(track=True))
    assert (marks.expected, marks.advanced) == (7, 9)
    rows = rows_of(tmp_path / "out.parquet")
    frames = [row for row in rows if row["input"].endswith("clip.mp4")]
    assert [row["frame"] for row in frames] == list(range(7))
    assert frames[5]["time_s"] == pytest.approx(0.2, abs=1e-3)
    assert {person["id"] for row in frames for person in row["people"]} == {1}
    assert len(rows) == 9


def test_bad_files_are_rows_with_an_error(tmp_path: Path) -> None:
    paths = picture_files(tmp_path / "in", 3)
    paths[1].write_bytes(b"no picture")
    cut = tmp_path / "in" / "cut.mp4"
    flat_video(cut, frames=30)
    cut.write_bytes(cut.read_bytes()[:200])
    gone = found(*paths, cut)
    paths[2].unlink()
    marks = Marks()
    result = run(output_in(tmp_path, "out.parquet"), gone, estimate=marks)
    rows = {row["input"]: row for row in rows_of(tmp_path / "out.parquet")}
    assert rows[str(paths[0])]["error"] is None
    assert "accepted type" in rows[str(paths[1])]["error"]
    assert rows[str(paths[2])]["error"] == "No such file or directory"
    assert rows[str(cut)]["error"] is not None
    assert rows[str(cut)]["people"] is None
    assert result.failures == marks.reports
    assert len(result.failures) == 3


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    paths = picture_files(tmp_path / "in", 6)
    output = output_in(tmp_path, "out.parquet")
    run(output, found(*paths[:4]))
    with pytest.raises(OutputError, match="exists; add --resume"):
        run(output, found(*paths))
    marks = Marks()
    run(output, found(*paths), resume=True, estimate=marks)
    assert marks.seen == 2
    assert [row["input"] for row in rows_of(tmp_path / "out.parquet")] == [*map(str, paths)]
    before = (tmp_path / "out.parquet").stat()
    run(output, found(*paths), resume=True)
    assert (tmp_path / "out.parquet").stat() == before


def test_another_spelling_of_a_path_is_done_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = picture_files(tmp_path / "in", 2)
    output = output_in(tmp_path, "out/")
    run(output, found(*paths))
    monkeypatch.chdir(tmp_path / "in")
    marks = Marks()
    run(
        output,
        found(Path(paths[0].name), Path("../in", paths[1].name)),
        resume=True,
        estimate=marks,
    )
    assert marks.seen == 0


def test_the_same_name_in_another_folder_is_another_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = output_in(tmp_path, "out.parquet")
    for folder in ("a", "b"):
        picture_files(tmp_path / folder, 2)
        monkeypatch.chdir(tmp_path / folder)
        run(output, found(Path("00000.png"), Path("00001.png")), resume=folder == "b")
    rows = rows_of(tmp_path / "out.parquet")
    assert [row["input"] for row in rows] == ["00000.png", "00001.png"] * 2
    names = [(tmp_path / folder / f"0000{n}.png").as_uri() for folder in "ab" for n in (0, 1)]
    assert [row["source"] for row in rows] == names


def test_what_was_killed_before_it_cleaned_up_has_each_input_once(tmp_path: Path) -> None:
    paths = picture_files(tmp_path / "in", 5)
    output = output_in(tmp_path, "out.parquet")
    with pytest.raises(Interrupted):
        run(output, found(*paths), size=2, estimate=Marks(stop_after=4))
    shutil.copytree(tmp_path / "out.parquet.parts", tmp_path / "kept")
    run(output, found(*paths), size=2, resume=True)
    shutil.copytree(tmp_path / "kept", tmp_path / "out.parquet.parts")
    marks = Marks()
    run(output, found(*paths), resume=True, estimate=marks)
    assert marks.seen == 0
    inputs = [row["input"] for row in rows_of(tmp_path / "out.parquet")]
    assert sorted(inputs) == [str(path) for path in paths]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "kept", "out.parquet"]


@pytest.mark.parametrize("target", ["out.parquet", "out/"])
def test_failed_inputs_are_tried_again_if_wanted(tmp_path: Path, target: str) -> None:
    paths = picture_files(tmp_path / "in", 6)
    whole = paths[1].read_bytes()
    for path in (paths[1], paths[4]):
        path.write_bytes(b"no picture")
    cut = flat_video(tmp_path / "in" / "cut.ts", frames=30)
    content = cut.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    output = output_in(tmp_path, target)
    run(output, found(*paths, cut))
    marks = Marks()
    run(output, found(*paths, cut), resume=True, estimate=marks)
    assert marks.seen == 0, "what failed counts as done"
    paths[1].write_bytes(whole)
    cut.write_bytes(content)
    run(output, found(*paths, cut), resume=True, retry_failed=True)
    rows = rows_of(tmp_path / target)
    assert Counter(row["input"] for row in rows if row["frame"] is None) == Counter(
        str(path) for path in paths
    )
    assert [row["input"] for row in rows if row["error"]] == [str(paths[4])]
    assert sorted(row["frame"] for row in rows if row["frame"] is not None) == list(range(30))


def test_a_part_that_a_lost_worker_finished_later_is_not_there_twice(tmp_path: Path) -> None:
    paths = picture_files(tmp_path / "in", 6)
    output = output_in(tmp_path, "out/")
    with pytest.raises(Interrupted):
        run(output, found(*paths), size=2, estimate=Marks(stop_after=2))
    late = Part(1, 1, tuple(found(*paths[2:5])))

    class Late(Marks):
        def __call__(self, images: Sequence[Image]) -> list[Poses]:
            if not self.seen:
                work_on(late, output, Marks(), RunOptions())
            return super().__call__(images)

    run(output, found(*paths[:4]), size=2, resume=True, estimate=Late())
    inputs = [row["input"] for row in rows_of(tmp_path / "out")]
    assert sorted(inputs) == [str(path) for path in paths[:5]]


@pytest.mark.parametrize("target", ["out.parquet", "out/"])
def test_a_stop_keeps_what_is_whole(tmp_path: Path, target: str) -> None:
    paths = picture_files(tmp_path / "in", 20)
    output = output_in(tmp_path, target)
    with pytest.raises(Interrupted):
        run(output, found(*paths), size=8, estimate=Marks(stop_after=12))
    with pytest.raises(OutputError, match="--resume"):
        run(output, found(*paths))
    marks = Marks()
    run(output, found(*paths), resume=True, estimate=marks)
    assert marks.seen == 20 - 12
    table = pq.read_table(tmp_path / target)
    assert Counter(table["input"].to_pylist()) == Counter(map(str, paths))


def test_a_stop_in_a_video_leaves_no_half_of_it(tmp_path: Path) -> None:
    flat_video(tmp_path / "clip.mp4", frames=30)
    output = output_in(tmp_path, "out/")
    with pytest.raises(Interrupted):
        run(output, found(tmp_path / "clip.mp4"), estimate=Marks(stop_after=10))
    assert not (tmp_path / "out").exists()
    run(output, found(tmp_path / "clip.mp4"), resume=True)
    assert len(rows_of(tmp_path / "out")) == 30


def test_a_failure_in_a_part_leaves_nothing_of_it(tmp_path: Path) -> None:
    paths = picture_files(tmp_path / "in", 8)

    class Broken(Marks):
        def __call__(self, images: Sequence[Image]) -> list[Poses]:
            if self.seen >= 4:
                raise RuntimeError("no memory")
            return super().__call__(images)

    output = output_in(tmp_path, "out/")
    with pytest.raises(RuntimeError, match="no memory"):
        run(output, found(*paths), estimate=Broken())
    assert len(rows_of(tmp_path / "out")) == 4
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({b"sdpose.schema_version": b"1"}, "schema version 1, this sdpose writes 3"),
        ({b"sdpose.settings": b'{"student": "other", "track": false}'}, "made with student other"),
        (None, "not written by sdpose predict"),
    ],
)
def test_rows_of_another_kind_are_not_mixed(
    tmp_path: Path, change: dict[bytes, bytes] | None, message: str
) -> None:
    paths = picture_files(tmp_path / "in", 2)
    output = output_in(tmp_path, "out.parquet")
    run(output, found(paths[0]))
    table = pq.read_table(tmp_path / "out.parquet")
    metadata = None if change is None else {**table.schema.metadata, **change}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "out.parquet")
    before = (tmp_path / "out.parquet").read_bytes()
    with pytest.raises(SchemaError, match=message):
        run(output, found(*paths), resume=True)
    assert (tmp_path / "out.parquet").read_bytes() == before


def test_a_model_is_known_by_its_weights_and_not_by_its_name(tmp_path: Path) -> None:
    schema = [
        results_schema({"student": name, "student_sha256": digest * 32})
        for name, digest in (("a.pth", "01"), ("b.pth", "01"), ("a.pth", "02"))
    ]
    check_schema(schema[0], schema[1], "p.parquet")
    with pytest.raises(SchemaError, match=r"student a\.pth \(SHA-256 010101010101\), not .*020202"):
        check_schema(schema[0], schema[2], "p.parquet")
    net = tmp_path / "net.safetensors"
    shutil.copy(trained_path("sdpose-lite"), net)
    chosen = {"student": str(net), "detector": "embedded", "backend": "torch", "device": "cpu"}
    options = RunOptions(chosen, digests=model_digests(chosen))
    assert set(options.digests) == {"student_sha256", "detector_sha256"}
    options.build()
    weights = bytearray(net.read_bytes())
    weights[-1] ^= 1
    net.write_bytes(weights)
    with pytest.raises(ValueError, match=r"net\.safetensors: this student on .* is not the one"):
        options.build()


def test_other_columns_and_files_are_refused(tmp_path: Path) -> None:
    schema = results_schema(SETTINGS)
    table = pa.table({"input": ["a"]}).replace_schema_metadata(schema.metadata)
    pq.write_table(table, tmp_path / "out.parquet")
    with pytest.raises(SchemaError, match="its columns are not"):
        output_in(tmp_path, "out.parquet").begin(resume=True)
    (tmp_path / "out.parquet").write_text("no parquet")
    with pytest.raises(SchemaError, match="not a Parquet file"):
        output_in(tmp_path, "out.parquet").begin(resume=True)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds mine\.txt"):
        output_in(tmp_path, "notes/").begin(resume=False)
    with pytest.raises(OutputError, match="cannot be written to such an address"):
        ArchiveOutput("https://host/out.parquet", schema).begin(resume=False)
    (tmp_path / "file").write_text("a file")
    with pytest.raises(OutputError, match="file"):
        output_in(tmp_path, "file/out.parquet").begin(resume=False)


def test_parts_have_the_same_names_whoever_makes_them(tmp_path: Path) -> None:
    sources = found(*picture_files(tmp_path / "in", 10))
    names = [part.name for part in parts_of(sources, 1, 4)]
    assert names == [part.name for part in parts_of(sources, 1, 4)]
    assert len(set(names)) == 3
    assert Part(1, 0, tuple(sources[:3])).name != names[0]


def test_numbers_that_are_none_are_an_error_row(tmp_path: Path) -> None:
    class Odd(Marks):
        def __call__(self, images: Sequence[Image]) -> list[Poses]:
            answers: list[Any] = super().__call__(images)
            answers[0].keypoints[0, 0, 0] = np.nan
            return list(answers)

    output = output_in(tmp_path, "out.parquet")
    run(output, found(*picture_files(tmp_path / "in", 1)), estimate=Odd())
    (row,) = rows_of(tmp_path / "out.parquet")
    assert "not finite" in row["error"]
