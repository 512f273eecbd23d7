"""The native and the plain stack of convolutions agree for every size, layout, type and function transform."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad

from pushforward.kernels import conv_stack, description, tuning, use_kernels
from pushforward.networks import ConvNet

pytestmark = pytest.mark.skipif(not description()["installed"], reason="the native kernels are not installed")

#        rows, inputs, hidden,      outputs, k, height, width, bound
SIZES = {
    "glow": (5, 2, (64, 64), 4, 3, 14, 14, 1.0),
    "second scale": (3, 4, (64, 64), 8, 3, 7, 7, None),
    "odd": (2, 3, (17, 5, 33), 7, 5, 9, 11, 0.5),
    "one pixel": (2, 1, (3,), 1, 1, 1, 1, 1.0),
    "bands": (2, 6, (72, 128), 12, 3, 40, 33, 2.0),
    "wider than a band": (1, 2, (8, 8), 4, 3, 3, 300, 2.0),
    "one row": (3, 2, (8, 130), 40, 3, 1, 5, None),
    "one column": (2, 16, (9,), 16, 7, 6, 1, None),
    "many outputs": (2, 5, (20, 20), 130, 3, 4, 5, 3.0),
}


def some(size, dtype=torch.float64):
    """An image whose numbers do not lie together, weights, biases and the bound."""
    torch.manual_seed(0)
    rows, inputs, hidden, outputs, k, height, width, bound = size
    widths = (inputs, *hidden, outputs)
    kernels = [k, *[1] * (len(hidden) - 1), k]
    weights = [
        (2 * torch.rand(b, a, side, side, dtype=torch.float64) - 1) * (6 / (a * side * side)) ** 0.5
        for a, b, side in zip(widths, widths[1:], kernels, strict=False)
    ]
    biases = [0.2 * torch.randn(b, dtype=torch.float64) for b in widths[1:]]
    x = torch.randn(rows, 2 * inputs, height, width, dtype=torch.float64)[:, ::2]
    return x.to(dtype), [w.to(dtype) for w in weights], [b.to(dtype) for b in biases], bound


def both(function):
    """Results of a function with the plain and with the native version."""
    out = []
    for mode in ("plain", "native"):
        with use_kernels(mode):
            out.append(function())
    return out


def value_and_gradients(x, weights, biases, bound):
    """The outputs, and gradients of a fixed random sum of them by x, weights and biases."""
    leaves = [t.detach().requires_grad_() for t in (x, *weights, *biases)]
    count = len(weights)
    out = conv_stack(leaves[0], leaves[1 : 1 + count], leaves[1 + count :], bound)
    draw = torch.Generator().manual_seed(1)
    sums = torch.randn(out.shape, dtype=torch.float64, generator=draw).to(out.dtype)
    return [out.detach(), *torch.autograd.grad((sums * out).sum(), leaves)]


def close(ours, theirs, tolerance: float) -> None:
    """Equal to a fraction of the largest number of each tensor."""
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= tolerance * other.abs().max().clamp_min(1e-30)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_values_and_gradients_agree(size):
    plain, native = both(lambda: value_and_gradients(*some(size)))
    assert native[0].abs().max() > 1e-3
    close(native, plain, 1e-12)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_float32_is_as_near_to_the_truth_as_the_plain_version(size):
    x, weights, biases, bound = some(size, torch.float32)
    with use_kernels("plain"):
        exact = value_and_gradients(x.double(), [w.double() for w in weights], [b.double() for b in biases], bound)
    plain, native = both(lambda: value_and_gradients(x, weights, biases, bound))
    for truth, ours, theirs in zip(exact, native, plain, strict=True):
        scale = truth.abs().max().clamp_min(1e-30)
        wrong = [((part - truth).abs().max() / scale).item() for part in (ours, theirs)]
        assert wrong[0] <= max(4 * wrong[1], 2e-6)


@pytest.mark.parametrize("threads", [1, 3])
def test_any_number_of_threads_and_the_same_again(threads, monkeypatch):
    monkeypatch.setattr(tuning, "CONV_WORK_PER_THREAD", 1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with use_kernels("native"):
            first, second = (value_and_gradients(*given) for given in [some(SIZES["glow"])] * 2)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_threads_change_sums_only_by_rounding(monkeypatch):
    monkeypatch.setattr(tuning, "CONV_WORK_PER_THREAD", 1)
    given, found, before = some(SIZES["bands"]), [], torch.get_num_threads()
    for threads in (1, 2):
        try:
            torch.set_num_threads(threads)
            with use_kernels("native"):
                found.append(value_and_gradients(*given))
        finally:
            torch.set_num_threads(before)
    close(found[1], found[0], 1e-13)


def layouts(x):
    """The same images in different memory layouts."""
    gaps = torch.zeros(2 * x.shape[0], x.shape[1], x.shape[2], 3 * x.shape[3], dtype=x.dtype)[::2, :, :, 1::3]
    gaps.copy_(x)
    repeated = x[:1].expand(len(x), -1, -1, -1)
    return {
        "channels last": x.contiguous(memory_format=torch.channels_last),
        "turned": x.transpose(2, 3).contiguous().transpose(2, 3),
        "gaps": gaps,
        "repeated": repeated,
    }


@pytest.mark.parametrize("name", ["channels last", "turned", "gaps", "repeated"])
def test_the_memory_layout_does_not_matter(name):
    x, weights, biases, bound = some(SIZES["odd"])
    placed = layouts(x)[name]
    dense = placed.contiguous()
    turned = [w.transpose(0, 1).contiguous().transpose(0, 1) for w in weights]
    with use_kernels("native"):
        ours, theirs = (
            value_and_gradients(*given, bound) for given in ((placed, turned, biases), (dense, weights, biases))
        )
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


def test_the_outputs_of_an_image_do_not_depend_on_other_images():
    x, weights, biases, bound = some(SIZES["glow"], torch.float32)
    with use_kernels("native"):
        whole = conv_stack(x, weights, biases, bound)
        assert all(
            torch.equal(whole[i : i + 1], conv_stack(x[i : i + 1], weights, biases, bound)) for i in range(len(x))
        )


def test_numbers_that_are_not_finite_come_out_as_in_the_plain_version():
    x, weights, biases, bound = some(SIZES["glow"])
    x = x.clone()
    x[0, 0, 3, 3], x[1, 0, 3, 3], x[2, 0, 0, 0] = float("nan"), float("inf"), -float("inf")
    plain, native = both(lambda: value_and_gradients(x, weights, biases, bound))
    assert plain[0].isnan().any()
    for ours, theirs in zip(native, plain, strict=True):
        assert torch.equal(ours.isnan(), theirs.isnan())
    close([native[0].nan_to_num()], [plain[0].nan_to_num()], 1e-12)
    close([native[1].nan_to_num()], [plain[1].nan_to_num()], 1e-12)


def test_first_and_second_derivatives_are_right():
    x, weights, biases, _ = some((2, 2, (3, 4), 2, 3, 3, 4, None))
    leaves = [t.requires_grad_() for t in (x.contiguous(), *weights, *biases)]

    def function(x, *parameters):
        return conv_stack(x, parameters[:3], parameters[3:], 0.7)

    with use_kernels("native"):
        assert torch.autograd.gradcheck(function, leaves)
        assert torch.autograd.gradgradcheck(function, leaves)


def test_several_gradients_in_one_backward_pass():
    x, weights, biases, bound = some(SIZES["one pixel"])
    leaves = [t.requires_grad_() for t in (x.detach(), *weights, *biases)]
    out = conv_stack(leaves[0], leaves[1:3], leaves[3:], bound).flatten()

    def by(v):
        return torch.autograd.grad(out, leaves, v, retain_graph=True)

    unit = torch.eye(out.numel(), dtype=out.dtype)
    each = [torch.stack(parts) for parts in zip(*map(by, unit), strict=True)]
    close(torch.autograd.grad(out, leaves, unit, is_grads_batched=True, retain_graph=True), each, 1e-12)
    close(torch.func.vmap(by)(unit), each, 1e-12)


def test_only_required_gradients_are_computed():
    x, weights, biases, bound = some(SIZES["odd"])
    for wanted in (x, weights[1], biases[2]):

        def run(wanted=wanted):
            leaf = wanted.detach().requires_grad_()
            put = [leaf if t is wanted else t for t in (x, *weights, *biases)]
            out = conv_stack(put[0], put[1:5], put[5:], bound)
            return torch.autograd.grad(out.square().sum(), leaf)

        plain, native = both(run)
        close(native, plain, 1e-12)


def test_function_transforms_forward_mode_and_autocast_use_the_plain_version():
    x, weights, biases, bound = some(SIZES["odd"])

    def call(x):
        return conv_stack(x, weights, biases, bound)

    with use_kernels("plain"):
        value = call(x)
        product = torch.func.jvp(call, (x,), (x,))[1]
    with use_kernels("native"):
        close([torch.func.vmap(lambda one: call(one[None])[0])(x)], [value], 1e-12)
        close([torch.func.jvp(call, (x,), (x,))[1]], [product], 1e-12)
        with forward_ad.dual_level():
            close([forward_ad.unpack_dual(call(forward_ad.make_dual(x, x))).tangent], [product], 1e-12)
        single = [t.float() for t in (x, *weights, *biases)]
        with torch.autocast("cpu", torch.bfloat16):
            assert conv_stack(single[0], single[1:5], single[5:], bound).dtype is torch.bfloat16
        half = [t.bfloat16() for t in (x, *weights, *biases)]
        assert conv_stack(half[0], half[1:5], half[5:], bound).dtype is torch.bfloat16


def test_no_rows_and_no_memory(monkeypatch):
    x, weights, biases, bound = some(SIZES["odd"])
    with use_kernels("native"):
        assert conv_stack(x[:0], weights, biases, bound).shape == (0, 7, 9, 11)

        class Empty:
            forward = staticmethod(lambda *_: 1)

        monkeypatch.setattr("pushforward.kernels.conv.library", lambda *_: Empty)
        with pytest.raises(MemoryError):
            conv_stack(x, weights, biases, bound)


@pytest.mark.parametrize("batch", [(), (2, 3), (4,)], ids=str)
def test_a_network_uses_it_where_it_can(batch, monkeypatch):
    torch.manual_seed(0)
    net = ConvNet(3, 5, (8, 9), dropout=0.5, input_bound=1.0, output_gain=1.0).double()
    x = torch.randn(*batch, 3, 6, 5, dtype=torch.float64)
    calls = []
    monkeypatch.setattr("pushforward.networks.conv.conv_stack", lambda *a: calls.append(1) or conv_stack(*a))
    rows = x.reshape(-1, 3, 6, 5)
    with use_kernels("native"):
        net.eval()
        close([net(x)], [net.last(net.body(rows.clamp(-1, 1))).reshape(*batch, 5, 6, 5)], 1e-12)
        assert len(calls) == 1
        net.train()(x)  # dropout
        assert len(calls) == 1
        net.eval().body[0].register_forward_hook(lambda *_: calls.append(2))
        net(x)
        assert calls == [1, 2]
        for other in (ConvNet(3, 5, ()), ConvNet(3, 5, (8, 8), residual=True), ConvNet(3, 5, (8,), activation="tanh")):
            other.double()(x)
        assert calls == [1, 2]


@pytest.mark.filterwarnings("ignore")  # torch's own, in its compiler
def test_a_compiled_and_an_exported_network_use_the_plain_version():
    net = ConvNet(2, 3, (8, 8), output_gain=1.0).eval()
    x = torch.randn(4, 2, 5, 5)
    with use_kernels("native"):
        exported = torch.export.export(net, (x,)).module()
        close([exported(x)], [net(x)], 1e-5)
        close([torch.compile(net, backend="aot_eager")(x)], [net(x)], 1e-5)


def test_other_kernel_sizes_take_the_plain_version_and_a_bound_of_zero_is_a_bound():
    x, weights, biases, _ = some(SIZES["odd"])
    with use_kernels("native"):
        native = conv_stack(x, weights, biases, 0.0)
        short = conv_stack(x, [*weights[:-1], weights[-1][..., 2:3, 2:3]], biases)
    with use_kernels("plain"):
        torch.testing.assert_close(native, conv_stack(x, weights, biases, 0.0))
        torch.testing.assert_close(short, conv_stack(x, [*weights[:-1], weights[-1][..., 2:3, 2:3]], biases))
