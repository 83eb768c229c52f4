"""Picking a backend and a device."""

from __future__ import annotations

import torch

from sdpose_core.hardware.backends.protocol import PoseBackend
from sdpose_core.model import Student

BACKENDS = ("auto", "torch", "openvino")


def pick_device(device: str = "auto") -> torch.device:
    """``"auto"``: the first CUDA device if there is one, else the CPU.

    Raises:
        ValueError: a device that PyTorch does not know or that this machine does not have.
    """
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


def make_backend(
    student: Student, backend: str = "auto", device: str = "auto", precision: str = "auto"
) -> PoseBackend:
    """A backend for ``student``.

    ``backend="auto"`` is OpenVINO on a CPU and PyTorch on a GPU.

    Raises:
        ValueError: an unknown name, or a combination that does not exist.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r}: expected one of {', '.join(BACKENDS)}")
    picked = pick_device("cpu" if backend == "openvino" and device == "auto" else device)
    if backend == "openvino" and picked.type != "cpu":
        raise ValueError(f"backend 'openvino' runs on the CPU, not on {picked}")
    if backend == "torch" or picked.type != "cpu":
        from sdpose_core.hardware.backends.torch import TorchBackend

        return TorchBackend(student, picked, precision)
    from sdpose_core.hardware.backends.openvino import OpenVINOBackend

    return OpenVINOBackend(student, precision)
