"""`python -m tools.bench suppression`: the time of the last step of an answer, by people."""

from __future__ import annotations

import statistics
import time

import numpy as np
import typer

from sdpose_core.checkpoints import load_student
from sdpose_core.types import Floats, Poses
from sdpose_core.vision.people import people_of, touching
from sdpose_core.vision.ranking import PersonRanking
from service.bench.tables import markdown
from tests.tracking.walkers import Walker

SIZE = (3840, 2160)
COUNTS = (1, 10, 100, 300)


def crowd(count: int, apart: float) -> Poses:
    """People 200 pixels high in rows, ``apart`` body heights from each other, each detected twice
    where the number is even."""
    rng = np.random.default_rng(0)
    columns = max(1, int(SIZE[0] / (200 * apart)))
    joints = np.stack(
        [
            Walker(50 + 200 * apart * (n % columns), 0, 200, 210 + 60 * (n // columns)).joints(0)
            for n in (number // 2 for number in range(count))
        ]
    )
    joints += rng.normal(0, 2, joints.shape)
    boxes = np.concatenate([joints.min(axis=1) - 6, joints.max(axis=1) + 6], axis=1)
    scores: Floats = rng.uniform(0.3, 0.9, (count, 17)).astype(np.float32)
    return Poses(joints.astype(np.float32), scores, boxes.astype(np.float32), scores.mean(axis=1))


def main() -> None:
    """The time of the last step of an answer, by people."""
    student = load_student()
    assert student.people is not None
    rank = PersonRanking(
        student.config.view,
        {name: value.numpy() for name, value in student.people.state_dict().items()},
    )
    rows = []
    for count in COUNTS:
        row = [str(count)]
        for apart in (0.6, 0.15):
            poses = crowd(count, apart)
            taken = []
            for _ in range(30):
                began = time.perf_counter()
                people_of(poses, SIZE, rank)
                taken.append(time.perf_counter() - began)
            pairs = len(touching(poses.boxes)[0])
            row += [f"{statistics.median(taken) * 1e3:.2f}", str(pairs)]
        rows.append(row)
    head = ["poses", "standing apart: ms", "pairs", "packed: ms", "pairs"]
    typer.echo(markdown(head, rows))
