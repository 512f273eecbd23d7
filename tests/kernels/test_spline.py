"""The two versions of the spline agree, in every layout, type and function transform that the plain version supports."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import forward_ad

from pushforward.errors import InputError
from pushforward.kernels import SplineSettings, description, spline, use_kernels
from pushforward.kernels.spline_reference import evaluate, find_bin, find_knots, solve

pytestmark = pytest.mark.skipif(not description()["installed"], reason="the native kernels are not installed")

SETTINGS = {
    "line": SplineSettings(8, 4.0, 1e-2, -math.log(1e-2)),
    "circle": SplineSettings(5, math.pi, 1e-2, -math.log(1e-2), periodic=True),
    "many": SplineSettings(64, 1.0, 1e-3, 3.0),
    "two": SplineSettings(2, 3.0, 1e-1, 1.0),
}


def some(settings: SplineSettings, shape: tuple[int, ...], dtype: torch.dtype = torch.float64, size: float = 1.0):
    """Points, a fifth of them outside, and raw parameters."""
    x = 0.8 * settings.bound * torch.randn(shape, dtype=torch.float64)
    if settings.periodic:
        x = x.clamp(-3.1, 3.1)  # at the border itself the plain version's gradient is one-sided
    return x.to(dtype), (size * torch.randn(settings.parameters, *shape, dtype=torch.float64)).to(dtype)


def both(function):
    """Results of a function with the plain and with the native version."""
    out = []
    for mode in ("plain", "native"):
        with use_kernels(mode):
            out.append(function())
    return out


def close(ours, theirs, tolerance: float) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        assert ((one - other).abs() <= tolerance * (1 + other.abs())).all()


def values_and_gradients(x, raw, settings, inverse):
    """Values, log-slopes, and gradients of a fixed random sum of both."""
    x, raw = x.detach().requires_grad_(), raw.detach().requires_grad_()
    weights = torch.randn(2, *x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(x.dtype)
    out = spline(x, raw, settings, inverse=inverse)
    loss = sum((w * part).sum() for w, part in zip(weights, out, strict=True))
    return [*(part.detach() for part in out), *torch.autograd.grad(loss, (x, raw))]


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("shape", [(), (1,), (7,), (33, 5), (3, 0), (0, 3), (2, 3, 40)], ids=str)
def test_values_and_gradients_agree(shape, settings, inverse):
    x, raw = some(settings, shape)
    plain, native = both(lambda: values_and_gradients(x, raw, settings, inverse))
    close(native, plain, 1e-8)


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_float32_is_as_near_to_the_truth_as_the_plain_version(settings, inverse):
    """In the bulk: single points next to a knot may fall into one piece here and into the other there."""
    x, raw = some(settings, (5000,), torch.float32)
    with use_kernels("plain"):
        exact = values_and_gradients(x.double(), raw.double(), settings, inverse)
    plain, native = both(lambda: values_and_gradients(x, raw, settings, inverse))
    fractions = torch.tensor([0.5, 0.95], dtype=torch.float64)
    for truth, one, other in zip(exact, native, plain, strict=True):
        ours, theirs = ((part - truth).abs().flatten().quantile(fractions) for part in (one, other))
        assert (ours <= (1.5 * theirs).clamp_min(1e-7)).all()


def layouts(settings: SplineSettings) -> dict[str, torch.Tensor]:
    """The same parameters, (P, 12, 5), in different memory layouts."""
    dense = torch.randn(settings.parameters, 12, 5, dtype=torch.float64)
    rows = dense.permute(1, 0, 2).contiguous().permute(1, 0, 2)
    columns = dense.transpose(1, 2).contiguous().transpose(1, 2)
    gaps = torch.zeros(2 * settings.parameters, 24, 10, dtype=torch.float64)[::2, ::2, ::2]
    gaps.copy_(dense)
    return {"dense": dense, "rows": rows, "columns": columns, "gaps": gaps}


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
@pytest.mark.parametrize("name", ["rows", "columns", "gaps"])
def test_the_memory_layout_does_not_matter(name, inverse):
    settings = SETTINGS["line"]
    x = 3 * torch.randn(12, 5, dtype=torch.float64)

    def run(raw, x):
        raw, x = raw.detach().requires_grad_(), x.detach().requires_grad_()
        y, slope = spline(x, raw, settings, inverse=inverse)
        return [y.detach(), slope.detach(), *torch.autograd.grad((y * slope).sum(), (raw, x))]

    with use_kernels("native"):
        torch.manual_seed(1)
        found = layouts(settings)
        assert torch.equal(found[name], found["dense"])
        close(run(found[name], x), run(found["dense"], x), 1e-13)
        close(run(found[name], x.t().contiguous().t()), run(found["dense"], x), 1e-13)


def test_free_parameters_are_shared_by_all_rows():
    settings = SETTINGS["line"]
    x = torch.randn(50, 3, dtype=torch.float64)
    free = torch.randn(settings.parameters, 3, dtype=torch.float64, requires_grad=True)

    def run():
        y, slope = spline(x, free[:, None].expand(-1, 50, -1), settings)
        return [y.detach(), *torch.autograd.grad((y + slope).sum(), free)]

    plain, native = both(run)
    close(native, plain, 1e-10)


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
@pytest.mark.parametrize("settings", [SETTINGS["line"], SETTINGS["circle"]], ids=["line", "circle"])
def test_first_and_second_derivatives_are_right(settings, inverse):
    x, raw = some(settings, (6,), size=0.5)
    x = (0.5 * x).requires_grad_()
    raw.requires_grad_()

    def function(x, raw):
        return spline(x, raw, settings, inverse=inverse)

    with use_kernels("native"):
        assert torch.autograd.gradcheck(function, (x, raw))
        assert torch.autograd.gradgradcheck(function, (x, raw))


def test_one_wanted_gradient_is_enough():
    settings = SETTINGS["line"]
    x, raw = some(settings, (9,))
    with use_kernels("native"):
        for wanted in (x, raw):
            wanted.requires_grad_()
            (gradient,) = torch.autograd.grad(sum(spline(x, raw, settings)).sum(), wanted, create_graph=True)
            assert gradient.shape == wanted.shape
            wanted.requires_grad_(False)


def test_function_transforms_and_forward_mode():
    settings = SETTINGS["line"]
    x, raw = some(settings, (4, 3))
    tangent = torch.randn_like(x)

    def value(x):
        return spline(x, raw, settings)[0]

    def forward_mode():
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(value(forward_ad.make_dual(x, tangent))).tangent

    with use_kernels("plain"):
        slope = spline(x, raw, settings)[1].exp()
    with use_kernels("native"):
        torch.testing.assert_close(torch.func.jvp(value, (x,), (tangent,))[1], slope * tangent)
        torch.testing.assert_close(forward_mode(), slope * tangent)
        jacobian = torch.func.jacrev(value)(x).reshape(12, 12)
        torch.testing.assert_close(jacobian, torch.diag(slope.flatten()))
        rows = torch.vmap(lambda x, raw: spline(x, raw, settings)[0], in_dims=(0, 1))(x, raw)
        torch.testing.assert_close(rows, value(x))


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
def test_several_gradients_in_one_backward_pass(inverse):
    x, raw = (t.requires_grad_() for t in some(SETTINGS["line"], (6,)))
    out = torch.cat(spline(x, raw, SETTINGS["line"], inverse=inverse))

    def by(v):
        return torch.autograd.grad(out, (x, raw), v, retain_graph=True)

    each = [torch.stack(parts) for parts in zip(*map(by, torch.eye(12, dtype=out.dtype)), strict=True)]
    together = torch.autograd.grad(
        out, (x, raw), torch.eye(12, dtype=out.dtype), is_grads_batched=True, retain_graph=True
    )
    close(together, each, 1e-12)
    assert not any(part.requires_grad for part in together)
    close(torch.func.vmap(by)(torch.eye(12, dtype=out.dtype)), each, 1e-12)


def test_compiled_without_a_graph_break():
    settings = SETTINGS["line"]
    x, raw = some(settings, (4, 3))
    run = torch.compile(lambda x, raw: spline(x, raw, settings), fullgraph=True, backend="eager")
    close(run(x, raw), spline(x, raw, settings), 1e-10)


def test_other_tensors_take_the_plain_version():
    settings = SETTINGS["line"]
    x, raw = some(settings, (4,))
    assert spline(x.to("meta"), raw.to("meta"), settings)[0].device.type == "meta"
    with use_kernels("native"):
        half = spline(x.bfloat16(), raw.bfloat16(), settings)[0]
    assert half.dtype == torch.bfloat16


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_nothing(threads):
    settings = SETTINGS["line"]
    x, raw = some(settings, (20_000,))
    before = torch.get_num_threads()
    with use_kernels("native"):
        whole = spline(x, raw, settings)
        try:
            torch.set_num_threads(threads)
            again = spline(x, raw, settings)
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))


@pytest.mark.parametrize("mode", ["plain", "native"])
def test_nan_is_not_hidden(mode):
    settings = SETTINGS["line"]
    x, raw = some(settings, (3,))
    x[1] = math.nan
    with use_kernels(mode):
        assert torch.isnan(spline(x, raw, settings)[0]).tolist() == [False, True, False]


@pytest.mark.parametrize("bins", [2, 5, 64])
@pytest.mark.parametrize("size", [0.0, 1.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_knots_end_exactly_at_the_border_and_leave_room(bins, size, dtype):
    raw = (size * torch.randn(2 * bins, 20, dtype=torch.float64)).to(dtype)
    edges = find_knots(raw, SplineSettings(bins, 3.0, 1e-3, 1.0))
    assert edges.shape == (2, bins + 1, 20)
    assert (edges[:, 0] == -3).all()
    assert (edges[:, -1] == 3).all()
    assert (edges.diff(dim=1) >= 6 * 1e-3 * (1 - 1e-2)).all()


@pytest.mark.parametrize("bins", [1, 2, 8, 64])
def test_knots_by_a_product_and_by_a_running_sum(bins):
    """The second is for other devices; autocast takes it too, where a product would be of bfloat16."""
    settings, raw = SplineSettings(bins, 3.0, 1e-3, 1.0), torch.randn(2 * bins, 4, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        summed = find_knots(raw, settings)
    assert summed.dtype is torch.float32
    torch.testing.assert_close(find_knots(raw, settings), summed, rtol=0, atol=4e-6)
    exact = find_knots(raw.double(), settings)
    torch.testing.assert_close(find_knots(raw, settings).double(), exact, rtol=0, atol=4e-6)


def test_settings_cached_in_inference_mode_work_with_gradients():
    settings, raw = SplineSettings(7, 3.21, 1e-3, 1.0), torch.randn(14, 4, dtype=torch.float64)
    with torch.inference_mode():
        find_knots(raw, settings)
    raw.requires_grad_()
    assert torch.autograd.gradcheck(lambda r: find_knots(r, settings), (raw,))


def test_the_piece_that_contains_a_point():
    settings = SplineSettings(3, 3.0, 1e-3, 3.0)
    xs = torch.tensor([[-1.0], [0.0], [2.0], [3.0]], dtype=torch.float64).expand(4, 6)
    raw = torch.tensor([[0.5], [-0.25]], dtype=torch.float64).expand(2, 6)
    one, two = (math.exp(3 * math.tanh(r / 3)) for r in (0.5, -0.25))
    at = torch.tensor([-1.0, -0.5, 0.0, 1.9, 2.0, 3.0], dtype=torch.float64)
    piece = find_bin(at, torch.stack((xs, 10 * xs)), raw, settings, side=0)
    assert piece.left.tolist() == [-1, -1, 0, 0, 2, 2]
    assert piece.width.tolist() == [1, 1, 2, 2, 1, 1]
    assert piece.bottom.tolist() == [-10, -10, 0, 0, 20, 20]
    assert piece.height.tolist() == [10, 10, 20, 20, 10, 10]
    assert piece.start.tolist() == pytest.approx([1, 1, one, one, two, two])
    assert piece.end.tolist() == pytest.approx([one, one, two, two, 1, 1])
    for side, points in enumerate((at, 10 * at)):
        assert find_bin(points, torch.stack((xs, 10 * xs)), raw, settings, side).left.tolist() == piece.left.tolist()
    y, slope = evaluate(at, piece)
    back, same = solve(y, piece)
    torch.testing.assert_close(back, at)
    torch.testing.assert_close(same, slope)
    q = (at - piece.left) / piece.width  # Durkan et al. 2019, eq. 4 and 5, as printed
    s = piece.height / piece.width
    both = piece.end + piece.start - 2 * s
    inner = piece.height * (s * q**2 + piece.start * q * (1 - q)) / (s + both * q * (1 - q))
    torch.testing.assert_close(y, piece.bottom + inner)
    top = s**2 * (piece.end * q**2 + 2 * s * q * (1 - q) + piece.start * (1 - q) ** 2)
    torch.testing.assert_close(slope, torch.log(top / (s + both * q * (1 - q)) ** 2))


@pytest.mark.parametrize("shape", [(2, 16), (16, 2), (21, 3), (9, 7), (5, 3)], ids=str)
def test_tiles_with_the_ends_of_a_run_that_are_not_a_run(shape):
    """After a transposition, the first and last offset of a tile may be as far apart as those of a run that it is not."""
    settings = SETTINGS["line"]
    x = torch.randn(shape, dtype=torch.float64)
    free = torch.randn(settings.parameters, 1, shape[1], dtype=torch.float64)
    ours, theirs = both(lambda: values_and_gradients(x, free.expand(-1, *shape), settings, False))
    close(ours, theirs, 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("width", [*range(1, 18), 31, 32, 33])
def test_runs_of_every_length(width, dtype):
    """A network's rows, ``(rows, parameters, width)``: tiles cut them anywhere, and nothing is written beside them."""
    settings, x = SETTINGS["two"], torch.randn(7, width, dtype=dtype)
    rows = torch.randn(7, settings.parameters + 2, width, dtype=dtype)[:, 1:-1]  # of a wider matrix
    ours, theirs = both(lambda: values_and_gradients(x, rows.movedim(1, 0), settings, False))
    close(ours, theirs, 1e-4 if dtype is torch.float32 else 1e-12)


@pytest.mark.parametrize("shape", [(23, 2), (23, 1, 2), (5, 50, 2), (23, 50, 3), (23,)], ids=str)
def test_raw_parameters_of_another_shape_are_refused(shape):
    """Native code would read memory beyond them."""
    x, raw = torch.linspace(-2, 2, 100).view(50, 2), torch.zeros(shape)
    with pytest.raises(InputError, match=r"must have the shape \(23, 50, 2\); got"):
        spline(x, raw, SETTINGS["line"])


def test_so_many_bins_that_no_stack_holds_them():
    settings = SplineSettings(60_000, 3.0, 1e-6, 4.6)
    x = torch.linspace(-4, 4, 5)
    raw = torch.randn(settings.parameters, 5)
    with use_kernels("native"):
        y, log_slope = spline(x, raw, settings)
        back, _ = spline(y, raw, settings, inverse=True)
    assert torch.isfinite(log_slope).all()
    assert (back - x).abs().max() < 1e-4
