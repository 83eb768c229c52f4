"""`sdpose stream`: people of one camera, address or recording, as it goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from service.cli.tls_options import TlsCa, TlsCertificate, TlsKey, client_tls

if TYPE_CHECKING:
    from sdpose_core.commands.stream import Answering, Summary
    from sdpose_core.types import Poses
    from service.client import GrpcPoseClient
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
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
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
        typer.Option(help="Show the people in a window; unset: where there is a display."),
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
    min_score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Leave out people that score lower.")
    ] = None,
    suppress: Annotated[
        bool,
        typer.Option(
            "--suppress/--no-suppress", help="Leave out copies: people with a better one's joints."
        ),
    ] = True,
    attempts: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Failures in a row after which a camera or the service is given up; unset: never.",
        ),
    ] = None,
    student: Annotated[str, typer.Option(help="Pose model, a name or a path.")] = "sdpose-lite",
    detector: Annotated[
        str, typer.Option(help="Person detector: embedded, a path, or a name as yolo11n.pt.")
    ] = "embedded",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Find and follow the people of a camera or a recording.

    Of a camera the latest frame wins; of a recording, also one at an http address, every frame is
    answered. A camera that breaks off is opened again, after pauses of 0.5 to 10 seconds. Ctrl-C,
    SIGTERM, a closed terminal, or q in the window, ends it with whole files. The JSON lines can be
    followed as they come (tail -f). At the end a summary goes to standard error.
    """
    from sdpose_core.commands.stream import StreamRun, recorded_frames
    from sdpose_core.files.outputs import OutputError, check_outputs, only_run
    from sdpose_core.io.addresses import shown
    from sdpose_core.io.live import LiveSource, is_live, is_recording, live_frames
    from sdpose_core.io.problems import MediaError
    from sdpose_core.io.sources import find_sources, paths_of
    from sdpose_core.io.writers import JsonLines
    from service.cli.console import LineFile, Sink, SinkError, stop_on_interrupt
    from service.cli.window import NoWindowError, open_window
    from service.errors import ServiceError

    def tell(line: str) -> None:
        screen.say(f"sdpose stream: {line}")

    screen = _Screen()
    reached = _reached(
        server,
        api_key,
        client_tls(
            server, tls_ca, tls_certificate, tls_key, tls=tls, tls_server_name=tls_server_name
        ),
        tls,
        tls_server_name,
    )
    live = is_live(source) and not is_recording(source)
    cadence = _cadence(detect_every, live=live, tell=tell)
    to_screen = json_file is not None and str(json_file) == "-"
    # Before the models, which take seconds to load.
    found, problems = ([], []) if live else find_sources([source], tell)
    if problems:
        tell(problems[0])
        raise typer.Exit(1)
    files = [one for one in (None if to_screen else json_file, overlay) if one is not None]
    held = ExitStack()
    try:
        check_outputs(files, [*paths_of(found), Path(student), Path(detector)])
        if overlay is not None:
            held.enter_context(only_run(overlay))
        sink: LineFile | Sink | None = None
        if json_file is not None:
            sink = Sink(None) if to_screen else LineFile(json_file)
    except (OutputError, SinkError) as error:
        tell(str(error))
        raise typer.Exit(2) from None
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
            answering = _answering(
                stack,
                reached,
                cadence,
                tracking,
                smoothing,
                (max_people, min_score, suppress),
                attempts,
                (student, detector, device),
                live=live,
                tell=tell,
            )
            interrupted = stack.enter_context(stop_on_interrupt())
            display = open_window(f"{shown(source)} - sdpose", wanted=window)
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
    """What connects to the service, if one is named; its files are read now."""
    if server is None:
        return None
    from service.client import GrpcPoseClient

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


def _answering(
    stack: ExitStack,
    service: Callable[[], GrpcPoseClient] | None,
    detect_every: int | Literal["auto"],
    tracking: bool,
    smoothing: bool,
    people: tuple[int | None, float | None, bool],
    attempts: int | None,
    models: tuple[str, str, str],
    *,
    live: bool,
    tell: Callable[[str], None],
) -> Answering:
    if service is not None:
        from service.client import Ask, StreamAsk
        from service.client.answering import RemoteAnswering

        client = stack.enter_context(service())
        asked = StreamAsk(tracking, smoothing, detect_every, "latest" if live else "none")
        max_people, min_score, suppress = people
        ask = Ask(max_people=max_people, min_score=min_score, suppress=suppress)
        return RemoteAnswering(client, ask, asked, tell, attempts)
    from sdpose_core import PoseEstimator
    from sdpose_core.commands.stream import LocalAnswering
    from sdpose_core.tracking import Smoothing, TrackingConfig

    student, detector, device = models
    config = TrackingConfig(smoothing=Smoothing() if smoothing else None) if tracking else None
    estimator = PoseEstimator.from_pretrained(student, detector, device)
    estimator.warm_up()
    return LocalAnswering(estimator, config, detect_every, *people)


class _Screen:
    """A line on standard error that tells how it goes, on a terminal only."""

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

    def say(self, line: str) -> None:
        from sdpose_core.io.addresses import without_secrets

        with suppress(OSError):  # a terminal that is gone ends no stream
            self._console.print(without_secrets(line), markup=False, highlight=False)

    def show(self, summary: Summary, poses: Poses) -> None:
        now = time.monotonic()
        if now < self._next_s:
            return
        self._next_s = now + 0.5
        with suppress(OSError):
            self._status.update(
                f"{summary.rate:.1f} frames a second, {summary.latencies_ms[-1]:.0f} ms, "
                f"{len(poses)} people, {summary.dropped} dropped"
            )
