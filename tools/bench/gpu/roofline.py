"""Roofline of the hardware: measured ceilings, and how near the networks come."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sdpose_core.detector.weights import find_detector
from sdpose_core.hardware.backends.torch import TorchBackend
from sdpose_core.model import PRESETS, Student
from service.bench.tables import markdown

BATCH = 64
REPEATS = 20


def hardware(device: str) -> str:
    """The device's name."""
    return torch.cuda.get_device_name() if device != "cpu" else "a CPU"


def seconds(work: Callable[[], object], device: str) -> float:
    """The median of some calls, each waited for."""
    spent = []
    for _ in range(REPEATS):
        if device != "cpu":
            torch.cuda.synchronize()
        begun = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - begun)
    return median(spent[REPEATS // 4 :])


def ceilings(device: str) -> tuple[float, float]:
    """Operations per second of a large half-precision matrix product, bytes per second of a copy
    (read and written)."""
    gpu = device != "cpu"
    side, numbers = (8192, 2**28) if gpu else (1024, 2**24)
    kind = torch.float16 if gpu else torch.float32
    a = torch.randn((side, side), device=device).to(kind)
    product = 2 * side**3 / seconds(lambda: a @ a, device)
    source = torch.randn(numbers, device=device)
    target = torch.empty_like(source)
    copied = 2 * 4 * numbers / seconds(lambda: target.copy_(source), device)
    return product, copied


def cost(network: nn.Module, images: Tensor, *more: object) -> tuple[float, float]:
    """Operations of a forward pass, and the bytes that its layers must read and write.

    A multiplication and an addition count as two. The bytes are inputs, outputs and weights of
    every convolution and linear layer in half precision: what is left when all else is fused into
    them.
    """
    moved = 0.0

    def note(layer: nn.Module, given: tuple[Tensor, ...], answer: Tensor) -> None:
        nonlocal moved
        moved += 2.0 * (
            given[0].numel() + answer.numel() + sum(p.numel() for p in layer.parameters())
        )

    hooks = [
        module.register_forward_hook(note)
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        network(images, *more)
    for hook in hooks:
        hook.remove()
    return float(counter.get_total_flops()), moved


def report(device: str, say: Callable[[str], None]) -> bool:
    """A table: each network's time for a batch beside what its work and its bytes would take."""
    limits = ceilings(device)
    say(f"measured: {limits[0] / 1e12:.0f} TFLOP/s half precision, {limits[1] / 1e12:.2f} TB/s\n")
    rows = []
    for name, cycles in (("sdpose-lite", 0), ("sdpose-t", 1)):
        student = Student(PRESETS[name]).eval()
        crops = torch.randint(0, 256, (BATCH, 3, *student.config.input_size), dtype=torch.uint8)
        work, moved = cost(student, crops[:1].float(), cycles)
        backend = TorchBackend(student, device)
        there = crops.to(device)
        backend.run(there, cycles)
        spent = seconds(lambda b=backend, t=there, c=cycles: b.run(t, c), device)  # type: ignore[misc]
        rows.append(_row(f"{name}, {BATCH} crops", spent, BATCH * work, BATCH * moved, limits))
    network = find_detector("embedded").network()
    frames = torch.randint(0, 256, (8, 480, 640, 3), dtype=torch.uint8)
    work, moved = cost(network, frames[:1].float())
    network = network.to(device, torch.float16 if device != "cpu" else torch.float32)
    on_device = frames.to(device)
    with torch.inference_mode():
        network(on_device)
        spent = seconds(lambda: network(on_device), device)
    rows.append(_row("detector, 8 images, by calls", spent, 8 * work, 8 * moved, limits))
    head = ["network", "GFLOP", "GB", "ms", "ms by arithmetic", "ms by memory", "of the floor"]
    say(markdown(head, rows))
    return True


def _row(
    name: str, spent: float, work: float, moved: float, limits: tuple[float, float]
) -> list[str]:
    arithmetic, memory = work / limits[0], moved / limits[1]
    floor = max(arithmetic, memory)
    return [
        name,
        f"{work / 1e9:.1f}",
        f"{moved / 1e9:.2f}",
        f"{1e3 * spent:.2f}",
        f"{1e3 * arithmetic:.3f}",
        f"{1e3 * memory:.3f}",
        f"{floor / spent:.2f}",
    ]
