"""Slice, augment, abs, sort, max, max pooling, random permutation: kind, mass, samples, and densities known from theory."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from pushforward.distributions import HalfNormal, Normal, SortedNormal, Uniform
from pushforward.errors import ConfigError, InputError, KindError, KindWarning
from pushforward.likelihood import Counting, Extended, Kind, Lebesgue, Support
from pushforward.models import Flow, Model
from pushforward.transforms import (
    Abs,
    Affine,
    Augment,
    AugmentMissing,
    Chain,
    Coupling,
    Exp,
    Flatten,
    Gaps,
    Inverse,
    Max,
    MaxPool,
    Monotone,
    Permutation,
    Reverse,
    Slice,
    Softplus,
    Sort,
    StochasticPermutation,
    Transform,
    Variational,
    to_torch,
)

S = (8,)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def perturb(transform: Transform, seed: int = 0, size: float = 0.5) -> Any:
    """The transform in float64, with every parameter changed from its initial value."""
    transform.double()
    with torch.no_grad():
        for number, parameter in enumerate(transform.parameters()):
            parameter.add_(size * normal(*parameter.shape, seed=seed + number))
    return transform


def grid(low: float, high: float, count: int, width: int) -> tuple[Tensor, float]:
    """Midpoints of a box, and the volume of a cell."""
    step = (high - low) / count
    line = low + step * (torch.arange(count, dtype=torch.float64) + 0.5)
    return torch.cartesian_prod(*[line] * width).reshape(-1, width), step**width


def mass(model: Model, count: int = 300, reach: float = 8.0) -> float:
    points, cell = grid(-reach, reach, count, math.prod(model.shape))
    with torch.no_grad():
        return (model.evaluate(points.reshape(-1, *model.shape)).value.exp() * cell).sum().item()


@torch.no_grad()
def values(model: Model, x: Tensor, draws: int) -> Tensor:
    """One draw of the bound in each row, ``(draws, *batch)``."""
    step = model.chain.encode(x.expand(draws, *x.shape), noise=torch.Generator().manual_seed(0))
    return step.contribution + model.base.log_prob(step.z)


def standard(x: Tensor) -> Tensor:
    return torch.from_numpy(scipy.stats.norm.logpdf(x.numpy())).flatten(1).sum(1)


# Kind: EXACT if the rest of the chain has its mass on the codomain, LOWER_BOUND with the remaining mass otherwise.


@pytest.mark.parametrize("width", [1, 2])
def test_abs_and_half_normal_are_a_standard_normal(width):
    model = Flow(Abs(width), HalfNormal(width)).double()
    assert (model.kind, model.measure) == (Kind.EXACT, Lebesgue(width))
    x = normal(20, width)
    torch.testing.assert_close(model.log_prob(x), standard(x))
    assert mass(model) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(("width", "left"), [(1, 0.5), (2, 0.25)])
def test_abs_and_normal_lose_mass_with_a_warning(width, left):
    with pytest.warns(KindWarning, match=r"Abs|chain.*\(0, inf\).*Normal"):
        model = Flow(Abs(width), Normal(width)).double()
    assert model.kind is Kind.LOWER_BOUND
    assert mass(model) == pytest.approx(left, abs=1e-6)
    with pytest.raises(KindError, match="lower bound"):
        model.log_prob(torch.zeros(1, width))


def test_abs_and_a_range_flow_are_exact():
    model = Flow(Chain(Abs(1), Inverse(Softplus(1)), Monotone(1)), Normal(1)).double()
    assert model.kind is Kind.EXACT
    assert mass(model, 20_000) == pytest.approx(1.0, abs=1e-4)


def test_sort_and_sorted_normals_are_a_standard_normal():
    model = Flow(Sort(3), SortedNormal(3)).double()
    assert (model.kind, model.measure) == (Kind.EXACT, Lebesgue(3))
    x = normal(20, 3)
    torch.testing.assert_close(model.log_prob(x), standard(x))
    assert mass(model, 60) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("width", [2, 3])
def test_sort_and_normal_keep_one_part_in_n_factorial(width):
    with pytest.warns(KindWarning, match="increasing.*Normal"):
        model = Flow(Sort(width), Normal(width)).double()
    assert model.kind is Kind.LOWER_BOUND
    assert mass(model, 300 if width == 2 else 60) == pytest.approx(1 / math.factorial(width), rel=1e-6)


def test_transforms_with_and_without_an_order():
    def kind(*transforms, base=None) -> Kind:
        return Flow(Chain(*transforms), base or SortedNormal(3)).kind

    assert kind(Sort(3), Affine(3, shift=1.0, scale=2.0)) is Kind.EXACT
    assert kind(Sort(3), Gaps(3), base=Normal(3)) is Kind.EXACT
    assert kind(Sort(3), Sort(3)) is Kind.EXACT
    assert kind(Permutation(3), Sort(3)) is Kind.EXACT
    for spoils in (
        Affine(3, scale=-1.0),
        Affine(3, scale=(1.0, 2.0, 3.0)),
        Reverse(3),
        Permutation(3, order=(1, 0, 2)),
        Flatten(3),
        Coupling(3),
    ):
        with pytest.warns(KindWarning):
            assert kind(Sort(3), spoils) is Kind.LOWER_BOUND
    with pytest.warns(KindWarning, match="Exp.*Gaps"):
        assert Chain(Exp(3), Gaps(3)).kind is Kind.LOWER_BOUND  # the box does not contain the whole cone


def test_a_support_contains_its_known_subsets():
    cone, part = Support(within="increasing"), Support(within="increasing before Reverse")
    assert Support().covers(cone)
    assert cone.covers(cone)
    assert Support().covers(Support(0.0, 1.0))
    assert not Support(0.0, 1.0).covers(Support())
    assert not cone.covers(Support())
    assert not cone.covers(part)
    assert Support(0.0, 1.0).covers(Support(0.0, 1.0, "increasing"))
    assert str(cone) == "the reals, increasing"
    assert str(Support(0.0, 1.0)) == "(0, 1)"
    x = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.5]])
    assert cone.contains(x).tolist() == [[True, True, True], [True, True, False]]
    assert Support(0.0, 0.7, "increasing").contains(x).tolist() == [[True, True, False], [True, False, False]]


@pytest.mark.parametrize(
    "transform",
    [Abs(2), Sort(2), StochasticPermutation(2), Slice(2), Augment(2), Max(2), Chain(Slice(2), Augment(1))],
    ids=lambda transform: type(transform).__name__,
)
def test_none_is_a_bijection(transform):
    assert not transform.bijective
    with pytest.raises(KindError, match="not a bijection"):
        Inverse(transform)
    with pytest.raises(KindError, match="not a bijection"):
        to_torch(transform)
    if transform.out_shape == (2,):
        with pytest.raises(KindError, match="not a bijection"):
            Variational(2, 2, flow=transform)


# Densities known from theory.


def test_abs_with_unequal_sign_probabilities():
    model = Flow(Abs(1, probability=0.2), HalfNormal(1)).double()
    x = normal(20, 1)
    expected = standard(x) + torch.where(x[:, 0] >= 0, math.log(0.4), math.log(1.6))  # 0.2 and 0.8 in place of 1/2
    torch.testing.assert_close(model.log_prob(x), expected)
    drawn = model.sample(20_000, seed=0)
    assert (drawn > 0).double().mean().item() == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / 20_000))
    assert (model.decode(torch.ones(1, 1)) == -1).all()  # the more probable sign


def test_a_symmetric_density_is_symmetric():
    model = Flow(Chain(Abs(2), Inverse(Softplus(2)), Coupling(2, hidden=S)), Normal(2)).double()
    for part in model.chain:
        perturb(part)
    x = normal(20, 2)
    for signs in itertools.product((1.0, -1.0), repeat=2):
        assert torch.equal(model.log_prob(x * torch.tensor(signs)), model.log_prob(x))


def test_sort_gives_every_order_of_the_coordinates_the_same_density():
    model = Flow(Chain(Sort(3), Gaps(3), Coupling(3, hidden=S)), Normal(3)).double()
    for part in model.chain:
        perturb(part)
    x = normal(20, 3)
    for order in itertools.permutations(range(3)):
        torch.testing.assert_close(model.log_prob(x[:, list(order)]), model.log_prob(x))


def test_probabilities_of_orders_add_up_to_one_and_are_drawn():
    """The contribution over all orders of one z is a distribution of them, which samples of z follow."""
    sort = perturb(Sort(3, hidden=S), size=1.5).double()
    z = torch.tensor([-0.4, 0.3, 1.2], dtype=torch.float64)
    orders = list(itertools.permutations(range(3)))
    with torch.no_grad():
        probabilities = sort.encode(torch.stack([z[list(order)] for order in orders])).contribution.exp()
        drawn = sort.decode(z.expand(6000, 3), noise=torch.Generator().manual_seed(0))
    assert probabilities.sum().item() == pytest.approx(1.0, abs=1e-12)
    assert probabilities.max() > 1.5 * probabilities.min()  # otherwise nothing is tested
    counts = [(drawn == z[list(order)]).all(-1).sum().item() for order in orders]
    assert scipy.stats.chisquare(counts, 6000 * probabilities.numpy()).pvalue > 1e-3
    first = sort.encode(sort.decode(z[None])).contribution.exp()
    assert first.item() == pytest.approx(
        probabilities.max().item(), rel=1e-9
    )  # the greedy order is the most probable one here


def test_gaps_outside_the_cone():
    gaps = Gaps(3).double()
    x = torch.tensor([[0.0, 2.0, 1.0], [0.0, 0.0, 1.0], [0.0, 1.0, 3.0]], dtype=torch.float64)
    step = gaps.encode(x)
    assert step.contribution[0] == -math.inf
    assert torch.isfinite(step.z).all()
    expected = -torch.log(-torch.expm1(-torch.tensor([1.0, 2.0], dtype=torch.float64))).sum()
    torch.testing.assert_close(step.contribution[2], expected)


def test_slice_is_the_product_of_two_densities():
    decoder = perturb(Monotone(2, context=1, hidden=S))
    model = Flow(Slice(3, (1,), decoder), Normal(1)).double()
    assert (model.kind, model.measure) == (Kind.EXACT, Lebesgue(3))
    x = normal(20, 3)
    e, volume = decoder(x[:, [0, 2]], x[:, [1]])
    torch.testing.assert_close(model.log_prob(x), standard(x[:, [1]]) + standard(e.detach()) + volume)
    smooth = Flow(perturb(Slice(3, hidden=S), size=0.2), Normal(1)).double()
    assert mass(smooth, 100) == pytest.approx(1.0, abs=1e-3)


def test_slice_decodes_the_median_without_a_generator():
    model = Flow(perturb(Slice(2, 1, hidden=S)), Normal(1)).double()
    z = torch.full((4001, 1), 0.7, dtype=torch.float64)
    drawn = next(iter(model.chain)).decode(z, noise=torch.Generator().manual_seed(1))[:, 1]
    middle = model.decode(z[:1])[0, 1]
    assert scipy.stats.binomtest(int((drawn < middle).sum()), 4001).pvalue > 1e-3


def test_augment_of_a_linear_gaussian_is_a_bound_with_the_right_gap():
    """p(x, e) a normal with correlation r and q a standard normal: both terms are known."""
    r = 0.6
    encoder = Monotone(1, context=1, hidden=S)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()  # q(e | x) = N(0, 1)
    joint = Coupling(2, mask=(0,), hidden=())  # (x, e) to (x, (e - r x) / sqrt(1 - r^2))
    with torch.no_grad():
        scale = -0.5 * math.log1p(-r * r)
        joint.network.last.weight.copy_(torch.tensor([[-r * math.exp(scale)], [0.0]]))
        joint.network.last.bias.copy_(torch.tensor([0.0, 3.0 * math.atanh(scale / 3.0)]))
    model = Flow(Chain(Augment(1, 1, encoder), joint), Normal(2)).double()
    assert (model.kind, model.measure) == (Kind.LOWER_BOUND, Lebesgue(1))
    x = torch.tensor([[0.0], [1.3]], dtype=torch.float64)
    truth = standard(x)
    draws = values(model, x, 20_000)
    variance = 1 - r * r
    gap = 0.5 * ((1 + r * r * x[:, 0] ** 2) / variance - 1 + math.log(variance))  # KL(N(0, 1) || N(r x, 1 - r^2))
    error = draws.std(0) / math.sqrt(20_000)
    assert ((draws.mean(0) - (truth - gap)).abs() < 4 * error).all()
    assert ((draws.logsumexp(0) - math.log(20_000) - truth).abs() < 0.1).all()
    assert (model.evaluate(x, samples=200).value > draws.mean(0)).all()
    assert torch.equal(model.decode(torch.ones(1, 2)), torch.ones(1, 1).double())


def test_a_random_permutation_averages_over_orders():
    """The bound's weights average to the mean of the density over all orders."""
    tilt = Affine(2, shift=(1.0, -0.5), scale=(2.0, 0.5))
    model = Flow(Chain(StochasticPermutation(2), tilt), Normal(2)).double()
    x = normal(6, 2)
    plain = Flow(tilt, Normal(2)).double()
    truth = torch.logaddexp(plain.log_prob(x), plain.log_prob(x.flip(-1))) - math.log(2)
    draws = values(model, x, 4000)
    tight = draws.logsumexp(0) - math.log(4000)
    assert (model.evaluate(x).value <= truth + math.log(2)).all()
    assert ((tight - truth).abs() < 0.15).all()
    with torch.no_grad():
        same = Flow(StochasticPermutation(2), Normal(2)).double()
        torch.testing.assert_close(same.evaluate(x).value, standard(x))  # where the order does not matter


def test_max_is_the_product_of_its_parts():
    surjection = perturb(Max(2, hidden=S))
    model = Flow(surjection, Normal(1)).double()
    assert (model.kind, model.measure) == (Kind.EXACT, Lebesgue(2))
    x = torch.tensor([[0.3, 1.1], [2.0, -1.0]], dtype=torch.float64)
    place = torch.log_softmax(surjection.logits, -1)[torch.tensor([1, 0])]
    difference = (x[:, :1] - x[:, 1:]).abs()
    u = torch.log(torch.expm1(difference))
    z = x.amax(1, keepdim=True)
    one_hot = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    e, volume = surjection.density.flow(u, torch.cat((z, one_hot), 1))
    jacobian = -torch.log(-torch.expm1(-difference[:, 0]))  # du/dd
    torch.testing.assert_close(model.log_prob(x), standard(z) + place + standard(e.detach()) + volume + jacobian)


def test_max_of_three_has_mass_one():
    torch.manual_seed(0)
    model = Flow(perturb(Max(3, hidden=S), size=0.2), Normal(1)).double()
    assert mass(model, 120, reach=9.0) == pytest.approx(1.0, abs=0.02)


def test_decoded_coordinates_never_exceed_the_maximum():
    """The differences are positive for any output of the flow, so no mass is lost above the maximum."""
    model = Flow(perturb(Max(3, hidden=S)), Normal(1)).double()
    z = normal(2000, 1)
    x = next(iter(model.chain)).decode(z, noise=torch.Generator().manual_seed(0))
    torch.testing.assert_close(x.amax(-1, keepdim=True), z, rtol=0, atol=0)
    assert set(x.argmax(-1).tolist()) == {0, 1, 2}


def test_max_pool_is_torch_s_and_draws_what_pools_to_it():
    pool = perturb(MaxPool((2, 4, 6), hidden=S)).double()
    x = normal(5, 2, 4, 6)
    z = pool.encode(x).z
    assert torch.equal(z, torch.nn.functional.max_pool2d(x, 2))
    for noise in (None, torch.Generator().manual_seed(0)):
        assert torch.equal(pool.encode(pool.decode(z, noise=noise)).z, z)


def test_max_pool_of_one_window_is_max_of_four():
    """With the identity as transformer: log-normal-like differences around z, and each position with probability 1/4."""
    pool = MaxPool((1, 2, 2), hidden=S).double()
    model = Flow(pool, Normal((1, 1, 1))).double()
    x = torch.tensor([[[[0.5, 2.0], [1.5, -1.0]]]], dtype=torch.float64)
    differences = torch.tensor([1.5, 0.5, 3.0], dtype=torch.float64)
    u = torch.log(torch.expm1(differences))
    expected = scipy.stats.norm.logpdf(2.0) - math.log(4) + scipy.stats.norm.logpdf(u.numpy()).sum()
    expected -= np.log(-np.expm1(-differences.numpy())).sum()
    assert model.log_prob(x).item() == pytest.approx(expected, abs=1e-12)
    assert (model.kind, model.measure) == (Kind.EXACT, Lebesgue(4))


def test_ties_are_finite():
    for surjection, shape in ((Max(3, hidden=S), (3,)), (MaxPool((1, 2, 2), hidden=S), (1, 2, 2))):
        x = torch.ones(2, *shape, requires_grad=True)
        step = surjection.encode(x)
        assert torch.isfinite(step.contribution).all()
        step.contribution.sum().backward()
        assert x.grad is not None
        assert torch.isfinite(x.grad).all()


# What does not fit.


def test_arguments_that_do_not_fit_are_refused():
    for make, match in (
        (lambda: Slice(3, 3), "keep of Slice"),
        (lambda: Slice(3, 0), "keep of Slice"),
        (lambda: Slice(3, (1, 1)), "keep of Slice"),
        (lambda: Slice(3, (3,)), "keep of Slice"),
        (lambda: Slice(3, True), "keep of Slice"),
        (lambda: Slice(3, 1, Monotone(1, context=1)), "2 coordinates"),
        (lambda: Slice(3, 1, Monotone(2, context=2)), "width 1"),
        (lambda: Slice(2, 1, Chain(Inverse(Softplus(1)), Monotone(1, context=1))), "all reals"),
        (lambda: Augment(2, 0), "extra"),
        (lambda: Augment(2, 1, Monotone(1)), "width 2"),
        (lambda: Max(1), "at least 2"),
        (lambda: MaxPool((1, 3, 4)), "even"),
        (lambda: Abs(2, probability=1.0), "probability"),
        (lambda: Abs(2, hidden=(0,)), "hidden"),
    ):
        with pytest.raises(ConfigError, match=match):
            make()
    with pytest.raises(KindError, match="not a bijection"):
        Slice(2, 1, Chain(Monotone(1, context=1), Abs(1)))
    for surjection in (Slice(3), Augment(2), Max(3), MaxPool((1, 2, 2))):
        for measure in (Counting(3), Extended(3, 2)):
            with pytest.raises(KindError, match=type(surjection).__name__):
                surjection.measure(measure)


def test_samples_carry_gradients_unless_something_discrete_is_learned():
    for surjection, base, carries in (
        (Abs(1), HalfNormal(1), True),
        (Abs(1, hidden=S), HalfNormal(1), False),
        (Sort(2), SortedNormal(2), True),
        (Sort(2, hidden=S), SortedNormal(2), False),
        (Slice(2, hidden=S), Normal(1), True),
        (Max(2, hidden=S), Normal(1), False),
    ):
        transformer = Flow(surjection, base).distribution()
        assert transformer.has_rsample is carries
        if not carries:
            with pytest.raises(KindError, match=type(surjection).__name__):
                transformer.rsample((3,))


def test_uniform_rows_through_abs():
    """abs of (-1, 1) lies in (0, 1): with a uniform base on it the density is 1/2 inside."""
    model = Flow(Abs(1), Uniform(1, 0.0, 1.0)).double()
    assert model.kind is Kind.EXACT
    x = torch.tensor([[-0.3], [0.9], [1.2]], dtype=torch.float64)
    torch.testing.assert_close(model.evaluate(x).value.exp(), torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64))


def test_the_maximum_under_function_transforms():
    model = Flow(Chain(Max(3, hidden=(8,))), Normal(1)).double().eval()
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(model.log_prob(x).sum(), x)
    torch.testing.assert_close(torch.vmap(torch.func.grad(model.log_prob))(x.detach()), expected)
    torch.testing.assert_close(torch.vmap(torch.func.jacfwd(model.log_prob))(x.detach()), expected)


def test_missing_cells_may_hold_nan():
    augment = AugmentMissing(2, (0,), (1,))
    augment.initialize(torch.tensor([[1.0, 0.0], [3.0, 0.0], [math.nan, 1.0]]))
    assert augment.mean.item() == 2.0
    assert augment.scale.item() == 1.0
    assert torch.isfinite(augment.encode(torch.tensor([[math.nan, 1.0]])).z).all()


def test_missing_cells_are_learned_from_rows_in_any_batch_shape():
    x = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 1.0], [8.0, 0.0]])
    augment = AugmentMissing(2, (0,), (1,))
    with pytest.raises(InputError, match="at least one row"):
        augment.initialize(x[:0])
    assert augment.initialize(x.reshape(2, 2, 2)).shape == (2, 2, 2)
    assert augment.mean.item() == 4.0


@pytest.mark.parametrize("count", [333, 1000, 5000])
def test_missing_cells_of_a_constant_column_keep_scale_1(count):
    """Rounding of the mean is no deviation."""
    for value in (0.1, 0.3, 7.7):
        augment = AugmentMissing(2, (0,), (1,)).double()
        missing = (torch.arange(count) % 7 == 0).double()
        augment.initialize(torch.stack((torch.full_like(missing, value), missing), 1))
        assert augment.scale.tolist() == [1.0]


def test_integers_of_numpy_are_integers():
    assert Slice(3, keep=np.int64(2)).out_shape == (2,)
    assert Slice(3, keep=tuple(np.array([0, 2]))).out_shape == (2,)
