"""What is known of one REST request."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

CONTEXT_KEY = "sdpose.context"


@dataclass(slots=True)
class RequestContext:
    """One request: its id, its beginning as a `time.monotonic()` moment, how it ended."""

    request_id: str
    started: float = field(default_factory=time.monotonic)
    outcome: str = "ok"
    status: int = 0


def context_of(scope: Any) -> RequestContext:
    """The context that the middleware laid into the ASGI scope."""
    context: RequestContext = scope[CONTEXT_KEY]
    return context
