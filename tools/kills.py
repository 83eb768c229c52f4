"""Commands that are killed, again and again, and go on: `python -m tools.kills`.

Each is run once without a kill. Then it is killed (SIGKILL) at a random moment, or before a random
operation on its files, some times in a row, and goes on to the end. After each kill every file that
is shown must be readable, and at the end hold what the run without a kill gave: each input once.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tools.lock import ROOT

_COUNT: Final = "TOOLS_KILLS_COUNT"
_OPERATIONS: Final = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")
_RECIPE: Final = """
accelerator = "cpu"
devices = 1
log_every = 1
precision = "32-true"
checkpoint_minutes = 0.001
[[stages]]
batch = 2
steps = 12
"""
_ADVANCES: Final = 6
"""Kills in a row, at most, before a command may go on to its end."""

Content = Counter[tuple[Any, ...]]


def counted(folder: str, last: int) -> None:
    """Run the command; die before operation number `last` on a file below a folder, 0 for never."""
    done = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal done
        if event in _OPERATIONS and str(arguments[0]).startswith(folder):
            done += 1
            if done == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    from service.cli.main import main

    try:
        main()
    finally:
        if place := os.environ.get(_COUNT):
            Path(place).write_text(str(done))


@dataclass
class Case:
    """One command, and what its results hold.

    Attributes:
        words: of the command.
        output: file or folder of the results.
        content: what is in the output; raises if a file cannot be read.
        again: words to go on with, once there is something of the first run.
        begun: whether there is.
        done: whether the command was killed after its work, and would reject a repetition.
    """

    words: list[str]
    output: Path
    content: Callable[[Path], Content]
    again: list[str] = field(default_factory=list)
    begun: Callable[[], bool] = lambda: False
    done: Callable[[], bool] = lambda: False


def lines(path: Path) -> Content:
    """Content of JSON lines."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return Counter((Path(row["input"]).name, row.get("frame"), len(row["people"])) for row in rows)


def coco(path: Path) -> Content:
    """Content of a COCO file."""
    document = json.loads(path.read_text())
    people = Counter(one["image_id"] for one in document["annotations"])
    return Counter(
        (Path(one["file_name"]).name, one.get("frame_id"), people[one["id"]])
        for one in document["images"]
    )


def table(path: Path) -> Content:
    """Content of a CSV file."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return Counter((Path(row["input"]).name, row["frame"], row["person"]) for row in rows)


def parquet(path: Path) -> Content:
    """Content of a Parquet file or a folder of parts."""
    import pyarrow.parquet as pq

    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    return Counter(
        (Path(row["input"]).name, row["frame"], len(row["people"] or ())) for row in rows
    )


def results(folder: Path) -> Content:
    """Content of those files of results that are in a folder."""
    readers = {".jsonl": lines, ".json": coco, ".csv": table, ".parquet": parquet}
    found: Content = Counter()
    for suffix, read in readers.items():
        if (path := folder / f"people{suffix}").exists():
            found += Counter({(suffix, *key): count for key, count in read(path).items()})
    return found


def shards(path: Path) -> Content:
    """Content of a folder of shards."""
    from sdpose_core.data.shards import read_shard

    files = sorted(path.glob("*.tar"))
    return Counter((sample.key, len(sample.image)) for file in files for sample in read_shard(file))


def run_folder(path: Path) -> Content:
    """Content of a training run: steps that were logged, and that its networks load."""
    from sdpose_core.checkpoints import load_student
    from sdpose_core.train.loop.state import read_state

    for name in ("best.safetensors", "last.safetensors"):
        if (path / name).exists():
            load_student(path / name)
    if (path / "state.pt").exists():
        read_state(path)
    if not (path / "log.csv").exists():
        return Counter()
    with (path / "log.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    return Counter((row[0], row[4]) for row in rows[1:] if len(row) == len(rows[0]))


def cases(folder: Path, kinds: list[str]) -> Iterator[tuple[str, Case]]:
    """The commands of these kinds, with their inputs below a folder."""
    photographs = _photographs(folder / "in")
    annotations = _annotations(photographs, folder / "people.json")
    out = folder / "out"
    predict = ["predict", str(photographs), "--batch-size", "2", "--output"]
    for kind in kinds:
        if kind == "files":
            words = [*predict, str(out / "people.jsonl"), "--output", str(out / "people.json")]
            words += ["--output", str(out / "people.csv"), "--output", str(out / "people.parquet")]
            words += ["--overlay", str(out / "drawn"), "--force"]
            yield kind, Case(words, out, results)
        elif kind in ("parquet", "parts", "ray"):
            target = out / ("parts" if kind == "parts" else "people.parquet")
            words = [*predict, f"{target}/" if kind == "parts" else str(target)]
            words += ["--part-size", "2", *(["--engine", "ray"] if kind == "ray" else [])]
            begun = _any_part(target, Path(f"{target}.parts"))
            yield kind, Case(words, target, parquet, [*words, "--resume"], begun)
        elif kind == "pack":
            words = ["pack", str(annotations), str(photographs), str(out), "--per-shard", "3"]
            yield kind, Case(words, out, shards, done=_packed(out))
        elif kind == "train":
            yield kind, _training(folder, out, annotations, photographs)
        else:
            raise SystemExit(f"{kind}: expected one of {', '.join(KINDS)}")


KINDS: Final = ("files", "parquet", "parts", "ray", "pack", "train")


def _any_part(target: Path, parts: Path) -> Callable[[], bool]:
    return lambda: target.is_file() or any([*target.glob("part-*"), *parts.glob("part-*")])


def _packed(out: Path) -> Callable[[], bool]:
    return lambda: any(out.glob("*.tar")) and not (out / "unfinished.txt").exists()


def _photographs(folder: Path) -> Path:
    from fractions import Fraction

    import numpy as np
    from PIL import Image

    import service
    from sdpose_core.io.video import VideoWriter

    folder.mkdir(parents=True)
    with Image.open(Path(service.__file__).parent / "web" / "example.jpg") as opened:
        image = opened.convert("RGB")
    for number in range(6):
        image.resize((360 + number, 240)).save(folder / f"{number}.jpg")
    with VideoWriter(folder / "pan.mp4", Fraction(10)) as video:
        for number in range(6):
            video.write(np.roll(np.asarray(image.resize((384, 256))), 4 * number, 1))
    return folder


def _annotations(photographs: Path, path: Path) -> Path:
    names = sorted(each.name for each in photographs.glob("*.jpg"))
    images = [
        {"id": n, "file_name": f, "width": 360 + n, "height": 240} for n, f in enumerate(names)
    ]
    points = [value for joint in range(17) for value in (110 + 5 * joint, 40 + 9 * joint, 2)]
    people = [
        {"id": 2 * n + k, "image_id": n, "category_id": 1, "iscrowd": 0, "num_keypoints": 17}
        | {"bbox": [100, 30, 110, 180], "area": 19800, "keypoints": points}
        for n in range(len(names))
        for k in (0, 1)
    ]
    path.write_text(json.dumps({"images": images, "annotations": people, "categories": []}))
    return path


def _training(folder: Path, out: Path, annotations: Path, photographs: Path) -> Case:
    from dataclasses import replace

    from sdpose_core.checkpoints import save_student
    from sdpose_core.data.coco import load_coco
    from sdpose_core.data.packing import pack_new
    from sdpose_core.model import PRESETS, Student

    pack_new(load_coco(annotations, photographs), folder / "shards")
    save_student(Student(replace(PRESETS["sdpose-t"], depth=1)), folder / "shallow.safetensors")
    (folder / "run.toml").write_text(_RECIPE)
    words = ["train", "--config", str(folder / "run.toml"), "--run", str(out)]
    words += ["--start", str(folder / "shallow.safetensors"), "--shards", str(folder / "shards")]
    again = ["train", "--resume", "--run", str(out)]
    return Case(words, out, run_folder, again, lambda: (out / "state.pt").exists())


def _started(words: list[str], folder: Path, last: int = 0) -> subprocess.Popen[bytes]:
    program = f"from tools.kills import counted; counted({str(folder)!r}, {last})"
    environment = {**os.environ, _COUNT: str(folder.parent / "count")}
    with (folder.parent / "errors").open("wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-c", program, *words],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )


def _finished(words: list[str], folder: Path) -> float:
    began = time.monotonic()
    status = _started(words, folder).wait()
    if status:
        raise AssertionError(f"{words}: {status}: {(folder.parent / 'errors').read_text()}")
    return time.monotonic() - began


def check(case: Case, folder: Path, kills: int, chance: random.Random) -> Iterator[int]:
    """Kill so many times, going on to the end; yields how many it were after each end.

    Raises:
        AssertionError: something was lost, doubled, unreadable or left over.
    """
    out = folder / "out"
    seconds = _finished(case.words, out)
    expected = case.content(case.output)
    operations = int((folder / "count").read_text())
    assert expected
    killed = 0
    while killed < kills:
        shutil.rmtree(out)
        for _ in range(chance.randint(1, _ADVANCES)):
            words = case.again if case.begun() else case.words
            if chance.random() < 0.6:
                ended = _started(words, out, chance.randint(1, operations)).wait()
            else:
                process = _started(words, out)
                try:
                    ended = process.wait(seconds * chance.uniform(0.2, 1))
                except subprocess.TimeoutExpired:
                    process.kill()
                    ended = process.wait()
            if ended != -signal.SIGKILL:
                assert ended == 0, (folder / "errors").read_text()
                break
            killed += 1
            if case.done():
                (out / ".lock").unlink(missing_ok=True)
                break
            if case.output.exists():
                held = case.content(case.output)
                assert case.begun() or not held - expected, f"{held - expected} after a kill"
        else:
            _finished(case.again if case.begun() else case.words, out)
        found = case.content(case.output)
        assert found == expected, f"lost {expected - found}, doubled or new {found - expected}"
        _check_rest(out)
        yield killed


def _check_rest(out: Path) -> None:
    """Drawings can be read, and nothing of ours is left over."""
    from PIL import Image

    for path in out.rglob("*"):
        unwanted = path.name.startswith(".") or path.suffix in (".part", ".parts")
        assert not unwanted, f"{path} is left over"
        if path.suffix == ".jpg":
            with Image.open(path) as image:
                image.load()


def main() -> None:
    """Entry point of ``python -m tools.kills``."""
    parser = argparse.ArgumentParser(description="Kill commands, go on, and compare the results.")
    parser.add_argument("kinds", nargs="*", default=KINDS, help=f"of {', '.join(KINDS)}")
    parser.add_argument("--kills", type=int, default=25, help="of each kind, at least")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for kind in given.kinds:
        with tempfile.TemporaryDirectory(prefix="kills-") as name:
            folder = Path(name).resolve()
            ((_, case),) = cases(folder, [kind])
            for killed in check(case, folder, given.kills, random.Random(given.seed)):
                print(f"{kind}: {killed} kills, each input once", flush=True)


if __name__ == "__main__":
    main()
