"""A connection to a Ray cluster, or a Ray on this machine alone."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from sdpose_core.messages import error_line

_LOCAL: Final = "local"


class ClusterError(RuntimeError):
    """There is no cluster, or it cannot do the work; the message is one sentence."""


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Within it Ray's calls go to a cluster.

    Args:
        address: of its head, such as ``10.0.0.1:6379``; None for ``RAY_ADDRESS``, and where that
            is not set a Ray of this machine is started, and stopped at the end.

    Raises:
        ClusterError: there is no cluster at that address, or none could be started.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    address = address or os.environ.get("RAY_ADDRESS") or _LOCAL
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == _LOCAL:
        options["include_dashboard"] = False
    try:
        _knock(address)
        ray.init(address, **options)
    except Exception as error:  # a Ray that does not come up raises just that
        raise ClusterError(f"no Ray cluster at {address}: {error_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raises `OSError` if nothing listens: Ray itself would try for minutes, and then abort."""
    place = urlsplit(address if "://" in address else f"ray://{address}")
    if place.port is not None:
        socket.create_connection((place.hostname or "", place.port), timeout=5).close()
