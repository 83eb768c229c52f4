"""The id by which one request is found again in answers, errors and logs."""

from __future__ import annotations

import re
import uuid

_ACCEPTED = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


def request_id_from(given: str | None) -> str:
    """The caller's own id if it is short and plain (it goes into logs), else a new one."""
    if given is not None and _ACCEPTED.fullmatch(given):
        return given
    return uuid.uuid4().hex
