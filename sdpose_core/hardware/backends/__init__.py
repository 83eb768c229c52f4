"""Ways to run a student; ``make_backend`` picks one."""

from sdpose_core.hardware.backends.choice import BACKENDS, make_backend, pick_device
from sdpose_core.hardware.backends.protocol import PoseBackend

__all__ = ["BACKENDS", "PoseBackend", "make_backend", "pick_device"]
