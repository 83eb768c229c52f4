"""``sdpose evaluate``: COCO's keypoint numbers of a student, or of a running server."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console
    from rich.table import Table

    from sdpose_client.rest_client import RestPoseClient
    from sdpose_core.data.coco import CocoImage
    from sdpose_core.estimator import PoseEstimator
    from sdpose_core.evaluate.report import Evaluation
    from sdpose_core.evaluate.results import PoseSource
    from sdpose_core.evaluate.slices import Reliability
    from sdpose_core.skeleton import Skeleton
    from sdpose_core.types import Poses


_IN_PROCESS = (
    "student",
    "device",
    "backend",
    "precision",
    "unbounded",
    "detector_size",
    "detector_classes",
)
"""Options that say how a student runs here, which cannot be requested from a server."""


def evaluate(
    context: typer.Context,
    annotations: Annotated[Path, typer.Argument(help="COCO keypoint annotation file.")],
    images: Annotated[Path, typer.Argument(help="Folder of its images.")],
    student: Annotated[
        str, typer.Option(help="Preset with embedded weights, or a checkpoint file.")
    ] = "sdpose-lite",
    detector: Annotated[
        str,
        typer.Option(
            help="'given' for the annotated boxes, or a detector such as 'embedded'; with --server "
            "any but 'given' means the server's own."
        ),
    ] = "given",
    detector_classes: options.DetectorClasses = "",
    boxes: Annotated[
        Path | None,
        typer.Option(help="COCO detection results whose person boxes are used instead."),
    ] = None,
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="Flip test; both if not given.")
    ] = None,
    cycles: Annotated[
        int | None,
        typer.Option(
            min=0, help="Evaluate up to this many cycles; the student's own number if not given."
        ),
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="URL of a running server to evaluate instead.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="SDPOSE_API_KEY", help="Key for the server.")
    ] = None,
    tls_ca: options.TlsCa = None,
    tls_certificate: options.TlsCertificate = None,
    tls_key: options.TlsKey = None,
    device: options.Device = "auto",
    backend: options.Backend = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, fp16 or bf16.")] = "auto",
    detector_size: Annotated[
        int, typer.Option(help="Longest side of the detector's input, a multiple of 32.")
    ] = 640,
    unbounded: Annotated[
        bool,
        typer.Option(
            "--unbounded",
            help="Decode as the published code: neither the sub-pixel step nor scores are bounded.",
        ),
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first images.")] = None,
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Resamplings for the 95 % interval of AP; 0 = none.")
    ] = 1000,
    worst: Annotated[
        Path | None, typer.Option(help="Folder for drawings of the first setting's worst cases.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write all numbers as JSON.")] = None,
) -> None:
    """Evaluate by COCO's protocol, with the estimator that the server runs."""
    from contextlib import ExitStack

    from rich.console import Console

    options.need("train", "pycocotools")
    from sdpose_core.data.coco import load_coco
    from sdpose_core.data.coco_file import read_coco
    from sdpose_core.evaluate.results import read_boxes
    from sdpose_core.skeleton import DEFAULT_SIGMA
    from sdpose_core.vision.heatmaps import MAX_REFINEMENT

    console = Console()
    tls = options.client_tls(server, tls_ca, tls_certificate, tls_key).context()
    if server is not None:
        why = "cannot go with --server, whose student is already running"
        options.reject_typed(context, _IN_PROCESS, why)
    given = detector == "given" and boxes is None
    finder = "none" if given or boxes is not None else detector
    models = options.Models(student, finder, device, backend, precision, detector_classes)
    try:
        with ExitStack() as closing:
            _check_place(annotations, images)
            inputs = [annotations, *([boxes] if boxes else ()), Path(student), Path(detector)]
            _hold(closing, output, worst, [*inputs, images])
            if server is not None:
                from sdpose_client.rest_client import RestPoseClient

                client = closing.enter_context(RestPoseClient(server, api_key=api_key, tls=tls))
                title, source_of = server, partial(_from_server, client)
                skeleton = _skeleton_of(client)
            else:
                estimator = models.estimator(
                    max_refinement=None if unbounded else MAX_REFINEMENT,
                    detector_size=detector_size,
                )
                title = f"{student} ({estimator.backend_name})"
                source_of = partial(_local, estimator)
                skeleton = estimator.skeleton
            pictures = load_coco(annotations, images, skeleton)[:limit]
            known = None if boxes is None else read_boxes(boxes, read_coco(annotations, skeleton))
            sources = {
                f"{title}, {_name(count, flipped)}": source_of(count, flipped)
                for count in (range(1, cycles + 1) if cycles else [None])
                for flipped in ([False, True] if flip is None else [flip])
            }
            results = _measured(
                sources,
                pictures,
                output,
                worst,
                annotations=annotations,
                given_boxes=given,
                boxes=known,
                bootstrap=bootstrap,
            )
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    by = f"detector {detector}" if server is None else "the server's detector"
    where = "given boxes" if given else f"boxes of {boxes}" if boxes else by
    _show(console, results, where)
    if skeleton.assumed:
        names = ", ".join(skeleton.assumed)
        line = f"OKS with the default tolerance {DEFAULT_SIGMA}, as none was given, for: {names}"
        console.print(line, highlight=False)


def _measured(
    sources: dict[str, PoseSource],
    pictures: list[CocoImage],
    output: Path | None,
    worst: Path | None,
    **protocol: Any,
) -> list[Evaluation]:
    """The numbers of each source by its title, written to ``output`` as they come.

    ``protocol``: further arguments that ``evaluate`` of the core takes, the same for all.
    """
    from sdpose_core.evaluate.report import evaluate as measure
    from sdpose_core.evaluate.report import write_report
    from sdpose_core.evaluate.worst import draw_worst
    from service.cli.console import Progress

    results: list[Evaluation] = []
    with Progress(len(pictures) * len(sources)) as bar:
        for title, source in sources.items():
            result, scored = measure(
                title, pictures, source=source, on_image=lambda _: bar.advance(1), **protocol
            )
            results.append(result)
            if output is not None:
                write_report(output, results)  # a later setting may fail
            if worst is not None and len(results) == 1:
                draw_worst(scored, worst)
    return results


def _hold(held: ExitStack, file: Path | None, folder: Path | None, inputs: list[Path]) -> None:
    """Keep what is written from the inputs, and from other runs until the end."""
    from sdpose_core.files.outputs import check_outputs, only_run

    check_outputs([path for path in (file, folder) if path is not None], inputs)
    if file is not None:
        held.enter_context(only_run(file))
    if folder is not None:
        held.enter_context(only_run(folder, folder=True))


def _check_place(annotations: Path, images: Path) -> None:
    """Raises ``ValueError`` that names the origin of COCO's own."""
    for path, there in ((annotations, annotations.is_file()), (images, images.is_dir())):
        if not there:
            raise ValueError(
                f"{path}: no such {'file' if path == annotations else 'folder'}; the measure is of "
                "COCO val2017, from https://cocodataset.org/#download: val2017.zip, and "
                "person_keypoints_val2017.json in annotations_trainval2017.zip"
            )


def _name(cycles: int | None, flip: bool) -> str:
    named = "" if cycles is None else f"{cycles} cycle{'s' if cycles > 1 else ''}, "
    return named + ("flip test" if flip else "no flip test")


def _local(estimator: PoseEstimator, cycles: int | None, flip: bool) -> PoseSource:
    def ask(image: CocoImage, boxes: NDArray[np.float32] | None) -> Poses:
        given = None if boxes is None else [boxes]
        return estimator.estimate([image.read()], given, flip_test=flip, cycles=cycles)[0]

    return ask


def _from_server(client: RestPoseClient, cycles: int | None, flip: bool) -> PoseSource:

    from sdpose_client.answers import Box
    from sdpose_client.requests import Ask
    from service.cli.answering import poses_of
    from service.errors import ServiceError

    def ask(image: CocoImage, boxes: NDArray[np.float32] | None) -> Poses:
        known = None
        if boxes is not None:
            known = [
                Box(float(x1), float(y1), float(x2 - x1), float(y2 - y1))
                for x1, y1, x2, y2 in boxes
            ]
        ask = Ask(boxes=known, cycles=cycles, flip_test=flip)
        try:
            answer = client.estimate(image.path.read_bytes(), ask)
        except ServiceError as error:
            raise ValueError(f"{image.path.name}: the server rejected it: {error}") from error
        return poses_of(answer)

    return ask


def _skeleton_of(client: RestPoseClient) -> Skeleton:
    """That of the server's student; tolerances are those of its names (``Skeleton.make``)."""
    from sdpose_core.skeleton import skeleton_of_names

    return skeleton_of_names(tuple(client.models()["keypoints"]))


def _show(console: Console, results: list[Evaluation], boxes: str) -> None:
    from rich.table import Table

    first = results[0]
    # Settings side by side: eleven numbers in a row would not fit a terminal.
    table = Table(title=f"{first.images} images, {first.people} people, {boxes}")
    table.add_column("")
    for result in results:
        table.add_column(result.title, justify="right")
    for name in first.coco:
        table.add_row(name, *(f"{result.coco[name]:.3f}" for result in results))
    table.add_row("AP, 95 % interval", *(_interval(result) for result in results))
    for name, half in (("AP, even image ids", 0), ("AP, odd image ids", 1)):
        table.add_row(name, *(f"{result.halves[half]:.3f}" for result in results))
    table.add_row("copies of a better one", *(f"{result.copies:.2%}" for result in results))
    table.add_row("second poses of people", *(f"{result.repeats:.2%}" for result in results))
    table.add_row("false positives", *(f"{result.false_positives:.2%}" for result in results))
    _show_reliability(table, "joint scores", [result.scores for result in results])
    _show_reliability(table, "visibility", [result.visibility for result in results])
    table.add_row("mean OKS", *(f"{result.mean_oks:.3f}" for result in results))
    console.print(table)
    joints = Table(title=f"by joint and size: {first.title}")
    for name in ("part", "count", "OKS", "within 0.1 / OKS > 0.5"):
        joints.add_column(name, justify="left" if name == "part" else "right")
    for name, row in first.joints.items():
        joints.add_row(
            name, f"{row['labelled']:.0f}", f"{row['oks']:.3f}", f"{row['within_0.1']:.3f}"
        )
    for name, row in first.sizes.items():
        joints.add_row(name, f"{row['people']:.0f}", f"{row['oks']:.3f}", f"{row['oks>0.5']:.3f}")
    console.print(joints)
    slices = Table(title=f"where people are lost: {first.title}")
    for name in ("people", "count", "AP", "missed", "misplaced", "loose box", "AP by rank"):
        slices.add_column(name, justify="left" if name == "people" else "right")
    for name, one in first.slices.items():
        slices.add_row(
            name,
            str(one.people),
            f"{one.ap:.3f}",
            f"{one.missed:.1%}",
            f"{one.misplaced:.1%}",
            f"{one.loose:.1%}",
            f"{one.rank:+.3f}",
        )
    console.print(slices)


def _show_reliability(table: Table, name: str, found: Sequence[Reliability | None]) -> None:
    """Rows of AUROC and calibration error; "-" if the source gives no such value."""
    for what, attribute in (("AUROC", "auroc"), ("calibration error", "calibration_error")):
        cells = ["-" if one is None else f"{getattr(one, attribute):.3f}" for one in found]
        table.add_row(f"{name}: {what}", *cells)


def _interval(result: Evaluation) -> str:
    return "-" if result.interval is None else "{:.3f}-{:.3f}".format(*result.interval)
