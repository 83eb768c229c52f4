"""Killed commands go on: `python -m tools.kills`, in short."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tools.kills import KINDS, cases, check


@pytest.mark.slow("kills every command that writes, 4 min")
@pytest.mark.parametrize("kind", KINDS)
def test_after_kills_each_input_is_there_once(kind: str, tmp_path: Path) -> None:
    if kind == "ray":
        pytest.importorskip("ray", reason="comes with `make test-all`")
    ((_, case),) = cases(tmp_path, [kind])
    assert max(check(case, tmp_path, 2, random.Random(0))) >= 2
