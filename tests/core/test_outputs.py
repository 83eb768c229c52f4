"""Where results go: never over an input, and one run at a time into one place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sdpose_core.files.outputs import OutputError, check_outputs, only_run
from sdpose_core.files.whole_file import whole_file


def _same(path: Path, where: Path) -> Path:
    return path


def _other_spelling(path: Path, where: Path) -> Path:
    return path.parent / ".." / path.parent.name / path.name


def _symlink(path: Path, where: Path) -> Path:
    (where / "link.bmp").symlink_to(path)
    return where / "link.bmp"


def _hard_link(path: Path, where: Path) -> Path:
    os.link(path, where / "link.bmp")
    return where / "link.bmp"


def _linked_folder(path: Path, where: Path) -> Path:
    (where / "folder").symlink_to(path.parent)
    return where / "folder" / path.name


@pytest.mark.parametrize("way", [_same, _other_spelling, _symlink, _hard_link, _linked_folder])
@pytest.mark.parametrize("turned", [False, True], ids=["output", "input"])
def test_an_input_is_found_by_whatever_way(
    tmp_path: Path, way: Callable[[Path, Path], Path], turned: bool
) -> None:
    (tmp_path / "in").mkdir()
    original = tmp_path / "in" / "a.jpg"
    original.write_bytes(b"original")
    pair = [way(original, tmp_path), original]
    output, given = pair[::-1] if turned else pair
    with pytest.raises(OutputError, match="would replace"):
        check_outputs([tmp_path / "new.jpg", output], [tmp_path / "gone.jpg", given])
    check_outputs([tmp_path / "new.jpg", tmp_path / "in" / "b.jpg"], [given])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a.jpg", "a.jpg"),
        ("a.jpg", "new/../a.jpg"),
        ("new/IMG.jpg", "new/img.JPG"),
        ("new/\N{LATIN SMALL LETTER E WITH ACUTE}.jpg", "new/e\N{COMBINING ACUTE ACCENT}.jpg"),
    ],
)
def test_two_outputs_in_one_place_are_refused(tmp_path: Path, first: str, second: str) -> None:
    with pytest.raises(OutputError, match="the same file"):
        check_outputs([tmp_path / first, tmp_path / second], [])


HOLD = """
import sys
from pathlib import Path
from sdpose_core.files.outputs import only_run
with only_run(Path(sys.argv[1]), folder=sys.argv[2] == "folder"):
    print("held", flush=True)
    sys.stdin.read()
"""


def _holder(place: Path, kind: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place), kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_second_run_is_refused_until_the_first_is_killed(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "new" / "out"
    with _holder(place, kind) as first:
        for _ in range(2):
            with (
                pytest.raises(OutputError, match=rf"another run .*\(process {first.pid} on "),
                only_run(place, folder=kind == "folder"),
            ):
                pass
        half = place / "rows" if kind == "folder" else place
        whole_file(half).__enter__().write_text("half")
        first.send_signal(signal.SIGKILL)
        first.wait()
    with only_run(place, folder=kind == "folder"):
        assert not list(half.parent.glob(".*.partial"))
    assert list((tmp_path / "new").iterdir()) == []


def test_a_folder_stays_with_what_came_into_it(tmp_path: Path) -> None:
    with only_run(tmp_path / "out", folder=True):
        (tmp_path / "out" / "row").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["row"]
    with (
        pytest.raises(OutputError, match="expected a folder, and this is a file"),
        only_run(tmp_path / "out" / "row", folder=True),
    ):
        pass


def test_one_that_waits_comes_next(tmp_path: Path) -> None:
    first = _holder(tmp_path / "out", "file")

    def ends() -> None:
        first.communicate("")

    with only_run(tmp_path / "out", on_wait=ends):
        assert first.returncode == 0
    assert list(tmp_path.iterdir()) == []
