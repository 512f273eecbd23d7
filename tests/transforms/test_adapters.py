"""Adapters to and from torch.distributions, against TransformedDistribution."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch.distributions import (
    AffineTransform,
    ComposeTransform,
    ExpTransform,
    Independent,
    Normal,
    SigmoidTransform,
    StickBreakingTransform,
    TanhTransform,
    TransformedDistribution,
)
from torch.distributions.transforms import AbsTransform, CorrCholeskyTransform, ReshapeTransform, SoftmaxTransform

from pushforward.distributions import Normal as StandardNormal
from pushforward.distributions import Product, Uniform
from pushforward.errors import ConfigError, InputError, KindError, KindWarning
from pushforward.likelihood import REAL, UNIT, Kind, Support
from pushforward.models import NICE, Flow
from pushforward.registry import describe
from pushforward.transforms import (
    Affine,
    Blocks,
    Chain,
    Exp,
    Householder,
    Inverse,
    Permutation,
    Sigmoid,
    Step,
    Tanh,
    Transform,
    UniformDequantize,
    from_torch,
    to_torch,
)  # fmt: skip

TRANSFORMS = {
    "exp": ExpTransform(),
    "sigmoid": SigmoidTransform(),
    "tanh": TanhTransform(),
    "affine": AffineTransform(torch.tensor([1.0, 2.0], dtype=torch.float64), -3.0),
    "affine-event": AffineTransform(torch.tensor([1.0, 2.0], dtype=torch.float64), -3.0, event_dim=1),
    "compose": ComposeTransform([AffineTransform(1.0, 0.5), ExpTransform()]),
}


def base() -> Independent:
    return Independent(Normal(torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)), 1)


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_from_torch_against_transformed_distribution(transform, check):
    ours = from_torch(transform, features=2)
    target = TransformedDistribution(base(), [transform])
    torch.manual_seed(0)
    x = target.sample((7,))
    step = ours.encode(x)
    torch.testing.assert_close(base().log_prob(step.z) + step.contribution, target.log_prob(x))
    torch.testing.assert_close(ours.decode(step.z), x)
    check.contribution(ours, x, 1e-7)
    check.decode_contribution(ours, step.z, 1e-9)
    for batch in ((), (3,), (2, 3)):
        assert ours.encode(x[0].expand(*batch, 2)).contribution.shape == batch


def test_from_torch_boxes_and_rows_outside():
    assert (from_torch(ExpTransform(), 2).domain, from_torch(ExpTransform(), 2).codomain) == (
        Support(0, math.inf),
        REAL,
    )
    assert from_torch(SigmoidTransform(), 2).domain == UNIT
    assert from_torch(TanhTransform(), 2).domain == Support(-1, 1)
    x = torch.tensor([[1.0, 2.0], [1.0, -2.0]], requires_grad=True)
    step = from_torch(ExpTransform(), 2).encode(x)
    assert step.contribution[1] == -math.inf
    (gradient,) = torch.autograd.grad(step.contribution[0] + step.z.sum(), x)
    assert torch.isfinite(step.z).all()
    assert torch.isfinite(gradient).all()
    backwards = Inverse(from_torch(ExpTransform().inv, 2)).encode(x.detach())
    assert backwards.contribution.tolist() == [pytest.approx(-math.log(2.0)), -math.inf]


@pytest.mark.parametrize(
    ("parts", "inside", "outside"),
    [
        ([ExpTransform(), AffineTransform(1.0, 2.0)], 3.0, (-3.0, 0.5, 1.0)),
        ([SigmoidTransform(), AffineTransform(-1.0, 2.0)], 0.5, (-3.0, 3.0, 1.5)),
        ([TanhTransform(), AffineTransform(0.0, 2.0), ExpTransform()], 1.5, (-1.0, 0.1, 8.0)),
    ],
)
def test_from_torch_of_a_composition_knows_what_its_parts_reach(parts, inside, outside):
    transform = ComposeTransform(parts)
    flow = Flow(from_torch(transform, 1), StandardNormal(1))
    x = torch.tensor([[inside], *([value] for value in outside)], requires_grad=True)
    found = flow.log_prob(x)
    expected = TransformedDistribution(Normal(torch.zeros(1), 1.0), transform, validate_args=False).log_prob(x[:1])
    torch.testing.assert_close(found[:1], expected[:, 0])
    assert (found[1:] == -torch.inf).all()
    (slope,) = torch.autograd.grad(found[0], x)
    assert torch.isfinite(slope).all()


def test_from_torch_with_a_change_of_shape(check):
    transform = from_torch(ReshapeTransform((4,), (2, 2)), features=(2, 2))
    x = check.normal(5, 2, 2)
    assert transform.out_shape == (4,)
    assert torch.equal(transform.encode(x).z, x.reshape(5, 4))
    assert torch.equal(transform.decode(x.reshape(5, 4)), x)
    assert torch.equal(transform.encode(x).contribution, torch.zeros(5, dtype=torch.float64))


@pytest.mark.parametrize("transform", [AbsTransform(), SoftmaxTransform(), StickBreakingTransform()])
def test_from_torch_refuses_other_transforms_than_bijections(transform):
    with pytest.raises(KindError, match="bijecti"):
        from_torch(transform, features=3)


def test_from_torch_cannot_be_saved():
    with pytest.raises(ConfigError, match="not registered"):
        describe(from_torch(ExpTransform(), 2))
    with pytest.raises(ConfigError, match="TorchTransform"):
        describe(Chain(from_torch(ExpTransform(), 2), Affine(2)))


@pytest.mark.parametrize("transform", [ExpTransform(), ExpTransform().inv], ids=["exp", "log"])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_of_from_torch_invert_as_before(transform, copied):
    ours = from_torch(transform, 2)
    x = torch.tensor([[0.5, 2.0]])
    z, contribution = ours(x)
    again = copied(ours)
    torch.testing.assert_close(again(x), (z, contribution))
    torch.testing.assert_close(again.decode(z), x)


def test_objects_of_another_kind_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"such as ExpTransform\(\); got the class ExpTransform"):
        from_torch(ExpTransform, 2)
    with pytest.raises(ConfigError, match=r"got pushforward.*Exp"):
        from_torch(Exp(2), 2)
    with pytest.raises(KindError, match="CorrCholeskyTransform has no data of the shape"):
        from_torch(CorrCholeskyTransform(), 3)
    with pytest.raises(ConfigError, match=r"such as model\.chain; got .*NICE"):
        to_torch(NICE(2))


def test_from_torch_gradients_reach_the_transform():
    loc = torch.zeros(2, requires_grad=True)
    transform = from_torch(AffineTransform(loc, 2.0), features=2)
    transform.encode(torch.ones(3, 2)).z.sum().backward()
    assert loc.grad is not None
    assert loc.grad.tolist() == [-1.5, -1.5]


BIJECTIONS = {
    "affine": lambda: Affine(2, shift=1.0, scale=(-2.0, 0.5)),
    "log": lambda: Inverse(Exp(2)),
    "logit": lambda: Inverse(Sigmoid(2)),
    "chain": lambda: Chain(Inverse(Tanh(2)), Householder(2), Affine(2, scale=2.0)),
}


@pytest.mark.parametrize("make", BIJECTIONS.values(), ids=BIJECTIONS)
def test_to_torch(make):
    ours = make().double()
    transform = to_torch(ours)
    target = TransformedDistribution(base(), [transform])
    assert target.event_shape == (2,)
    assert target.batch_shape == ()
    torch.manual_seed(0)
    x = target.rsample((6,))
    step = ours.encode(x)
    torch.testing.assert_close(target.log_prob(x), base().log_prob(step.z) + step.contribution)
    torch.testing.assert_close(transform.inv(x), step.z)
    jacobian = torch.autograd.functional.jacobian(transform, step.z[0].detach())
    expected = torch.linalg.slogdet(jacobian).logabsdet
    assert transform.log_abs_det_jacobian(step.z[0], x[0]).item() == pytest.approx(expected.item())
    assert target.support.check(x).all()


def test_to_torch_support_refuses_outside():
    target = TransformedDistribution(base(), [to_torch(Inverse(Exp(2)).double())], validate_args=True)
    with pytest.raises(ValueError, match="support"):
        target.log_prob(torch.tensor([-1.0, 1.0], dtype=torch.float64))


def test_there_and_back(check):
    transform = Inverse(Tanh(2))
    again = from_torch(to_torch(transform), features=2)
    x = 0.9 * torch.tanh(check.normal(5, 2))
    for one, other in zip(again.encode(x)[:2], transform.encode(x)[:2], strict=True):
        torch.testing.assert_close(one, other)
    assert again.domain == transform.domain
    assert again.codomain == transform.codomain


class Shifted(Transform):
    """z = x - context."""

    context = 2

    def encode(self, x, context=None, *, noise=None):
        return Step(x - context, self.zero_log_det(x))

    def decode(self, z, context=None, *, noise=None):
        return z + context


def test_to_torch_with_a_context():
    transform = to_torch(Shifted(2), context=torch.tensor([1.0, 2.0]))
    assert transform(torch.zeros(3, 2)).tolist() == [[1.0, 2.0]] * 3
    with pytest.raises(InputError, match="context"):
        to_torch(Shifted(2))


def test_to_torch_refuses_other_transforms_than_bijections():
    with pytest.raises(KindError, match="bijection"):
        to_torch(UniformDequantize(2))


@pytest.mark.parametrize("made", [ExpTransform(), SigmoidTransform(), AffineTransform(0.5, 2.0)], ids=repr)
def test_an_empty_batch(made):
    transform = from_torch(made, 2)
    step = transform.encode(torch.zeros(0, 2))
    assert step.z.shape == (0, *transform.out_shape)
    assert step.contribution.shape == (0,)
    assert transform.decode(step.z).shape == (0, 2)


def test_to_torch_with_a_cache_keeps_the_last_pair(check):
    plain = to_torch(Inverse(Tanh(2)))
    cached = plain.with_cache(1)
    assert cached.with_cache(1) is cached
    assert plain.with_cache(0) is plain
    z = check.normal(5, 2)
    x = cached(z)
    assert cached(z) is x
    assert cached.inv(x) is z
    assert plain(z) is not plain(z)
    torch.testing.assert_close(plain(z), x)


@pytest.mark.parametrize(
    ("transform", "box"),
    [
        (ComposeTransform([AffineTransform(0.0, 1.0), SigmoidTransform().inv]), Support(0.0, 1.0)),
        (ComposeTransform([AffineTransform(2.0, 1.0), TanhTransform().inv]), Support(-3.0, -1.0)),
        (ComposeTransform([AffineTransform(1.0, -2.0), ExpTransform().inv]), Support(-math.inf, 0.5)),
        (ComposeTransform([SigmoidTransform(), AffineTransform(0.0, 3.0)]).inv, Support(0.0, 3.0)),
        (ComposeTransform([ExpTransform(), AffineTransform(1.0, -2.0)]), REAL),
    ],
    ids=["logit", "atanh", "log", "inverse", "reals"],
)
def test_a_composition_reaches_all_data_from_less_noise_than_its_first_part_takes(transform, box):
    found = from_torch(transform, 1)
    assert found.codomain.low == pytest.approx(box.low)
    assert found.codomain.high == pytest.approx(box.high)
    if box == REAL:
        assert Flow(found, StandardNormal(1)).kind is Kind.EXACT
    else:
        with pytest.warns(KindWarning, match="some of the mass belongs to no data point"):
            assert Flow(found, StandardNormal(1)).kind is Kind.LOWER_BOUND


def test_a_composition_with_scales_by_coordinate_is_exact_over_its_own_box():
    logit = ComposeTransform([AffineTransform(0.0, torch.tensor([1.0, 2.0])), SigmoidTransform().inv])
    found = from_torch(logit, 2)
    assert Flow(found, Product(Uniform(1, 0.0, 1.0), Uniform(1, 0.0, 0.5))).kind is Kind.EXACT
    with pytest.warns(KindWarning, match="some of the mass belongs to no data point"):
        assert Flow(found, Uniform(2, 0.0, 1.0)).kind is Kind.LOWER_BOUND


@pytest.mark.parametrize("width", [0.1, 0.3, 0.7, 1.1, 7.0])
def test_rounding_of_parameters_makes_no_bound(width):
    logit = ComposeTransform([AffineTransform(0.0, 1 / width), SigmoidTransform().inv])
    assert Flow(from_torch(logit, 1), Uniform(1, 0.0, width)).kind is Kind.EXACT


def test_ends_by_coordinate_go_to_torch():
    domain = to_torch(NICE(2).chain).domain
    assert domain.check(torch.tensor([5.0, 5.0]))
    mixed = to_torch(Blocks(Sigmoid(1), Permutation(1)))  # its noise is in (0, 1) and the reals
    assert mixed.domain.check(torch.tensor([[0.5, 7.0], [7.0, 0.5]])).tolist() == [True, False]
