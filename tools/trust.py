"""The long checks in one table: `make trust`; about 70 minutes with nothing else running.

Every fault of the table in docs/operations.md, 50,000 damaged inputs, 500,000 values in the fields
of both protocols, five times the load that the service can answer, hostile clients beside others,
and 20 minutes of mixed work with callers that misbehave.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from service.bench.server import started
from service.bench.streams import panned
from service.bench.tables import machine, markdown, percentile
from service.cli.bench_shared import read_images
from tools.bench.hostile import CLIENTS, Harm, measure
from tools.bench.overload import Run, run_overload
from tools.bench.soak import Soak, run_soak
from tools.lock import ROOT

_TEST = re.compile(r"`(tests/[\w/]+\.py::test_\w+)`")
_LEAST_GOODPUT = 0.8
"""Part of the peak. The aim is 0.9; the load generator shares the processor, machines vary."""
_LATEST_REFUSAL_MS = 50.0
_RISE_MIB = 1.0


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; `held` is whether what was found is good enough."""

    what: str
    expected: str
    found: str
    held: bool


def named_tests() -> list[str]:
    """The tests that the table of faults names."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    table = text.split("\n## Faults\n")[1].split("\n## ")[0]
    return list(dict.fromkeys(_TEST.findall(table)))


def faults(tests: Sequence[str]) -> Row:
    """Runs these tests; a skipped one is no fault that was survived."""
    command = [sys.executable, "-m", "pytest", "-q", *tests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    counts = {name: int(n) for n, name in re.findall(r"(\d+) (\w+)", done.stdout.splitlines()[-1])}
    passed = counts.get("passed", 0)
    others = sum(counts.get(name, 0) for name in ("failed", "error", "errors", "skipped"))
    if others:
        print(done.stdout, file=sys.stderr)
    return Row(
        "faults survived",
        f"all of {len(tests)} tests",
        f"{passed} cases passed, {others} not",
        done.returncode == 0 and passed >= len(tests) and not others,
    )


def inputs(what: str, count: int, *options: str) -> Row:
    """Inputs of every kind, in separate processes."""
    command = [sys.executable, "-m", "tests.fuzz", "--count", str(count), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = re.search(r"(\d+) inputs in \d+ s, (\d+) faults", done.stdout)
    if done.returncode:
        print(done.stdout, done.stderr[-5000:], file=sys.stderr)
    if found is None:
        return Row(what, f"{count}, 0 faults", "the run broke off", False)
    tried, bad = int(found[1]), int(found[2])
    held = done.returncode == 0 and bad == 0 and tried >= count * 0.99
    return Row(what, f"{count}, 0 faults", f"{tried} tried, {bad} faults", held)


def load_held(run: Run) -> list[Row]:
    """Results of an overload."""
    hard = run.between(run.begin_s, run.end_s)
    rejections = [each.took_s * 1e3 for each in hard if each.status == 429] or [0.0]
    others = sum(each.status not in (200, 429) for each in run.answers)
    share, p99 = run.goodput / run.peak, percentile(rejections, 0.99)
    return [
        Row(
            f"load held at {run.times:g} times the peak",
            f"{_LEAST_GOODPUT} of the peak",
            f"{share:.2f}, {others} neither answered nor rejected",
            share >= _LEAST_GOODPUT and not others,
        ),
        Row(
            "rejections",
            f"p99 below {_LATEST_REFUSAL_MS:.0f} ms",
            f"{len(rejections)}, p99 {p99:.0f} ms",
            p99 < _LATEST_REFUSAL_MS,
        ),
    ]


def harmless(harms: Sequence[Harm]) -> Row:
    """Effect of hostile clients on `/livez` and on another caller."""
    bad = [harm.name for harm in harms if not harm.held]
    slowest = max(percentile(harm.during.livez, 0.99) for harm in harms)
    return Row(
        f"{len(harms)} hostile clients, one at a time",
        "/livez p99 below 200 ms, others' p99 at most doubled",
        f"/livez p99 {slowest * 1e3:.0f} ms, {max(harm.times for harm in harms):.1f} times"
        + "".join(f"; {name}" for name in bad),
        not bad,
    )


def lost(seen: Soak) -> list[Row]:
    """Results of a soak."""
    rise = seen.rise_mib()
    return [
        Row(
            "answers lost",
            "0",
            f"{len(seen.lost)} of {seen.requests}, {seen.faults.total()} of them misbehaviour",
            not seen.lost,
        ),
        Row(
            "memory once settled",
            f"below {_RISE_MIB:g} MiB a 1,000 requests",
            f"{rise:+.3f} MiB",
            rise < _RISE_MIB,
        ),
    ]


def table(rows: Sequence[Row]) -> str:
    """In Markdown."""
    lines = [[row.what, row.expected, row.found, "yes" if row.held else "NO"] for row in rows]
    return markdown(["what", "expected", "found", "held"], lines)


def main() -> int:
    """Runs all of it; status 1 where something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tools.trust", description=__doc__)
    parser.add_argument("--inputs", type=int, default=50_000, help="damaged inputs")
    parser.add_argument("--values", type=int, default=500_000, help="values in fields")
    parser.add_argument("--minutes", type=float, default=20.0, help="length of the soak")
    parser.add_argument(
        "--seconds",
        type=float,
        default=20.0,
        help="length of the overload, and of each hostile client",
    )
    given = parser.parse_args()
    print(f"{machine()}\n", flush=True)
    _say("faults")
    rows = [faults(named_tests())]
    _say("damaged inputs")
    rows.append(inputs("damaged inputs", given.inputs))
    _say("values in fields")
    rows.append(inputs("values in any field", given.values, "--values"))
    images = read_images(None, small=True)
    with started({}) as server:
        rows += load_held(run_overload(server, images, 5.0, given.seconds, _say))
    _say("hostile clients")
    with started({}) as server:
        rows.append(harmless([measure(server, images, given.seconds, name) for name in CLIENTS]))
    with started({}) as server:
        seconds = given.minutes * 60
        rows += lost(run_soak(server, images, panned(images[0]), seconds, _say))
    print(table(rows))
    return 0 if all(row.held for row in rows) else 1


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
