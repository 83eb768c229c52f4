"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sdpose_core.files.whole_file import remove_all_partials, remove_partials, whole_file


def test_a_file_takes_its_place_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with whole_file(target) as partial:
        partial.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def fail() -> None:
        with whole_file(target) as partial:
            partial.write_text("half")
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with whole_file(target) as first, whole_file(target) as second:
        first.write_text("first")
        second.write_text("second")
    assert target.read_text() == "first"  # it finished last


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    kept = tmp_path / "file"
    kept.touch()
    for name in ("file", "other"):
        whole_file(tmp_path / name).__enter__().touch()  # and never left
    assert len(list(tmp_path.iterdir())) == 3
    remove_partials([kept])
    assert [path.name[:7] for path in tmp_path.iterdir() if path != kept] == [".other."]
    remove_all_partials(tmp_path)
    assert list(tmp_path.iterdir()) == [kept]


def test_a_device_is_written_to_and_stays_one(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        with whole_file(pipe) as partial:
            partial.write_text("through")
        assert read.result() == "through"
    assert pipe.is_fifo()


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "none" / "file") as partial:
        partial.touch()
