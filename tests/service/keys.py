"""Key files for tests."""

from __future__ import annotations

from pathlib import Path

from service.access.keys import Key, digest_of, entry

KEY = "sdp_a-key-for-tests"


def a_key(name: str = "a", key: str = KEY, **limits: object) -> Key:
    return Key.model_validate({"name": name, "sha256": digest_of(key).hex(), **limits})


def table(name: str, key: str = KEY, more: str = "") -> str:
    return entry(name, key) + more + "\n"


def written(path: Path, *tables: str) -> Path:
    path.write_text("\n".join(tables), encoding="utf-8")
    return path
