"""The student in OpenVINO: the same answers in every size, kept between starts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sdpose_core.hardware.backends import PoseBackend
from sdpose_core.hardware.backends import openvino as backend_module
from sdpose_core.hardware.backends.folding import FoldedUnit, folded
from sdpose_core.hardware.backends.openvino import OpenVINOBackend, fill_cache
from sdpose_core.model import PRESETS, JointReader, ScoreHead, Student, StudentConfig
from sdpose_core.model.backbones.lite_hrnet import ShuffleUnit
from sdpose_core.vision.heatmaps import MAX_REFINEMENT, encode

# Converted in a second.
TINY = StudentConfig("tiny", depth=1, train_cycles=2, embed_dim=48, mlp_dim=48, head_dim=48)


def _student(config: StudentConfig = TINY) -> Student:
    torch.manual_seed(0)
    return Student(config).eval()


def _lite() -> Student:
    return _student(PRESETS["sdpose-lite"])


@pytest.fixture(scope="module")
def crops() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (8, 3, 256, 192), generator=generator, dtype=torch.uint8)


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The cycle counts that were converted."""
    counts: list[int] = []
    convert = backend_module.convert_student

    def counting(student: Student, cycles: int) -> object:
        counts.append(cycles)
        return convert(student, cycles)

    monkeypatch.setattr(backend_module, "convert_student", counting)
    return counts


def test_folded_units_answer_as_they_did() -> None:
    torch.manual_seed(0)
    unit = ShuffleUnit(20).eval()
    images = torch.rand(3, 20, 9, 7)
    with torch.inference_mode():
        torch.testing.assert_close(FoldedUnit(unit)(images), unit(images), atol=1e-6, rtol=1e-5)


def test_a_folded_student_is_a_copy_without_shuffle_units(crops: Tensor) -> None:
    student = _lite()
    copy = folded(student)
    assert any(isinstance(part, ShuffleUnit) for part in student.modules())
    assert not any(isinstance(part, ShuffleUnit) for part in copy.modules())
    with torch.inference_mode():
        for cycles in (0, 1):
            expected = student(crops[:2], cycles)
            torch.testing.assert_close(copy(crops[:2], cycles), expected, atol=1e-5, rtol=1e-4)
    other = _student()
    assert folded(other) is other


@pytest.mark.parametrize(
    "folds", [True, pytest.param(False, marks=pytest.mark.slow("converts, 20 s"))]
)
def test_every_size_answers_as_the_student(
    folds: bool, cache: Path, crops: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "folding_pays", lambda precision: folds)
    student = _lite()
    backend: PoseBackend = OpenVINOBackend(student, "fp32", cache_folder=cache)
    for cycles in (0, 1):
        with torch.inference_mode():
            expected = student(crops, cycles)
        for size in (1, 3, 8, 2):  # 3 has no network of its own, nor has any size at 1 cycle
            found = backend.run(crops[:size], cycles)
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, expected[:size], atol=1e-4, rtol=1e-3)


def test_float_crops_and_answers_that_stay(cache: Path, crops: Tensor) -> None:
    backend = OpenVINOBackend(_student(), "fp32", cache_folder=cache)
    first = backend.run(crops[:1])
    kept = first.clone()
    backend.run(crops[1:2])
    assert torch.equal(first, kept)  # not the memory of the next answer
    assert torch.equal(backend.run(crops[:1].float() + 0.3), kept)


def test_the_second_start_converts_nothing(
    tmp_path: Path, crops: Tensor, converted: list[int]
) -> None:
    for _ in range(2):
        for precision in ("fp32", "auto"):  # the same file: it is compiled to the precision
            backend = OpenVINOBackend(_student(), precision, cache_folder=tmp_path)
            for cycles in (1, 2):
                backend.run(crops[:1], cycles)
    assert converted == [1, 2]
    assert len(list(tmp_path.iterdir())) == 2


def test_other_weights_and_configs_are_other_files(
    tmp_path: Path, crops: Tensor, converted: list[int]
) -> None:
    changed = _student()
    with torch.no_grad():
        next(changed.parameters()).flatten()[0] += 1e-3
    config = StudentConfig.from_dict({**TINY.to_dict(), "padding": 1.5})
    for student in (_student(), changed, Student(config).eval()):
        OpenVINOBackend(student, "fp32", cache_folder=tmp_path).run(crops[:1])
    assert len(converted) == len(list(tmp_path.iterdir())) == 3


def test_a_filled_cache_serves_every_processor(
    tmp_path: Path, crops: Tensor, converted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_cache(_lite(), tmp_path)
    served = _lite().config.cycles.served
    assert converted == [served, served]
    monkeypatch.setattr(backend_module, "convert", None)
    for folds in (True, False):
        monkeypatch.setattr(backend_module, "folding_pays", lambda _, answer=folds: answer)
        backend = OpenVINOBackend(_lite(), "fp32", cache_folder=tmp_path)
        read = backend.reader(JointReader(_lite().scores, MAX_REFINEMENT))
        assert read(backend.run(crops[:1])).shape == (1, 17, 4)
    assert converted == [served, served]


@pytest.mark.parametrize("bound", [MAX_REFINEMENT, None])
def test_joints_are_read_as_by_the_module(
    tmp_path: Path, bound: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From maps with and without peaks, at the border and flat, in any number and thread."""
    torch.manual_seed(2)
    config = PRESETS["sdpose-lite"]
    scores = ScoreHead(config)
    for values in scores.parameters():
        values.data.normal_(std=0.1)
    module = JointReader(scores, bound).eval()
    joints = torch.rand(7, 17, 2) * torch.tensor([52.0, 68.0]) - 2
    heatmaps = encode(joints, torch.ones(7, 17))[0] + 0.01 * torch.rand(7, 17, 64, 48)
    heatmaps[0], heatmaps[1] = 0, -1
    with torch.inference_mode():
        expected = module(heatmaps)
    backend = OpenVINOBackend(_lite(), "auto", cache_folder=tmp_path)
    read = backend.reader(module)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(read, [heatmaps[:n] for n in (1, 7, 3, 2, 7, 1)]))
    for part in parts:
        torch.testing.assert_close(part, expected[: len(part)], atol=1e-3, rtol=1e-4)
    monkeypatch.setattr(backend_module, "convert", None)  # a second start has it on disk
    again = OpenVINOBackend(_lite(), "auto", cache_folder=tmp_path).reader(module)
    torch.testing.assert_close(again(heatmaps), parts[1], atol=1e-4, rtol=1e-5)


def test_no_cache_is_no_obstacle(
    tmp_path: Path, crops: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    backend = OpenVINOBackend(_student(), "fp32", cache_folder=blocked)
    assert backend.run(crops[:1]).shape == (1, 17, 64, 48)
    assert str(blocked) in caplog.text
