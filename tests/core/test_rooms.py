"""The shape of the house, beyond the layers that `lint-imports` checks."""

from __future__ import annotations

from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("sdpose_core", "service", "protos")
MAX_LINES = {"tests": 425}


def test_no_module_imports_itself_by_a_detour() -> None:
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    assert len(imports) > 150
    TopologicalSorter(imports).prepare()  # raises CycleError, which shows the cycle


@pytest.mark.parametrize("folder", [*PACKAGES, "tools", "deploy", "tests"])
def test_no_file_is_too_long(folder: str) -> None:
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in (ROOT / folder).rglob("*.py")
        if "_pb2" not in path.name
    }
    most = MAX_LINES.get(folder, 350)
    assert {name: count for name, count in lines.items() if count >= most} == {}
