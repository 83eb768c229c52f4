"""Writes the licences of the packages that the service runs with into NOTICE: `make licences`.

The packages are those of the CPU image; those that only PyTorch's CUDA build adds are named after
the list for GPUs, since they are not installed where this runs.
"""

from __future__ import annotations

from pathlib import Path

from packaging.utils import canonicalize_name

from service.cli.licences import UNKNOWN, Licence, installed
from tools.lock import CPU_LOCK, GPU_LOCK, ROOT, is_cuda, pins

NOTICE = ROOT / "NOTICE"
HEAD = "Packages that the service runs with, and their licences:"
_CUDA = (
    "Only in the GPU image, for PyTorch's CUDA build, under NVIDIA's software licence agreements "
    "(proprietary, redistributable) or, triton, MIT:"
)


def served() -> list[Licence]:
    """The packages of the CPU image, by name. Raises `ValueError` if one is not installed."""
    here = {canonicalize_name(each.name): each for each in installed()}
    pinned = sorted(map(canonicalize_name, pins(CPU_LOCK)))
    missing = [name for name in pinned if name not in here]
    if missing:
        raise ValueError(f"not installed here, so their licences are not known: {missing}")
    return [here[name] for name in pinned]


def section() -> str:
    """The section of NOTICE on packages. Raises `ValueError` for one without a licence."""
    packages = served()
    unknown = [each.name for each in packages if each.licence == UNKNOWN]
    if unknown:
        raise ValueError(f"no licence known, look them up: {unknown}")
    lines = [f"    {each.name}: {each.licence}; {each.source}" for each in packages]
    cuda = ", ".join(sorted(name for name in pins(GPU_LOCK) if is_cuda(name)))
    return "\n".join([HEAD, "", *lines, "", _CUDA, "", f"    {cuda}", ""])


def with_section(notice: str) -> str:
    """NOTICE with the current section."""
    return notice.partition(HEAD)[0].rstrip() + "\n\n" + section()


def main(path: Path = NOTICE) -> None:
    """Writes it."""
    path.write_text(with_section(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
