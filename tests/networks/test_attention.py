"""The causal transformer: what each token depends on, its cache, and a reference by hand."""

import math

import pytest
import torch
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from pushforward.errors import ConfigError
from pushforward.models import TarFlow
from pushforward.networks.attention import CausalTransformer


def shaken(tokens=5, inputs=2, outputs=3, **more):
    torch.manual_seed(0)
    network = CausalTransformer(tokens, inputs, outputs, **({"width": 8, "layers": 2, "heads": 2} | more)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("context", [0, 2])
def test_each_token_depends_on_exactly_the_tokens_before_it(context):
    network = shaken(context=context)
    x, c = torch.randn(1, 5, 2, dtype=torch.float64), torch.randn(1, context, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: network(x, c), x)[0, :, :, 0]
    seen = (jacobian != 0).all(1).all(-1)  # every output of a token depends on every input of each earlier one
    assert torch.equal(seen, torch.ones(5, 5).tril(-1).bool())
    assert torch.equal((jacobian != 0).any(1).any(-1), seen)
    if context:
        reached = torch.autograd.functional.jacobian(lambda c: network(x, c), c)
        assert (reached != 0).all()


def test_against_attention_written_out():
    """One block and one head, by the formula softmax(q k' / sqrt(width)) v with later tokens left out."""
    network = shaken(layers=1, heads=1)
    block, x = network.blocks[0], torch.randn(1, 5, 2, dtype=torch.float64)

    def norm(h, layer):
        return (h - h.mean(-1, keepdim=True)) / (
            h.var(-1, correction=0, keepdim=True) + 1e-5
        ).sqrt() * layer.weight + layer.bias

    h = torch.cat((network.start[None], network.embed(x[0, :4]))) + network.position
    q, k, v = block.project(norm(h, block.norm)).chunk(3, -1)
    rows = []
    for i in range(5):
        weights = torch.softmax(q[i] @ k[: i + 1].t() / math.sqrt(8), 0)
        rows.append(weights @ v[: i + 1])
    h = h + block.out(torch.stack(rows))
    h = h + block.mlp(norm(h, block.norm_mlp))
    torch.testing.assert_close(network(x)[0], network.last(norm(h, network.norm)))


@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("tokens", [1, 5])
def test_the_cache_changes_nothing(tokens, context):
    network = shaken(tokens, context=context)
    x = torch.randn(3, tokens, 2, dtype=torch.float64)
    c = torch.randn(3, context, dtype=torch.float64) if context else None
    whole, memory = network(x, c), network.memory()
    for position in range(tokens):
        out = network.step(x[:, position - 1] if position else None, position, memory, 3, c)
        torch.testing.assert_close(out, whole[:, position], rtol=1e-12, atol=1e-12)


def test_far_tokens_are_clamped_to_the_bound():
    network = shaken()
    x = torch.full((1, 5, 2), 1e20, dtype=torch.float64)
    torch.testing.assert_close(network(x), network(torch.full_like(x, 10.0)))


@pytest.mark.parametrize("more", [{"heads": 3}, {"width": 0}, {"layers": 0}, {"context": -1}, {"heads": 0}], ids=str)
def test_impossible_arguments(more):
    with pytest.raises(ConfigError):
        CausalTransformer(4, 2, 2, **({"width": 8} | more))


def test_second_derivatives_and_forward_mode_of_a_flow_of_attention():
    """The fused kernel has neither; function transforms compute the same from its parts."""
    torch.manual_seed(0)
    model = TarFlow((1, 4, 4), 2, levels=None, blocks=2, layers=1, width=8, heads=2).double().eval()
    x = torch.randn(3, 1, 4, 4, dtype=torch.float64)

    def log_prob(row):
        return model.log_prob(row[None])[0]

    with sdpa_kernel(SDPBackend.MATH):
        expected = torch.autograd.functional.hessian(log_prob, x[0])
    torch.testing.assert_close(torch.func.hessian(log_prob)(x[0]), expected)
    slopes = torch.vmap(torch.func.jacfwd(log_prob))(x)
    row = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model.log_prob(row).sum(), row)
    torch.testing.assert_close(slopes, expected)


def test_plain_forward_mode():
    network = shaken()
    x, v = torch.randn(3, 5, 2, dtype=torch.float64), torch.randn(3, 5, 2, dtype=torch.float64)
    with forward_ad.dual_level():
        slope = forward_ad.unpack_dual(network(forward_ad.make_dual(x, v))).tangent
    torch.testing.assert_close(slope, torch.func.jvp(network, (x,), (v,))[1])
