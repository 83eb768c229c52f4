"""Errors of libraries in the messages of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


def error_line(error: BaseException, limit: int = 300) -> str:
    """The message of an error, or its kind, on one line of at most ``limit`` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def first_complaint(error: ValidationError) -> tuple[str, str]:
    """Where pydantic's first complaint is, such as ``"stages.0.batch"``, and its text."""
    first = error.errors()[0]
    return ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
