"""The end of a run on a user's labels: score heads, the choice of the student, and the report."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sdpose_core.checkpoints import load_student, save_student, training_facts
from sdpose_core.data.coco import CocoImage, load_coco
from sdpose_core.data.shards import CropSet
from sdpose_core.estimator import PoseEstimator
from sdpose_core.evaluate.breakdown import PersonScore
from sdpose_core.evaluate.report import Evaluation, evaluate
from sdpose_core.evaluate.worst import worst_sheet
from sdpose_core.files.whole_file import whole_file
from sdpose_core.io.overlay import save_picture
from sdpose_core.skeleton import DEFAULT_SIGMA
from sdpose_core.train.recipe.config import TrainConfig
from sdpose_core.train.scores import with_scores
from sdpose_core.train.transfer import with_scores_of
from sdpose_core.types import Poses

FIT_PEOPLE: Final = 50
"""Fewer people than this do not teach which scores are right."""
FIT_VIEWS: Final = 6000
"""Views of people that score heads are fitted on, 14 of each at most."""
WORST: Final = 12
"""People on the sheet of the worst."""


@dataclass(frozen=True)
class Measured:
    """A student file and its numbers on the held-out people."""

    file: Path
    numbers: Evaluation
    people: list[PersonScore]

    @property
    def ap(self) -> float:
        """COCO's AP, -1 if undefined."""
        return self.numbers.coco["AP"]


def finish(
    config: TrainConfig, folder: Path, crops: CropSet, say: Callable[[str], None]
) -> list[str]:
    """Give the best student its score heads and write the report.

    ``best.safetensors`` is then the best on the held-out people of the run's best student with
    heads fitted on its people, the same with the heads of its start, and the start itself: it is
    never worse there than the start. Writes ``report.md`` and ``worst.jpg``.

    Returns:
        The report's lines.
    """
    start, best = folder / "start.safetensors", folder / "best.safetensors"
    images = load_coco(
        Path(str(config.data.dev_annotations)),
        Path(str(config.data.dev_images)),
        load_student(start).config.skeleton,
    )
    say("scores: fits what a score of this student means, then compares it with the start")
    before = _measure(start, config, images)
    tried = [_measure(file, config, images) for file in _candidates(folder, crops)]
    # Of equal ones the first.
    chosen = max([*tried, before], key=lambda one: (one.ap, one.numbers.mean_oks))
    if chosen is not before:
        facts = {**training_facts(best), "score_head": training_facts(chosen.file)["score_head"]}
        save_student(load_student(chosen.file), best, facts)
    else:
        save_student(load_student(start), best, training_facts(start))
    for one in tried:
        one.file.unlink()
    sheet = worst_sheet(chosen.people, WORST)
    save_picture(folder / "worst.jpg", sheet)
    lines = _report(config, folder, before, chosen)
    with whole_file(folder / "report.md") as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return lines


def _candidates(folder: Path, crops: CropSet) -> list[Path]:
    """The run's best student with each kind of score heads that it can have, as files."""
    trained = load_student(folder / "best.safetensors")
    begun = load_student(folder / "start.safetensors")
    crops = crops.ordered(trained.config.skeleton)
    labelled = crops.keypoints[..., 2] > 0
    made: dict[str, Any] = {}
    # A keypoint that no label shows would be scored as never there.
    if len(crops) >= FIT_PEOPLE and labelled.any(axis=0).all() and not labelled.all():
        chosen = np.random.default_rng(0).permutation(len(crops))[: FIT_VIEWS // 2]
        views = min(14, math.ceil(FIT_VIEWS / len(chosen)))
        fitted = with_scores(trained, crops.select(chosen.tolist()), views=views)
        made["fitted"] = (fitted, f"fitted on {len(chosen)} people, {views} views each")
    if begun.scores is not None:
        made["carried"] = (with_scores_of(trained, begun), "of the student that the run began with")
    if not made:
        made["bare"] = (trained, "none: scores are the peaks of the heatmaps")
    files = []
    for name, (student, head) in made.items():
        files.append(folder / f"{name}.safetensors")
        save_student(student, files[-1], {"score_head": head})
    return files


def _measure(file: Path, config: TrainConfig, images: list[CocoImage]) -> Measured:
    """The numbers that ``sdpose evaluate`` gives for a file, with given boxes."""
    estimator = PoseEstimator.from_pretrained(file, detector="none")

    def ask(image: CocoImage, boxes: NDArray[np.float32] | None) -> Poses:
        given = None if boxes is None else [boxes]
        return estimator.estimate([image.read()], given)[0]

    annotations = Path(str(config.data.dev_annotations))
    numbers, people = evaluate(file.stem, images, annotations, ask, given_boxes=True, bootstrap=0)
    return Measured(file, numbers, people)


def _report(config: TrainConfig, folder: Path, before: Measured, after: Measured) -> list[str]:
    old, new = before.numbers, after.numbers
    skeleton = after.people[0].image.skeleton
    lines = [
        f"# {folder.name}",
        "",
        f"{new.people} held-out people of {new.images} images, given boxes: AP "
        f"{_number(before.ap)} at the start, {_number(after.ap)} now; mean OKS "
        f"{old.mean_oks:.3f}, {new.mean_oks:.3f}.",
    ]
    if after is before:
        lines.append(
            "Nothing that the run tried is better there than the start, so `best.safetensors` is "
            "the start. More or other labels may help."
        )
    if skeleton.assumed:
        names = ", ".join(skeleton.assumed)
        lines.append(f"OKS with the default tolerance {DEFAULT_SIGMA}, as none was given: {names}.")
    lines += ["", "| keypoint | labelled | OKS at the start | OKS now | within 0.1 now |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    for name, row in new.joints.items():
        lines.append(
            f"| {name} | {row['labelled']:.0f} | {_number(old.joints[name]['oks'])} | "
            f"{_number(row['oks'])} | {_number(row['within_0.1'])} |"
        )
    best = shlex.quote(str(folder / "best.safetensors"))
    held = shlex.quote(str(config.data.dev_annotations))
    images = shlex.quote(str(config.data.dev_images))
    onnx = shlex.quote(str(folder / "student.onnx"))
    return [
        *lines,
        "",
        "Within 0.1: share of keypoints closer to the label than a tenth of the root of the "
        "person's area. The worst people: `worst.jpg`, labels green, answers red.",
        "",
        "Next:",
        "",
        f"    sdpose evaluate {held} {images} --student {best}",
        f"    sdpose serve --student {best}",
        f"    sdpose export --student {best} --keypoints --output {onnx}",
    ]


def _number(value: float) -> str:
    return "-" if math.isnan(value) or value < 0 else f"{value:.3f}"
