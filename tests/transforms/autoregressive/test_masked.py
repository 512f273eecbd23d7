"""Masked autoregressive transforms: the triangular Jacobian, decoding against a pass for each coordinate, the mirror image."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import safetensors.torch
import torch
from torch.utils.flop_counter import FlopCounterMode

from pushforward.errors import ConfigError
from pushforward.kernels import use_kernels
from pushforward.transforms import (
    AdditiveTransformer,
    CircularSplineTransformer,
    GatedTransformer,
    Inverse,
    MaskedAutoregressive,
    SplineTransformer,
    Transformer,
)

ORDERS = [None, "reverse", (2, 0, 4, 1, 3)]


def make(features: int, transformer: Transformer | None = None, **options) -> MaskedAutoregressive:
    torch.manual_seed(0)
    layer = MaskedAutoregressive(features, transformer, **{"hidden": (64,), "activation": "tanh", **options}).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, dtype=torch.float64))
    return layer.eval()


def sequence(layer: MaskedAutoregressive, order) -> list[int]:
    features = layer.features
    return list(range(features)) if order is None else [*reversed(range(features))] if order == "reverse" else [*order]


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("transformer", [None, AdditiveTransformer(), GatedTransformer(), SplineTransformer()], ids=str)
def test_jacobian_is_triangular_in_the_order_and_full_below(order, transformer):
    layer = make(5, transformer, order=order)
    position = [sequence(layer, order).index(i) for i in range(5)]
    x = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    jacobian = torch.func.jacrev(lambda t: layer.encode(t).z)(x)
    allowed = torch.tensor([[position[i] >= position[j] for j in range(5)] for i in range(5)])
    assert torch.equal(jacobian != 0, allowed)
    torch.testing.assert_close(jacobian.diagonal().log().sum(), layer.encode(x).contribution)


def passes(layer: MaskedAutoregressive, z: torch.Tensor, count: int) -> torch.Tensor:
    """Fixed-point iteration: every pass inverts all coordinates given the last x (maf.md, 3.7)."""
    x = torch.zeros_like(z)
    for _ in range(count):
        x = layer.transformer.inverse(z, layer._raw(x, None))[0]
    return x


@pytest.mark.parametrize("features", [2, 5])
@pytest.mark.parametrize("order", [None, "reverse"], ids=str)
def test_as_many_passes_as_coordinates_are_sufficient_and_one_less_is_not(features, order):
    layer = make(features, order=order)
    assert (layer.encode_passes, layer.decode_passes) == (1, features)
    x = torch.randn(20, features, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    z = layer.encode(x).z
    torch.testing.assert_close(passes(layer, z, features), x, rtol=1e-10, atol=1e-10)
    early = (passes(layer, z, features - 1) - x).abs()
    last = sequence(layer, order)[-1]
    assert early[:, last].max() > 1e-3
    others = [i for i in range(features) if i != last]
    assert early[:, others].max() < 1e-10
    torch.testing.assert_close(layer.decode(z), x, rtol=1e-10, atol=1e-10)


def in_d_passes(layer: MaskedAutoregressive, z: torch.Tensor, context=None) -> tuple[torch.Tensor, torch.Tensor]:
    """The plain inverse: a whole pass of the network for each coordinate (maf.md, 3.7)."""
    columns, slopes = [torch.zeros_like(z[..., 0])] * layer.features, []
    for position in layer.sequence:
        raw = layer._raw(torch.stack(columns, -1), context)[..., position]
        columns[position], slope = layer.transformer.inverse(z[..., position], raw)
        slopes.append(slope)
    return torch.stack(columns, -1), torch.stack(slopes).sum(0)


def shuffled(features: int) -> tuple[int, ...]:
    return tuple(torch.randperm(features, generator=torch.Generator().manual_seed(features)).tolist())


TRANSFORMERS = [None, SplineTransformer(), CircularSplineTransformer()]
GRID = [
    *(
        (features, transformer, {"hidden": hidden, "residual": residual, "context": context, "order": order})
        for features in (1, 2, 3, 9)
        for transformer in TRANSFORMERS
        for hidden, residual in (((), False), ((4,), False), ((40, 30), False), ((20, 20), True))
        for context in (0, 2)
        for order in (None, "shuffled")
    ),
    *((70, transformer, {"hidden": (90, 80), "order": "reverse"}) for transformer in TRANSFORMERS),
    *((130, transformer, {"hidden": (140, 140), "residual": True, "context": 3}) for transformer in TRANSFORMERS),
    (130, AdditiveTransformer(), {"hidden": (60,), "order": "shuffled", "activation": "relu"}),
    (70, GatedTransformer(), {"hidden": (90,), "activation": "silu"}),
]


def case(features: int, transformer: Transformer | None, options: dict, spread: float = 1.0):
    """A layer of moderate weights, whose slopes keep their digits, with noise and a context."""
    order = shuffled(features) if options["hidden"] and options.get("order") == "shuffled" else None
    layer = (
        MaskedAutoregressive(features, transformer, **{"activation": "tanh", **options, "order": order}).double().eval()
    )
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.5 / parameter.shape[-1] ** 0.5))
    context = torch.randn(4, layer.context, dtype=torch.float64) if layer.context else None
    z = spread * torch.randn(4, features, dtype=torch.float64)
    return layer, 3 * torch.tanh(z) if layer.transformer.periodic else z, context


@pytest.mark.parametrize(("features", "transformer", "options"), GRID, ids=str)
def test_decoding_gives_what_a_pass_for_each_coordinate_gives(features, transformer, options):
    layer, z, context = case(features, transformer, options)
    wanted = in_d_passes(layer, z, context)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            found = layer.decode_with_contribution(z, context)
            assert torch.equal(layer.decode(z, context), found[0])
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(layer.encode(wanted[0], context).z, z)


@pytest.mark.parametrize("spread", [30.0, 1e3, 1e6])
@pytest.mark.parametrize("features", [3, 40])
@pytest.mark.parametrize("transformer", [None, SplineTransformer(), GatedTransformer()], ids=str)
def test_decoding_far_noise(features, transformer, spread):
    layer, z, _ = case(features, transformer, {"hidden": (50, 50)}, spread)
    wanted = in_d_passes(layer, z)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            for one, other in zip(layer.decode_with_contribution(z), wanted, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("features", "transformer", "options"), [c for c in GRID if c[0] in (1, 3, 9) and c[2]["hidden"] != ()], ids=str
)
def test_gradients_through_decoding_are_those_of_a_pass_for_each_coordinate(features, transformer, options):
    layer, z, context = case(features, transformer, options)
    leaves = [t.requires_grad_() for t in (z, context) if t is not None] + list(layer.parameters())
    weights = torch.randn(4, features, dtype=torch.float64)
    gradients = []
    for decode in (in_d_passes, MaskedAutoregressive.decode_with_contribution):
        x, contribution = decode(layer, z, context)
        gradients.append(
            torch.autograd.grad((weights * x).sum() + contribution.square().sum(), leaves, allow_unused=True)
        )
    for one, other, leaf in zip(*gradients, leaves, strict=True):
        zero = torch.zeros_like(leaf)
        torch.testing.assert_close(zero if one is None else one, zero if other is None else other)


@pytest.mark.parametrize("features", [40, 130])
@pytest.mark.parametrize("rows", [300, 5000])
def test_decoding_many_rows_costs_no_more_arithmetic_than_encoding(features, rows):
    layer = MaskedAutoregressive(features, hidden=(100, 100))
    z = torch.randn(rows, features)
    with torch.no_grad(), use_kernels("plain"), FlopCounterMode(display=False) as decoding:
        x = layer.decode(z)
    with torch.no_grad(), FlopCounterMode(display=False) as encoding:
        layer.encode(x)
    assert 0 < decoding.get_total_flops() < encoding.get_total_flops()


def test_batch_shapes_and_contexts_that_broadcast():
    layer, z, context = case(5, None, {"hidden": (20,), "context": 2})
    wanted = layer.decode(z, context)
    torch.testing.assert_close(layer.decode(z.reshape(2, 2, 5), context.reshape(2, 2, 2)), wanted.reshape(2, 2, 5))
    torch.testing.assert_close(layer.decode(z[1], context[1]), wanted[1])
    torch.testing.assert_close(layer.decode(z, context[2]), layer.decode(z, context[2].expand(4, 2)))
    torch.testing.assert_close(layer.decode(z.t().contiguous().t(), context), wanted)
    assert layer.decode(z[:0], context[:0]).shape == (0, 5)


@pytest.mark.parametrize("features", [5, 20])
def test_decoding_without_gradient_under_compilers_and_transforms(features):
    layer, z, _ = case(features, None, {"hidden": (30,)})
    with torch.no_grad():
        wanted = layer.decode(z)
        torch.testing.assert_close(torch.compile(layer.decode, fullgraph=True, backend="eager")(z), wanted)
        torch.testing.assert_close(torch.func.vmap(layer.decode)(z), wanted)
        jacobian = torch.func.vmap(torch.func.jacrev(layer.decode))(z)
    inverse = torch.linalg.inv(torch.func.vmap(torch.func.jacrev(lambda t: layer.encode(t).z))(wanted))
    torch.testing.assert_close(jacobian, inverse)


@pytest.mark.parametrize("features", [5, 20])
def test_forward_derivatives_of_decoding(features):
    """Also at a start where the first sweep is right already, so that only tangents would be unfinished."""
    layer, z, _ = case(features, None, {"hidden": (30,)})
    inverse = torch.linalg.inv(torch.func.vmap(torch.func.jacrev(lambda t: layer.encode(t).z))(layer.decode(z)))
    with torch.no_grad(), torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(z, torch.ones_like(z))
        tangent = torch.autograd.forward_ad.unpack_dual(layer.decode(dual)).tangent
    torch.testing.assert_close(tangent, inverse.sum(-1))


@pytest.mark.parametrize("grad", [False, True])
def test_decoding_keeps_its_precision_under_autocast(grad):
    layer, z, _ = case(20, None, {"hidden": (30,)})
    layer, z = layer.float(), z.float()
    with torch.set_grad_enabled(grad):
        wanted = layer.decode(z)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(layer.decode(z), wanted)


def test_decoding_in_training_has_no_dropout():
    layer = MaskedAutoregressive(20, hidden=(30, 30), dropout=0.5).train()
    z = torch.randn(4, 20)
    assert torch.equal(layer.decode(z), layer.eval().decode(z))


def changed_by_fused_adam(layer: MaskedAutoregressive) -> MaskedAutoregressive:
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1, fused=True)
    step = layer.encode(torch.ones(2, layer.features))
    (step.z.square().sum() - step.contribution.sum()).backward()
    optimizer.step()
    return layer


def changed_by_data(layer: MaskedAutoregressive) -> MaskedAutoregressive:
    for parameter in layer.parameters():
        parameter.data.mul_(1.5)
    return layer


def changed_by_loading(layer: MaskedAutoregressive, **options) -> MaskedAutoregressive:
    state = {key: value + 0.1 if value.is_floating_point() else value for key, value in layer.state_dict().items()}
    layer.load_state_dict(safetensors.torch.load(safetensors.torch.save(state)), **options)
    return layer


TRAPS = {
    "fused Adam": changed_by_fused_adam,
    "data.mul_": changed_by_data,
    "load_state_dict": changed_by_loading,
    "a file, assigned": lambda layer: changed_by_loading(layer, assign=True),
    "double": lambda layer: layer.double(),
    "apply": lambda layer: layer.apply(lambda m: [torch.nn.init.normal_(p, std=0.1) for p in m.parameters(False)]),
    "deepcopy": lambda layer: changed_by_data(copy.deepcopy(layer)),
    "pickle": lambda layer: changed_by_data(pickle.loads(pickle.dumps(layer))),
    "share_memory": lambda layer: changed_by_data(layer.share_memory()),
}


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("rows", [3, 3000], ids=["sweeps", "steps"])
def test_decoding_never_uses_old_weights(trap, rows):
    layer, z, _ = case(20, None, {"hidden": (30, 30)})
    layer = layer.float()
    with torch.no_grad():
        before = layer.decode(z.float())
    layer = TRAPS[trap](layer)
    z = torch.randn(rows, 20, dtype=layer.network.last.weight.dtype)
    with torch.no_grad():
        x, contribution = layer.decode_with_contribution(z)
        wanted = in_d_passes(layer, z)
        torch.testing.assert_close(x, wanted[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(contribution, wanted[1], rtol=1e-4, atol=1e-4)
    assert before.shape == (4, 20)


def test_the_inverse_autoregressive_flow_exchanges_the_directions():
    """MAF and IAF with the same weights: each one's encode is the other's decode (Papamakarios et al. 2017, sec. 3.2)."""
    maf = make(5, context=2)
    iaf = Inverse(maf)
    assert (iaf.encode_passes, iaf.decode_passes) == (5, 1)
    generator = torch.Generator().manual_seed(1)
    x, c = (torch.randn(7, d, dtype=torch.float64, generator=generator) for d in (5, 2))
    step = maf.encode(x, c)
    assert torch.equal(iaf.decode(x, c), step.z)
    back = iaf.encode(step.z, c)
    torch.testing.assert_close(back.z, x, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(back.contribution, -step.contribution)
    z, contribution = iaf.decode_with_contribution(x, c)
    assert torch.equal(z, step.z)
    torch.testing.assert_close(contribution, -step.contribution)


def test_affine_terms_by_hand():
    """z_i = x_i exp(s_i) + t_i, with s and t of the coordinates before i from the network."""
    layer = make(3)
    x = torch.randn(4, 3, dtype=torch.float64)
    t, raw = layer.network(x)
    s = raw / (1 + raw.abs() / 3)
    z, terms = layer.encode_terms(x)
    torch.testing.assert_close(z, x * s.exp() + t)
    torch.testing.assert_close(terms, s)
    assert torch.equal(s[:, 0], s[:1, 0].expand(4))  # nothing comes before the first


def test_one_feature_has_free_parameters_or_follows_the_context():
    x = torch.randn(6, 1, dtype=torch.float64)
    contribution = make(1).encode(x).contribution
    assert torch.equal(contribution, contribution[:1].expand(6))
    assert make(1, context=2).encode(x, torch.randn(6, 2, dtype=torch.float64)).contribution.unique().numel() == 6


def test_context_reaches_the_first_coordinate():
    layer = make(3, context=2, order="reverse")
    x = torch.zeros(3, dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda c: layer.encode(x, c).z)(torch.randn(2, dtype=torch.float64))
    assert (jacobian != 0).all()


def test_periodic_transformers_are_continuous_on_the_circle():
    layer = make(2, CircularSplineTransformer())
    x = torch.tensor([[math.pi, 0.3], [-math.pi, 0.3]], dtype=torch.float64)
    z = layer.encode(x).z
    torch.testing.assert_close(z[0, 1], z[1, 1])
    assert layer.encode(torch.tensor([[3.2, 0.0]], dtype=torch.float64)).contribution.item() == -math.inf


def test_gradients_flow_through_decoding():
    layer = make(3)
    z = torch.randn(2, 3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(layer.decode, (z,))
    assert torch.autograd.gradcheck(lambda t: layer.decode_with_contribution(t)[1], (z,))


@pytest.mark.parametrize("order", ["backwards", (0, 1), (0, 1, 1), (1, 2, 3), (0, 1, 2.5)], ids=str)
def test_impossible_orders(order):
    with pytest.raises(ConfigError, match="order"):
        MaskedAutoregressive(3, order=order)


@pytest.mark.parametrize("options", [{"hidden": (0,)}, {"activation": "none"}, {"residual": True, "hidden": ()}])
def test_impossible_networks(options):
    with pytest.raises(ConfigError):
        MaskedAutoregressive(3, **options)
