"""Cost of each direct dependency, as a table: `python -m tools.dependencies`.

Megabytes installed, with what no other dependency brings; milliseconds of processor time of its
import in an empty process, with what it imports itself.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.lock import dependencies

_MODULES = {
    "grpcio": "grpc",
    "grpcio-health-checking": "grpc_health.v1.health",
    "grpcio-reflection": "grpc_reflection.v1alpha.reflection",
    "opencv-python-headless": "cv2",
    "pillow": "PIL.Image",
    "protobuf": "google.protobuf.message",
    "ultralytics-opencv-headless": "ultralytics.nn.tasks",
}
_Requirement = tuple[str, tuple[str, ...]]


def _megabytes(name: str) -> float:
    files = distribution(name).files or []
    paths = (Path(str(file.locate())) for file in files)
    return sum(path.stat().st_size for path in paths if path.is_file()) / 2**20


def _brought(roots: list[_Requirement]) -> set[str]:
    """These packages and everything that they require, as far as installed."""
    seen: set[_Requirement] = set()
    found = set()
    while roots:
        name, extras = roots.pop()
        try:
            required = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        found.add(name)
        for each in map(Requirement, required):
            marker = each.marker
            if marker is None or any(marker.evaluate({"extra": one}) for one in ("", *extras)):
                needed = (canonicalize_name(each.name), tuple(each.extras))
                if needed not in seen:
                    seen.add(needed)
                    roots.append(needed)
    return found


def _milliseconds(module: str) -> str:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return "does not load" if done.returncode else f"{spent * 1e3:.0f}"


def main() -> None:
    """Prints it; the first row is Python alone."""
    rows = [f"| (Python) | - | {_milliseconds('os')} |"]
    roots = [(canonicalize_name(each.name), tuple(each.extras))
             for each in map(Requirement, dependencies(()))]  # fmt: skip
    everything = _brought(list(roots))
    for root in roots:
        only = everything - _brought([each for each in roots if each != root]) | {root[0]}
        module = _MODULES.get(root[0], root[0].replace("-", "_"))
        size = sum(map(_megabytes, only))
        rows.append(f"| {root[0]} | {size:.1f} | {_milliseconds(module)} |")
    sys.stdout.write(os.linesep.join(rows) + os.linesep)


if __name__ == "__main__":
    main()
