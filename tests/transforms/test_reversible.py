"""Reversible chains give the same numbers and gradients, keep no activations, and refuse what they cannot undo."""

from __future__ import annotations

import pytest
import torch

import pushforward as pf
from pushforward import distributions, models, transforms
from pushforward.errors import ConfigError, ConvergenceError
from pushforward.transforms import Chain

CHAINS = {
    "affine": lambda: [transforms.Coupling(5, flip=k % 2 == 1, hidden=(9,)) for k in range(4)],
    "mixed": lambda: [
        transforms.Standardize(5), transforms.Permutation(5, seed=1), transforms.LULinear(5), transforms.ActNorm(5), transforms.Householder(5),
        transforms.Coupling(5, transforms.SplineTransformer(5), hidden=(9,), unconditional=True), transforms.Coupling(5, transforms.AdditiveTransformer()),
        transforms.Monotone(5),
    ],
    "context": lambda: [transforms.Coupling(5, flip=k % 2 == 1, hidden=(9,), context=2) for k in range(3)],
    "noise in front": lambda: [transforms.UniformDequantize(5), transforms.Coupling(5, hidden=(9,)), transforms.LULinear(5)],
}  # fmt: skip


def made(build, reversible: bool, dtype=torch.float64) -> Chain:
    torch.manual_seed(0)
    chain = Chain(*build(), reversible=reversible)
    with torch.no_grad():
        for parameter in chain.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return chain.to(dtype)


def gradients(chain: Chain, dtype=torch.float64):
    """z, contributions and all gradients of a fixed loss."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(12, 5, generator=generator, dtype=dtype)
    if isinstance(chain.transforms[0], transforms.UniformDequantize):
        x = x.mul(20).abs().round()
    x.requires_grad_()
    context = torch.randn(12, 2, generator=generator, dtype=dtype).requires_grad_() if chain.context else None
    step = chain.encode(x, context, noise=torch.Generator().manual_seed(3))
    loss = (step.z * torch.linspace(-1, 1, 5, dtype=dtype)).sum() + (step.contribution**2).sum()
    wanted = [x, *([] if context is None else [context]), *chain.parameters()]
    return [step.z.detach(), step.contribution.detach(), *torch.autograd.grad(loss, wanted)]


@pytest.mark.parametrize("build", CHAINS.values(), ids=CHAINS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-4)], ids=["double", "single"]
)
def test_values_and_gradients_agree(build, dtype, tolerance):
    plain, ours = (gradients(made(build, way, dtype), dtype) for way in (False, True))
    for one, other in zip(ours, plain, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * other.abs().max().item())


def kept_bytes(depth: int, reversible: bool) -> int:
    """What autograd keeps of one encoding, without weights."""
    torch.manual_seed(0)
    chain = Chain(*(transforms.Coupling(4, flip=k % 2 == 1, hidden=(16,)) for k in range(depth)), reversible=reversible)
    own = {p.data_ptr() for p in (*chain.parameters(), *chain.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor):
        if tensor.data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step = chain.encode(torch.randn(1000, 4))
    assert step.z.requires_grad
    return sum(kept.values())


def test_kept_memory_does_not_grow_with_depth():
    assert kept_bytes(16, True) <= kept_bytes(2, True) < kept_bytes(2, False)
    assert kept_bytes(16, False) > 6 * kept_bytes(2, False)


def test_it_trains_a_model():
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    found = []
    for way in (False, True):
        torch.manual_seed(0)
        model = models.RealNVP(3, layers=4, hidden=(16,))
        model.chain.set_reversible(way)
        pf.fit(model, x, max_steps=20, progress="silent")
        found.append(model.log_prob(x).detach())
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (lambda: transforms.MaskedAutoregressive(3), "its inverse takes 3 steps"),
        (lambda: transforms.InvertibleResidual(3), "an iteration"),
        (lambda: transforms.Inverse(transforms.InvertibleResidual(3)), "an iteration"),
        (lambda: transforms.Blocks(transforms.InvertibleResidual(2), transforms.Affine(1)), "an iteration"),
        (lambda: transforms.BatchNorm(3), "normalizes by statistics of the batch"),
        (lambda: transforms.Coupling(3, dropout=0.1), "dropout"),
    ],
)
def test_transforms_without_an_exact_inverse_are_refused(part, reason):
    with pytest.raises(ConfigError, match=reason):
        Chain(transforms.LULinear(3), part(), reversible=True)
    chain = Chain(transforms.LULinear(3), part())
    with pytest.raises(ConfigError, match=reason):
        chain.set_reversible()
    assert not chain.reversible


def test_an_inaccurate_inverse_is_detected():
    class Sloppy(transforms.Affine):
        def inverse_function(self, z):
            x, slope = super().inverse_function(z)
            return x * 1.01, slope

    chain = Chain(Sloppy(2, 0.0, 2.0, trainable=True), transforms.LULinear(2), reversible=True)
    with pytest.raises(ConvergenceError, match="the inverse of Sloppy does not reproduce"):
        chain.encode(torch.randn(3, 2)).z.sum().backward()


def test_a_file_keeps_the_choice(tmp_path):
    model = models.Flow(Chain(transforms.Coupling(2, hidden=(4,)), reversible=True), distributions.Normal(2))
    pf.save(model, tmp_path / "m.safetensors")
    assert pf.load(tmp_path / "m.safetensors").chain.reversible
    with torch.no_grad():
        assert not model.chain.encode(torch.randn(2, 2)).z.requires_grad
