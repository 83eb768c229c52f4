"""`python -m tools.bench peers`: our students and networks of others on the same crops."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import typer

from sdpose_core import PoseEstimator
from sdpose_core.checkpoints import load_student
from sdpose_core.data.coco import CocoImage, load_coco
from sdpose_core.embedded import embedded_path
from sdpose_core.evaluate.report import evaluate
from sdpose_core.evaluate.results import PoseSource
from sdpose_core.hardware.backends.openvino import OpenVINOBackend
from sdpose_core.model import PRESETS
from sdpose_core.vision.heatmaps import MAX_REFINEMENT, decode_tensor
from service.bench.alternate import alternate
from service.bench.tables import machine, markdown
from service.cli.bench_shared import listed
from service.cli.options import need
from tools.bench.peer_files import Peer, read_peers

Run = Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class Contender:
    """One network in one setting. `source` is None if its AP means nothing."""

    name: str
    run: Run
    input_size: tuple[int, int]
    padding: float
    source: PoseSource | None
    ours: bool


@dataclass(frozen=True, slots=True)
class Measured:
    """Milliseconds a crop by batch size, and AP if there is one."""

    contender: Contender
    ms: Mapping[int, float]
    ap: float | None


def main(
    folder: Annotated[
        Path | None,
        typer.Argument(help="Folder with .xml or .onnx files; unset: our students alone."),
    ] = None,
    describe: Annotated[
        Path | None, typer.Option(help="Their descriptions; unset: peers.toml in the folder.")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="COCO keypoint file for AP; unset: speed only.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of its images.")] = None,
    students: Annotated[
        str, typer.Option(help="Further students as files, separated by commas.")
    ] = "",
    precisions: Annotated[
        str, typer.Option(help="Precisions, separated by commas: fp32, bf16 or auto.")
    ] = "fp32,auto",
    batches: Annotated[str, typer.Option(help="Batch sizes, separated by commas.")] = "1,8",
    threads: Annotated[int, typer.Option(min=0, help="Cores; 0: OpenVINO decides.")] = 0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; each visits all twice.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.05, help="Length of one measurement.")] = 1.0,
    plot: Annotated[Path | None, typer.Option(help="PNG of AP against milliseconds.")] = None,
) -> None:
    """Our students with weights, and peers, alternating: crops in memory to keypoints."""
    torch.set_num_threads(1)  # as the service does: its helpers would spin beside OpenVINO's
    if (annotations is None) != (images is None):
        raise ValueError("--annotations and --images belong together")
    if plot is not None and annotations is None:
        raise ValueError("--plot shows AP: give --annotations and --images")
    contenders = [
        contender
        for precision in listed(precisions)
        for contender in [*_ours(listed(students), precision, threads),
                          *_theirs(folder, describe, precision, threads)]
    ]  # fmt: skip
    contenders = list({contender.name: contender for contender in contenders}.values())
    typer.echo(f"{machine()}\n")
    pictures = None
    if annotations is not None and images is not None:
        need("train", "pycocotools")
        pictures = load_coco(annotations, images)
    scores = {
        contender.name: _accuracy(contender, pictures, annotations) for contender in contenders
    }
    sizes = [int(batch) for batch in listed(batches)]
    speeds = {size: _speeds(contenders, size, rounds, seconds) for size in sizes}
    measured = [
        Measured(each, {size: speeds[size][each.name] for size in sizes}, scores[each.name])
        for each in contenders
    ]
    typer.echo(_table(measured, sizes))
    if plot is not None:
        draw(measured, sizes[0], plot)
        typer.echo(f"\n{plot}")


def _ours(files: Sequence[str], precision: str, threads: int) -> list[Contender]:
    found = []
    for name in [*(name for name in PRESETS if embedded_path(name)), *files]:
        student = load_student(name)
        cycles = student.config.cycles
        for count in range(cycles.lowest, cycles.highest + 1):
            backend = OpenVINOBackend(student, precision, threads)
            estimator = PoseEstimator(backend, student_name=name, scores=student.scores)

            def run(crops: Any, backend: OpenVINOBackend = backend, count: int = count) -> object:
                pixels = torch.from_numpy(crops).permute(0, 3, 1, 2)
                return decode_tensor(backend.run(pixels, count), MAX_REFINEMENT)

            def source(
                image: CocoImage,
                boxes: Any,
                estimator: PoseEstimator = estimator,
                count: int = count,
            ) -> Any:
                return estimator.estimate([image.read()], [boxes], cycles=count)[0]

            title = f"{Path(name).stem}, {count} cycles, {backend.precision}"
            view = student.config.view
            found.append(Contender(title, run, view.input_size, view.padding, source, True))
    return found


def _theirs(
    folder: Path | None, describe: Path | None, precision: str, threads: int
) -> list[Contender]:
    if folder is None:
        return []
    found = []
    for description in read_peers(folder, describe):
        peer = Peer(description, folder, precision, threads)
        title = f"{description.name}, {peer.precision}"
        if not description.trained:
            title += ", random weights"
        source = peer.poses if description.trained else None
        found.append(
            Contender(title, peer, description.input_size, description.padding, source, False)
        )
    return found


def _accuracy(
    contender: Contender, pictures: Sequence[CocoImage] | None, annotations: Path | None
) -> float | None:
    if contender.source is None or pictures is None or annotations is None:
        return None
    result, _ = evaluate(
        contender.name, pictures, annotations, contender.source, given_boxes=True, bootstrap=0
    )
    return result.coco["AP"]


def _speeds(
    contenders: Sequence[Contender], batch: int, rounds: int, seconds: float
) -> dict[str, float]:
    """Milliseconds a crop of each."""
    calls = {}
    for contender in contenders:
        # The same photograph-like content for all, at the size that each expects.
        width, height = contender.input_size
        random = np.random.default_rng(0)
        coarse = random.integers(0, 256, (batch, height // 16, width // 16, 3), np.uint8)
        crops = np.ascontiguousarray(coarse.repeat(16, 1).repeat(16, 2))
        calls[contender.name] = lambda run=contender.run, crops=crops: run(crops)
    rates = alternate(
        calls, rounds, seconds, lambda text: typer.echo(f"batch {batch}, {text}", err=True)
    )
    return {name: 1e3 / (batch * median(values)) for name, values in rates.items()}


def _table(measured: Sequence[Measured], sizes: Sequence[int]) -> str:
    head = ["network", "crop", "padding", "AP", *(f"ms a crop, batch {size}" for size in sizes)]
    rows = [
        [
            each.contender.name,
            "x".join(map(str, each.contender.input_size)),
            f"{each.contender.padding:g}",
            "" if each.ap is None else f"{each.ap:.3f}",
            *(f"{each.ms[size]:.2f}" for size in sizes),
        ]
        for each in measured
    ]
    return markdown(head, rows)


def draw(measured: Sequence[Measured], batch: int, path: Path) -> None:
    """AP against milliseconds a crop; a network of random weights is a line, its AP unknown."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    # Labels of ours above and of theirs below, to either side in turn, so that they keep apart.
    left = {True: True, False: True}
    for each in sorted(measured, key=lambda one: one.ms[batch]):
        colour = "tab:orange" if each.contender.ours else "tab:blue"
        at = each.ms[batch]
        if each.ap is None:
            axes.axvline(at, color="0.75", linewidth=1)
            label, height = each.contender.name.removesuffix(", random weights"), 0.02
            axes.text(at, height, label, rotation=90, fontsize=7, color="0.4",
                      transform=axes.get_xaxis_transform(), va="bottom", ha="right")  # fmt: skip
            continue
        axes.plot(at, each.ap, "o", color=colour)
        ours = each.contender.ours
        axes.annotate(each.contender.name, (at, each.ap), fontsize=8, color=colour,
                      xytext=(-5 if left[ours] else 5, 5 if ours else -12),
                      textcoords="offset points", ha="right" if left[ours] else "left")  # fmt: skip
        left[ours] = not left[ours]
    axes.set_xscale("log")
    for axis in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis("{x:g}")
    axes.set_xlabel(f"milliseconds a crop, batch {batch}")
    axes.set_ylabel("AP, given boxes, one pass")
    axes.margins(x=0.15, y=0.15)
    figure.savefig(path, dpi=150)
