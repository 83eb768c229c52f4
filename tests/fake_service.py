"""`python -m tests.fake_service`: the whole service over a fake, as a process of its own.

`SLOW_S` in the environment is the time that the fake takes for one batch.
"""

from __future__ import annotations

import asyncio
import os

import uvloop

from service.process import run_service
from service.settings import load_settings
from service.telemetry.logs import configure_logs
from tests.fakes import FakeEstimator

if __name__ == "__main__":
    configure_logs(os.environ.get("SDPOSE_LOG_LEVEL", "info"), "json")
    fake = FakeEstimator(delay_s=float(os.environ.get("SLOW_S", "0")))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as `sdpose serve`
        ending = runner.run(run_service(load_settings(), build=lambda _: fake))
    raise SystemExit(ending.status)
