"""Images on the device of the networks."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from sdpose_core.hardware.processes import loading
from sdpose_core.types import Image

Frame: TypeAlias = Image | Tensor
"""RGB uint8 ``(height, width, 3)``: an array, or a tensor on the networks' device."""


class Uploader:
    """Copies images to a device, once. Any number of threads may call it.

    To a GPU the copy goes from pinned memory on a separate stream, in parallel to the networks;
    work that is queued later on the caller's stream waits for it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def __call__(self, image: Image) -> Frame:
        """The image itself on a CPU, else a tensor on the device.

        Raises:
            ForkedError: the process was forked since; here, where every image passes.
        """
        loading()
        if self._device.type == "cpu":
            return image
        # Contiguous, as PyTorch accepts no rotated or mirrored view.
        array = torch.from_numpy(np.ascontiguousarray(image))
        if self._copies is None:
            return array.to(self._device)
        with torch.cuda.device(self._device):
            present = torch.cuda.current_stream()
            with torch.cuda.stream(self._copies):
                frame = array.pin_memory().to(self._device, non_blocking=True)
            present.wait_stream(self._copies)
            frame.record_stream(present)
        return frame


def is_alive(device: torch.device) -> bool:
    """Whether the device still works; after a GPU's fault only a new process gets it back."""
    try:
        torch.zeros(1, device=device).cpu()
    except torch.OutOfMemoryError:
        return True
    except RuntimeError:
        return False
    return True
