"""API keys as the operator describes them: hashed, named, limited; and the file that holds them.

A key is 32 random bytes, so that a plain SHA-256 keeps it as safe as a slow hash keeps a password.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from service.errors import shortened
from service.parameters import Priority
from service.toml_files import read_toml

_PREFIX: Final = "sdp_"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class KeyFileError(ValueError):
    """One sentence on what is wrong with a key file; it shows no key and no hash."""


class Scope(StrEnum):
    """A part of the service that a key opens."""

    POSE = "pose"
    """Everything that looks at images."""
    CAMERAS = "cameras"
    """The operator's cameras, to be watched, and the key's own."""
    ADMIN = "admin"
    """`/admin`: loading other models."""


UNLIMITED: Final = frozenset((Scope.POSE, Scope.CAMERAS))
"""Scopes if none is named: without keys, and for keys of no file."""


class Key(BaseModel):
    """One key. Limits that are unset do not limit; `max_priority` then is the server's."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    sha256: str = Field(repr=False, pattern=r"^[0-9a-fA-F]{64}$")
    requests_per_second: Annotated[float, Field(gt=0)] | None = None
    crops_per_second: Annotated[float, Field(gt=0)] | None = None
    max_streams: Annotated[int, Field(ge=0)] | None = None
    max_priority: Priority | None = None
    expires: datetime | None = None
    scopes: Annotated[frozenset[Scope], Field(min_length=1)] = frozenset({Scope.POSE})

    @field_validator("sha256")
    @classmethod
    def _of_something(cls, value: str) -> str:
        if bytes.fromhex(value) == digest_of(""):
            raise ValueError("is the hash of no key at all, which would let everyone in")
        return value

    @field_validator("expires", mode="before")
    @classmethod
    def _with_a_zone(cls, value: object) -> object:
        if isinstance(value, datetime):
            return value if value.tzinfo else value.replace(tzinfo=UTC)
        if isinstance(value, date):  # from its beginning
            return datetime(value.year, value.month, value.day, tzinfo=UTC)
        if value is not None:
            raise ValueError("must be a date of TOML, such as 2027-01-31 without quotes")
        return None

    @property
    def digest(self) -> bytes:
        """SHA-256 of the key itself."""
        return bytes.fromhex(self.sha256)


def digest_of(key: str) -> bytes:
    """SHA-256 of a key in plain text."""
    return hashlib.sha256(key.encode()).digest()


def new_key() -> str:
    """A random key of 256 bits, in characters that any header carries."""
    return _PREFIX + secrets.token_urlsafe(32)


def entry(name: str, key: str) -> str:
    """The entry of a key in a key file. Raises `KeyFileError` for a name that no file may have."""
    _check_name(name, "")
    return f'["{name}"]\nsha256 = "{digest_of(key).hex()}"\n'


def plain_keys(keys: Iterable[str]) -> tuple[Key, ...]:
    """Keys given in plain text, without limits: named key-1, key-2 in their order."""
    return tuple(
        Key(name=f"key-{number}", sha256=digest_of(key).hex(), scopes=UNLIMITED)
        for number, key in enumerate(sorted(keys), start=1)
    )


def known_keys(plain: Iterable[str], path: Path | None) -> tuple[Key, ...]:
    """Keys of both sources. Raises `KeyFileError`, also for a file without a key, which must not
    admit everyone.
    """
    keys = plain_keys(plain)
    if path is None:
        return keys
    keys = (*keys, *read_key_file(path))
    if not keys:
        raise KeyFileError(f"{path}: holds no key, which would let everyone in")
    return keys


def read_key_file(path: Path) -> tuple[Key, ...]:
    """The keys of a TOML file, a table for each. Raises `KeyFileError`."""
    tables = read_toml(path, KeyFileError)
    keys = tuple(_parsed(path, name, table) for name, table in tables.items())
    names: dict[str, str] = {}
    for key in keys:
        other = names.setdefault(key.sha256.lower(), key.name)
        if other != key.name:
            raise KeyFileError(f"{path}: {other} and {key.name} are the same key")
    return keys


def _parsed(path: Path, name: str, table: object) -> Key:
    _check_name(name, f"{path}: ")
    if not isinstance(table, dict):
        raise KeyFileError(f"{path}: {name} must be a table, [{name}], with sha256 in it")
    if "name" in table:
        raise KeyFileError(f"{path}: {name}: the table's title is the name; there is no field name")
    try:
        return Key.model_validate({**table, "name": name})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][:1])
        known = [each for each in Key.model_fields if each != "name"]
        if first["type"] == "extra_forbidden":
            reason = f"there is no {shortened(field)}; known are {', '.join(known)}"
        elif field == "sha256" and first["type"] != "value_error":
            reason = "sha256 must be the 64 hexadecimal digits that `sdpose keys new` gives"
        else:
            reason = f"{field}: {first['msg'].removeprefix('Value error, ')}"
        raise KeyFileError(f"{path}: {name}: {reason}") from None


def _check_name(name: str, where: str) -> None:
    if not _NAME.fullmatch(name):
        raise KeyFileError(
            f"{where}{shortened(name)} is no name for a key: up to 64 letters, digits, `.`, `_`, "
            "and `-`"
        )
