"""Writes the package lists, `deploy/requirements-{gpu,cpu,dev,dev-all}.lock`, again: `make lock`.

Each holds for every supported Python and platform: one version of a package for all, and a marker
where a platform does not need it. They are installed with `pip install --no-deps`, so what a list
lacks is not installed, whatever a package names.

The GPU list is what the service runs with. The CPU list has the same versions without the CUDA
libraries that PyTorch's default build for Linux asks for; `make serve` and the CPU image install
it. The two for development add the packages of the extras `dev` and `dev-all`.

No hashes: PyTorch's file differs by the index that it is taken from (CUDA or CPU build, a mirror),
and pip checks hashes of all packages or of none.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
GPU_LOCK = ROOT / "deploy" / "requirements-gpu.lock"
CPU_LOCK = ROOT / "deploy" / "requirements-cpu.lock"
DEV_LOCK = ROOT / "deploy" / "requirements-dev.lock"
DEV_ALL_LOCK = ROOT / "deploy" / "requirements-dev-all.lock"
EXTRAS = ("otel",)
"""Extras that the images carry, so that every setting of the service works in them."""
DEV_EXTRAS = ("archive", "dev", "export", "otel", "train")
DEV_ALL_EXTRAS = (*DEV_EXTRAS, "dev-all", "ray")
UNUSED = frozenset(
    (
        "colorama",  # Windows
        "matplotlib",  # ultralytics' plots
        "mpmath",  # sympy's
        "networkx",  # PyTorch's compiler
        "openvino-telemetry",  # reports use over the network: `sdpose_core/__init__.py` bars it
        "polars",  # ultralytics' tables of results
        "sympy",  # PyTorch's compiler and exporter
        "ultralytics-platform",  # ultralytics' cloud
        "ultralytics-thop",  # ultralytics' count of operations
    )
)
"""Packages that others name and that nothing here imports but `sdpose train-detector` and `sdpose
export`, for which pip brings them with the extra `train`."""
_TESTED = frozenset(("matplotlib", "mpmath", "networkx", "sympy"))
"""Those of them that tests of exports and plots need."""
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
"""The versions of Python that the lists hold for, as `requires-python` has them."""
PLATFORMS = ("x86_64-manylinux_2_31", "aarch64-manylinux_2_35", "aarch64-apple-darwin")
"""Where they hold: Linux from glibc 2.31 or, on ARM, 2.35 (OpenVINO's) and macOS from 15 on Apple's
processors. No PyTorch of this version is made for Intel's."""
_CUDA = re.compile(r"^(cuda-|triton$|nvidia-(?!ml-py$))")
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)(?:\s*;\s*(.+))?$")


def dependencies(extras: Sequence[str] = EXTRAS, root: Path = ROOT) -> list[str]:
    """Requirements of the package and these extras, as in `pyproject.toml`."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    optional = [project["optional-dependencies"][extra] for extra in extras]
    return [str(line) for lines in (project["dependencies"], *optional) for line in lines]


def fingerprint(requirements: list[str]) -> str:
    """Changes when a dependency is added, removed or bounded otherwise."""
    return hashlib.sha256("\n".join(sorted(requirements)).encode()).hexdigest()[:16]


def pins(lock: Path) -> dict[str, str]:
    """Version by package of a lock file."""
    found = (_PINNED.match(line) for line in lock.read_text().splitlines())
    return {match[1]: match[2] for match in found if match}


def is_cuda(package: str) -> bool:
    """Whether only PyTorch's CUDA build needs this package."""
    return _CUDA.match(package) is not None


def _uv_compile(source: Path, output: Path, *options: str) -> None:
    """Resolves `source` with files that need no compiler.

    Raises `subprocess.CalledProcessError` if there are none; uv has then reported why.
    """
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", str(source), "--quiet", "--no-build"),
        *("--no-header", "--no-emit-index-url", "--no-annotate", "--output-file", str(output)),
    ]
    environment = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": "15.0"}
    subprocess.run([*command, *options], cwd=ROOT, env=environment, check=True)


def check(lock: Path, output: Path) -> None:
    """That every package of a list has a ready file for each Python and platform.

    Raises `subprocess.CalledProcessError`; uv has then named the package.
    """
    for version in PYTHONS:
        for platform in PLATFORMS:
            target = ("--python-version", version, "--python-platform", platform)
            _uv_compile(lock, output, "--no-deps", *target)


def _resolve(
    output: Path, extras: Sequence[str], excluded: Iterable[str] = (), *options: str
) -> None:
    unwanted = output.with_suffix(".excluded")
    unwanted.write_text("".join(f"{name}\n" for name in sorted(excluded)))
    _uv_compile(
        ROOT / "pyproject.toml",
        output,
        *("--universal", "--python-version", PYTHONS[0], "--fork-strategy", "fewest", "--upgrade"),
        *(f"--extra={extra}" for extra in extras),
        *("--excludes", str(unwanted), *options),
    )


def _write(lock: Path, resolved: Path, extras: Sequence[str] = EXTRAS) -> None:
    head = (
        "# Written by `make lock`; what it was made from is in pyproject.toml.\n"
        f"# dependencies: {fingerprint(dependencies(extras))}\n"
    )
    lock.write_text(head + resolved.read_text())


def main() -> None:
    """Resolves the lists and writes them."""
    with tempfile.TemporaryDirectory() as folder:
        names = ("all.txt", "gpu.txt", "cpu.txt", "dev.txt", "dev_all.txt")
        everything, gpu, cpu, dev, dev_all = (Path(folder) / name for name in names)
        _resolve(everything, DEV_ALL_EXTRAS)  # the images run the versions that the tests run
        same = ("--constraint", str(everything))
        _resolve(gpu, EXTRAS, UNUSED, *same)
        cuda = {*filter(is_cuda, pins(everything))}
        _resolve(cpu, EXTRAS, UNUSED | cuda, *same)
        _resolve(dev, DEV_EXTRAS, (UNUSED - _TESTED - {"colorama"}) | cuda, *same)
        _resolve(dev_all, DEV_ALL_EXTRAS, cuda, *same)
        _write(GPU_LOCK, gpu)
        _write(CPU_LOCK, cpu)
        _write(DEV_LOCK, dev, DEV_EXTRAS)
        _write(DEV_ALL_LOCK, dev_all, DEV_ALL_EXTRAS)
        # Every list is part of one of these two.
        for lock in (GPU_LOCK, DEV_ALL_LOCK):
            check(lock, Path(folder) / "checked.txt")
    for lock in (GPU_LOCK, CPU_LOCK, DEV_LOCK, DEV_ALL_LOCK):
        sys.stdout.write(f"{lock.relative_to(ROOT)}: {len(pins(lock))} packages\n")
    sys.stdout.write(f"ready for Python {', '.join(PYTHONS)} on {', '.join(PLATFORMS)}\n")


if __name__ == "__main__":
    main()
