"""Every numerical guard in one place: bounded scales, safe inverses, monotone roots, row noise, long sums."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from pushforward.errors import ConvergenceError

__all__ = [
    "Noise",
    "RowNoise",
    "RunningMean",
    "bound_input",
    "bound_square",
    "is_capturing",
    "constant",
    "contraction_root",
    "draw_category",
    "is_eager",
    "inverse_softplus",
    "batch_jacobian",
    "log1mexp",
    "log1p_square",
    "logmeanexp",
    "may_check_values",
    "monotone_root",
    "normal_like",
    "softsign_clamp",
    "soft_clamp",
    "split_infinite",
    "sum_event",
    "uniform_like",
    "unsoftplus",
]


def sum_event(x: Tensor, dims: int) -> Tensor:
    """Sum the last ``dims`` dimensions; in float64 where thousands of terms meet, returned in ``x``'s own type."""
    if dims == 0:
        return x
    if dims == 1 and x.shape[-1] <= 1024:
        return x.sum(-1)
    axes = tuple(range(-dims, 0))
    if math.prod(x.shape[-dims:]) > 1024 and x.dtype in (torch.float32, torch.bfloat16, torch.float16):
        return x.sum(axes, dtype=torch.float64).to(x.dtype)
    return x.sum(axes)


def soft_clamp(x: Tensor, bound: float) -> Tensor:
    """Smooth clamp to (-bound, bound) with slope 1 at 0: ``bound * tanh(x / bound)``."""
    return bound * torch.tanh(x / bound)


def softsign_clamp(x: Tensor, bound: float) -> Tensor:
    """Smooth clamp to (-bound, bound) with slope 1 at 0 that saturates slowly: ``x / (1 + |x| / bound)``.

    Its slope falls as 1/x^2 instead of exponentially, so a scale that has run to its bound still learns its way back.
    """
    return x / torch.rsub(x.abs(), 1, alpha=-1 / bound)  # 1 + |x| / bound in one operation


def bound_input(x: Tensor, bound: float) -> Tensor:
    """What a conditioner may see of its input: the identity on [-bound, bound], constant outside.

    A network that sees only a box returns only bounded shifts and scales, so far from the data a flow is close to a
    fixed linear transform: nothing overflows, and the log-density falls as the base's does.
    """
    return F.hardtanh(x, -bound, bound)  # as clamp, whose gradient takes five operations


def bound_square(x: Tensor, terms: int = 1) -> Tensor:
    """x clamped to where ``terms`` squares still sum to a finite number: beyond about 1e19 in float32.

    A mixture needs it: where every component is -inf, the gradient of their log-sum-exp would be NaN.
    """
    limit = 0.5 * math.sqrt(torch.finfo(x.dtype).max / terms)
    return x.clamp(-limit, limit)


def split_infinite(x: Tensor, dims: int) -> tuple[Tensor, Tensor]:
    """x with its infinite entries at 0, and 0 or -inf for each row: what to add to its log-density."""
    infinite = torch.isinf(x)
    rows = infinite.flatten(x.dim() - dims).any(-1) if dims else infinite
    return torch.where(infinite, 0.0, x), torch.where(rows, -math.inf, 0.0).to(x.dtype)


def log1p_square(x: Tensor) -> Tensor:
    """``log(1 + x^2)`` for any finite x: exact for small x, and ``2 log abs(x)`` where x^2 would overflow."""
    far = x.abs() > 1
    near = torch.log1p(torch.where(far, 0.0, x) ** 2)
    outer = torch.where(far, x, 1.0).abs()
    return torch.where(far, 2 * torch.log(outer) + torch.log1p(outer.reciprocal() ** 2), near)


def draw_category(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """Index drawn with probability softmax(logits) along the last dimension, which it removes."""
    # Exponential race: the first of K clocks with rates w_k to ring is k with probability w_k.
    clocks = torch.empty_like(logits, memory_format=torch.contiguous_format).exponential_(generator=generator)
    return (logits - clocks.log()).argmax(-1)


def inverse_softplus(y: float) -> float:
    """The x with ``softplus(x) == y``, for a constant y > 0."""
    return y + math.log(-math.expm1(-y))


def unsoftplus(y: Tensor) -> Tensor:
    """The x with ``softplus(x) == y``, elementwise; what is not positive is read as the smallest normal number."""
    y = y.clamp(min=torch.finfo(y.dtype).tiny)
    return y + torch.log(-torch.expm1(-y))


def log1mexp(x: Tensor) -> Tensor:
    """``log(1 - exp(-x))`` for x > 0 without cancellation."""
    near = x < math.log(2.0)
    small, large = torch.where(near, x, 1.0), torch.where(near, 1.0, x)
    return torch.where(near, torch.log(-torch.expm1(-small)), torch.log1p(-torch.exp(-large)))


def logmeanexp(x: Tensor, dim: int) -> Tensor:
    """``log mean exp`` along ``dim``; -inf where every term is -inf, with finite gradients elsewhere."""
    empty = torch.isneginf(x).all(dim, keepdim=True)
    mean = torch.logsumexp(torch.where(empty, 0.0, x), dim) - math.log(x.shape[dim])
    return torch.where(empty.squeeze(dim), -math.inf, mean)


def is_capturing() -> bool:
    """Whether a CUDA graph is being captured: what runs is only written down, so there are no numbers to look at."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def is_eager() -> bool:
    """Whether no compiler, tracer, function transform or CUDA graph is watching, so that Python may look at values and buffers."""
    return not (
        torch.compiler.is_compiling()
        or is_capturing()
        or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        or torch._C._functorch.peek_interpreter_stack() is not None  # pyright: ignore[reportAttributeAccessIssue]
        or forward_ad._current_level >= 0
    )


def may_check_values(x: Tensor, training: bool = False) -> bool:
    """Whether to look at the numbers in x, to refuse what is wrong with them.

    Not where a compiler or a CUDA graph only writes down what runs; and not in training on an accelerator, where each look
    makes the host wait for all that it has queued. There NaN shows in the loss.
    """
    if torch.compiler.is_compiling() or is_capturing():
        return False
    return not training or x.device.type == "cpu"


def constant(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of fixed numbers, which nobody writes to.

    Off the CPU it is copied once and kept for good: a copy makes the host wait, and a CUDA graph reads it where it is. So the
    numbers must belong to an architecture, not to a call.
    """
    if device.type == "cpu" or torch.compiler.is_compiling():
        return torch.tensor(values, dtype=dtype, device=device)
    key = values, dtype, device
    found = _constants.get(key)
    if found is None:
        with torch.inference_mode(False):  # whoever comes next may want a gradient
            found = torch.tensor(values, dtype=dtype, device=device)
        if type(found) is Tensor:  # and no stand-in of a tracer
            _constants[key] = found
    return found


_constants: dict[tuple[tuple[Any, ...], torch.dtype, torch.device], Tensor] = {}


def batch_jacobian(function: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """f(z), ``(*batch, *shape)``, and df/dz, ``(*batch, D, d)``, by d forward-mode products of the whole batch.

    Args:
        function: ``(*batch, d)`` to ``(*batch, *shape)``; the rows must not see each other.
        z: ``(*batch, d)``.
    """
    if is_eager():
        _load_forward_mode()
    directions = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
    products: Any = torch.func.vmap(
        lambda v: torch.func.jvp(function, (z,), (v.expand_as(z),)),
        out_dims=(None, 0),  # pyright: ignore[reportArgumentType]
    )
    value, columns = products(directions)
    return value, columns.flatten(z.dim()).movedim(0, -1)


@functools.cache
def _load_forward_mode() -> None:
    """Torch warns of its own deprecated parts when forward mode is first used: not the caller's concern."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        forward_ad._maybe_load_decompositions()  # pyright: ignore[reportAttributeAccessIssue]


class RunningMean:
    """Mean, ``log mean exp`` and spread of any number of equally shaped tensors, one after the other, in float64.

    Memory does not grow with their number (Welford 1962 for the spread).
    """

    def __init__(self, first: Tensor) -> None:
        self.dtype, self.count = first.dtype, 1
        self.sum = self.log_sum = first.double()
        self.center = torch.where(torch.isinf(first), 0.0, first).detach().double()
        self.squares = torch.zeros_like(self.center)

    def add(self, value: Tensor) -> None:
        """One more; infinite entries count as 0 in the spread."""
        self.count += 1
        self.sum = self.sum + value.double()
        self.log_sum = logmeanexp(torch.stack((self.log_sum, value.double())), 0) + math.log(2.0)
        finite = torch.where(torch.isinf(value), 0.0, value).detach().double()
        step = finite - self.center
        self.center = self.center + step / self.count
        self.squares = self.squares + step * (finite - self.center)

    def mean(self) -> Tensor:
        """The plain mean; infinite where any was."""
        return (self.sum / self.count).to(self.dtype)

    def log_mean_exp(self) -> Tensor:
        """log of the mean of the exponentials."""
        return (self.log_sum - math.log(self.count)).to(self.dtype)

    def standard_error(self) -> Tensor:
        """Of the plain mean: the spread over the root of the count; needs two."""
        return (self.squares / ((self.count - 1) * self.count)).sqrt().to(self.dtype)


def monotone_root(
    function: Callable[[Tensor], tuple[Tensor, Tensor]],
    target: Tensor,
    low: Tensor,
    high: Tensor,
    *,
    start: Tensor | None = None,
    steps: int = 60,
    doublings: int = 40,
) -> Tensor:
    """Solve ``f(x) = target`` elementwise for an increasing f, with the gradient of the implicit function theorem.

    Newton's step where it stays in the bracket and is at most half of the step before, and bisection where not; the
    bracket first doubles outward until it encloses the root, so that a start that is too narrow costs steps and never a
    wrong answer. An element that has arrived stays where it is: its digits do not depend on its neighbors, and the
    search ends, where Python may look at values, when all have arrived.

    Args:
        function: x -> (f(x), f'(x)), elementwise; its own parameters receive gradients.
        target: any shape.
        low: start of the bracket, same shape.
        high: end of the bracket, same shape.
        start: where to begin within the bracket; None is its middle.
        steps: iterations at most; bisection alone gains one bit each.
        doublings: of the bracket at most; 0 where it is known to enclose the root.

    Returns:
        The root, differentiable twice in ``target`` and in the parameters of ``function``: dx/dy = 1/f'(x) and
        dx/dtheta = -(df/dtheta)/f'(x), whatever f' was found by. Where nothing asks for a gradient, none is prepared.
    """
    with torch.no_grad():
        look = is_eager()
        for _ in range(doublings):
            below, above = function(low)[0] > target, function(high)[0] < target
            if look and not (below | above).any():
                break
            reach = 2 * (high - low)
            low, high = (
                torch.where(below, low - reach, torch.where(above, high, low)),
                torch.where(above, high + reach, torch.where(below, low, high)),
            )
        x = 0.5 * (low + high) if start is None else torch.minimum(torch.maximum(start, low), high)
        last, eps = high - low, torch.finfo(x.dtype).eps
        for _ in range(steps):
            value, slope = function(x)
            error = target - value
            step = error / slope
            low = torch.where(value <= target, x, low)
            high = torch.where(value >= target, x, high)
            newton = x + step
            arrived = error.abs() <= 2 * eps * (x.abs() * slope + target.abs())  # a few roundings of x or of the target
            arrived |= high - low <= 2 * eps * x.abs()
            if look and arrived.all():
                break
            fast = (newton > low) & (newton < high) & (2 * step.abs() <= last)
            following = torch.where(arrived, x, torch.where(fast, newton, 0.5 * (low + high)))
            last, x = (following - x).abs(), following
    # Newton's step from the fixed root r, with a fixed slope, has the root's first derivatives: its error is of second
    # order in how far the root moves with the parameters. A second such step from there has an error of third order, and so
    # the second derivatives too. Its value is rounding, and is taken away.
    x = x.detach()
    value, slope = function(x)
    slope = slope.detach()
    x = x - (value - target) / slope
    if is_eager() and not x.requires_grad:
        return x
    again = (function(x)[0] - target) / slope
    return x - (again - again.detach())


@torch.no_grad()
def contraction_root(
    function: Callable[[Tensor], Tensor], target: Tensor, rate: float, *, memory: int = 5, compiled_steps: int = 24
) -> Tensor:
    """Solve ``x + g(x) = y`` for each row, where g is a contraction; no gradient.

    Anderson's acceleration of x <- y - g(x) (Walker and Ni 2011), guarded: a step that does not shrink the row's
    residual by ``rate`` is dropped, and the next is a plain one, which does. Rows do not see each other, and each stops
    when all its coordinates have abs(x + g(x) - y) <= 4 eps (1 + abs y), or rounding lets a plain step go no further.

    Args:
        function: g, ``(*batch, D)`` to the same shape.
        target: y, ``(*batch, D)``.
        rate: Lipschitz constant of g in the Euclidean norm, below 1.
        memory: steps that the acceleration looks back.
        compiled_steps: number of steps under ``torch.compile`` and in a CUDA graph, which cannot stop early.

    Returns:
        x; infinite where y is.

    Raises:
        ConvergenceError: if a row has a residual above 800 eps (1 + max abs y), 1e-4 in float32 and 2e-13 in float64.
    """
    eps = torch.finfo(target.dtype).eps
    y = target.clamp(-1e37, 1e37) if target.dtype is torch.float32 else target.clamp(-1e150, 1e150)
    scale = 1 + y.abs()

    def residual(x: Tensor) -> tuple[Tensor, Tensor]:
        r = y - x - function(x)
        return r, (r.abs() - 4 * eps * scale).clamp(min=0.0).double().norm(dim=-1)

    x = y
    r, size = residual(x)
    past_x = past_r = torch.zeros_like(y).unsqueeze(-2).expand(*y.shape[:-1], memory, -1)  # what each step changed
    ridge = 1e-12 * torch.eye(memory, dtype=torch.float64, device=y.device)
    plain = torch.ones_like(size, dtype=torch.bool)  # rows whose next step is a plain one
    done = size == 0
    limit = 2 * math.ceil(math.log(eps) / math.log(rate)) + 20
    compiling = torch.compiler.is_compiling() or is_capturing()
    for _ in range(compiled_steps if compiling else limit):
        if not compiling and bool(done.all()):
            break
        wide = past_r.double()
        gram = wide @ wide.mT
        unit = gram.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None].clamp(min=1e-200)
        weights = torch.linalg.solve(gram / unit + ridge, wide @ r.double().unsqueeze(-1) / unit)
        back = (weights.to(y.dtype) * (past_x + past_r)).sum(-2)
        trial = torch.where(done.unsqueeze(-1), x, x + r - back)
        new_r, new_size = residual(trial)
        better = ((new_size <= rate * size) | (plain & (new_size < size))) & ~done
        keep = better.unsqueeze(-1)
        past_x = torch.where(keep.unsqueeze(-1), torch.cat((past_x[..., 1:, :], (trial - x).unsqueeze(-2)), -2), 0.0)
        past_r = torch.where(keep.unsqueeze(-1), torch.cat((past_r[..., 1:, :], (new_r - r).unsqueeze(-2)), -2), 0.0)
        x, r, size = torch.where(keep, trial, x), torch.where(keep, new_r, r), torch.where(better, new_size, size)
        done = done | (size == 0) | (plain & ~better)
        plain = ~better
    solved = (r.abs() <= 800 * eps * scale.amax(-1, keepdim=True)).all()
    message = "a residual transform was not inverted to its tolerance: are its weights finite?"
    if compiling:
        torch._assert_async(solved, message)  # pyright: ignore[reportPrivateImportUsage]
    elif not bool(solved):
        raise ConvergenceError(message)
    return torch.where(torch.isinf(target), target, x)


class RowNoise:
    """Noise that is a function of each row's own content, so a row's score does not depend on its neighbors.

    Scoring draws from it instead of from a ``torch.Generator``: equal rows get equal noise, in any batch and order,
    and different rows get unrelated noise. SplitMix64 over the bits of the row.

    Args:
        seed: chooses the noise.
        draw: index of the draw; draws of one seed are unrelated to each other.
    """

    def __init__(self, seed: int = 0, draw: int = 0) -> None:
        self.seed = seed
        self.draw = draw

    def uniform(self, x: Tensor, event_dims: int, shape: tuple[int, ...] | None = None) -> Tensor:
        """Uniform noise in [0, 1) in the type of ``x``; each of the leading rows is keyed by its content.

        Args:
            x: ``(*rows, *event)``.
            event_dims: dimensions of the event.
            shape: of each row's noise; None for the event's own.
        """
        rows, event = x.shape[: x.dim() - event_dims], x.shape[x.dim() - event_dims :]
        count, shape = math.prod(event), tuple(event) if shape is None else shape
        values = x.detach().reshape(*rows, count).double() + 0.0  # -0.0 becomes 0.0
        bits = values.contiguous().view(torch.int64)
        place = torch.arange(1, count + 1, device=x.device, dtype=torch.int64)
        start = _signed(0x9E3779B97F4A7C15 * (2 * self.seed + 1) + 0xD1B54A32D192ED03 * self.draw)
        key = _mix(_mix(bits + place * _GOLDEN).sum(-1, keepdim=True) + start)
        place = torch.arange(1, math.prod(shape) + 1, device=x.device, dtype=torch.int64)
        hashed = _mix(key + place * _GOLDEN)
        # As many high bits as the type's mantissa holds (53, or 24 in float32), so that 1.0 cannot appear.
        keep = 1 - round(math.log2(torch.finfo(x.dtype).eps))
        unit = ((hashed >> (64 - keep)) & ((1 << keep) - 1)).to(x.dtype) * 2.0**-keep
        return unit.reshape(*rows, *shape)

    def common(self, count: int, salt: int) -> list[float]:
        """Uniform numbers in [0, 1) for all rows alike: they depend on the seed, the draw and the salt alone."""
        return [(_hash(self._key(salt) + k) >> 11) * 2.0**-53 for k in range(count)]

    def common_signs(self, count: int, salt: int, like: Tensor) -> Tensor:
        """+1 where :meth:`common` is below a half and -1 elsewhere, found on the device of ``like``, in its type."""
        place = torch.arange(1, count + 1, dtype=torch.int64, device=like.device)
        high = _mix((place + _signed(self._key(salt))) * _GOLDEN) < 0  # the highest bit
        return (1 - 2 * high.to(torch.int64)).to(like.dtype)

    def _key(self, salt: int) -> int:
        return _hash(_hash(2 * self.seed + 1) + _hash(self.draw) * 3 + _hash(salt) * 5)


Noise = torch.Generator | RowNoise | None
"""Where randomness comes from: a generator (training, sampling) or the rows themselves (scoring; None is seed 0)."""


def uniform_like(x: Tensor, event_dims: int, noise: Noise, shape: tuple[int, ...] | None = None) -> Tensor:
    """Uniform noise in [0, 1) from a generator or from the rows' content; shaped as ``x``, or ``shape`` for each row."""
    if isinstance(noise, torch.Generator):
        size = x.shape if shape is None else (*x.shape[: x.dim() - event_dims], *shape)
        return torch.rand(size, dtype=x.dtype, device=x.device, generator=noise)
    return (noise or RowNoise()).uniform(x, event_dims, shape)


def normal_like(x: Tensor, event_dims: int, noise: Noise, shape: tuple[int, ...] | None = None) -> Tensor:
    """Standard normal noise from a generator or from the rows' content; shaped as ``x``, or ``shape`` for each row."""
    if isinstance(noise, torch.Generator):
        size = x.shape if shape is None else (*x.shape[: x.dim() - event_dims], *shape)
        return torch.randn(size, dtype=x.dtype, device=x.device, generator=noise)
    unit = uniform_like(x, event_dims, noise, shape)
    half_step = torch.finfo(x.dtype).eps / 4
    # From the nearer end: at the far end of [0, 1) half a step would round up to 1, and the noise be infinite.
    low = unit < 0.5
    tail = torch.special.ndtri(torch.where(low, unit, 1 - unit) + torch.where(low, half_step, -half_step).to(x.dtype))
    return torch.where(low, tail, -tail)


def softplus_positive(raw: Tensor, minimum: float) -> Tensor:
    """A positive number >= minimum that is 1 at raw = 0."""
    return minimum + F.softplus(raw + inverse_softplus(1.0 - minimum))


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


def _hash(value: int) -> int:
    """SplitMix64 of a Python integer."""
    x = (value * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) & _WORD
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _WORD
    return x ^ (x >> 31)


_WORD = (1 << 64) - 1
_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX1 = _signed(0xBF58476D1CE4E5B9)
_MIX2 = _signed(0x94D049BB133111EB)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of signed 64-bit integers."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _MIX1
    x = (x ^ _shift(x, 27)) * _MIX2
    return x ^ _shift(x, 31)
