"""Writing and reading back one network in each format."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdpose_core.export.network import HeatmapNetwork, KeypointNetwork

Network: TypeAlias = HeatmapNetwork | KeypointNetwork
Answer: TypeAlias = list[NDArray[Any]]
Runner: TypeAlias = Callable[[NDArray[Any]], Answer]
OPSET: Final = 17
KEY: Final = "sdpose"
"""Key of the metadata in every format, as JSON."""


def write_onnx(network: Network, example: Tensor, target: Path, facts: dict[str, Any]) -> None:
    """ONNX with any batch size; raises ``ValueError`` without the onnx package."""
    _need("onnx", "ONNX")
    import onnx

    names = [*network.inputs, *network.outputs]
    with _quiet():
        torch.onnx.export(
            network,
            (example,),
            str(target),
            input_names=list(network.inputs),
            output_names=list(network.outputs),
            dynamic_axes={name: {0: "batch"} for name in names},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load(str(target))
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(facts)
    onnx.save(model, str(target))


def read_onnx(path: Path) -> Runner:
    """Through onnxruntime on the CPU; raises ``ValueError`` without that package."""
    _need("onnxruntime", "checking an ONNX file")
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: list(session.run(None, {"images": images}))


def write_openvino(network: Network, example: Tensor, target: Path, facts: dict[str, Any]) -> None:
    """OpenVINO IR with any batch size: ``target`` and the weights beside it."""
    import openvino as ov

    from sdpose_core.hardware.openvino_models import convert

    model = convert(network, example)
    for port, name in zip(model.inputs, network.inputs, strict=True):
        port.get_tensor().set_names({name})
    for port, name in zip(model.outputs, network.outputs, strict=True):
        port.get_tensor().set_names({name})
    model.set_rt_info(json.dumps(facts), [KEY])
    # In full precision: rounding the score head and the pixel statistics to half moves joints.
    ov.save_model(model, target, compress_to_fp16=False)


def read_openvino(path: Path) -> Runner:
    """On the CPU in fp32."""
    import openvino as ov

    compiled = ov.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: [np.array(value) for value in compiled([images]).values()]


def write_torchscript(
    network: Network, example: Tensor, target: Path, facts: dict[str, Any]
) -> None:
    """TorchScript with any batch size; the metadata are its extra file ``sdpose``."""
    with _quiet():
        torch.jit.save(_traced(network, example), str(target), {KEY: json.dumps(facts)})


def read_torchscript(path: Path) -> Runner:
    """On the CPU."""
    with _quiet():
        module = torch.jit.load(str(path))  # type: ignore[no-untyped-call]

    def run(images: NDArray[Any]) -> Answer:
        with torch.inference_mode():
            answer = module(torch.from_numpy(images))
        return [part.numpy() for part in (answer if isinstance(answer, tuple) else (answer,))]

    return run


def _traced(network: Network, example: Tensor) -> Any:
    with torch.inference_mode():
        return torch.jit.trace(network, example, check_trace=False)  # type: ignore[no-untyped-call]


@contextmanager
def _quiet() -> Iterator[None]:
    """Shape checks in ``forward`` become constants in a trace, which is fine; the older exporter
    and TorchScript are to go some day, which is not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _need(package: str, what: str) -> None:
    if find_spec(package) is None:
        raise ValueError(f"{what} needs the {package} package: pip install -e '.[export]'")
