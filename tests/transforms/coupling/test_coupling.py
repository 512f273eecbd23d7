"""Coupling: which coordinates are transformed, what they depend on, and its options."""

from __future__ import annotations

import math

import pytest
import torch

from pushforward.distributions import Normal, Product, Uniform
from pushforward.errors import ConfigError, KindWarning
from pushforward.likelihood import REAL, Kind, Support
from pushforward.models import Flow
from pushforward.transforms import (
    AdditiveTransformer,
    Affine,
    Blocks,
    Chain,
    CircularSplineTransformer,
    Coupling,
    GatedTransformer,
    ImageCoupling,
    MaskedAutoregressive,
    MobiusTransformer,
    Permutation,
    Reverse,
    SplineTransformer,
)
from pushforward.transforms.coupling.coupling import mask_indices
from pushforward.transforms.transformers.base import expand_parameters


def make(features: int, *args, **options) -> Coupling:
    torch.manual_seed(0)
    coupling = Coupling(features, *args, **{"hidden": (32,), "activation": "tanh", **options}).double()
    with torch.no_grad():
        for parameter in coupling.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, dtype=torch.float64))
    return coupling.eval()


def jacobian(coupling: Coupling, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
    return torch.func.jacrev(lambda t: coupling.encode(t, context).z)(x)


@pytest.mark.parametrize(
    ("features", "mask", "flip", "kept"),
    [
        (5, "alternate", False, [0, 2, 4]),
        (5, "alternate", True, [1, 3]),
        (5, "halves", False, [0, 1]),
        (5, "halves", True, [2, 3, 4]),
        (5, (3, 0), False, [3, 0]),
        (5, (3, 0), True, [1, 2, 4]),
        (2, "alternate", False, [0]),
        (2, "halves", False, [0]),
        (1, "alternate", False, []),
        (1, "alternate", True, []),
        (1, "halves", False, []),
    ],
)
def test_masks(features, mask, flip, kept):
    """B depends on A and itself, A only on itself; a single feature is always transformed."""
    coupling = make(features, mask=mask, flip=flip)
    x = torch.randn(features, dtype=torch.float64)
    expected = torch.eye(features, dtype=torch.bool)
    moved = [i for i in range(features) if i not in kept]
    for i in moved:
        expected[i, kept] = True
    assert torch.equal(jacobian(coupling, x) != 0, expected)
    z = coupling.encode(x).z
    assert torch.equal(z[kept], x[kept])
    assert (z[moved] != x[moved]).all()


def test_contribution_is_the_sum_of_log_scales():
    """For an affine transformer by hand: z = x exp(s) + t with the network's s and t."""
    coupling = make(3, mask=(1,))
    x = torch.randn(4, 3, dtype=torch.float64)
    assert coupling.network is not None
    t, raw = coupling.network(x[:, 1:2]).reshape(4, 2, 2).unbind(1)
    s = raw / (1 + raw.abs() / 3)
    step = coupling.encode(x)
    torch.testing.assert_close(step.z[:, [0, 2]], x[:, [0, 2]] * s.exp() + t)
    torch.testing.assert_close(step.contribution, s.sum(-1))


def test_additive_keeps_volume():
    coupling = make(4, AdditiveTransformer())
    assert (coupling.encode(torch.randn(5, 4, dtype=torch.float64)).contribution == 0).all()


def test_unconditional_transforms_the_other_half_by_free_parameters():
    coupling = make(4, SplineTransformer(), unconditional=True)
    x = torch.randn(4, dtype=torch.float64)
    pattern = jacobian(coupling, x) != 0
    assert torch.equal(pattern[[0, 2]], torch.eye(4, dtype=torch.bool)[[0, 2]])
    z = coupling.encode(x).z
    assert (z[[0, 2]] != x[[0, 2]]).all()
    # B's parameters come from A as it was given, so that both directions use the same A.
    torch.testing.assert_close(coupling.decode(z), x)


def test_one_feature_has_free_parameters_or_follows_the_context():
    free = make(1)
    assert free.network is None
    assert free.free_transformed is not None
    x = torch.randn(6, 1, dtype=torch.float64)
    step = free.encode(x)
    assert torch.equal(step.contribution, step.contribution[:1].expand(6))
    given = make(1, context=2)
    c = torch.randn(6, 2, dtype=torch.float64)
    assert given.encode(x, c).contribution.unique().numel() == 6


def test_starts_near_the_identity():
    torch.manual_seed(0)
    for transformer in (None, SplineTransformer()):
        coupling = Coupling(6, transformer)
        x = torch.randn(100, 6)
        assert (coupling.encode(x).z - x).abs().max() < 0.6
        assert Coupling(1, transformer).encode(x[:, :1]).z.equal(x[:, :1]) or transformer is not None


def test_far_coordinates_cannot_make_the_other_half_overflow():
    """The network's input is clamped, so far from the data the transform is one fixed affine function."""
    coupling = make(2)
    x = torch.tensor([[10.0, 1.0], [1e3, 1.0], [1e20, 1.0]], dtype=torch.float64)
    z = coupling.encode(x).z
    assert torch.equal(z[:, 1], z[:1, 1].expand(3))


def test_periodic_transformers_are_continuous_on_the_circle():
    """A coordinate of A at pi and at -pi is one point, so B is transformed in the same way."""
    coupling = make(2, CircularSplineTransformer())
    assert coupling.domain == coupling.codomain == Support(-math.pi, math.pi)
    x = torch.tensor([[math.pi, 0.3], [-math.pi, 0.3]], dtype=torch.float64)
    z = coupling.encode(x).z
    torch.testing.assert_close(z[0, 1], z[1, 1])
    assert coupling.encode(torch.tensor([[3.2, 0.0]], dtype=torch.float64)).contribution.item() == -math.inf
    assert make(2).domain == REAL


@pytest.mark.parametrize("transformer", [CircularSplineTransformer(4), MobiusTransformer(4)], ids=["spline", "mobius"])
def test_an_infinite_angle_is_outside_the_circle(transformer):
    """Its cosine is NaN, which must not reach the other coordinates."""
    x = torch.tensor([[math.inf, 0.0], [0.0, -math.inf]])
    image = ImageCoupling((2, 1, 1), transformer, hidden=(4,))
    for part in (make(2, transformer).float(), MaskedAutoregressive(2, transformer, hidden=(4,)), image):
        step = part.encode(x.reshape(2, *part.in_shape))
        assert step.contribution.tolist() == [-math.inf] * 2
        assert torch.isfinite(step.z[0].flatten()[1])


def test_a_gate_is_not_the_identity_at_the_start():
    coupling = Coupling(2, GatedTransformer(bias=2.0), hidden=(8,))
    contribution = coupling.encode(torch.zeros(1, 2)).contribution.item()
    assert contribution == pytest.approx(-math.log1p(math.exp(-2.0)), abs=0.1)


def test_dropout_acts_in_training_only():
    coupling = make(4, dropout=0.5)
    x = torch.randn(3, 4, dtype=torch.float64)
    assert torch.equal(coupling.encode(x).z, coupling.encode(x).z)
    coupling.train()
    assert not torch.equal(coupling.encode(x).z, coupling.encode(x).z)


def test_expand():
    free = torch.arange(6.0).reshape(2, 3)
    wide = expand_parameters(free, torch.zeros(4, 5, 3))
    assert wide.shape == (2, 4, 5, 3)
    assert (wide == free[:, None, None, :]).all()
    assert expand_parameters(free, torch.zeros(3)).shape == (2, 3)


@pytest.mark.parametrize("mask", ["evens", "", (0, 0), (0, 5), (-1,), (0, 1, 2, 3, 4), (1.0,), ("0",)], ids=str)
def test_impossible_masks(mask):
    with pytest.raises(ConfigError, match="mask"):
        Coupling(5, mask=mask)
    with pytest.raises(ConfigError, match="mask"):
        mask_indices(5, mask)


@pytest.mark.parametrize("options", [{"hidden": (0,)}, {"activation": "none"}, {"residual": True, "hidden": (4, 5)}])
def test_impossible_networks(options):
    with pytest.raises(ConfigError):
        Coupling(5, **options)


@pytest.mark.parametrize("mask", [(2, 0), (0, 2), (3, 1), (1, 3), (3, 0)])
@pytest.mark.parametrize("flip", [False, True])
def test_a_mask_in_any_order_is_inverted_with_the_same_parameters_in_both_directions(mask, flip):
    """The k-th group of the network's outputs belongs to the k-th index of the transformed coordinates."""
    coupling = make(4, mask=mask, flip=flip)
    x = torch.randn(6, 4, dtype=torch.float64)
    step = coupling.encode(x)
    kept, moved = coupling.kept, coupling.transformed
    raw = coupling.network(x[:, kept]).unflatten(-1, (coupling.transformer.parameters, -1)).movedim(-2, 0)
    torch.testing.assert_close(step.z[:, moved], coupling.transformer.forward(x[:, moved], raw)[0])
    torch.testing.assert_close(coupling.invert_with_graph(step.z)[0], x)
    torch.testing.assert_close(coupling.decode(step.z), x)


def test_a_coupling_changes_coordinates_of_one_kind():
    circle = CircularSplineTransformer(4)
    with pytest.raises(ConfigError, match=r"would transform the coordinates \[1, 3\], which are not angles"):
        Coupling(4, circle, angles=(0, 2))
    with pytest.raises(ConfigError, match=r"AffineTransformer would transform the coordinates \[3\], which are angles"):
        Coupling(4, angles=(3,))
    with pytest.raises(ConfigError, match="which are not angles"):
        Coupling(4, circle, mask=(0, 1), angles=(2, 3), unconditional=True)
    for angles in ((4,), (-1,), "0", (0.5,)):
        with pytest.raises(ConfigError, match=r"angles must contain indices in 0, ..., 3"):
            Coupling(4, angles=angles)


def test_the_kind_of_a_chain_knows_the_ends_of_each_coordinate():
    """Angles keep their ends through couplings, permutations and blocks, so a normal base on them is a bound and not exact."""
    layer = Coupling(3, CircularSplineTransformer(4), mask=(0, 1), angles=(2,), hidden=(8,))
    assert layer.domain == Support(ends=((-math.inf, math.inf), (-math.inf, math.inf), (-math.pi, math.pi)))
    chain = Chain(layer, Permutation(3, (2, 0, 1)), Blocks(Permutation(1), Affine(2, scale=2.0)), Reverse(3))
    assert chain.codomain == Support(ends=((-math.inf, math.inf), (-math.inf, math.inf), (-math.pi, math.pi)))
    assert Flow(chain, Product(Normal(2), Uniform(1, -math.pi, math.pi))).kind is Kind.EXACT
    with pytest.warns(KindWarning, match="some of the mass belongs to no data point"):
        assert Flow(chain, Normal(3)).kind is Kind.LOWER_BOUND
    with pytest.warns(KindWarning, match="some of the mass belongs to no data point"):
        assert Flow(chain, Product(Uniform(1, -math.pi, math.pi), Normal(2))).kind is Kind.LOWER_BOUND
