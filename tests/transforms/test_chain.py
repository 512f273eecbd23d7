"""Chains: slices share weights and add up to the whole; the loop that encodes adds contributions, residuals and variances."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from pushforward import distributions, models, transforms
from pushforward.errors import ConfigError, InputError, KindError, KindWarning
from pushforward.likelihood import Counting, Extended, Kind, Manifold
from pushforward.transforms import Chain, Step, Transform


class Fixed(Transform):
    """Adds 1 to x, with a step of fixed numbers."""

    def __init__(self, contribution: float, residual: float | None, stderr: float | None) -> None:
        super().__init__(2)
        self.numbers = contribution, residual, stderr

    def encode(self, x, context=None, *, noise=None):
        contribution, residual, stderr = (None if v is None else x.new_full(x.shape[:-1], v) for v in self.numbers)
        return Step(x + 1, contribution, residual, stderr)

    def decode(self, z, context=None, *, noise=None):
        return z - 1


@pytest.fixture
def chain() -> Chain:
    parts = [
        transforms.UniformDequantize((1, 2, 2), 8), transforms.Flatten((1, 2, 2)), transforms.Affine(4, scale=2.0),
        transforms.Coupling(4, hidden=(8,)), transforms.LULinear(4), transforms.Coupling(4, hidden=(8,), flip=True),
    ]  # fmt: skip
    chain = Chain(*parts)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in chain.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return chain.double()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.arange(12.0, dtype=torch.float64).reshape(3, 1, 2, 2) % 8


class TestSlices:
    def test_parts_and_shapes(self, chain):
        assert chain[0] is next(iter(chain))
        assert chain[-1] is list(chain)[-1]
        assert list(chain[1:3]) == list(chain)[1:3]
        assert (chain[1:3].in_shape, chain[1:3].out_shape) == ((1, 2, 2), (4,))
        assert (chain[:2].in_shape, chain[:2].out_shape) == ((1, 2, 2), (4,))
        assert list(chain[-2:]) == list(chain)[-2:]
        assert list(chain[:100]) == list(chain)

    def test_weights_are_shared(self, chain):
        rest = chain[3:]
        assert {id(p) for p in rest.parameters()} == {id(p) for p in chain.parameters()}

    @pytest.mark.parametrize("cut", range(7))
    def test_two_slices_make_the_whole(self, chain, x, cut):
        whole = chain.encode(x)
        before = chain[:cut].encode(x)
        both = before.then(chain[cut:].encode(before.z))
        assert torch.equal(both.z, whole.z)
        torch.testing.assert_close(both.contribution, whole.contribution, rtol=1e-14, atol=1e-14)
        assert torch.equal(chain[:cut].decode(chain[cut:].decode(whole.z)), chain.decode(whole.z))
        assert chain[:cut].kind | chain[cut:].kind is chain.kind

    @pytest.mark.parametrize(("cut", "shape"), [(0, (1, 2, 2)), (1, (1, 2, 2)), (4, (4,)), (6, (4,))])
    def test_an_empty_slice_is_the_identity(self, chain, cut, shape):
        empty = chain[cut:cut]
        y = torch.randn(3, *shape)
        assert len(empty) == 0
        assert empty.in_shape == empty.out_shape == shape
        assert empty.bijective
        assert (empty.context, empty.encode_passes, empty.decode_passes) == (0, 1, 1)
        step = empty.encode(y)
        assert torch.equal(step.z, y)
        assert torch.equal(step.contribution, torch.zeros(3))
        assert torch.equal(empty.decode(y), y)
        assert torch.equal(empty.decode_with_contribution(y)[1], torch.zeros(3))
        assert empty.measure(distributions.Normal(shape).measure) == distributions.Normal(shape).measure

    def test_a_step_is_refused(self, chain):
        with pytest.raises(ConfigError, match="so it has no step; got -1"):
            chain[::-1]

    def test_an_index_beyond_the_end_is_refused(self, chain):
        with pytest.raises(IndexError):
            chain[6]

    def test_reversibility_and_mode_stay(self, chain):
        chain.set_reversible()
        chain.eval()
        assert chain[2:].reversible
        assert not chain[2:].training
        assert chain.train()[2:].training

    def test_context_is_that_of_the_parts(self):
        chain = Chain(transforms.Affine(2), transforms.Coupling(2, hidden=(4,), context=3))
        assert chain[:1].context == 0
        assert chain[1:].context == 3

    def test_a_slice_does_not_repeat_the_warning_of_its_chain(self):
        with pytest.warns(KindWarning, match="Sigmoid lands in"):
            chain = Chain(transforms.Affine(2), transforms.Sigmoid(2), transforms.Coupling(2, hidden=(4,)))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert chain[1:].kind is Kind.LOWER_BOUND
            assert chain[:2].kind is Kind.EXACT

    def test_a_slice_is_a_chain_of_its_own(self, chain, x):
        density = models.Flow(chain[3:], distributions.Normal(4))
        y = torch.randn(3, 4, dtype=torch.float64)
        step = chain[3:].encode(y)
        torch.testing.assert_close(density.log_prob(y), step.contribution + density.base.log_prob(step.z))


class TestFirstTrainable:
    def test_the_first_part_with_a_parameter(self, chain):
        assert chain.first_trainable() == 3
        assert chain[3:].first_trainable() == 0

    def test_fixed_parameters_do_not_count(self, chain):
        chain[3].requires_grad_(False)
        assert chain.first_trainable() == 4

    def test_no_part(self, chain):
        chain.requires_grad_(False)
        assert chain.first_trainable() == 6


class TestSums:
    def test_contributions_residuals_and_variances_add(self):
        chain = Chain(Fixed(1.0, None, 3.0), Fixed(-2.5, 2.0, None), Fixed(0.25, 0.5, 4.0))
        step = chain.encode(torch.zeros(5, 2))
        assert torch.equal(step.z, torch.full((5, 2), 3.0))
        assert torch.equal(step.contribution, torch.full((5,), -1.25))
        assert torch.equal(step.residual, torch.full((5,), 2.5))
        torch.testing.assert_close(step.stderr, torch.full((5,), 5.0))

    def test_quantities_that_no_part_has_are_none(self):
        step = Chain(Fixed(1.0, None, None), Fixed(1.0, None, None)).encode(torch.zeros(1, 2))
        assert step.residual is None
        assert step.stderr is None

    def test_evaluate_reports_the_same_sums(self):
        model = models.Flow(
            Chain(Fixed(1.0, None, 3.0), Fixed(-2.5, 2.0, None), Fixed(0.25, 0.5, 4.0)), distributions.Normal(2)
        )
        found = model.evaluate(torch.zeros(1, 2))
        assert {name: term.item() for name, term in found.terms.items() if name != "base"} == {
            "0.Fixed": 1.0, "1.Fixed": -2.5, "2.Fixed": 0.25,
        }  # fmt: skip
        assert found.residual.item() == 2.5
        assert found.stderr.item() == pytest.approx(5.0)
        assert found.value.item() == pytest.approx(-1.25 - 9.0 - math.log(2 * math.pi))

    def test_steps_of_the_parts(self, chain, x):
        steps = list(chain.encode_steps(x))
        assert len(steps) == 6
        assert torch.equal(steps[-1].z, chain.encode(x).z)
        torch.testing.assert_close(sum(step.contribution for step in steps), chain.encode(x).contribution)

    def test_one_graph(self, chain):
        rest = chain[3:]
        y = torch.randn(3, 4, dtype=torch.float64)
        compiled = torch.compile(rest.forward, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(y), rest(y))


@pytest.mark.parametrize(
    "make",
    [
        Chain,
        transforms.Inverse,
        transforms.Blocks,
        transforms.ConformalEmbedding,
        lambda part: transforms.Injective(part, 1),
        lambda part: transforms.FactorOut((2, 2, 2), part),
    ],
)
def test_a_class_in_place_of_a_transform_is_named(make):
    with pytest.raises(ConfigError, match=r"got the class Exp: write Exp\(\.\.\.\)"):
        make(transforms.Exp)


@pytest.mark.parametrize(
    "part",
    [
        transforms.Affine(2, scale=255.0),
        transforms.Affine(2, trainable=True),
        transforms.Standardize(2),
        transforms.Exp(2),
        transforms.Coupling(2, hidden=(4,)),
        transforms.Inverse(transforms.Logit(2)),
    ],
    ids=lambda part: type(part).__name__,
)
def test_probabilities_of_integers_take_no_log_determinant(part):
    """Pixels in [0, 1] times 255 would gain 8 bits each."""
    with pytest.raises(KindError, match=r"log-determinant, which is wrong for a probability on Counting\(2\)"):
        part.measure(Counting(2))


@pytest.mark.parametrize(
    "part",
    [
        transforms.Affine(2, shift=255.0, scale=-1.0),
        transforms.Permutation(2),
        transforms.Inverse(transforms.Reverse(2)),
        transforms.Integers(2),
        transforms.Jitter(2),
        transforms.StochasticPermutation(2),
        transforms.Patches((1, 2, 1), 1),
    ],
    ids=lambda part: type(part).__name__,
)
def test_probabilities_of_integers_may_be_reordered(part):
    assert part.measure(Counting(2)) == Counting(2)


@pytest.mark.parametrize("part", [transforms.Abs(2), transforms.Sort(2)], ids=lambda part: type(part).__name__)
def test_signs_and_orders_of_integers_are_not_counted(part):
    """Of (2, 2) there is one order, not two, and of 0 one sign."""
    with pytest.raises(
        KindError, match=r"is wrong for a probability on Counting\(2\): .*\. Put it after the dequantization"
    ):
        part.measure(Counting(2))


@pytest.mark.parametrize("latent", [Counting(2), Manifold(1, 2), Extended(3, 2)], ids=str)
def test_a_posterior_needs_a_density_of_its_latent_variable(latent):
    """Of a prior on a line in the plane, log p(z) - log q(z) would compare a density on the line and one on the plane."""
    with pytest.raises(KindError, match="Variational needs a latent density on a Lebesgue measure"):
        transforms.Variational(3, 2, hidden=(4,)).measure(latent)


def test_missing_values_are_not_integrated_out_on_a_manifold():
    with pytest.raises(KindError, match=r"AugmentMissing .* wrong for a density on Manifold"):
        transforms.AugmentMissing(2, (0,), (1,)).measure(Manifold(1, 2))


@pytest.mark.parametrize("x", [np.zeros((1, 2)), [[0.0, 0.0]]], ids=lambda x: type(x).__name__)
def test_data_that_are_no_tensor_are_refused(x):
    chain = Chain(transforms.Affine(2))
    for call in (chain, chain.encode, chain.decode, transforms.Affine(2)):
        with pytest.raises(InputError, match=f"reads a torch tensor; got {type(x).__name__}"):
            call(x)
