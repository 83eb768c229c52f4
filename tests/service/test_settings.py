"""Settings: read from the environment, wrong ones told in one sentence, all of them documented."""

from __future__ import annotations

import re
from inspect import get_annotations
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from service.cli.main import app
from service.cli.serve import serve
from service.process import Ending
from service.runtime.models import pipeline_limits
from service.settings import (
    Settings,
    SettingsError,
    ignored_settings,
    load_settings,
)
from service.settings.fields import REPLACED
from tools.settings_table import settings_table

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


@pytest.fixture(autouse=True)
def no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that are taken to be right after all fail the test, and start nothing."""

    def refuse(settings: Settings) -> None:
        raise AssertionError(f"would serve on {settings.host}:{settings.http_port}")

    monkeypatch.setattr("service.process.run_service", refuse)


def test_environment_is_read_and_flags_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDPOSE_HTTP_PORT", "9000")
    monkeypatch.setenv("SDPOSE_API_KEYS", "one, two,,")
    settings = load_settings(grpc_port=9001, host=None)
    assert (settings.http_port, settings.grpc_port) == (9000, 9001)
    assert settings.api_keys == {"one", "two"}
    assert load_settings(http_port=9002).http_port == 9002


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("SDPOSE_HTTP_PORT", "eighty", "SDPOSE_HTTP_PORT is wrong: .*valid integer.*'eighty'"),
        ("SDPOSE_HTTP_PORT", "70000", "SDPOSE_HTTP_PORT is wrong: .*65535"),
        ("SDPOSE_CYCLES", "auto", "SDPOSE_CYCLES is wrong: .*valid integer.*'auto'"),
        ("SDPOSE_CYCLES", "9", "SDPOSE_CYCLES is wrong: .*8"),
        ("SDPOSE_CYCLES", "3", "SDPOSE_CYCLES is 3, more than SDPOSE_MAX_CYCLES, 2"),
        ("SDPOSE_LOG_LEVEL", "loud", "SDPOSE_LOG_LEVEL is wrong: .*'debug'"),
        ("SDPOSE_MAX_MEGAPIXELS", "500", "SDPOSE_MAX_MEGAPIXELS is wrong: .*89"),
    ],
)
def test_wrong_value_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=sentence) as wrong:
        load_settings()
    assert "\n" not in str(wrong.value)
    outcome = CliRunner().invoke(app, ["serve"])
    assert outcome.exit_code == 2
    assert outcome.stderr.strip() == f"sdpose serve: {wrong.value}"


@pytest.mark.parametrize(
    ("name", "texts", "tables"),
    [
        *[
            (name, ["", " ", " , "], ["[]", '[""]', '["http://a", " "]'])
            for name in ("api_keys", "camera_addresses", "cors_origins")
        ],
        *[
            (name, ["", " "], ['""'])
            for name in ("key_file", "camera_file", "tls_certificate", "tls_client_ca", "host")
        ],
    ],
)
def test_what_is_set_but_empty_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, texts: list[str], tables: list[str]
) -> None:
    variable = f"SDPOSE_{name.upper()}"
    sentence = f"{variable} is set but empty; give it a value, or do not set it"
    for table in tables:
        file = tmp_path / "sdpose.toml"
        file.write_text(f"{name} = {table}")
        with pytest.raises(SettingsError, match=sentence):
            load_settings(file)
    for text in texts:
        monkeypatch.setenv(variable, text)
        outcome = CliRunner().invoke(app, ["serve"])
        assert (outcome.exit_code, outcome.stderr.strip()) == (2, f"sdpose serve: {sentence}")


def test_an_empty_option_or_name_of_a_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = CliRunner().invoke(app, ["serve", "--key-file", ""])
    assert "SDPOSE_KEY_FILE is set but empty" in outcome.stderr
    monkeypatch.setenv("SDPOSE_CONFIG", "")
    with pytest.raises(SettingsError, match="SDPOSE_CONFIG is set but empty"):
        load_settings()


def test_a_file_gives_what_options_and_environment_leave_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "sdpose.toml"
    file.write_text(
        'http_port = 7000\ngrpc_port = 7001\nmax_images = 3\napi_keys = ["one", "two"]\n'
    )
    monkeypatch.setenv("SDPOSE_GRPC_PORT", "7101")
    monkeypatch.setenv("SDPOSE_CONFIG", str(tmp_path / "absent.toml"))
    settings = load_settings(file, max_images=5)
    assert (settings.http_port, settings.grpc_port, settings.max_images) == (7000, 7101, 5)
    assert settings.api_keys == {"one", "two"}
    monkeypatch.setenv("SDPOSE_CONFIG", str(file))
    assert load_settings().max_images == 3
    assert "SDPOSE_CONFIG" not in ignored_settings()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, r"sdpose.toml: cannot be read: No such file"),
        (b"http_port 7000", r"sdpose.toml: not a TOML file: .*line 1"),
        (b"\xff\xfe", r"sdpose.toml: not a TOML file"),
        (
            b"htp_port = 7000",
            r"sdpose.toml: there is no setting 'htp_port'; did you mean http_port",
        ),
        (b"[server]\nport = 1", r"sdpose.toml: there is no setting 'server'"),
        (b'http_port = "eighty"', r"SDPOSE_HTTP_PORT is wrong: .*'eighty'"),
        (b"max_images = 0", r"SDPOSE_MAX_IMAGES is wrong: .*greater than or equal to 1"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, text: bytes | None, sentence: str) -> None:
    file = tmp_path / "sdpose.toml"
    if text is not None:
        file.write_bytes(text)
    outcome = CliRunner().invoke(app, ["serve", "--config", str(file)])
    assert outcome.exit_code == 2
    assert len(outcome.stderr.strip().splitlines()) == 1
    assert re.search(sentence, outcome.stderr)


def test_options_are_read_as_their_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}

    def stop(config: Path | None, **given: object) -> Settings:
        seen.update(given)
        raise SettingsError("stopped")

    monkeypatch.setattr("service.cli.serve.load_settings", stop)
    command = "serve --http-port 81 --max-wait-ms 2.5 --cycles 0 --tracing --log-level debug"
    assert CliRunner().invoke(app, command.split()).exit_code == 2
    given = {name: value for name, value in seen.items() if value is not None}
    assert given == {
        "http_port": 81,
        "max_wait_ms": 2.5,
        "cycles": 0,
        "tracing": True,
        "log_level": "debug",
    }


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
@pytest.mark.parametrize(
    "name", [name for name, field in Settings.model_fields.items() if "float" in str(field)]
)
def test_numbers_are_finite(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"SDPOSE_{name.upper()}", value)
    with pytest.raises(SettingsError, match=f"SDPOSE_{name.upper()} is wrong: .*finite number"):
        load_settings()


@pytest.mark.parametrize("key", ["schlüssel", "naïve", "two words", "tab\tbed", "\x7f"])
def test_keys_that_headers_cannot_carry(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("SDPOSE_API_KEYS", f"good,{key}")
    with pytest.raises(SettingsError, match=r"SDPOSE_API_KEYS is wrong: .*ASCII") as wrong:
        load_settings()
    assert key not in str(wrong.value)


def test_a_long_value_is_not_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDPOSE_HTTP_PORT", "x" * 10_000)
    with pytest.raises(SettingsError) as wrong:
        load_settings()
    assert len(str(wrong.value)) < 250


def test_keys_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDPOSE_API_KEYS", "hush")
    assert "hush" not in repr(load_settings())


def test_typos_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDPOSE_MAXBATCH", "4")
    assert "SDPOSE_MAXBATCH" in ignored_settings()
    assert "SDPOSE_MAX_BATCH" not in ignored_settings()


@pytest.mark.parametrize("name", REPLACED)
@pytest.mark.parametrize("filed", [False, True])
def test_what_is_no_longer_a_setting_is_told_and_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, filed: bool
) -> None:
    variable = f"SDPOSE_{name.upper()}"
    command = ["serve"]
    if filed:
        file = tmp_path / "sdpose.toml"
        file.write_text(f"{name} = 1\n")
        command += ["--config", str(file)]
    else:
        monkeypatch.setenv(variable, "1")
    started = list[Settings]()

    async def start(settings: Settings) -> Ending:
        started.append(settings)
        return Ending(0, clean=True)

    monkeypatch.setattr("service.process.run_service", start)
    monkeypatch.setattr("service.telemetry.logs.configure_logs", lambda *_: None)
    with capture_logs() as lines:
        assert CliRunner().invoke(app, command).exit_code == 0
    monkeypatch.delenv(variable, raising=False)
    assert started == [load_settings()], "as without it"
    (line,) = lines
    assert (line["log_level"], line["name"]) == ("warning", name if filed else variable)
    assert line["reason"] == REPLACED[name]


def test_the_defaults_give_the_bounds_that_were_settings() -> None:
    settings = load_settings()
    assert settings.max_decoded_bytes == 1024 * 2**20
    assert settings.max_bodies_bytes == 512 * 2**20
    limits = pipeline_limits(settings, on_cpu=True)
    assert (limits.detect.max_cost, limits.detect.max_queue_cost) == (8, 64)
    assert (limits.pose.max_queue_cost, limits.max_decode_queue) == (256, 64)
    assert pipeline_limits(load_settings(max_batch=4), on_cpu=True).detect.max_cost == 4


@pytest.mark.parametrize(("requests", "images"), [(1, 64), (256, 64), (1000, 250)])
def test_queues_follow_from_the_requests(requests: int, images: int) -> None:
    limits = pipeline_limits(load_settings(max_requests=requests), on_cpu=False)
    assert limits.pose.max_queue_cost == requests
    assert limits.detect.max_queue_cost == limits.max_decode_queue == images


def test_threads_for_decoding() -> None:
    assert load_settings(decode_threads=3).threads_for_decoding == 3
    assert load_settings().threads_for_decoding >= 1


def test_the_documented_table_is_current() -> None:
    text = OPERATIONS.read_text(encoding="utf-8")
    assert settings_table() in text, "run `python -m tools.settings_table` and paste its output"


def test_every_field_says_what_it_means() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name


def test_every_setting_is_an_option_of_serve() -> None:
    help_text = {
        name: parameter.__metadata__[0].help
        for name, parameter in get_annotations(serve, eval_str=True).items()
        if name != "return"
    }
    for name, field in Settings.model_fields.items():
        if name == "api_keys":  # no secrets on the command line
            continue
        default = field.default
        shown = "unset" if default in (None, frozenset()) else default
        assert help_text.pop(name) == f"{field.description} [{shown}]"
    assert list(help_text) == ["config"]
