"""The detector's network on the hardware: one call takes a batch to raw scores."""

from __future__ import annotations

from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdpose_core.detector.network import PersonNetwork
from sdpose_core.hardware.batches import run_in_batches
from sdpose_core.hardware.choice import TORCH_PRECISIONS, torch_precision
from sdpose_core.hardware.cuda_graphs import GraphedCalls

PRECISIONS: Final = ("auto", "fp32", "fp16", "bf16", "int8")
_BEST: Final = 2048
"""Anchors of an image that leave a GPU; a hundred people have some twenty each above 0.06."""
_GPU_BATCHES: Final = (1, 2, 4, 8, 16, 32)


class Runner(Protocol):
    """Runs the network of ``network.PersonNetwork``; any number of threads may call it."""

    backend: str
    device: str
    precision: str
    strides: tuple[int, ...]
    needs_nms: bool

    def candidates(self, batch: Any, threshold: float) -> Candidates:
        """Anchors that score above ``threshold`` in a batch ``(B, H, W, 3)`` uint8."""
        ...


class Candidates:
    """Anchors above the threshold, of the whole batch in one row each.

    Attributes:
        image: ``(n,)`` position in the batch.
        anchor: ``(n,)`` anchor number.
        distances: ``(n, 4)`` float32, see ``PersonNetwork.forward``.
        scores: ``(n,)`` float32.
    """

    __slots__ = ("anchor", "distances", "image", "scores")

    def __init__(
        self,
        image: NDArray[np.int64],
        anchor: NDArray[np.int64],
        distances: NDArray[np.float32],
        scores: NDArray[np.float32],
    ) -> None:
        self.image = image
        self.anchor = anchor
        self.distances = distances
        self.scores = scores


class TorchRunner:
    """PyTorch on a CPU or a CUDA device.

    Args:
        network: moved to the device and converted in place.
        device: such as ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
        precision: as of ``choice.torch_precision``.
    """

    backend = "torch"

    def __init__(
        self, network: PersonNetwork, device: str | torch.device, precision: str = "auto"
    ) -> None:
        target = torch.device(device)
        self.precision = torch_precision(precision, target)
        self._network = network.to(target, TORCH_PRECISIONS[self.precision])
        self._best = GraphedCalls(self._find_best) if target.type == "cuda" else None
        self._device = target
        self.device = str(target)
        self.strides = network.strides
        self.needs_nms = network.needs_nms

    def candidates(self, batch: NDArray[np.uint8] | Tensor, threshold: float) -> Candidates:
        images = torch.from_numpy(batch) if isinstance(batch, np.ndarray) else batch
        images = images.to(self._device)
        if self._best is not None:
            best = run_in_batches(self._best, images, _GPU_BATCHES, pads=True)
            found = among_best(best.cpu().numpy(), threshold)
            if found is not None:
                return found
        return self._all(images, threshold)

    def _find_best(self, images: Tensor) -> Tensor:
        """The ``_BEST`` most certain anchors of each image: ``(B, 6, K)``, four distances, score
        and anchor number, float32. Its size does not depend on the images, which a graph needs.
        """
        distances, scores = self._network(images)
        values, anchors = scores.topk(min(_BEST, scores.shape[1]))
        chosen = distances.gather(2, anchors[:, None].expand(-1, 4, -1))
        rows = (chosen.float(), values[:, None].float(), anchors[:, None].float())
        return torch.cat(rows, dim=1)

    @torch.inference_mode()
    def _all(self, images: Tensor, threshold: float) -> Candidates:
        distances, scores = self._network(images)
        # Only what passed the threshold leaves the device: one row each of image, anchor, four
        # sides, score.
        image, anchor = (scores > threshold).nonzero(as_tuple=True)
        chosen = distances.transpose(1, 2)[image, anchor]
        kept = torch.cat([chosen.float(), scores[image, anchor, None].float()], dim=1)
        rows = kept.cpu().numpy()
        return Candidates(image.cpu().numpy(), anchor.cpu().numpy(), rows[:, :4], rows[:, 4])


def among_best(best: NDArray[np.float32], threshold: float) -> Candidates | None:
    """The anchors above the threshold in ``(B, 6, K)`` of ``TorchRunner``, best first.

    None if all K of an image are above it, so that there may be more.
    """
    above = best[:, 4] > threshold
    if above.all(axis=1).any():
        return None
    image, column = above.nonzero()
    rows = best[image, :, column]
    return Candidates(image, rows[:, 5].astype(np.int64), rows[:, :4], rows[:, 4])


class OpenVinoRunner:
    """OpenVINO on the CPU.

    One compiled network serves every batch size and input shape.

    Args:
        model: from ``openvino_ir.convert``, or a quantised one.
        precision: from ``openvino_models.choose_precision``; ``int8`` requires a quantised model,
            whose other layers run in fp32.
        threads: processor threads of one call; None leaves it to OpenVINO.
    """

    backend = "openvino"
    device = "cpu"

    def __init__(
        self,
        model: Any,
        strides: tuple[int, ...],
        needs_nms: bool,
        precision: str,
        threads: int | None = None,
    ) -> None:
        # Imported here, as a GPU needs no OpenVINO.
        from sdpose_core.hardware.openvino_models import RequestPool, compile_model

        self._requests = RequestPool(compile_model(model, precision, threads))
        self.precision = precision
        self.strides = strides
        self.needs_nms = needs_nms

    def candidates(self, batch: NDArray[np.uint8] | Tensor, threshold: float) -> Candidates:
        pixels = batch if isinstance(batch, np.ndarray) else batch.numpy()
        with self._requests.borrowed() as request:
            request.infer([pixels], share_inputs=True)
            # Views of the request's memory: read before it returns to the pool.
            distances = request.get_output_tensor(0).data
            scores = request.get_output_tensor(1).data
            image, anchor = np.nonzero(scores > threshold)
            return Candidates(
                image, anchor, distances[image, :, anchor], scores[image, anchor].copy()
            )
