"""The settings: names, bounds, defaults and what each means."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.parameters import Priority
from service.tls import TlsFiles

PREFIX = "SDPOSE_"
LISTS = ("api_keys", "camera_addresses", "cors_origins")
"""Settings of several values, separated by commas in a variable."""


REPLACED: Final = {
    "max_queue": "at most SDPOSE_MAX_REQUESTS crops may wait",
    "max_detect_queue": "a quarter of SDPOSE_MAX_REQUESTS, and at least 64, may wait",
    "max_decode_queue": "a quarter of SDPOSE_MAX_REQUESTS, and at least 64, may wait",
    "max_detect_batch": "SDPOSE_MAX_BATCH bounds the detector's batches too, of at most 8 images",
    "max_watchers": "at most SDPOSE_MAX_STREAMS clients may watch cameras",
    "max_decoded_mb": "two thirds of SDPOSE_MAX_MEMORY_MB are for images",
    "max_bodies_mb": "a third of SDPOSE_MAX_MEMORY_MB is for what requests have sent",
    "stream_resume_seconds": "identities are kept for 30 seconds after their stream",
}
"""Former settings, each with what applies instead; ignored with a warning."""

EMPTY = "is set but empty; give it a value, or do not set it"


def _is_empty(value: object) -> bool:
    return (isinstance(value, str) and not value.strip()) or value == Path()


class Settings(BaseSettings):
    """Every field is the environment variable `SDPOSE_<NAME>`, and a flag of `sdpose serve`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
        validate_default=False,
    )

    host: str = Field("127.0.0.1", description="Address that both servers listen on.")
    http_port: int = Field(8000, ge=0, le=65535, description="Port of REST; 0 takes a free one.")
    grpc_port: int = Field(8001, ge=0, le=65535, description="Port of gRPC; 0 takes a free one.")
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Separate port for `/metrics`, `/livez` and `/readyz`, always in plain HTTP; "
        "unset: `/metrics` is on the HTTP port. Health stays there too.",
    )
    tls_certificate: Path | None = Field(
        None,
        description="PEM file with the certificate and its chain, for HTTPS and gRPC; read again "
        "when it changes. Unset: plain text.",
    )
    tls_key: Path | None = Field(None, description="PEM file with the certificate's key.")
    tls_client_ca: Path | None = Field(
        None,
        description="PEM file with the CAs whose clients are admitted: each must show a "
        "certificate (mutual TLS). Unset: none need.",
    )
    root_path: str = Field(
        "",
        pattern=r"^(/[^/\s?#]+)*$",
        description="Path before all paths behind a proxy, such as `/pose-api`; requests are "
        "understood with it and without.",
    )
    student: str = Field("sdpose-lite", description="Pose model: a preset name or a path.")
    detector: str = Field(
        "embedded",
        description="Person detector: `embedded`, `rtmdet-nano`, `none`, a file, or "
        "`package.module:factory` (docs/detectors.md).",
    )
    detector_classes: str = Field(
        "",
        description="Classes of the detector's file to look for, names or numbers, separated by "
        "commas. Unset: person.",
    )
    device: str = Field("auto", description="`auto`, `cpu`, `cuda` or `cuda:N`.")
    backend: str = Field("auto", description="`auto`, `torch` or `openvino`.")
    precision: str = Field(
        "auto",
        description="Numbers that student and detector compute in: `auto` (the fastest safe "
        "ones), `fp32`, `fp16` or `bf16`.",
    )
    api_keys: Annotated[frozenset[str], NoDecode] = Field(
        frozenset(),
        repr=False,
        description="Keys of which clients must send one, separated by commas; unset: no key "
        "needed.",
    )

    key_file: Path | None = Field(
        None,
        description="TOML file with keys, their names and limits, as `sdpose keys` writes it; "
        "read again when it changes. Unset: only SDPOSE_API_KEYS.",
    )
    max_priority: Priority = Field(
        Priority.NORMAL,
        description="Highest priority a caller may request whose key does not say: `high`, "
        "`normal` or `low`.",
    )

    cors_origins: Annotated[frozenset[str], NoDecode] = Field(
        frozenset(),
        description="Origins whose pages may call this service from a browser, such as "
        "`https://app.example`, separated by commas; `*`: all. Unset: only its own page.",
    )

    max_batch: int | None = Field(
        None,
        ge=1,
        le=512,
        description="Maximum number of crops in one batch of the student; unset: 32 on a CPU, 64 "
        "on a GPU. The detector's hold as many images, but at most 8.",
    )
    detector_size: int = Field(
        640,
        ge=160,
        le=1280,
        multiple_of=32,
        description="Longest side of the detector's input in pixels, a multiple of 32; smaller is "
        "faster and misses smaller people.",
    )
    max_wait_ms: float | None = Field(
        None,
        ge=0,
        le=1000,
        description="Maximum wait of a batch for images that are being decoded or cropped; unset: "
        "30 on a CPU, 2 on a GPU.",
    )
    decode_threads: int = Field(
        0, ge=0, le=64, description="Threads that decode images; 0: one per core, at most 8."
    )
    max_memory_mb: int = Field(
        1536,
        ge=3,
        description="Maximum memory (MiB) for what is in flight: a third for what requests have "
        "sent, the rest for images. Each of those counts what decoding its kind may need at its "
        "height, then its pixels.",
    )

    max_image_mb: float = Field(
        20.0, gt=0, le=1024, description="Maximum size of an image file (MiB)."
    )
    max_request_mb: float = Field(
        64.0, gt=0, le=4096, description="Maximum size of an HTTP request body (MiB)."
    )
    max_megapixels: float = Field(
        50.0,
        gt=0,
        le=89,
        description="Maximum number of megapixels of an image, checked before decoding.",
    )
    max_requests: int = Field(
        256,
        ge=1,
        description="Maximum number of requests in flight; more are rejected before they are read. "
        "As many crops may wait for the student; for decoding and for the detector a quarter as "
        "many images, and at least 64.",
    )
    max_streams: int = Field(
        64,
        ge=1,
        description="Maximum number of open streams, over gRPC and WebSocket together, and of "
        "clients that watch cameras.",
    )
    stream_idle_seconds: float = Field(
        60.0,
        gt=0,
        le=86_400,
        description="A stream without a frame for this long is ended.",
    )
    camera_file: Path | None = Field(
        None,
        description="TOML file with the cameras to read from the start, as "
        "`deploy/cameras.toml`; unset: none.",
    )
    camera_addresses: Annotated[frozenset[str], NoDecode] = Field(
        frozenset(),
        description="Addresses that `POST /cameras` may name: patterns such as "
        "`rtsp://10.0.0.*/*`, separated by commas; unset: none.",
    )
    max_cameras: int = Field(16, ge=1, le=1000, description="Maximum number of cameras to read.")
    max_images: int = Field(
        16, ge=1, le=256, description="Maximum number of images in one request."
    )
    max_boxes: int = Field(
        100, ge=1, le=1000, description="Maximum number of boxes or people in one image."
    )
    max_queue_ms: float = Field(
        1_500.0,
        gt=0,
        le=86_400_000,
        description="A request that sets no deadline is rejected at once if it would wait longer.",
    )
    default_deadline_ms: float = Field(
        10_000.0,
        gt=0,
        le=86_400_000,
        description="Time in which a request that sets no deadline is answered, counted from when "
        "it has been read; after that it fails.",
    )
    max_deadline_ms: float = Field(
        60_000.0,
        gt=0,
        le=86_400_000,
        description="Maximum time one request may take, whatever deadline it sets.",
    )

    suppress: bool = Field(
        True,
        description="Leave out people with the joints of a better scored one, if a request "
        "does not say; people of given boxes always stay.",
    )
    cycles: int | None = Field(
        None,
        ge=0,
        le=8,
        description="Transformer cycles if a request names none. Unset: the student's own.",
    )
    max_cycles: int = Field(
        2,
        ge=1,
        le=8,
        description="Maximum number of transformer cycles a request may set; all are warmed.",
    )

    drain_seconds: float = Field(
        20.0, ge=0, le=86_400, description="Time to finish what is queued after a stop signal."
    )
    stall_seconds: float = Field(
        120.0,
        gt=0,
        le=86_400,
        description="A batch that runs longer makes `/livez` fail and soon ends the process.",
    )
    tracing: bool = Field(
        False,
        description="Send OpenTelemetry traces where the `OTEL_*` variables say; needs the extra "
        "`otel`.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Minimum level of the log lines written."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto`: console on a terminal, JSON elsewhere."
    )

    @field_validator("*", mode="before")
    @classmethod
    def _check_given(cls, value: object, info: ValidationInfo) -> object:
        # Such as a variable made of another one that is unset. Read as unset, it would open what
        # somebody meant to close. Only what is given comes here, not the defaults.
        if isinstance(value, str) and info.field_name in LISTS:
            value = frozenset(each.strip() for each in value.split(",") if each.strip())
        members = [value] if isinstance(value, str) or not isinstance(value, Collection) else value
        if info.field_name != "root_path" and (not members or any(map(_is_empty, members))):
            raise ValueError(EMPTY)
        return value

    @field_validator("api_keys")
    @classmethod
    def _check_keys(cls, keys: frozenset[str]) -> frozenset[str]:
        # Headers have no agreed encoding for anything else, so that such a key would fit some
        # clients and not others.
        if not all("!" <= character <= "~" for key in keys for character in key):
            raise ValueError("a key may hold only ASCII letters, digits and signs, and no spaces")
        return keys

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: frozenset[str]) -> frozenset[str]:
        for origin in origins - {"*"}:
            if not re.fullmatch(r"https?://[^/\s*]+", origin):
                raise ValueError("an origin is a scheme and a host, such as https://app.example")
        return origins

    @model_validator(mode="after")
    def _check_cycles_allowed(self) -> Settings:
        if self.cycles is not None and self.cycles > self.max_cycles:
            raise ValueError(
                f"SDPOSE_CYCLES is {self.cycles}, more than SDPOSE_MAX_CYCLES, {self.max_cycles}"
            )
        return self

    @model_validator(mode="after")
    def _check_tls(self) -> Settings:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("SDPOSE_TLS_CERTIFICATE and SDPOSE_TLS_KEY go together")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("SDPOSE_TLS_CLIENT_CA needs SDPOSE_TLS_CERTIFICATE")
        return self

    @property
    def tls(self) -> TlsFiles | None:
        """The files of the certificate, if there is one."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        return TlsFiles(self.tls_certificate, self.tls_key, self.tls_client_ca)

    @property
    def max_bodies_bytes(self) -> int:
        """Maximum memory for what all requests in flight have sent."""
        return self.max_memory_mb * 2**20 // 3

    @property
    def max_decoded_bytes(self) -> int:
        """Maximum memory for images in flight."""
        return self.max_memory_mb * 2**20 - self.max_bodies_bytes

    @property
    def threads_for_decoding(self) -> int:
        """The number of decode threads, with 0 made into a number."""
        return self.decode_threads or min(8, os.cpu_count() or 1)
