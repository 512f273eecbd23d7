"""Residual blocks of images: they differ from vectors in the network, the size of the Jacobian, and the gradient of the inverse."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.likelihood import Kind
from pushforward.numerics import RowNoise
from pushforward.transforms import Affine, Chain, FactorOut, Inverse, InvertibleResidual
from pushforward.transforms.residual import contractive

SHAPE = (2, 4, 3)


def block(shape: tuple[int, ...] = SHAPE, dtype: torch.dtype = torch.float64, **more) -> InvertibleResidual:
    """A steep block: large weights of one sign for each output, so that all layers amplify the same smooth images."""
    made = InvertibleResidual(shape, **{"hidden": (8, 8), "coefficient": 0.95, **more}).to(dtype)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in made.parameters():
            noise = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
            parameter.copy_(noise.abs() if parameter.dim() > 1 else 1 + 0.5 * noise)
        last: Tensor = made.network.convolutions[-1].weight  # pyright: ignore
        last.neg_()
    return made


def linear(sign: float, **more) -> tuple[InvertibleResidual, Tensor]:
    """g = a blur of nearly the coefficient's norm, up or down, and its matrix."""
    made = InvertibleResidual((1, 5, 4), hidden=(), coefficient=0.9, input_bound=1e6, **more).double()
    with torch.no_grad():
        made.network.convolutions[0].weight.fill_(sign)  # pyright: ignore
        made.network.convolutions[0].bias.zero_()  # pyright: ignore
    x = torch.zeros(1, 5, 4, dtype=torch.float64)
    return made, made.network.at(x).jacobian().detach()


def test_the_block_is_near_its_bound():
    """The tests below say something only if J is not small."""
    jacobian = block().network.at(torch.randn(100, *SHAPE, dtype=torch.float64)).jacobian()
    assert 0.4 < torch.linalg.matrix_norm(jacobian, 2).max() < 0.95


@pytest.mark.parametrize("activation", ["lipswish", "elu", "softplus", "tanh"])
@pytest.mark.parametrize("shape", [SHAPE, (1, 1, 1), (3, 1, 5)], ids=str)
def test_exact_log_determinant(check, shape, activation):
    check.contribution(block(shape, activation=activation), check.normal(3, *shape), 1e-9)


def test_exact_rows_a_few_at_a_time(check, monkeypatch):
    made, x = block(context=1), check.normal(7, *SHAPE)
    context = check.normal(7, 1, seed=4)
    whole = made.encode(x, context)
    monkeypatch.setattr(contractive, "MAX_ENTRIES", 2 * math.prod(SHAPE) ** 2)
    parts = made.encode(x, context)
    torch.testing.assert_close(parts.contribution, whole.contribution, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(parts.z, whole.z, rtol=1e-13, atol=1e-13)
    assert made.encode(x[0], context[0]).contribution.shape == ()


@pytest.mark.parametrize("sign", [1.0, pytest.param(-1.0, marks=pytest.mark.slow)])
def test_power_series_and_roulette_of_a_blur(check, sign):
    """The series of tr(J^k) is known; it is biased, and the roulette estimates the whole."""
    made, jacobian = linear(sign, log_det="power", terms=3, probes=12_000)
    x = check.normal(2, 1, 5, 4)
    truth = torch.linalg.slogdet(torch.eye(20).double() + jacobian).logabsdet
    short = sum((-1) ** (k + 1) * torch.linalg.matrix_power(jacobian, k).trace() / k for k in range(1, 4))
    step = made.encode(x)
    assert step.stderr is not None
    assert ((step.contribution - short).abs() < 4 * step.stderr).all()
    assert ((step.contribution - truth).abs() > 4 * step.stderr).all()
    made.set_log_det("roulette")
    assert made.kind is Kind.UNBIASED
    step = made.encode(x)
    assert step.stderr is not None
    assert ((step.contribution - truth).abs() < 4 * step.stderr).all()
    assert ((step.contribution - short).abs() > 3 * step.stderr).all()


def test_roulette_is_unbiased_over_seeds_and_its_standard_error_is_honest(check):
    made = block(log_det="roulette", terms=2, probes=8)
    x = check.normal(4, *SHAPE)
    with torch.no_grad():
        steps = [made.encode(x, noise=RowNoise(seed)) for seed in range(200)]
        made.set_log_det("exact")
        exact = made.encode(x).contribution
    values = torch.stack([step.contribution for step in steps])
    squares = torch.stack([step.stderr for step in steps if step.stderr is not None]).square()
    assert ((values.mean(0) - exact).abs() < 4 * values.std(0) / math.sqrt(200)).all()
    assert (squares.mean(0) / values.var(0) - 1).abs().max() < 0.35
    assert exact.abs().min() > 10 * values.std(0).max() / math.sqrt(200)


@pytest.mark.parametrize("log_det", ["power", "roulette"])
def test_neumann_gradient_is_that_of_the_exact_log_determinant(check, log_det):
    made = block((1, 2, 2), log_det=log_det, terms=40 if log_det == "power" else 2, hidden=(4,))
    parameters = list(made.parameters())
    point = check.normal(1, 1, 2, 2)

    def gradient(noise) -> Tensor:
        x = point.expand(1 if noise is None else 1000, -1, -1, -1).clone().requires_grad_()
        value = made.encode(x, noise=noise).contribution.mean()
        grads = torch.autograd.grad(value, [x, *parameters], allow_unused=True)
        grads = [torch.zeros(1).double() if g is None else g for g in grads]
        return torch.cat([grads[0].sum(0).flatten(), *(g.flatten() for g in grads[1:])])

    groups = torch.stack([gradient(torch.Generator().manual_seed(k)) for k in range(20)])
    made.set_log_det("exact")
    exact = gradient(None)
    error = groups.std(0) / math.sqrt(20)
    assert ((groups.mean(0) - exact).abs() <= 4.5 * error + 1e-12).all()
    assert exact.abs().max() > 20 * error.max()


def test_memory_of_the_gradient_does_not_grow_with_the_terms(check):
    def kept(terms: int) -> int:
        sizes = []
        made = block(log_det="power", terms=terms)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            made.encode(check.normal(20, *SHAPE), noise=torch.Generator().manual_seed(0))
        return sum(sizes)

    assert kept(2) == kept(40)


def test_scoring_noise_depends_on_the_seed_alone(check):
    made = block(log_det="roulette", probes=3)
    x = check.normal(6, *SHAPE)
    first = made.encode(x, noise=RowNoise(3))
    torch.testing.assert_close(made.encode(x[2:3], noise=RowNoise(3)).contribution, first.contribution[2:3])
    for other in (RowNoise(4), RowNoise(3, 1)):
        assert not torch.equal(made.encode(x, noise=other).contribution, first.contribution)
    assert made.encode(x, noise=torch.Generator().manual_seed(0)).stderr is None


@pytest.mark.parametrize("coefficient", [0.5, 0.9, 0.98])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)], ids=str)
def test_round_trip(check, coefficient, dtype, tolerance):
    made = block((2, 8, 7), dtype, coefficient=coefficient)
    for spread in (0.01, 1.0, 20.0, 1e4):
        check.round_trip(made, check.normal(50, 2, 8, 7, spread=spread, dtype=dtype), tolerance / (1 - coefficient))


@pytest.mark.parametrize("dense", [256, 1], ids=["matrix", "iteration"])
def test_gradient_of_the_inverse(check, dense, monkeypatch):
    """In both ways: through the inverse of I + J, and by solving u (I + J) = gradient."""
    monkeypatch.setattr(contractive, "MAX_DENSE", dense)
    made = block((1, 3, 2), hidden=(4,), activation="elu", context=2)
    z, context = check.normal(3, 1, 3, 2), check.normal(3, 2, seed=1)
    assert torch.autograd.gradcheck(made.decode, (z.requires_grad_(), context.requires_grad_()), atol=1e-6)
    check.decode_gradients(block((1, 3, 2), hidden=(4,), activation="elu"), check.normal(3, 1, 3, 2))


def test_small_gradients_of_the_inverse_keep_their_digits(check, monkeypatch):
    monkeypatch.setattr(contractive, "MAX_DENSE", 1)
    made, z = block(dtype=torch.float32), check.normal(3, *SHAPE, dtype=torch.float32).requires_grad_()
    (large,) = torch.autograd.grad(made.decode(z).square().sum(), z)
    (small,) = torch.autograd.grad(1e-20 * made.decode(z).square().sum(), z)
    torch.testing.assert_close(small * 1e20, large, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's compiler does it
def test_decoding_of_large_images_compiles(check, monkeypatch):
    monkeypatch.setattr(contractive, "MAX_DENSE", 1)
    torch._dynamo.reset()
    made = block()
    z = made.encode(check.normal(3, *SHAPE)).z.detach()
    compiled = torch.compile(made.decode, fullgraph=True, backend="eager")(z)
    torch.testing.assert_close(compiled, made.decode(z), rtol=1e-9, atol=1e-9)


def test_extremes(check):
    check.extremes(block())


def test_a_factor_out_has_the_kind_of_its_blocks():
    inner = Chain(block((1, 4, 3)), Affine((1, 4, 3)))
    split = FactorOut(SHAPE, inner)
    assert (split.kind, split.bijective, split.invertible) == (Kind.EXACT, True, True)
    chain = Chain(block(), split)
    chain.set_log_det("roulette")
    assert split.kind is inner.kind is chain.kind is Kind.UNBIASED
    assert (split.bijective, split.invertible) == (False, True)
    step = chain.encode(torch.randn(3, *SHAPE, dtype=torch.float64))
    assert step.stderr is not None
    assert len(chain.estimators) == 2
    FactorOut(SHAPE, inner)  # an estimated log-determinant is allowed
    with pytest.raises(ConfigError, match="more than one way"):
        Chain(FactorOut((2, 2, 2))).set_log_det("exact")
    with pytest.raises(Exception, match="not a bijection"):
        Inverse(split)


@pytest.mark.parametrize("option", [{"kernel_size": 2}, {"kernel_size": 0}, {"hidden": (0,)}, {"coefficient": 1.0}])
def test_options_that_are_refused(option):
    with pytest.raises(ConfigError):
        InvertibleResidual(SHAPE, **option)
    with pytest.raises(ConfigError, match="images"):
        InvertibleResidual((2, 3))
