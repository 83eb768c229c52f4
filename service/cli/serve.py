"""`sdpose serve`: REST and gRPC in one process."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from service.settings import Settings, SettingsError, ignored_settings, load_settings

_SECRET = {"api_keys"}
"""Settings without an option: a command line can be read by every user of the machine."""
_PARSED: tuple[type, ...] = (bool, int, float)
"""Types that typer parses itself; anything else reaches `Settings` as text."""


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    """The option of one setting; None if it is not given."""
    # Of `float | None` and similar: the type that is not None, if there is just one.
    kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
    members = [kind for kind in kinds if kind in _PARSED]
    kind = members[0] if members and "auto" not in str(field.annotation) else str
    default = "unset" if field.default in (None, frozenset()) else field.default
    option = typer.Option(help=f"{field.description} [{default}]")
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for every setting, besides its own."""
    own = inspect.signature(command, eval_str=True).parameters
    options = [
        _option(name, field) for name, field in Settings.model_fields.items() if name not in _SECRET
    ]
    parameters = [each for each in own.values() if each.kind is not each.VAR_KEYWORD] + options
    # typer reads both.
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


@_with_settings
def serve(
    *,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file with settings, such as http_port = 8080. [unset]"),
    ] = None,
    **given: Any,
) -> None:
    """Serve poses over REST (port 8000) and gRPC (port 8001) until stopped.

    Every option is also an environment variable, SDPOSE_HTTP_PORT for --http-port, and a key
    of the TOML file, http_port. Options override variables, and variables the file; [..] is
    the default. SDPOSE_API_KEYS, the keys that callers must show, has no option: a command
    line is no place for secrets. More in docs/operations.md.
    """
    try:
        settings = load_settings(config, **given)
        ignored = ignored_settings(config)
    except SettingsError as error:
        typer.echo(f"sdpose serve: {error}", err=True)
        raise typer.Exit(2) from None

    import asyncio
    import os

    # Read by gRPC on import; nothing here forks, and its handlers would only complain.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

    import structlog
    import uvloop

    from service.process import StartError, run_service
    from service.telemetry.logs import configure_logs, finish_logs

    configure_logs(settings.log_level, settings.log_format)
    log = structlog.get_logger("service")
    for name, reason in ignored.items():
        log.warning("unknown setting, ignored", name=name, reason=reason)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            ending = runner.run(run_service(settings))
    except StartError as error:
        log.error("cannot start", reason=str(error))
        raise typer.Exit(1) from None
    if not ending.clean:
        finish_logs()
        os._exit(ending.status)
    raise typer.Exit(ending.status)
