"""Predicates of tracing in a plain call, under a compiler, a tracer, a function transform and forward mode."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad

from pushforward.numerics import is_capturing, is_compiling, is_eager, is_recording, is_transformed, may_check_values
from pushforward.numerics.tracing import is_batched


def answers() -> dict[str, bool]:
    return {f.__name__: f() for f in (is_compiling, is_capturing, is_recording, is_transformed, is_eager)}


def test_a_plain_call():
    assert {name for name, yes in answers().items() if yes} == {"is_eager"}
    assert may_check_values(torch.zeros(1))
    assert may_check_values(torch.zeros(1), training=True)
    assert not may_check_values(torch.zeros(1, device="meta"), training=True)


def test_under_a_compiler():
    def function(x):
        assert not may_check_values(x)
        return x + (is_compiling() + 2 * is_recording() + 4 * is_eager() + 8 * is_capturing())

    assert torch.compile(function, backend="eager", fullgraph=True)(torch.zeros(1)).item() == 3


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*deprecated")  # which users still call
def test_under_a_tracer():
    found = []
    torch.jit.trace(lambda x: (found.append(answers()), x + 1)[1], torch.zeros(1), check_trace=False)
    assert not found[0]["is_eager"]
    assert not found[0]["is_compiling"]


def test_values_are_not_read_in_a_backward_pass_of_several_gradients():
    found = []

    class Read(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            found.append((is_batched(grad), may_check_values(grad)))
            return grad

    x = torch.zeros(3, requires_grad=True)
    y = Read.apply(x)
    torch.autograd.grad(y, x, torch.eye(3), is_grads_batched=True, retain_graph=True)
    torch.func.vmap(lambda v: torch.autograd.grad(y, x, v, retain_graph=True))(torch.eye(3))
    torch.autograd.grad(y, x, torch.ones(3))
    assert found == [(True, False), (True, False), (False, True)]


def test_under_function_transforms():
    for transform in (torch.func.vmap, torch.func.grad):
        found: list[dict[str, bool]] = []
        transform(lambda x, found=found: (found.append(answers()), (x * x).sum())[1])(torch.ones(2))
        assert {name for name, yes in found[0].items() if yes} == {"is_transformed"}


def test_values_are_not_read_where_vmap_runs_over_them():
    found = []

    def run(x):
        found.append(may_check_values(x))
        return (x * x).sum()

    x = torch.ones(2, 3)
    torch.vmap(run)(x)
    torch.vmap(torch.func.grad(run))(x)
    torch.vmap(torch.func.jacrev(torch.func.grad(run)))(x)
    assert not any(found)
    found.clear()
    torch.func.jacrev(run)(x)
    torch.vmap(lambda w: w + run(x))(x)
    assert found == [True, True]


def test_under_forward_mode():
    with forward_ad.dual_level():
        assert not any(answers().values())
    assert is_eager()
