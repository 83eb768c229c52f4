"""`sdpose serve`: REST and gRPC in one process."""

from __future__ import annotations

from typing import Annotated

import typer


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address that both servers listen on. [127.0.0.1]")
    ] = None,
    http_port: Annotated[
        int | None, typer.Option(help="Port of REST; 0 takes a free one. [8000]")
    ] = None,
    grpc_port: Annotated[
        int | None, typer.Option(help="Port of gRPC; 0 takes a free one. [8001]")
    ] = None,
    student: Annotated[
        str | None, typer.Option(help="Pose model: a preset name or a path. [sdpose-lite]")
    ] = None,
    detector: Annotated[
        str | None, typer.Option(help="Person detector: `embedded`, a name or a path. [embedded]")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="`auto`, `cpu`, `cuda` or `cuda:N`. [auto]")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="`auto`, `torch` or `openvino`. [auto]")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Numbers that student and detector compute in: `auto` (the fastest sound ones), "
            "`fp32`, `fp16` or `bf16`. [auto]"
        ),
    ] = None,
    max_batch: Annotated[
        int | None,
        typer.Option(
            help="Most crops in one batch of the student; unset: 32 on a CPU, 64 on a GPU. [unset]"
        ),
    ] = None,
    max_detect_batch: Annotated[
        int | None, typer.Option(help="Most images in one batch of the detector. [8]")
    ] = None,
    max_wait_ms: Annotated[
        float | None,
        typer.Option(
            help="Longest wait of a batch for pictures that are being decoded or cut; unset: 30 on "
            "a CPU, 2 on a GPU. [unset]"
        ),
    ] = None,
    max_queue: Annotated[
        int | None, typer.Option(help="Most crops waiting for the student. [256]")
    ] = None,
    max_detect_queue: Annotated[
        int | None, typer.Option(help="Most images waiting for the detector. [64]")
    ] = None,
    decode_threads: Annotated[
        int | None, typer.Option(help="Threads that decode images; 0: one a core, at most 8. [0]")
    ] = None,
    max_decode_queue: Annotated[
        int | None, typer.Option(help="Most images waiting to be decoded. [64]")
    ] = None,
    max_decoded_mb: Annotated[
        int | None,
        typer.Option(
            help="Most memory (MiB) for images in flight: each counts what decoding its kind may "
            "need at its height, then its pixels. [1024]"
        ),
    ] = None,
    max_image_mb: Annotated[
        float | None, typer.Option(help="Largest image file (MiB). [20.0]")
    ] = None,
    max_request_mb: Annotated[
        float | None, typer.Option(help="Largest HTTP request body (MiB). [64.0]")
    ] = None,
    max_bodies_mb: Annotated[
        int | None,
        typer.Option(help="Most memory (MiB) for what all requests under way have sent. [512]"),
    ] = None,
    max_megapixels: Annotated[
        float | None, typer.Option(help="Largest image by pixels, checked before decoding. [50.0]")
    ] = None,
    max_requests: Annotated[
        int | None,
        typer.Option(help="Most requests under way; more are refused before they are read. [256]"),
    ] = None,
    max_streams: Annotated[
        int | None,
        typer.Option(help="Most open streams, over gRPC and WebSocket together. [64]"),
    ] = None,
    stream_idle_seconds: Annotated[
        float | None,
        typer.Option(help="A stream on which no frame comes for so long is ended. [60.0]"),
    ] = None,
    max_images: Annotated[int | None, typer.Option(help="Most images in one request. [16]")] = None,
    max_boxes: Annotated[
        int | None, typer.Option(help="Most boxes or people in one image. [100]")
    ] = None,
    max_deadline_ms: Annotated[
        float | None,
        typer.Option(help="Longest time one request may take, whatever it asks for. [60000.0]"),
    ] = None,
    cycles: Annotated[
        str | None,
        typer.Option(
            help="Transformer cycles where a request names none; `auto`: one more than the "
            "student's own number while the queues are short. Unset: the student's own. [unset]"
        ),
    ] = None,
    max_cycles: Annotated[
        int | None,
        typer.Option(help="Most transformer cycles a request may ask for; all are warmed. [2]"),
    ] = None,
    drain_seconds: Annotated[
        float | None, typer.Option(help="Time to finish what is queued after a stop signal. [20.0]")
    ] = None,
    stall_seconds: Annotated[
        float | None,
        typer.Option(
            help="A batch that runs longer makes `/livez` fail and soon ends the process. [120.0]"
        ),
    ] = None,
    tracing: Annotated[
        bool | None,
        typer.Option(
            help="Send OpenTelemetry traces where the `OTEL_*` variables say; needs the extra "
            "`otel`. [False]"
        ),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="Least severe log line that is written. [info]")
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(help="`auto`: console on a terminal, JSON elsewhere. [auto]")
    ] = None,
) -> None:
    """Serve poses over REST (port 8000) and gRPC (port 8001) until told to stop.

    Every option is also an environment variable: SDPOSE_HTTP_PORT is --http-port. An option
    goes before the variable; [..] is the default. SDPOSE_API_KEYS, the keys that callers
    must show, has no option: a command line is no place for secrets. More in
    docs/operations.md.
    """
    given = dict(locals())

    from service.settings import SettingsError, load_settings

    try:
        settings = load_settings(**given)
    except SettingsError as error:
        typer.echo(f"sdpose serve: {error}", err=True)
        raise typer.Exit(2) from None

    import asyncio
    import os
    import sys

    # Read by gRPC on import; nothing here forks, and its handlers would only complain.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

    import structlog
    import uvloop

    from service.logs import configure_logs
    from service.process import StartError, run_service
    from service.settings import unknown_settings

    configure_logs(settings.log_level, settings.log_format)
    log = structlog.get_logger("service")
    for name in unknown_settings():
        log.warning("unknown setting, ignored", name=name)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            ending = runner.run(run_service(settings))
    except StartError as error:
        log.error("cannot start", reason=str(error))
        raise typer.Exit(1) from None
    if not ending.clean:
        sys.stderr.flush()
        os._exit(ending.status)
    raise typer.Exit(ending.status)
