"""Ways to damage bytes, all of them by a dice that is given."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

_LENGTHS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_NUMBERS = (b"0", b"-1", b"1e999", b"NaN", b"9" * 40, b"0.5", b"null", b'"a"', b"[]", b"true")


def damaged(dice: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds with one to three kinds of damage; now and then nothing but noise."""
    if dice.random() < 0.02:
        return dice.randbytes(dice.randrange(200))
    data = dice.choice(seeds)
    for _ in range(dice.choice((1, 1, 2, 3))):
        data = dice.choice(_WAYS)(dice, data, seeds)
    return data


def _place(dice: random.Random, data: bytes) -> int:
    # Heads decide more than bodies do.
    reach = len(data) if dice.random() < 0.5 else min(len(data), 512)
    return dice.randrange(reach + 1)


def _flipped(dice: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(min(len(changed), dice.choice((1, 2, 8, 64)))):
        place = min(_place(dice, data), len(changed) - 1)
        changed[place] ^= 1 << dice.randrange(8)
    return bytes(changed)


def _cut(dice: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return data[: _place(dice, data)]


def _hole(dice: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start = _place(dice, data)
    return data[:start] + data[start + dice.choice((1, 4, 100, 1000)) :]


def _repeated(dice: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start = _place(dice, data)
    piece = data[start : start + dice.choice((1, 4, 100))]
    return data[:start] + piece * dice.choice((2, 10, 1000)) + data[start:]


def _noise(dice: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, size = _place(dice, data), dice.choice((1, 16, 400))
    return data[:start] + dice.randbytes(size) + data[start + dice.choice((0, size)) :]


def _spliced(dice: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    other = dice.choice(seeds)
    return data[: _place(dice, data)] + other[_place(dice, other) :]


def _length(dice: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, size = _place(dice, data), dice.choice((1, 2, 4, 8))
    value = dice.choice(_LENGTHS) % (1 << 8 * size)
    order = dice.choice(("big", "little"))
    return data[:start] + value.to_bytes(size, order) + data[start + size :]


def _number(dice: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """Another value where a text has a number."""
    found = list(re.finditer(rb"-?\d[\d.eE+-]*", data))
    if not found:
        return data
    at = dice.choice(found)
    return data[: at.start()] + dice.choice(_NUMBERS) + data[at.end() :]


_WAYS: tuple[Callable[[random.Random, bytes, Sequence[bytes]], bytes], ...] = (
    _flipped,
    _cut,
    _hole,
    _repeated,
    _noise,
    _spliced,
    _length,
    _number,
)
