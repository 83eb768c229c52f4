"""Restoring batch norm in a backbone that was published with it folded into its convolutions.

A folded network trains poorly: nothing controls the scale of its channels. Norms are inserted after
its convolutions without changing the network's output, and folded again into every student that the
run saves, so that its file describes the same network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import torch
from torch import Tensor, nn

MOMENTUM: Final = 0.02
"""Share of a batch in the running statistics: fine-tuning moves them slowly."""
ANSWER: Final = "final"
"""Name of a backbone's last layer, whose outputs are heatmaps and must not be normalised."""


class NormedConv(nn.Module):
    """A convolution without bias and its batch norm, replacing a folded convolution.

    Args:
        folded: The convolution, with a bias.
        mean: (C,), of the folded convolution's outputs without its bias; measured, or zeros.
        variance: (C,), likewise, or ones. In evaluation mode the two always compute what ``folded``
            does; in training mode approximately, if they were measured.
    """

    def __init__(self, folded: nn.Conv2d, mean: Tensor, variance: Tensor) -> None:
        super().__init__()
        self.conv = _like(folded, bias=False)
        self.norm = nn.BatchNorm2d(folded.out_channels, momentum=MOMENTUM)
        self.to(folded.weight.device)
        assert folded.bias is not None
        with torch.no_grad():
            self.conv.weight.copy_(folded.weight)
            self.norm.running_mean.copy_(mean)  # type: ignore[union-attr]
            self.norm.running_var.copy_(variance)  # type: ignore[union-attr]
            self.norm.weight.copy_((variance + self.norm.eps).sqrt())
            self.norm.bias.copy_(folded.bias + mean)

    def forward(self, x: Tensor) -> Tensor:
        """As the convolution."""
        return self.norm(self.conv(x))  # type: ignore[no-any-return]

    @torch.no_grad()
    def folded(self) -> nn.Conv2d:
        """One convolution with a bias, equivalent to both in evaluation mode."""
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None
        assert variance is not None
        whole = _like(self.conv, bias=True).to(self.conv.weight.device)
        gain = self.norm.weight / (variance + self.norm.eps).sqrt()
        whole.weight.copy_(self.conv.weight * gain[:, None, None, None])
        assert whole.bias is not None
        whole.bias.copy_(self.norm.bias - mean * gain)
        return whole


def insert_batch_norm(backbone: nn.Module, batches: Iterable[Tensor] | None = None) -> list[str]:
    """Insert a norm after every convolution with a bias except the last layer, in place.

    ``batches``: normalised images (B, 3, H, W) to measure the statistics on; None: they will be
    loaded.

    Returns:
        The convolutions' names.

    Raises:
        ValueError: the backbone already has batch norm.
    """
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in backbone.modules()):
        raise ValueError("batch_norm: the backbone already has batch norm")
    wanted = {
        name: module
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Conv2d) and module.bias is not None and name != ANSWER
    }
    measured = _measure(backbone, wanted, batches or ())
    for name, conv in wanted.items():
        zeros = conv.weight.new_zeros(conv.out_channels)
        mean, variance = measured.get(name, (zeros, zeros + 1))
        _replace(backbone, name, NormedConv(conv, mean, variance))
    return list(wanted)


def fold_batch_norm(backbone: nn.Module) -> None:
    """The inverse of ``insert_batch_norm``, in place: restores the backbone's names."""
    for name, module in list(backbone.named_modules()):
        if isinstance(module, NormedConv):
            _replace(backbone, name, module.folded())


@torch.no_grad()
def _measure(
    backbone: nn.Module, convs: dict[str, nn.Conv2d], batches: Iterable[Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and variance (C,) of each convolution's outputs without its bias, over all batches."""
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in convs}

    def note(name: str, bias: Tensor) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(conv: nn.Module, given: object, answer: Tensor) -> None:
            values = answer.float() - bias[:, None, None]
            variance, mean = torch.var_mean(values, (0, 2, 3), correction=0)
            seen[name].append((mean, variance + mean.square()))

        return hook

    handles = []
    for name, conv in convs.items():
        assert conv.bias is not None
        handles.append(conv.register_forward_hook(note(name, conv.bias)))
    try:
        for images in batches:
            backbone(images)
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for name, parts in seen.items():
        if parts:
            mean, squares = (torch.stack(values).mean(0) for values in zip(*parts, strict=True))
            found[name] = (mean, (squares - mean.square()).clamp_min(0))
    return found


def _replace(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(root.get_submodule(parent), child, module)


def _like(conv: nn.Conv2d, *, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        conv.groups,
        bias,
    )
