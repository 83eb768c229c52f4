"""What `make trust` makes of what it finds; the long runs themselves are its own."""

from __future__ import annotations

import pytest

from tools.bench.hostile import Harm, Seen
from tools.bench.overload import Answer, Run
from tools.bench.soak import Sample, Soak
from tools.lock import ROOT
from tools.trust import faults, harmless, load_held, lost, named_tests, table


@pytest.mark.slow("starts pytest, 30 s")
def test_it_runs_the_tests_of_the_table() -> None:
    tests = named_tests()
    assert len(tests) >= 20
    assert all((ROOT / test.split("::")[0]).exists() for test in tests)
    quick = "tests/service/test_faults.py::test_torch_s_own_error_is_known_by_its_name"
    assert faults([quick]).held
    assert not faults([quick, "tests/service/test_faults.py::test_that_is_not_there"]).held


def overload(slow_s: float, statuses: tuple[int, ...] = (200, 429)) -> Run:
    answers = [
        Answer(n / 100, n / 100 + slow_s, statuses[n % len(statuses)], True) for n in range(1000)
    ]
    return Run(40.0, 2.0, 2.0, 8.0, answers)


def test_an_overload_holds_by_goodput_and_by_how_soon_it_refuses() -> None:
    assert [row.held for row in load_held(overload(0.01))] == [True, True]
    assert [row.held for row in load_held(overload(0.2))] == [True, False]
    assert [row.held for row in load_held(overload(0.01, (200, 429, 429, 429)))] == [False, True]
    assert [row.held for row in load_held(overload(0.01, (200, 200, 429, 500)))] == [False, True]


def harm(livez_s: float, image_s: float, *failed: str) -> Harm:
    return Harm("pings", Seen([livez_s] * 9, [image_s] * 9, list(failed)), Seen([0.1], [1.0]))


def test_a_hostile_client_is_harmless_by_livez_and_by_what_others_wait() -> None:
    assert harmless([harm(0.1, 1.9)]).held
    for bad in (harm(0.3, 1.0), harm(0.1, 2.1), harm(0.1, 1.0, "GET /livez: reset")):
        row = harmless([harm(0.1, 1.0), bad])
        assert not row.held
        assert row.found.endswith("; pings")


def soak(rise_mib: float) -> Soak:
    samples = [Sample(n, 1000 * n, 700 + n * rise_mib, 30, 20, 9, 40, 90) for n in range(30)]
    seen = Soak(samples)
    seen.outcomes["ok"] = 30_000
    return seen


def test_a_soak_holds_by_what_was_lost_and_by_memory() -> None:
    assert soak(0.2).rise_mib() == pytest.approx(0.2)
    assert [row.held for row in lost(soak(0.2))] == [True, True]
    assert [row.held for row in lost(soak(1.5))] == [True, False]
    bad = soak(0.0)
    bad.lost.append("no answer")
    assert [row.held for row in lost(bad)] == [False, True]
    assert "| answers lost | 0 | 1 of 30000" in table(lost(bad))
    assert "| NO |" in table(lost(bad))
