"""Backend, device and PyTorch precision of a network: student and detector choose alike."""

from __future__ import annotations

from typing import Final

import torch

BACKENDS: Final = ("auto", "torch", "openvino")
TORCH_PRECISIONS: Final = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def choose_hardware(backend: str = "auto", device: str = "auto") -> tuple[str, torch.device]:
    """``"torch"`` or ``"openvino"``, and the device that it runs on.

    Args:
        backend: One of ``BACKENDS``; ``"auto"`` is OpenVINO on a CPU and PyTorch on a GPU.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"``, or ``"auto"``: the first CUDA device if there
            is one, else the CPU; the CPU for OpenVINO.

    Raises:
        ValueError: an unknown name, a device that this machine does not have, or OpenVINO on a
            device other than the CPU.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r}: expected one of {', '.join(BACKENDS)}")
    picked = _pick_device("cpu" if backend == "openvino" and device == "auto" else device)
    if backend == "openvino" and picked.type != "cpu":
        raise ValueError(f"backend 'openvino' runs on the CPU, not on {picked}")
    if backend == "auto":
        backend = "openvino" if picked.type == "cpu" else "torch"
    return backend, picked


def _pick_device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r}: expected auto, cpu, cuda or cuda:N") from error
    if picked.type not in ("cpu", "cuda"):
        raise ValueError(f"device {device!r}: expected auto, cpu, cuda or cuda:N")
    if picked.type == "cuda" and (picked.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {device!r}: this machine has {torch.cuda.device_count()} GPUs")
    return picked


def torch_precision(precision: str, device: torch.device) -> str:
    """One of ``TORCH_PRECISIONS``; ``"auto"`` is fp16 on a GPU and fp32 on a CPU.

    Raises:
        ValueError: another precision.
    """
    if precision == "auto":
        return "fp32" if device.type == "cpu" else "fp16"
    if precision not in TORCH_PRECISIONS:
        raise ValueError(
            f"precision {precision!r}: the torch backend has {', '.join(TORCH_PRECISIONS)}"
        )
    return precision
