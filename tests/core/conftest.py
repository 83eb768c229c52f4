"""What several tests of the library share: two photographs, and a cache of converted networks."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdpose_core.types import Image
from tests.pictures import photograph


@pytest.fixture(scope="session")
def bus() -> Image:
    return photograph("bus.jpg")


@pytest.fixture(scope="session")
def zidane() -> Image:
    return photograph("zidane.jpg")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("openvino")
