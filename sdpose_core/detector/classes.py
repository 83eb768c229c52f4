"""The classes that a detector looks for: from what the user wrote to numbers in the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sdpose_core.detector.protocol import DetectorError

PERSON = "person"
_SHOWN = 100


def split_classes(given: str | Iterable[str | int]) -> tuple[str, ...]:
    """Names and numbers, from a text such as ``"dog, 16"`` or from several values."""
    parts = given.split(",") if isinstance(given, str) else map(str, given)
    return tuple(name for part in parts if (name := part.strip()))


def class_numbers(
    requested: Sequence[str], names: Mapping[int, str], count: int | None, source: str
) -> list[int]:
    """The numbers of the requested classes in a detector's file, each once.

    Args:
        requested: Names in any case, or numbers; empty is ``person``, which is class 0 of a file
            that names no classes.
        names: The file's names by number; empty if it has none.
        count: How many classes it has; None if the file does not say.
        source: Of messages, such as its path.

    Raises:
        DetectorError: the file has no such class.
    """
    by_name = {_plain(label): int(number) for number, label in names.items()}
    if not names and count != 0:
        by_name[PERSON] = 0
    found = []
    for name in requested or (PERSON,):
        number = by_name.get(_plain(name))
        if number is None:
            number = _number(name, names, count, source)
        found.append(number)
    return list(dict.fromkeys(found))


def _plain(label: str) -> str:
    """In any case, and with the ``_`` that OpenVINO's lists of labels have for a space."""
    return str(label).strip().lower().replace("_", " ")


def _number(name: str, names: Mapping[int, str], count: int | None, source: str) -> int:
    if name.isdecimal():
        number = int(name)
        if number in names or (not names and (count is None or number < count)):
            return number
    if names:
        labels = [str(label) for label in names.values()]
        more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
        kind = f"no class {name}" if name.isdecimal() else f"no class named {name!r}"
        raise DetectorError(
            f"{source}: the detector has {kind} (classes: {', '.join(labels[:_SHOWN])}{more})"
        )
    has = "" if count is None else f" and has {count}, from number 0"
    raise DetectorError(
        f"{source}: no class {name!r}: the file does not name its classes{has}; expected numbers"
    )
