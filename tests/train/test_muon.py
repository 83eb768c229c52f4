"""Muon: orthogonal steps of the stated size, AdamW for the rest, a state that survives."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sdpose_core.model import PRESETS, Student
from sdpose_core.train.optim.muon import Muon, hidden_matrices, orthogonalise


def group(parameters: list[Tensor], **settings: Any) -> dict[str, Any]:
    return {"params": parameters, "weight_decay": 0.0, **settings}


@pytest.mark.parametrize("shape", [(1, 64, 24), (1, 24, 64), (3, 40, 40), (5, 16, 576)])
def test_singular_values_end_near_one(shape: tuple[int, int, int]) -> None:
    # Singular values from 1 down to a hundredth; a smaller one would need more rounds.
    generator = torch.Generator().manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    before = torch.logspace(0, -2, min(shape[1:]))
    made = orthogonalise(u * before @ v)
    assert made.shape == shape
    after = torch.linalg.svdvals(made)
    assert after.min() > 0.6
    assert after.max() < 1.3
    # The directions stay: in the basis of the input the result is nearly diagonal.
    turned = u.mT @ made @ v.mT
    aligned = torch.diag_embed(torch.diagonal(turned, dim1=1, dim2=2))
    torch.testing.assert_close(turned, aligned, atol=1e-3, rtol=0)


def test_nothing_comes_of_nothing() -> None:
    assert torch.equal(orthogonalise(torch.zeros(1, 3, 5)), torch.zeros(1, 3, 5))


@pytest.mark.parametrize("shape", [(48, 32), (32, 96), (32, 16, 3, 3)])
def test_a_step_has_the_stated_size(shape: tuple[int, ...]) -> None:
    """Root mean square 0.2 * scale * rate, as Liu et al. have it, against the gradient."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(shape))
    before = weight.detach().clone()
    gradient = torch.randn(shape)
    optimiser = Muon([group([weight], muon=True, scale=1.5)], lr=0.01)
    weight.grad = gradient.clone()
    optimiser.step()
    step = weight.detach() - before
    assert step.square().mean().sqrt() == pytest.approx(0.2 * 1.5 * 0.01, rel=0.25)
    assert float((step * gradient).sum()) < 0
    assert weight.grad is None


def test_decay_shrinks_a_matrix_by_rate_and_decay() -> None:
    weight = nn.Parameter(torch.ones(4, 6))
    optimiser = Muon([{**group([weight], muon=True, scale=1.0), "weight_decay": 0.5}], lr=0.1)
    weight.grad = torch.zeros(4, 6)
    optimiser.step()
    torch.testing.assert_close(weight.detach(), torch.full((4, 6), 0.95))


def test_matrices_of_one_shape_step_as_each_alone() -> None:
    torch.manual_seed(0)
    together = [nn.Parameter(torch.randn(6, 8)) for _ in range(3)]
    alone = [nn.Parameter(w.detach().clone()) for w in together]
    gradients = [torch.randn(6, 8) for _ in together]
    batched = Muon([group(list(together), muon=True, scale=1.0)], lr=0.01)
    single = [Muon([group([w], muon=True, scale=1.0)], lr=0.01) for w in alone]
    for weights in (together, alone):
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient.clone()
    for optimiser in (batched, *single):
        optimiser.step()
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b)


def test_the_other_groups_are_adamw_exactly() -> None:
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(5, 3)), nn.Parameter(torch.randn(5))]
    theirs = [nn.Parameter(w.detach().clone()) for w in ours]
    hidden = nn.Parameter(torch.randn(4, 4))
    muon = Muon(
        [
            {"params": [ours[0]], "weight_decay": 0.1, "muon": False},
            {"params": [ours[1]], "weight_decay": 0.0, "muon": False},
            group([hidden], muon=True, scale=1.0),
        ],
        lr=0.01,
        betas=(0.9, 0.98),
    )
    adamw = torch.optim.AdamW(
        [{"params": [theirs[0]], "weight_decay": 0.1}, {"params": [theirs[1]], "weight_decay": 0}],
        lr=0.01,
        betas=(0.9, 0.98),
    )
    for _ in range(4):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        hidden.grad = torch.randn(4, 4)
        muon.step()
        adamw.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_state_survives_being_saved() -> None:
    torch.manual_seed(0)
    start = nn.ModuleDict({"hidden": nn.Linear(6, 4), "norm": nn.LayerNorm(4)})
    gradients = [[torch.randn_like(p) for p in start.parameters()] for _ in range(5)]

    def make(module: nn.ModuleDict) -> Muon:
        weight, bias = module["hidden"].parameters()
        rest = [bias, *module["norm"].parameters()]
        return Muon([group(rest, muon=False), group([weight], muon=True, scale=1.5)], lr=0.05)

    def steps(module: nn.ModuleDict, optimiser: Muon, which: range) -> None:
        for number in which:
            for parameter, gradient in zip(module.parameters(), gradients[number], strict=True):
                parameter.grad = gradient.clone()
            optimiser.step()

    whole = copy.deepcopy(start)
    steps(whole, make(whole), range(5))
    first = copy.deepcopy(start)
    optimiser = make(first)
    steps(first, optimiser, range(2))
    second = copy.deepcopy(first)
    again = make(second)
    again.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    steps(second, again, range(2, 5))
    for a, b in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_closure_is_refused() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    with pytest.raises(ValueError, match="closure"):
        Muon([group([weight], muon=True, scale=1.0)]).step(lambda: 0.0)


@pytest.mark.parametrize("name", ["sdpose-t", "sdpose-b"])
def test_pixels_and_maps_are_not_hidden(name: str) -> None:
    student = Student(replace(PRESETS[name], depth=1))
    taken = {id(w) for w in hidden_matrices(student)}
    names = {n for n, w in student.named_parameters() if id(w) in taken}
    assert len(taken) == len(names) == len(hidden_matrices(student))
    left = {n for n, w in student.named_parameters() if w.ndim > 1} - names
    assert left == {"backbone.conv1.weight", "head.3.weight", "keypoint_token"}
    assert {"backbone.conv2.weight", "patch_embedding.weight", "head.1.weight"} <= names
