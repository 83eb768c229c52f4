"""The service over a fake as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.client import RestPoseClient, Retry

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def process(
    slow_s: float = 0.0, grpc_port: int = 0
) -> Iterator[tuple[subprocess.Popen[str], RestPoseClient]]:
    """The service as a process of its own; killed at the end if it still runs."""
    environment = {
        **os.environ,
        "SDPOSE_HTTP_PORT": "0",
        "SDPOSE_GRPC_PORT": str(grpc_port),
        "SLOW_S": str(slow_s),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fake_service"],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        reading: threading.Thread | None = None
        try:
            assert running.stderr is not None
            port = 0
            for line in running.stderr:
                told = json.loads(line)
                port = told.get("http", port)
                if told["event"] == "ready":
                    break
            # Read on: a full pipe would hold the service up at its next line.
            reading = threading.Thread(target=deque, args=(running.stderr, 0))
            reading.start()
            with RestPoseClient(f"http://127.0.0.1:{port}", retry=Retry(attempts=1)) as client:
                yield running, client
        finally:
            running.kill()
            if reading is not None:
                reading.join()
