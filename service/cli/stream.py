"""`sdpose stream`: people of one camera, address or recording, as it goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from service.cli import options

if TYPE_CHECKING:
    from sdpose_client import GrpcPoseClient
    from sdpose_core.commands.stream import Answering, Summary
    from sdpose_core.types import Poses
    from service.cli.console import LineFile, Sink
    from service.tls import ClientTls


def stream(
    source: Annotated[
        str,
        typer.Argument(
            help="A camera (0 or /dev/video0), an address (rtsp://, http://), a video file, or a "
            "folder of images."
        ),
    ],
    server: Annotated[
        str | None,
        typer.Option(
            help="Address of a running service (gRPC), such as localhost:8001; unset: "
            "models in this process."
        ),
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="SDPOSE_API_KEY", help="Key of the service.")
    ] = None,
    tls: Annotated[
        bool, typer.Option("--tls", help="Reach the service over TLS, as any --tls- option does.")
    ] = False,
    tls_ca: options.TlsCa = None,
    tls_certificate: options.TlsCertificate = None,
    tls_key: options.TlsKey = None,
    tls_server_name: Annotated[
        str | None,
        typer.Option(help="Name in the service's certificate, where --server has another."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File for one JSON line per frame; - prints them.")
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option(help="Video file (mp4) with the skeletons and ids drawn in.")
    ] = None,
    window: Annotated[
        bool | None,
        typer.Option(help="Show the people in a window; unset: if there is a display."),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(min=0.1, help="Maximum frames per second of a camera; rate of a folder (10)."),
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Only every so many frames.")] = 1,
    detect_every: Annotated[
        str, typer.Option(help="Detect people in every so many frames, or auto.")
    ] = "auto",
    tracking: Annotated[bool, typer.Option(help="Ids over time.")] = True,
    smoothing: Annotated[bool, typer.Option(help="Steady joints of people with an id.")] = True,
    max_people: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of people per frame, the best first.")
    ] = None,
    min_score: options.MinScore = None,
    suppress: options.Suppress = True,
    attempts: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Failures in a row after which the command ends; unset: never.",
        ),
    ] = None,
    student: options.Student = "sdpose-lite",
    detector: options.Detector = "embedded",
    detector_classes: options.DetectorClasses = "",
    device: options.Device = "auto",
) -> None:
    """Find and follow the people of a camera or a recording.

    Of a camera the latest frame wins; of a recording, also one at an http address, every frame is
    answered. A camera that breaks off is opened again, after pauses of 0.5 to 10 seconds. Ctrl-C,
    SIGTERM, a closed terminal, or q in the window, ends it with whole files. The JSON lines can be
    followed as they come (tail -f). At the end a summary goes to standard error.
    """
    from sdpose_core.commands.stream import StreamRun, recorded_frames
    from sdpose_core.io.addresses import shown
    from sdpose_core.io.live import LiveSource, is_live, is_recording, live_frames
    from sdpose_core.io.problems import MediaError
    from sdpose_core.io.results.json_lines import JsonLines
    from sdpose_core.io.sources import find_sources, paths_of
    from service.cli.console import stop_on_interrupt
    from service.cli.window import NoWindowError, open_window
    from service.errors import ServiceError

    screen = _Screen()
    tell = screen.tell
    files = options.client_tls(
        server, tls_ca, tls_certificate, tls_key, tls=tls, tls_server_name=tls_server_name
    )
    reached = _reached(server, api_key, files, tls, tls_server_name)
    live = is_live(source) and not is_recording(source)
    chosen = _Tracking(
        _cadence(detect_every, live=live, tell=tell),
        tracking,
        smoothing,
        max_people,
        min_score,
        suppress,
    )
    models = options.Models(student, detector, device, detector_classes=detector_classes)
    # Before the models, which take seconds to load.
    found, problems = ([], []) if live else find_sources([source], tell)
    if problems:
        tell(problems[0])
        raise typer.Exit(1)
    held = ExitStack()
    sink = _outputs(held, json_file, overlay, [*paths_of(found), *models.files], tell)
    run = StreamRun(
        shown(source),
        None if sink is None else JsonLines(sink.put),
        overlay,
        Fraction(fps or 25).limit_denominator(1000),
        screen.show,
    )
    status = 0
    try:
        with held as stack:
            if reached is None:
                answering = _local(models, chosen)
            else:
                client = stack.enter_context(reached())
                answering = _remote(client, chosen, tell, attempts, live=live)
            interrupted = stack.enter_context(stop_on_interrupt())
            display = open_window(f"{shown(source)} - sdpose", show=window)
            if display is not None:
                stack.callback(display.close)
                run.window = display.show

            def stopping() -> bool:
                return interrupted() or (display is not None and display.poll())

            if live:
                camera = stack.enter_context(LiveSource(source, tell, attempts=attempts))
                frames = live_frames(camera.frames(stopping), fps, every)
            else:
                frames = recorded_frames(found, fps, every, stopping, tell)
            with screen:
                run.run(answering(frames))
    except (MediaError, NoWindowError, ServiceError, ValueError) as error:
        tell(str(error))
        status = 1
    except BrokenPipeError:
        assert sink is not None
        sink.abandon()
        raise typer.Exit(141) from None
    except OSError as error:
        tell(f"{json_file}: the results cannot be written: {error.strerror}")
        status = 1
    try:
        if sink is not None:
            sink.finish()
    except OSError as error:
        tell(f"{json_file}: the results cannot be stored: {error.strerror}")
        status = 1
    tell(str(run.summary))
    raise typer.Exit(status)


@dataclass(frozen=True, slots=True)
class _Tracking:
    """The answers that are requested, of models here or of a service."""

    detect_every: int | Literal["auto"]
    tracking: bool
    smoothing: bool
    max_people: int | None
    min_score: float | None
    suppress: bool


def _outputs(
    held: ExitStack,
    json_file: Path | None,
    overlay: Path | None,
    inputs: list[Path],
    tell: Callable[[str], None],
) -> LineFile | Sink | None:
    """The file or screen for the lines, if one is named.

    Exits with status 2 if an output would replace an input, or another run is writing to it.
    """
    from sdpose_core.files.outputs import OutputError, check_outputs, only_run
    from service.cli.console import LineFile, Sink, SinkError

    to_screen = json_file is not None and str(json_file) == "-"
    files = [one for one in (None if to_screen else json_file, overlay) if one is not None]
    try:
        check_outputs(files, inputs)
        if overlay is not None:
            held.enter_context(only_run(overlay))
        if json_file is None:
            return None
        return Sink(None) if to_screen else LineFile(json_file)
    except (OutputError, SinkError) as error:
        tell(str(error))
        raise typer.Exit(2) from None


def _cadence(given: str, *, live: bool, tell: Callable[[str], None]) -> int | Literal["auto"]:
    if given == "auto":
        return "auto" if live else 1  # a recording waits: no frame needs to be hurried
    if given.isdecimal() and 1 <= int(given) <= 1000:
        return int(given)
    tell("--detect-every: must be 1 to 1000, or auto")
    raise typer.Exit(2)


def _reached(
    server: str | None, api_key: str | None, files: ClientTls, tls: bool, server_name: str | None
) -> Callable[[], GrpcPoseClient] | None:
    """A function that connects to the service, if one is named; its files are read now."""
    if server is None:
        return None
    from sdpose_client import GrpcPoseClient

    if server.startswith(("http://", "https://")):
        raise typer.BadParameter("--server: the gRPC address without http, such as localhost:8001")
    ca, pair = files.read()
    return partial(
        GrpcPoseClient,
        server,
        api_key=api_key,
        tls=tls,
        root_certificates=ca,
        client_certificate=pair,
        server_name=server_name,
    )


def _remote(
    client: GrpcPoseClient,
    chosen: _Tracking,
    tell: Callable[[str], None],
    attempts: int | None,
    *,
    live: bool,
) -> Answering:
    from sdpose_client import Ask, StreamAsk
    from service.cli.answering import RemoteAnswering

    drop: Literal["latest", "none"] = "latest" if live else "none"
    stream = StreamAsk(chosen.tracking, chosen.smoothing, chosen.detect_every, drop)
    ask = Ask(max_people=chosen.max_people, min_score=chosen.min_score, suppress=chosen.suppress)
    return RemoteAnswering(client, ask, stream, tell, attempts)


def _local(models: options.Models, chosen: _Tracking) -> Answering:
    from sdpose_core.commands.stream import LocalAnswering
    from sdpose_core.tracking import Smoothing, TrackingConfig

    smoothing = Smoothing() if chosen.smoothing else None
    estimator = models.estimator()
    estimator.warm_up()
    return LocalAnswering(
        estimator,
        TrackingConfig(smoothing=smoothing) if chosen.tracking else None,
        chosen.detect_every,
        chosen.max_people,
        chosen.min_score,
        chosen.suppress,
    )


class _Screen:
    """A status line on standard error, on a terminal only."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, soft_wrap=True)
        self._status = self._console.status("waiting for the first frame")
        self._next_s = 0.0

    def __enter__(self) -> _Screen:
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._status.stop()

    def tell(self, line: str) -> None:
        from sdpose_core.io.addresses import without_secrets

        with suppress(OSError):  # a terminal that is gone ends no stream
            self._console.print(
                without_secrets(f"sdpose stream: {line}"), markup=False, highlight=False
            )

    def show(self, summary: Summary, poses: Poses) -> None:
        now = time.monotonic()
        if now < self._next_s:
            return
        self._next_s = now + 0.5
        with suppress(OSError):
            self._status.update(
                f"{summary.rate:.1f} frames per second, {summary.latencies_ms[-1]:.0f} ms, "
                f"{len(poses)} people, {summary.dropped} dropped"
            )
