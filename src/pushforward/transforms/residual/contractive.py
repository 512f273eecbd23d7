"""Contractive residual flows: the identity plus a network whose Lipschitz constant is below 1."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pushforward.likelihood import Kind
from pushforward.networks.linearized import Linearized
from pushforward.networks.lipschitz import LipschitzMLP
from pushforward.networks.lipschitz_conv import LinearizedConv, LipschitzConvNet
from pushforward.numerics import Noise, RowNoise, contraction_root, full_precision, log_abs_det, sum_event
from pushforward.numerics.checks import check_choice, check_integer, check_number, check_seed, check_widths
from pushforward.numerics.tracing import is_compiling
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform, check_context
from pushforward.transforms.hutchinson import common_signs, mean_of_draws
from pushforward.transforms.validation import image_shape

__all__ = ["InvertibleResidual"]


Point = Linearized | LinearizedConv


MAX_DENSE = 256
"""Largest number of coordinates for which the gradient of the inverse inverts the matrix I + J; for more, it iterates."""


MAX_ENTRIES = 2**24
"""Largest number of Jacobian entries that exact scoring stores at a time."""


KINDS = {"exact": Kind.EXACT, "power": Kind.ESTIMATE, "roulette": Kind.UNBIASED}


@register("transforms")
class InvertibleResidual(Transform):
    """z = x + g(x; context) with Lip(g) <= coefficient < 1 (Behrmann et al. 2019, theorem 1), on vectors or on images.

    With J = dg/dx, log det(I + J) = sum over k >= 1 of (-1)^(k+1) tr(J^k) / k. ``log_det`` says how it is computed:

    - "exact": from J, by products layer by layer and one determinant of order D. For vectors this takes D times the cost of
      g, for images about (4 r + 1)^2 C times with 2 r + 1 = ``kernel_size``, and D^3 / 3 operations; for D up to 10^3;
    - "power": the first ``terms`` terms, with Hutchinson's estimate of the traces (Behrmann et al. 2019, alg. 2). Biased,
      by at most -D [log(1 - L) + sum over k <= terms of L^k / k] with L the coefficient: kind ESTIMATE;
    - "roulette": the first ``terms`` terms and a random number of further ones, each divided by the probability that it
      is included (Chen et al. 2019, eq. 6): kind UNBIASED. The number is geometric with P(N >= j) = q^j,
      q = (1 + L^2) / 2, for which the variance is finite for any weights.

    The estimates have the gradient of the Neumann series (Chen et al. 2019, eq. 8), whose memory does not grow with the
    number of terms. Training draws one probe for each row. Scoring uses the mean over ``probes`` probes, which depend on the
    seed alone and are the same for all rows, and returns its standard error. So the score of a row does not depend on other
    rows, and the errors of similar rows are similar: a mean over more seeds reduces them (``evaluate(samples=...)``), a mean
    over more rows does not.

    Decoding solves x + g(x) = z by an accelerated fixed-point iteration (:func:`~pushforward.numerics.contraction_root`) to a
    residual of usually 4 and at most 800 eps, so the error of x is at most 1 / (1 - L) times that. Its gradient is that of
    the implicit function theorem.

    Args:
        features: number of coordinates D, or (channels, height, width); g is then a convolutional network.
        hidden: widths of g's hidden layers; for images those of k x k, 1 x 1, ..., k x k convolutions.
        coefficient: bound L on the Lipschitz constant, in (0, 1). It holds for any weights (:class:`~pushforward.networks.LipschitzMLP`,
            :class:`~pushforward.networks.LipschitzConvNet`).
        activation: name of the activation function: "lipswish", "elu", "softplus" or "tanh".
        context: width of the context; the bound does not apply to the dependence on it.
        log_det: "exact", "power" or "roulette"; :meth:`set_log_det` changes it later.
        terms: number of terms of "power", or of terms that "roulette" always includes.
        probes: number of probes in scoring, each with its own random number of terms.
        input_bound: coordinates are clamped to [-input_bound, input_bound] before g reads them, so far from the data the
            transform is a shift.
        seed: seed of the probes; blocks of one chain should have different seeds.
        kernel_size: size of the convolutions, odd.

    Raises:
        ConfigError: for impossible widths, a coefficient outside (0, 1), or an unknown ``log_det``.

    Example:
        >>> import torch
        >>> block = InvertibleResidual(3, hidden=(16,))
        >>> x = torch.randn(5, 3)
        >>> torch.allclose(block.decode(block.encode(x).z), x, atol=1e-5)
        True
        >>> block.set_log_det("roulette")
        >>> block.kind
        <Kind.UNBIASED: 'unbiased'>
    """

    supports_float64 = False

    def __init__(
        self,
        features: int | Shape,
        *,
        hidden: tuple[int, ...] = (128, 128),
        coefficient: float = 0.9,
        activation: str = "lipswish",
        context: int = 0,
        log_det: str = "exact",
        terms: int = 8,
        probes: int = 8,
        input_bound: float = 10.0,
        seed: int = 0,
        kernel_size: int = 3,
    ) -> None:
        super().__init__(features)
        image = len(self.in_shape) != 1
        check_number("coefficient", coefficient, 0, 1)
        check_integer("kernel_size", kernel_size)
        check_seed(seed)
        self.features, self.hidden, self.coefficient, self.activation = (
            features,
            check_widths("hidden", hidden),
            coefficient,
            activation,
        )
        self.context, self.terms = check_integer("context", context, 0), check_integer("terms", terms)
        self.probes, self.input_bound, self.seed = check_integer("probes", probes), input_bound, seed
        self.kernel_size = kernel_size
        self.set_log_det(log_det)
        options: dict[str, Any] = {
            "coefficient": coefficient, "activation": activation, "context": context, "input_bound": input_bound
        }  # fmt: skip
        self.network: LipschitzMLP | LipschitzConvNet
        if image:
            shape = image_shape(features, "InvertibleResidual")
            self.network = LipschitzConvNet(shape, hidden, kernel_size=kernel_size, **options)
        else:
            self.network = LipschitzMLP(self.in_shape[0], self.in_shape[0], hidden, **options)

    def set_log_det(self, log_det: str) -> None:
        """Choose "exact", "power" or "roulette", and with it the kind of the contribution.

        Raises:
            ConfigError: for any other name.
        """
        check_choice("log_det", log_det, KINDS)
        self.log_det, self.kind = log_det, KINDS[log_det]

    @property
    def invertible(self) -> bool:
        """True, for an estimated contribution too."""
        return True

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """x + g(x), and log det(I + J) or its estimate with a standard error."""
        check_context(context, self.context, "InvertibleResidual")
        with full_precision(x):
            if self.log_det == "exact":
                return self._exact(x, context)
            point = self.network.at(x, context)
            return Step(x + point.value, *mean_of_draws(self._series(point, noise)))

    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """x + g(x), without the log-determinant, which is not needed."""
        check_context(context, self.context, "InvertibleResidual")
        with full_precision(x):
            return x + self.network(x, context)

    def refresh(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """As :meth:`initialize`."""
        return self.initialize(x, context)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """The x with x + g(x) = z.

        Raises:
            ConvergenceError: if the iteration does not reach its tolerance, as with weights that are not finite.
        """
        check_context(context, self.context, "InvertibleResidual")
        with full_precision(z):
            layers, dims = self.network.layers(), len(self.in_shape)

            def flat(x: Tensor) -> Tensor:
                return self.network(x.unflatten(-1, self.in_shape), context, layers).flatten(-dims)

            x = contraction_root(flat, z.flatten(-dims), self.coefficient).reshape(z.shape)
            if not torch.is_grad_enabled():
                return x
            # dx = (I + J)^-1 (dz - dg): one Newton step with x and J as constants. As in monotone_root, a second step, whose value
            # is only rounding and is subtracted, has the second derivatives. For large images there are no second derivatives.
            x = x.detach()
            point = self.network.at(x, context, layers)
            if isinstance(point, LinearizedConv) and math.prod(self.in_shape) > MAX_DENSE:
                return x + _implicit(torch.where(torch.isinf(z), 0.0, z - x - point.value), point, self.coefficient)
            inverse = torch.linalg.inv(_one_plus(point.jacobian().detach()))

            def step(value: Tensor, at: Tensor) -> Tensor:
                residual = torch.where(torch.isinf(z), 0.0, z - at - value).flatten(-dims)
                return (inverse @ residual.unsqueeze(-1)).reshape(z.shape)

            x = x + step(point.value, x)
            again = step(self.network.at(x, context, layers).value, x)
            return x + (again - again.detach())

    def _exact(self, x: Tensor, context: Tensor | None) -> Step:
        """x + g(x) and log det(I + J), for a few rows at a time to limit the memory of their Jacobians."""
        batch, layers = self.batch_shape(x), self.network.layers()
        rows = x.reshape(-1, *self.in_shape)
        contexts = None
        if context is not None and self.context:
            contexts = context.expand(*batch, self.context).reshape(-1, self.context)
        count = max(1, MAX_ENTRIES // math.prod(self.in_shape) ** 2)
        if is_compiling() or len(rows) <= count:
            parts = [(rows, contexts)]
        else:
            split_contexts = [None] * len(rows) if contexts is None else contexts.split(count)
            parts = list(zip(rows.split(count), split_contexts, strict=False))
        values, log_dets = [], []
        for part, part_context in parts:
            point = self.network.at(part, part_context, layers)
            values.append(point.value)
            log_dets.append(log_abs_det(_one_plus(point.jacobian())))
        return Step(x + torch.cat(values).reshape(x.shape), torch.cat(log_dets).reshape(batch))

    def _series(self, point: Point, noise: Noise) -> Tensor:
        """Estimates of log det(I + J), ``(draws, *batch)``, with the gradient of the Neumann series."""
        value, dims = point.value.detach(), len(self.in_shape)
        if isinstance(noise, torch.Generator):
            drawn = torch.rand(1, device=noise.device, generator=noise)
            units = drawn.tolist() if self.log_det == "roulette" else [0.0]  # read to Python only if needed
            coins = torch.randint(2, (1, *value.shape), device=noise.device, generator=noise)
            probes = (2 * coins - 1).to(value.dtype)
        else:
            noise = noise or RowNoise()
            units = noise.common(self.probes, 2 * self.seed)
            probes = common_signs(noise, self.probes, 2 * self.seed + 1, value, dims)
        continuation = (1 + self.coefficient**2) / 2  # q
        lengths = [self.terms] * len(units)
        if self.log_det == "roulette":
            lengths = [self.terms + int(math.log1p(-unit) / math.log(continuation)) for unit in units]
        with torch.no_grad():
            total = value.new_zeros(probes.shape[:-dims])
            row, left = probes, torch.zeros_like(probes)
            for k in range(1, max(lengths) + 1):
                # 1 / P(N >= k), for the probes whose series has a k-th term.
                weight = continuation ** -max(k - self.terms, 0)
                sign = 1.0 if k % 2 else -1.0
                weights = value.new_full((len(lengths),), sign * weight)
                for probe in (i for i, length in enumerate(lengths) if k > length):
                    weights[probe] = 0.0
                left = left + weights.reshape(-1, *(1,) * (probes.dim() - 1)) * row  # v^T J^(k-1)
                row = point.vjp(row)
                total = total + weights.reshape(-1, *(1,) * (total.dim() - 1)) / k * sum_event(row * probes, dims)
        if not torch.is_grad_enabled():
            return total
        surrogate = sum_event(left * point.jvp(probes), dims)
        return total + surrogate - surrogate.detach()


def _one_plus(jacobian: Tensor) -> Tensor:
    return jacobian + torch.eye(jacobian.shape[-1], dtype=jacobian.dtype, device=jacobian.device)


def _implicit(residual: Tensor, point: LinearizedConv, rate: float) -> Tensor:
    """``residual`` unchanged, as it is nearly 0, with the gradient of (I + J)^-1 ``residual``."""
    inside = torch.ones_like(residual) if point.inside is None else point.inside
    return _Implicit.apply(residual, rate, len(point.weights), inside, *point.weights, *point.slopes)  # pyright: ignore


class _Implicit(torch.autograd.Function):
    """The backward pass solves u (I + J) = gradient by the iteration that inverts the transform, without forming a matrix."""

    @staticmethod
    def forward(ctx: Any, residual: Tensor, rate: float, count: int, *tensors: Tensor) -> Tensor:
        """``tensors`` are the mask of where x is inside its bound, then the kernels, then the slopes."""
        ctx.rate, ctx.count = rate, count
        ctx.save_for_backward(*tensors)
        return residual.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The gradient of each row is scaled by its largest entry, since the solver's tolerance is absolute."""
        gradient, (inside, *others) = grad_outputs[0], ctx.saved_tensors
        point = LinearizedConv(gradient, others[: ctx.count], others[ctx.count :], inside)
        unit = gradient.abs().amax((-3, -2, -1), keepdim=True).clamp(min=torch.finfo(gradient.dtype).tiny)

        def transposed(u: Tensor) -> Tensor:
            return point.vjp(u.reshape(gradient.shape)).flatten(-3)

        root = contraction_root(transposed, (gradient / unit).flatten(-3), ctx.rate)
        return unit * root.reshape(gradient.shape), *(None,) * (len(others) + 3)
