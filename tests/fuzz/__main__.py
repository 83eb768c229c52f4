"""The long runs: a table, and status 1 for any fault.

`python -m tests.fuzz --count 50000` tries damaged inputs, `--values --count 500000` any value in
any field of both protocols.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.fuzz.kinds import KINDS, VALUES
from tests.fuzz.run import MOST_MEMORY, Outcome, run


def main() -> int:
    """Prints one row a kind and every fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=50_000, help="inputs in all")
    parser.add_argument("--values", action="store_true", help="values in fields, not damage")
    parser.add_argument("--kind", choices=[*KINDS, *VALUES], help="this kind alone")
    parser.add_argument("--only", type=int, help="the input of this number alone")
    given = parser.parse_args()
    print("| inputs | tried | answered | refused | slowest ms | memory grown MiB | faults |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    faults: list[str] = []
    tried = 0
    began = time.monotonic()
    values = given.values or given.kind in VALUES
    for name, (_, share) in (VALUES if values else KINDS).items():
        if given.kind not in (None, name):
            continue
        count = given.count * (100 if given.kind else share) // 100
        numbers = range(count) if given.only is None else range(given.only, given.only + 1)
        outcome = run(name, numbers)
        faults += told(outcome)
        tried += outcome.tried
        print(row(outcome), flush=True)
    print(f"\n{tried} inputs in {time.monotonic() - began:.0f} s, {len(faults)} faults")
    for fault in faults[:20]:
        print(f"\n{fault}", file=sys.stderr)
    return 1 if faults else 0


def told(outcome: Outcome) -> list[str]:
    """Its faults, also that of too much memory."""
    if outcome.grown_bytes <= MOST_MEMORY:
        return outcome.faults
    return [*outcome.faults, f"{outcome.kind}: memory grew by {outcome.grown_bytes >> 20} MiB"]


def row(outcome: Outcome) -> str:
    """Of the table."""
    answered = outcome.answers["ok"]
    refused = outcome.tried - answered - outcome.answers["fault"]
    return (
        f"| {outcome.kind} | {outcome.tried} | {answered} | {refused} "
        f"| {outcome.slowest_s * 1e3:.0f} | {outcome.grown_bytes / 2**20:.0f} "
        f"| {len(told(outcome))} |"
    )


if __name__ == "__main__":
    raise SystemExit(main())
