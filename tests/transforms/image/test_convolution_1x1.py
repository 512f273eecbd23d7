"""InvertibleConv1x1: against the dense matrix, and its two forms against each other."""

from __future__ import annotations

import pytest
import torch

from pushforward.errors import ConfigError
from pushforward.transforms import InvertibleConv1x1

FORMS = ["lu", "free"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(3, 2, 3), (4, 1, 1), (1, 3, 2)])
def test_against_dense_linear_algebra(shape, form, check):
    transform = check.perturb(InvertibleConv1x1(shape, form).double(), size=0.3)
    x = check.normal(3, *shape)
    matrix, log_det = transform.matrix_and_log_det()
    torch.testing.assert_close(transform.encode(x).z, torch.einsum("oi,nihw->nohw", matrix, x), rtol=1e-12, atol=1e-12)
    assert log_det.item() == pytest.approx(torch.linalg.slogdet(matrix)[1].item(), abs=1e-12)
    check.contribution(transform, x)
    check.round_trip(transform, x, 1e-10)
    check.decode_contribution(transform, x)
    check.shapes(transform.float())


@pytest.mark.parametrize("form", FORMS)
def test_starts_as_a_rotation_that_the_seed_chooses(form):
    matrix, log_det = InvertibleConv1x1((5, 2, 2), form, seed=3).double().matrix_and_log_det()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(5).double(), rtol=0, atol=1e-6)
    assert abs(log_det.item()) < 1e-6
    torch.manual_seed(1)
    again, other = (InvertibleConv1x1((5, 2, 2), form, seed=s).double().matrix_and_log_det()[0] for s in (3, 4))
    assert torch.equal(matrix, again)
    assert not torch.allclose(matrix, other)


def test_both_forms_have_the_same_value_and_gradient(check):
    lu, free = (InvertibleConv1x1((4, 2, 3), form).double() for form in FORMS)
    check.perturb(lu, size=0.2)
    free.matrix.data.copy_(lu.matrix_and_log_det()[0])
    x = check.normal(3, 4, 2, 3)
    gradients = []
    for transform in (lu, free):
        y = x.clone().requires_grad_()
        step = transform.encode(y)
        (step.z.square().sum() + 3 * step.contribution.sum()).backward()
        gradients.append((step.z, step.contribution, y.grad))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
    # The weights' gradients agree through the chain rule: move L, U and s, and W moves as the free W would.
    matrix = lu.matrix_and_log_det()[0]
    inside = torch.autograd.grad((matrix * free.matrix.grad).sum(), lu.packed)[0]
    z = torch.einsum("oi,nihw->nohw", lu.matrix_and_log_det()[0], x)
    torch.testing.assert_close(
        torch.autograd.grad(z.square().sum() + 18 * 3 * torch.linalg.slogdet(lu.matrix_and_log_det()[0])[1], lu.packed)[0],
        inside, rtol=1e-9, atol=1e-9,
    )  # fmt: skip


def test_lu_cannot_become_singular():
    transform = InvertibleConv1x1((3, 1, 1)).double()
    with torch.no_grad():
        transform.log_diagonal.fill_(-1e9)
    x = torch.ones(1, 3, 1, 1, dtype=torch.float64)
    step = transform.encode(x)
    assert step.contribution.item() == pytest.approx(-21.0, abs=1e-9)
    torch.testing.assert_close(transform.decode(step.z), x, rtol=1e-5, atol=1e-5)


def test_errors():
    with pytest.raises(ConfigError, match="form"):
        InvertibleConv1x1((3, 2, 2), "qr")
    with pytest.raises(ConfigError, match="images"):
        InvertibleConv1x1((3,))
