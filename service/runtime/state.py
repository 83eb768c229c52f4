"""Where the service is in its life."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """The states of the service, in order."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"
