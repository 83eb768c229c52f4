"""Where a run computes: devices, precision and processes, by Lightning Fabric."""

from __future__ import annotations

import ctypes
import os
import sys

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException

from sdpose_core.train.recipe.config import TrainConfig

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Parameters of glibc's mallopt."""


def device_kind(accelerator: str) -> str:
    """``"cuda"``, ``"mps"`` or ``"cpu"``: what Fabric's ``accelerator`` resolves to on this
    machine."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "cuda"
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def choose_precision(config: TrainConfig) -> str:
    """The precision of a run: "auto" becomes bf16 if the hardware computes in it."""
    if config.precision != "auto":
        return config.precision
    kind = device_kind(config.accelerator)
    if kind == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    fast = bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    return "bf16-mixed" if kind == "cpu" and fast else "32-true"


def is_first_process() -> bool:
    """Whether this is the process that logs, writes and scores; known before the processes connect.

    If Fabric starts them only the others have a rank so far; torchrun gives each one.
    """
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


def make_fabric(config: TrainConfig, precision: str) -> Fabric:
    """Fabric for a config, its processes not yet started.

    Raises:
        ValueError: this machine has no such accelerator, or fewer devices than the config requests,
            or torchrun started a different number of processes.
    """
    kind = device_kind(config.accelerator)
    requested = config.devices if isinstance(config.devices, int) else 0
    if kind == "cuda" and requested > torch.cuda.device_count():
        raise ValueError(
            f"devices: {requested} GPUs requested, this machine has {torch.cuda.device_count()}; "
            f"set how many to use with --devices (the rate may need adjusting to the batch)"
        )
    try:
        fabric = Fabric(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.nodes,
            precision=precision,  # type: ignore[arg-type]
        )
    except (MisconfigurationException, ModuleNotFoundError, RuntimeError) as error:
        raise ValueError(
            f"accelerator {config.accelerator!r} with devices {config.devices!r}: {error}"
        ) from error
    if torch.distributed.is_torchelastic_launched():
        started = int(os.environ["WORLD_SIZE"])
        expected = requested * config.nodes if requested else fabric.world_size
        if started != expected:
            # Otherwise each would train independently, all in one folder.
            raise ValueError(
                f"torchrun started {started} processes, the config requests {expected}: "
                "make --devices and --nodes match torchrun"
            )
    return fabric


def close_process_group() -> None:
    """End the connections between the processes of a run, after its last step.

    Without it their threads still run when Python ends, which now and then aborts the process.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def keep_freed_memory() -> bool:
    """Make glibc reuse freed memory instead of returning it to the system after each step.

    Activations of one step are freed and allocated again by the next; returning large blocks and
    having every page cleared again costs a fifth to a third of a CPU step. True if it took effect
    (glibc only); call before the first step.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 256 * 2**20))
    accepted = [mallopt(key, value) == 1 for key, value in settings]
    return all(accepted)
