"""OpenVINO code shared by the student and the detector: precision, compiling, cache.

Tracing and converting a network takes seconds of processor time, reading the converted one back
less than a tenth of one. So a converted network is kept on disk under a name derived from
everything that it depends on. The cache is optional: if its folder is not writable, is full or
holds a damaged file, the network is converted again and a warning is logged, once per folder.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import queue
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import openvino as ov
import torch
from openvino.preprocess import PrePostProcessor

from sdpose_core.files.whole_file import whole_file
from sdpose_core.hardware.processes import loading

HINTS: Final = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
"""OpenVINO's name of each precision; int8 is in the network itself."""

REVISION: Final = 2
"""Incremented when a graph changes for the same weights, so that older files are not used."""
MAGIC: Final = b"sdpose-openvino-1\n"
SUFFIX: Final = ".ovmodel"
KEPT: Final = 32
"""Maximum networks kept on disk, most recently used first. Every checkpoint, cycle count and
library version has its own, of some 10 MB."""

_log = logging.getLogger(__name__)
_warned: set[tuple[Path, str]] = set()
# One conversion at a time: a second thread that needs the same network then finds it on disk.
_converting = threading.Lock()


class _DamagedError(Exception):
    """A cache file that differs from what was written."""


@functools.cache
def _core() -> ov.Core:
    return ov.Core()


def core() -> ov.Core:
    """OpenVINO in this process; any number of threads may use it.

    Raises:
        ForkedError: it was used before the process was forked.
    """
    loading()
    return _core()


def capabilities() -> frozenset[str]:
    """Capabilities that OpenVINO reports for this processor, such as ``"BF16"``."""
    return frozenset(core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def int8_pays() -> bool:
    """Whether ``auto`` takes int8 on this processor.

    On an x86 it takes half the time of fp32 with VNNI, two thirds to three quarters without, and
    two thirds of bf16 if AVX-512 computes in it (decision 7). OpenVINO reports "INT8" for every
    x86, which is no indication. Processors with AMX keep bf16, and ARM keeps its own: int8 was not
    measured there.
    """
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx2")) and not able.get("amx_bf16")


def choose_precision(requested: str, offered: Iterable[str]) -> str:
    """The precision to compute in.

    Args:
        requested: One of ``offered``, or ``"auto"``: int8 if it is offered and faster
            (``int8_pays``), else bf16 if the processor computes in it, else fp32.
        offered: The precisions available for the network.

    Raises:
        ValueError: another precision was requested, or one that the processor does not compute in.
    """
    names = tuple(offered)
    if requested == "auto":
        if "int8" in names and int8_pays():
            return "int8"
        return "bf16" if "BF16" in capabilities() else "fp32"
    if requested not in names:
        raise ValueError(f"precision {requested!r}: the openvino backend has {', '.join(names)}")
    if requested == "bf16" and "BF16" not in capabilities():
        # OpenVINO would compute in fp32 without a word.
        raise ValueError("precision 'bf16': not on this processor; take fp32 or auto")
    return requested


def compile_model(
    model: ov.Model, precision: str, threads: int | None = None, *, throughput: bool = False
) -> ov.CompiledModel:
    """The network ready to run on the CPU, where one inference uses all cores.

    Args:
        precision: One of ``HINTS``, or ``int8``, whose other layers run in bf16 if the processor
            computes in it.
        threads: Cores to use; None or 0 leaves it to OpenVINO.
        throughput: Several inferences at once share the cores instead.
    """
    if precision == "int8":
        precision = "bf16" if "BF16" in capabilities() else "fp32"
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "PERFORMANCE_HINT": "THROUGHPUT" if throughput else "LATENCY",
    }
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    return core().compile_model(model, "CPU", settings)


class RequestPool:
    """Infer requests of one network, each of which serves one thread at a time.

    A call borrows one; the pool grows to the number of callers.
    """

    def __init__(self, network: ov.CompiledModel) -> None:
        self._network = network
        self._idle: queue.SimpleQueue[ov.InferRequest] = queue.SimpleQueue()

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[ov.InferRequest]:
        """A request; what it computes is in its memory and must be copied within the block."""
        try:
            request = self._idle.get_nowait()
        except queue.Empty:
            request = self._network.create_infer_request()
        try:
            yield request
        finally:
            self._idle.put(request)


def convert(
    module: torch.nn.Module, example: torch.Tensor, shape: Sequence[int] | None = None
) -> ov.Model:
    """A module of one input as an OpenVINO model.

    Args:
        module: Is put into evaluation mode.
        example: An input; no side of which may end up as a constant in the graph.
        shape: Of the inputs to come, -1 for any side; None is the example's with any batch.
    """
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Traced here, since the converter's own tracing runs the network several times.
        return ov.convert_model(
            traced(module.eval(), example),
            example_input=example,
            input=[ov.PartialShape(list(shape or (-1, *example.shape[1:])))],
        )


def pixels_in(model: ov.Model, layout: str = "NCHW") -> PrePostProcessor:
    """Steps that let a network of float images take ``(B, height, width, 3)`` uint8.

    ``layout``: the network's own. ``build`` of the result makes the model.
    """
    steps = PrePostProcessor(model)
    images = steps.input()
    images.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    images.model().set_layout(ov.Layout(layout))
    images.preprocess().convert_element_type(ov.Type.f32)
    return steps


def traced(module: torch.nn.Module, example: torch.Tensor) -> Any:
    """A module in evaluation mode as TorchScript, for the converter.

    With one thread: the example is small, and PyTorch's helper threads would spin on busy cores,
    for several times the processor time of the work itself.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            # The shape checks in ``forward`` become constants in the trace, which tests cover.
            warnings.simplefilter("ignore")
            return torch.jit.trace(module, example, check_trace=False)  # type: ignore[no-untyped-call]
    finally:
        torch.set_num_threads(threads)


def cache_folder() -> Path:
    """``sdpose/openvino`` in ``XDG_CACHE_HOME``, or in ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "sdpose" / "openvino"


def make_key(**parts: Any) -> str:
    """A cache key of plain values, ``REVISION``, and the versions of OpenVINO and PyTorch.

    The precision is not among them: the network is kept in fp32, and compiled to another.
    """
    versions = {"openvino": ov.__version__, "torch": torch.__version__}
    text = json.dumps({**parts, "revision": REVISION, **versions}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def weights_digest(module: torch.nn.Module) -> str:
    """SHA-256 of a module's weights, their names, types and shapes."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def cached(key: str, convert: Callable[[], ov.Model], folder: Path | None = None) -> ov.Model:
    """A converted network from the cache, or from ``convert``, which is then kept.

    Args:
        key: From ``make_key``.
        convert: Called only if there is no valid file.
        folder: The cache; None is ``cache_folder()``.
    """
    path = (folder or cache_folder()) / f"{key}{SUFFIX}"
    with _converting:
        try:
            model = _read(path)
        except _DamagedError as error:
            _warn(path.parent, "damaged", f"{path}: {error}; the network is converted again")
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            _warn(path.parent, "read", f"{path}: cannot be read ({error}); converting again")
        else:
            with contextlib.suppress(OSError):
                path.touch()  # for _prune; a read-only folder is fine
            return model
        model = convert()
        try:
            # The one that was read back: PyTorch's memory, which the other one shares, can go.
            return _write(model, path)
        except (OSError, RuntimeError, _DamagedError) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            _warn(
                path.parent,
                "written",
                f"{path.parent}: converted networks cannot be kept there ({reason[-1]}); "
                "every start converts them again, which takes seconds",
            )
        return model


def _warn(folder: Path, what: str, message: str) -> None:
    if (folder, what) not in _warned:
        _warned.add((folder, what))
        _log.warning(message)


def _read(path: Path) -> ov.Model:
    """The network in a file of ``_write``.

    A digest guards it: OpenVINO itself accepts wrong weights as long as their count is right.
    """
    with path.open("rb") as file:
        magic, digest, length = file.read(len(MAGIC)), file.read(32), file.read(8)
        rest = file.read()
    size = int.from_bytes(length, "big")
    if magic != MAGIC or size > len(rest) or hashlib.sha256(length + rest).digest() != digest:
        raise _DamagedError("damaged or truncated")
    try:
        return core().read_model(rest[:size], rest[size:])
    except RuntimeError as error:
        raise _DamagedError("not a network that OpenVINO can read") from error


def _write(model: ov.Model, path: Path) -> ov.Model:
    """Graph and weights in one file, written atomically: no reader sees a partial file.

    Returns the network read from the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        whole_file(path) as whole,
        tempfile.TemporaryDirectory(
            dir=path.parent, prefix="new-", ignore_cleanup_errors=True
        ) as folder,
    ):
        draft = Path(folder)
        ov.save_model(model, draft / "model.xml", compress_to_fp16=False)
        graph, weights = (draft / f"model{suffix}" for suffix in (".xml", ".bin"))
        length = graph.stat().st_size.to_bytes(8, "big")
        rest = graph.read_bytes() + weights.read_bytes()
        weights.unlink()  # a small disk need not hold it twice
        digest = hashlib.sha256(length + rest).digest()
        whole.write_bytes(b"".join((MAGIC, digest, length, rest)))
        kept = _read(whole)
    _prune(path.parent)
    return kept


def _prune(folder: Path) -> None:
    """Delete all but the ``KEPT`` most recently used files; another process may do so too."""
    with contextlib.suppress(OSError):
        files = sorted(folder.glob(f"*{SUFFIX}"), key=lambda file: file.stat().st_mtime)
        for file in files[:-KEPT]:
            file.unlink(missing_ok=True)
