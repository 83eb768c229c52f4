"""The cache of converted networks: what is kept, what is done when it cannot be, who is chosen."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch
from openvino import opset13 as ops
from torch import nn

from sdpose_core.hardware import openvino_models
from sdpose_core.hardware.openvino_models import (
    SUFFIX,
    cached,
    choose_precision,
    compile_model,
    int8_pays,
    make_key,
    weights_digest,
)

KEY = make_key(network="test")


class Converter:
    """Counts its calls; the network adds 1 to 64 to its input."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> ov.Model:
        self.calls += 1
        given = ops.parameter([-1, 64], np.float32)
        return ov.Model([ops.add(given, np.arange(1, 65, dtype=np.float32))], [given], "test")


def _works(model: ov.Model) -> bool:
    request = compile_model(model, "fp32").create_infer_request()
    answer = request.infer([np.zeros((2, 64), np.float32)])[0]
    return bool((answer == np.arange(1, 65)).all())


def test_the_second_load_does_not_convert(tmp_path: Path) -> None:
    convert = Converter()
    folder = tmp_path / "deep" / "cache"
    assert _works(cached(KEY, convert, folder))
    assert _works(cached(KEY, convert, folder))
    assert convert.calls == 1
    assert [file.name for file in folder.iterdir()] == [f"{KEY}{SUFFIX}"]
    assert _works(cached(make_key(network="other"), convert, folder))
    assert convert.calls == 2


def test_the_default_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cached(KEY, Converter())
    assert (tmp_path / "sdpose" / "openvino" / f"{KEY}{SUFFIX}").is_file()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert openvino_models.cache_folder() == tmp_path / ".cache" / "sdpose" / "openvino"


def _cut(data: bytes) -> bytes:
    return data[:-20]


def _flip_a_weight(data: bytes) -> bytes:
    return data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: data[:30], _cut, _flip_a_weight, lambda data: b"x" + data],
)
def test_a_damaged_file_is_replaced(
    damage: Callable[[bytes], bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    convert = Converter()
    cached(KEY, convert, tmp_path)
    file = tmp_path / f"{KEY}{SUFFIX}"
    whole = file.read_bytes()
    for _ in range(2):
        file.write_bytes(damage(whole))
        assert _works(cached(KEY, convert, tmp_path))
        assert _works(cached(KEY, convert, tmp_path))
    assert convert.calls == 3
    [record] = caplog.records  # once a folder
    assert record.levelno == logging.WARNING
    assert record.name == "sdpose_core.hardware.openvino_models"
    assert str(file) in record.getMessage()


def test_a_folder_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    convert = Converter()
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    for _ in range(2):
        assert _works(cached(KEY, convert, blocked))
    assert convert.calls == 2
    [record] = caplog.records
    assert str(blocked) in record.getMessage()
    assert "cannot be kept" in record.getMessage()


def test_a_file_that_cannot_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / f"{KEY}{SUFFIX}").mkdir()  # root may read everything else
    convert = Converter()
    assert _works(cached(KEY, convert, tmp_path))
    assert "cannot be read" in caplog.records[0].getMessage()


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), RuntimeError("basic_ios: iostream error")],
)
def test_a_full_disk_leaves_nothing_behind(
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def save_model(model: ov.Model, path: Path, compress_to_fp16: bool) -> None:
        path.write_text("<net")
        raise error

    monkeypatch.setattr(ov, "save_model", save_model)
    assert _works(cached(KEY, Converter(), tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert len(caplog.records) == 1
    assert str(error) in caplog.records[0].getMessage()


def test_a_file_cut_short_while_written_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save = ov.save_model

    def save_less(model: ov.Model, path: Path, compress_to_fp16: bool) -> None:
        save(model, path, compress_to_fp16=compress_to_fp16)
        weights = path.with_suffix(".bin")
        weights.write_bytes(weights.read_bytes()[:8])

    monkeypatch.setattr(ov, "save_model", save_less)
    assert _works(cached(KEY, Converter(), tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert "cannot be kept" in caplog.records[0].getMessage()


def test_threads_convert_once(tmp_path: Path) -> None:
    convert = Converter()
    start = threading.Barrier(4)

    def work(_: int) -> bool:
        start.wait(300)
        return _works(cached(KEY, convert, tmp_path))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
    assert convert.calls == 1


def test_only_those_last_used_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(openvino_models, "KEPT", 2)
    convert = Converter()
    (tmp_path / "foreign.txt").touch()
    keys = [make_key(number=number) for number in range(3)]
    for age, key in enumerate(keys[:2]):
        cached(key, convert, tmp_path)
        os.utime(tmp_path / f"{key}{SUFFIX}", (age, age))
    cached(keys[0], convert, tmp_path)  # used, so younger than the second one
    cached(keys[2], convert, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {
        "foreign.txt",
        *(f"{keys[number]}{SUFFIX}" for number in (0, 2)),
    }


def test_the_key_knows_values_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {make_key(cycles=0), make_key(cycles=1), make_key(cycles=0, folded=True)}
    monkeypatch.setattr(ov, "__version__", "1.0")
    keys.add(make_key(cycles=0))
    assert len(keys) == 4


def test_the_digest_knows_every_weight() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = weights_digest(network)
    assert weights_digest(network) == before
    with torch.no_grad():
        network[0].weight[1, 2] += 1e-6
    after = weights_digest(network)
    network[1].num_batches_tracked += 1
    assert len({before, after, weights_digest(network), weights_digest(network.half())}) == 4


@pytest.mark.parametrize(
    ("processor", "able", "expected"),
    [
        ({"avx2": True}, ["FP32", "INT8"], True),
        ({"avx2": False}, ["FP32", "INT8"], False),
        ({}, ["FP32", "INT8"], False),  # not an x86
        ({"avx2": True, "avx512_bf16": True}, ["FP32", "BF16", "INT8"], True),
        ({"avx2": True, "amx_bf16": True}, ["FP32", "BF16", "INT8"], False),
    ],
)
def test_int8_pays_on_an_x86_without_amx(
    monkeypatch: pytest.MonkeyPatch, processor: dict[str, bool], able: list[str], expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    monkeypatch.setattr(openvino_models, "capabilities", lambda: frozenset(able))
    assert int8_pays() is expected
    both, one = ("fp32", "bf16", "int8"), ("fp32", "bf16")
    other = "bf16" if "BF16" in able else "fp32"
    assert choose_precision("auto", both) == ("int8" if expected else other)
    assert choose_precision("auto", one) == other
    assert choose_precision("fp32", both) == "fp32"
    with pytest.raises(ValueError, match="precision 'int8': the openvino backend has fp32, bf16"):
        choose_precision("int8", one)
    if "BF16" in able:
        assert choose_precision("bf16", one) == "bf16"
    else:  # never a silent other choice
        with pytest.raises(ValueError, match="not on this processor; take fp32 or auto"):
            choose_precision("bf16", one)
