"""The short runs: 2,000 damaged inputs, 1,200 values. `python -m tests.fuzz` has the long one."""

from __future__ import annotations

import pytest

from tests.fuzz.__main__ import told
from tests.fuzz.kinds import KINDS, VALUES
from tests.fuzz.run import run

TRIED = 2_000


@pytest.mark.slow("2,000 damaged inputs, 2 min")
@pytest.mark.parametrize("kind", KINDS)
def test_damage_crashes_nothing_and_is_the_caller_s_fault(kind: str) -> None:
    count = TRIED * KINDS[kind][1] // 100
    # Others than those of the long run, which would else be tried twice.
    outcome = run(kind, range(1_000_000, 1_000_000 + count))
    assert told(outcome) == []
    assert outcome.tried == count
    # No published file is small enough to be a seed: the one there is lacks most weights.
    assert outcome.answers["ok"] > 0 or kind == "official checkpoints", outcome.answers
    assert outcome.answers["ok"] < count / 2, "the damage must reach the reader"


@pytest.mark.parametrize("kind", VALUES)
def test_no_value_in_any_field_is_a_fault_of_ours(kind: str) -> None:
    outcome = run(kind, range(1_000_000, 1_000_400))
    assert told(outcome) == []
    assert outcome.tried == 400
    assert 0 < outcome.answers["ok"] < 400, outcome.answers


def test_the_shares_make_a_whole() -> None:
    assert sum(share for _, share in KINDS.values()) == 100
    assert sum(share for _, share in VALUES.values()) == 100
    assert sum(TRIED * share // 100 for _, share in KINDS.values()) == TRIED


def test_a_fault_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = run("nonsense", range(3))
    assert outcome.tried == 0
    assert len(told(outcome)) == 1
