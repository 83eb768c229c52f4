"""Writes the package lists, `deploy/requirements-{gpu,cpu,dev}.lock`, again: `make lock`.

The GPU list is what the resolver finds for Linux. The CPU list has the same versions without the
CUDA libraries that PyTorch's default build asks for, so both images run the same code; `make serve`
keeps to it too. The list for development adds the packages of the extra `dev`, for `make test`.

No hashes: PyTorch's file differs by the index that it is taken from (CUDA or CPU build, a mirror),
and pip checks hashes of all packages or of none.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
GPU_LOCK = ROOT / "deploy" / "requirements-gpu.lock"
CPU_LOCK = ROOT / "deploy" / "requirements-cpu.lock"
DEV_LOCK = ROOT / "deploy" / "requirements-dev.lock"
EXTRAS = ("otel",)
"""Extras that the images carry, so that every setting of the service works in them."""
DEV_EXTRAS = ("archive", "dev", "export", "otel", "ray", "train")
_CUDA = re.compile(r"^(cuda-|triton$|nvidia-(?!ml-py$))")
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)")


def dependencies(extras: Sequence[str] = EXTRAS, root: Path = ROOT) -> list[str]:
    """What the package and these extras ask for, as `pyproject.toml` has it."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = [project["optional-dependencies"][extra] for extra in extras]
    return [str(line) for lines in (project["dependencies"], *wanted) for line in lines]


def fingerprint(wanted: list[str]) -> str:
    """Changes when a dependency is added, removed or bounded otherwise."""
    return hashlib.sha256("\n".join(sorted(wanted)).encode()).hexdigest()[:16]


def pins(lock: Path) -> dict[str, str]:
    """Version by package of a lock file."""
    found = (_PINNED.match(line) for line in lock.read_text().splitlines())
    return {match[1]: match[2] for match in found if match}


def is_cuda(package: str) -> bool:
    """Whether only PyTorch's CUDA build needs this package."""
    return _CUDA.match(package) is not None


def _resolve(output: Path, extras: Sequence[str], *options: str) -> None:
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--quiet"),
        *("--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_31"),
        *(f"--extra={extra}" for extra in extras),
        *("--no-header", "--no-emit-index-url", "--no-annotate", "--upgrade"),
        *("--output-file", str(output), *options),
    ]
    subprocess.run(command, cwd=ROOT, check=True)


def _write(lock: Path, resolved: Path, extras: Sequence[str] = EXTRAS) -> None:
    head = (
        "# Written by `make lock`; what it was made from is in pyproject.toml.\n"
        f"# dependencies: {fingerprint(dependencies(extras))}\n"
    )
    lock.write_text(head + resolved.read_text())


def main() -> None:
    """Resolves the lists and writes them."""
    with tempfile.TemporaryDirectory() as folder:
        names = ("all.txt", "gpu.txt", "cpu.txt", "dev.txt", "cuda.txt")
        everything, gpu, cpu, dev, cuda = (Path(folder) / name for name in names)
        _resolve(everything, DEV_EXTRAS)  # the images run the versions that the tests run
        _resolve(gpu, EXTRAS, "--constraint", str(everything))
        cuda.write_text("\n".join(filter(is_cuda, pins(gpu))) + "\n")
        same = ("--constraint", str(everything), "--excludes", str(cuda))
        _resolve(cpu, EXTRAS, *same)
        _resolve(dev, DEV_EXTRAS, *same)
        _write(GPU_LOCK, gpu)
        _write(CPU_LOCK, cpu)
        _write(DEV_LOCK, dev, DEV_EXTRAS)
    for lock in (GPU_LOCK, CPU_LOCK, DEV_LOCK):
        sys.stdout.write(f"{lock.relative_to(ROOT)}: {len(pins(lock))} packages\n")


if __name__ == "__main__":
    main()
