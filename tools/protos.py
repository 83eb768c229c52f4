"""Generates the gRPC stubs in the client's package: `python -m tools.protos [--check]`.

The contract goes beside them, since the stubs are no source that anyone would change, and both
distributions hold the package.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
CONTRACT = "protos/sdpose/v1/pose.proto"
PACKAGE = "sdpose_client/v1"
"""The package of the stubs, in the folder `client`. They import each other by this name."""
_VERSION_LINE = re.compile(r"version|^\s+\d+,$", re.IGNORECASE)


def generate(into: Path) -> None:
    """Writes the contract and its stubs below `into`; raises RuntimeError when protoc fails."""
    contract = ROOT / CONTRACT
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={PACKAGE}={contract.parent}",
            f"--python_out={into}",
            f"--pyi_out={into}",
            f"--grpc_python_out={into}",
            f"{PACKAGE}/{contract.name}",
        ]
    )
    if status:
        raise RuntimeError(f"protoc ended with status {status}")
    shutil.copyfile(contract, into / PACKAGE / contract.name)


def stale() -> list[str]:
    """The committed stubs that differ from what the contract gives now."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = [path for path in Path(folder).rglob("*") if path.is_file()]
        names = [str(path.relative_to(folder)) for path in fresh]
        return [
            name
            for name, path in zip(names, fresh, strict=True)
            if not (ROOT / "client" / name).exists()
            or _essence(ROOT / "client" / name) != _essence(path)
        ]


def _essence(path: Path) -> list[str]:
    """The lines without those that only name the generator's version."""
    return [
        line
        for line in path.read_text(encoding="utf-8").splitlines()
        if not _VERSION_LINE.search(line)
    ]


def main() -> int:
    """The command; 1 when `--check` finds a stale stub."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="only report whether the stubs are current"
    )
    if not parser.parse_args().check:
        generate(ROOT / "client")
        return 0
    old = stale()
    if old:
        sys.stderr.write(f"stale stubs, run `make protos`: {', '.join(sorted(old))}\n")
    return 1 if old else 0


if __name__ == "__main__":
    raise SystemExit(main())
