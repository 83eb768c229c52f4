"""The Dockerfile and the package lists, as far as they can be judged without building."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.commands import run_command
from tests.sites import Request, served
from tools.deployment.processes import free_ports
from tools.lock import (
    CPU_LOCK,
    DEV_ALL_EXTRAS,
    DEV_ALL_LOCK,
    DEV_EXTRAS,
    DEV_LOCK,
    EXTRAS,
    GPU_LOCK,
    ROOT,
    dependencies,
    fingerprint,
    is_cuda,
    pins,
)

_BIN = Path(sys.executable).parent
_DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_hadolint_finds_nothing() -> None:
    done = run_command(_BIN / "hadolint", "--failure-threshold", "style", ROOT / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")


def test_what_the_dockerfile_copies_is_let_through_to_the_builder() -> None:
    let_through = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    copied = {
        source.rstrip("/")
        for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", _DOCKERFILE, re.MULTILINE)
        for source in sources.split()
    }
    assert copied == let_through
    assert all((ROOT / name).exists() for name in copied)


def test_the_last_target_is_the_gpu_one_and_nobody_is_root() -> None:
    stages = re.findall(r"^FROM \S+ AS (\S+)$", _DOCKERFILE, re.MULTILINE)
    assert stages[-2:] == ["cpu", "gpu"]
    assert re.findall(r"^USER (\S+)$", _DOCKERFILE, re.MULTILINE) == ["10001:10001"]


def _wanted(extras: Sequence[str]) -> list[Requirement]:
    """Without the project's own name, by which one extra includes others."""
    wanted = map(Requirement, dependencies(extras))
    return [each for each in wanted if each.name != "sdpose-service"]


def _requires(name: str) -> list[str]:
    """What an installed package asks for; nothing for those of `dev-all` in the smaller set-up."""
    try:
        return requires(name) or []
    except PackageNotFoundError:
        return []


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        (CPU_LOCK, EXTRAS),
        (GPU_LOCK, EXTRAS),
        (DEV_LOCK, DEV_EXTRAS),
        (DEV_ALL_LOCK, DEV_ALL_EXTRAS),
    ],
    ids=["cpu", "gpu", "dev", "dev-all"],
)
class TestLock:
    def test_is_current(self, lock: Path, extras: Sequence[str]) -> None:
        assert f"# dependencies: {fingerprint(dependencies(extras))}\n" in lock.read_text(), (
            "pyproject.toml asks for something else now: run `make lock`"
        )

    def test_pins_every_dependency_within_its_bounds(
        self, lock: Path, extras: Sequence[str]
    ) -> None:
        pinned = {canonicalize_name(name): version for name, version in pins(lock).items()}
        for wanted in _wanted(extras):
            version = pinned.get(canonicalize_name(wanted.name))
            assert version is not None, f"{wanted.name} is not pinned"
            assert wanted.specifier.contains(version), f"{wanted.name} {version}"

    def test_pins_what_the_extras_of_dependencies_bring(
        self, lock: Path, extras: Sequence[str]
    ) -> None:
        pinned = {canonicalize_name(name): version for name, version in pins(lock).items()}
        brought = [
            needed
            for wanted in _wanted(extras)
            for extra in wanted.extras
            for needed in map(Requirement, _requires(wanted.name))
            if needed.marker
            and "extra" in str(needed.marker)
            and needed.marker.evaluate({"extra": extra})
        ]
        assert "websockets" in {needed.name for needed in brought}  # uvicorn's, for streams
        for needed in brought:
            version = pinned.get(canonicalize_name(needed.name))
            assert version is not None, f"{needed.name} is not pinned"
            assert needed.specifier.contains(version), f"{needed.name} {version}"

    @pytest.mark.parametrize("name", ["torch", "torchvision"])
    def test_pins_torch_as_the_project_does(
        self, lock: Path, extras: Sequence[str], name: str
    ) -> None:
        (wanted,) = (line for line in _wanted(extras) if line.name == name)
        assert str(wanted.specifier) == f"=={pins(lock)[name]}"

    def test_holds_each_pin_once_and_nothing_else(self, lock: Path, extras: Sequence[str]) -> None:
        lines = [line for line in lock.read_text().splitlines() if not line.startswith("#")]
        # No index, no address, no build of one index alone such as 2.13.0+cpu.
        kept = re.compile(r"[\w.-]+==[\w.]+( ; [^;]+)?")
        assert [line for line in lines if not kept.fullmatch(line)] == []
        assert len(lines) == len(pins(lock)), "one list for every Python"


def test_both_images_run_the_same_versions() -> None:
    cpu, gpu = pins(CPU_LOCK), pins(GPU_LOCK)
    assert cpu.items() <= gpu.items()
    extra = gpu.keys() - cpu.keys()
    assert extra
    assert all(map(is_cuda, extra))
    assert not any(map(is_cuda, cpu))


def test_the_driver_that_the_gpu_image_asks_for_fits_its_cuda() -> None:
    (asked,) = re.findall(r'NVIDIA_REQUIRE_CUDA="cuda>=([\d.]+)"', _DOCKERFILE)
    assert pins(GPU_LOCK)["cuda-toolkit"].startswith(f"{asked}.")


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_both_package_stages_try_to_load_torch(target: str) -> None:
    stage = re.search(rf"^FROM \S+ AS packages-{target}$.*?(?=^FROM )", _DOCKERFILE, re.M | re.S)
    assert stage is not None
    assert re.search(r"/opt/venv/bin/python -c \"import .*torch", stage[0])


def test_the_index_of_cpu_builds_is_the_same_wherever_it_is_written() -> None:
    index = "https://download.pytorch.org/whl/cpu"
    assert f"ARG TORCH_INDEX={index}\n" in _DOCKERFILE
    # Without a colon: set but empty, it is none.
    assert f"${{TORCH_INDEX-{index}}}" in (ROOT / "docker-compose.yml").read_text()
    assert f"#TORCH_INDEX={index}\n" in (ROOT / ".env").read_text()


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_trimming_takes_what_serving_never_loads(tmp_path: Path, target: str) -> None:
    packages, programs = tmp_path / "packages", tmp_path / "bin"
    kept = {
        "torch/lib/libtorch_cpu.so",
        "torch/lib/libtorch_python.so",
        "torch/bin/torch_shm_manager",
        "torch/testing/_internal/logging_tensor.py",  # which `import torch` reads
        "ultralytics/nn/tasks.py",
        "uvloop/loop.abi.so",
        "av/frame.abi3.so",
        "openvino/libs/libopenvino_intel_cpu_plugin.so",
        "openvino/libs/libopenvino_ir_frontend.so.1",
    }
    gone = {"torch/include/a.h", "torch/test/t.cpp", "torch/bin/test_api", "numpy/core/tests/t.py"}
    gone |= {"torch/_inductor/graph.py", "torch/testing/_internal/common.py", "torch/a.pyi"}
    gone |= {"torch/__pycache__/a.pyc"}
    gone |= {"torchvision/_C.so", "torchvision.libs/z.so", "setuptools/dist.py"}
    gone |= {"_distutils_hack/__init__.py", "distutils-precedence.pth"}  # which every start reads
    other = {"openvino/libs/libopenvino_intel_gpu_plugin.so", "openvino/libs/cache.json"}
    for name in kept | gone | other:
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).touch()
    programs.mkdir()
    (programs / "strip").symlink_to("/bin/true")
    subprocess.run(
        ["sh", ROOT / "deploy" / "trim.sh", packages, target],
        env={"PATH": f"{programs}:/usr/bin:/bin"},
        check=True,
    )
    left = {str(path.relative_to(packages)) for path in packages.rglob("*") if path.is_file()}
    assert left == (kept if target == "cpu" else kept | other)


@pytest.fixture
def statuses() -> list[int]:
    """What `/readyz` answers; the last one counts."""
    return [200]


@pytest.fixture
def ready_port(statuses: list[int]) -> Iterator[int]:
    def answer(request: Request) -> None:
        request.head(statuses[-1] if request.path == "/readyz" else 404)

    with served(answer) as address:
        yield int(urlsplit(address).port or 0)


@pytest.fixture(scope="module")
def healthcheck() -> ModuleType:
    spec = spec_from_file_location("healthcheck", ROOT / "deploy" / "healthcheck.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_health_check_tells_ready_from_not_ready(
    healthcheck: ModuleType, ready_port: int, statuses: list[int]
) -> None:
    assert healthcheck.healthy("127.0.0.1", ready_port)
    statuses.append(503)
    assert not healthcheck.healthy("127.0.0.1", ready_port)
    assert not healthcheck.healthy("127.0.0.1", free_ports(1)[0])


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({}, ("127.0.0.1", 8000, False)),
        ({"SDPOSE_HOST": "0.0.0.0", "SDPOSE_HTTP_PORT": "80"}, ("127.0.0.1", 80, False)),
        ({"SDPOSE_HOST": "::"}, ("localhost", 8000, False)),
        ({"SDPOSE_HOST": "172.18.0.2"}, ("172.18.0.2", 8000, False)),
        ({"SDPOSE_HOST": "", "SDPOSE_HTTP_PORT": ""}, ("127.0.0.1", 8000, False)),
        ({"SDPOSE_TLS_CERTIFICATE": "/tls/crt"}, ("127.0.0.1", 8000, True)),
        (
            {"SDPOSE_TLS_CERTIFICATE": "/tls/crt", "SDPOSE_METRICS_PORT": "9000"},
            ("127.0.0.1", 9000, False),
        ),
    ],
)
def test_the_health_check_asks_where_the_service_listens(
    healthcheck: ModuleType, settings: dict[str, str], asked: tuple[str, int, bool]
) -> None:
    assert healthcheck.address(settings) == asked


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
def test_the_health_check_as_the_image_runs_it(ready_port: int, host: str) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "deploy" / "healthcheck.py"],
        env={"SDPOSE_HOST": host, "SDPOSE_HTTP_PORT": str(ready_port)},
        check=False,
    )
    # Nobody listens on the second one.
    assert done.returncode == (0 if host == "127.0.0.1" else 1)


def test_the_detector_in_the_image_is_the_one_that_every_processor_can_use() -> None:
    """Left to `auto` most builders would take int8, which needs no conversion."""
    converting = next(line for line in _DOCKERFILE.splitlines() if "load_detector(" in line)
    assert "precision='fp32'" in converting
