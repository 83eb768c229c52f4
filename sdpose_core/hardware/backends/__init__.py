"""Ways to run a student; ``make_backend`` picks one."""

from __future__ import annotations

from sdpose_core.hardware.backends.protocol import PoseBackend
from sdpose_core.hardware.choice import choose_hardware
from sdpose_core.model import Student

__all__ = ["PoseBackend", "make_backend"]


def make_backend(
    student: Student, backend: str = "auto", device: str = "auto", precision: str = "auto"
) -> PoseBackend:
    """A backend for ``student``; arguments and errors as of ``choose_hardware``.

    Raises:
        ValueError: also a precision that the backend does not have.
    """
    name, picked = choose_hardware(backend, device)
    if name == "torch":
        from sdpose_core.hardware.backends.torch import TorchBackend

        return TorchBackend(student, picked, precision)
    # Imported here, as a GPU needs no OpenVINO.
    from sdpose_core.hardware.backends.openvino import OpenVINOBackend

    return OpenVINOBackend(student, precision)
