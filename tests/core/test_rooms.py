"""The shape of the house, beyond the layers that `lint-imports` checks."""

from __future__ import annotations

from graphlib import TopologicalSorter

import grimp

PACKAGES = ("sdpose_core", "service", "sdpose_client")


def test_no_module_imports_itself_by_a_detour() -> None:
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    assert len(imports) > 150
    TopologicalSorter(imports).prepare()  # raises CycleError, which shows the cycle
