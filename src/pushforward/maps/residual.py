"""Invertible residual blocks: the identity plus a contraction."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.maps.arguments import vector_width
from pushforward.maps.core import Map, Step, check_context
from pushforward.maps.linear import whole_precision
from pushforward.measure import Relation
from pushforward.networks.linearized import Linearized
from pushforward.networks.lipschitz import LipschitzMLP
from pushforward.networks.mlp import check_width
from pushforward.numerics import Noise, RowNoise, contraction_root
from pushforward.registry import register

__all__ = ["InvertibleResidual", "common_signs", "mean_of_draws"]

RELATIONS = {"exact": Relation.EXACT, "power": Relation.ESTIMATE, "roulette": Relation.UNBIASED}


@register("maps")
class InvertibleResidual(Map):
    """z = x + g(x; context) with Lip(g) <= coefficient < 1 (Behrmann et al. 2019, theorem 1).

    With J = dg/dx, log det(I + J) = sum over k >= 1 of (-1)^(k+1) tr(J^k) / k. ``log_det`` says how it is found:

    - "exact": from J itself, by products layer by layer and one determinant; D times the cost of g, for D up to 10^2;
    - "power": the first ``terms`` terms, with Hutchinson's estimate of the traces (Behrmann et al. 2019, alg. 2). Biased,
      by at most -D [log(1 - L) + sum over k <= terms of L^k / k] with L the coefficient: relation ESTIMATE;
    - "roulette": the first ``terms`` terms and a random number of further ones, each divided by the probability that it
      is reached (Chen et al. 2019, eq. 6): relation UNBIASED. The number is geometric with P(N >= j) = q^j,
      q = (1 + L^2) / 2, for which the variance is finite whatever the weights.

    The estimates have the gradient of the Neumann series (Chen et al. 2019, eq. 8), whose memory does not grow with the
    number of terms. Training draws one probe for each row. Scoring takes the mean over ``probes`` of them, the same
    for all rows and fixed by the seed, and gives its standard error; so a row's score depends on no other row, and
    the errors of neighbours are alike: they shrink with more seeds (``evaluate(samples=...)``), not with more rows.

    Decoding solves x + g(x) = z by an accelerated fixed-point iteration to a residual of some rounding units
    (:func:`~pushforward.numerics.contraction_root`): 800 eps at most, usually 4, so that x is off by 1 / (1 - L) times
    that at most. Its gradient is that of the implicit function theorem.

    Args:
        features: D.
        hidden: widths of g's hidden layers.
        coefficient: L, in (0, 1). The bound holds for any weights (:class:`~pushforward.networks.LipschitzMLP`).
        activation: "lipswish", "elu", "softplus" or "tanh".
        context: width of the context, on which g may depend without bound.
        log_det: "exact", "power" or "roulette"; :meth:`set_log_det` changes it later.
        terms: of the power series: all, or those before the roulette begins.
        probes: of a score, each with a roulette of its own.
        input_bound: g sees coordinates clamped to this range, so far away the map is a shift.
        seed: of the probes; blocks of one chain should have different ones.

    Raises:
        ConfigError: for impossible widths, a coefficient outside (0, 1), or an unknown ``log_det``.

    Example:
        >>> import torch
        >>> block = InvertibleResidual(3, hidden=(16,))
        >>> x = torch.randn(5, 3)
        >>> torch.allclose(block.decode(block.encode(x).z), x, atol=1e-5)
        True
        >>> block.set_log_det("roulette")
        >>> block.relation
        <Relation.UNBIASED: 'unbiased'>
    """

    def __init__(
        self,
        features: int,
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
    ) -> None:
        super().__init__(features)
        vector_width(features, "InvertibleResidual")
        if not 0 < coefficient < 1:
            raise ConfigError(f"coefficient must lie in (0, 1), else the block has no inverse; got {coefficient!r}.")
        self.features, self.hidden, self.coefficient, self.activation = features, tuple(hidden), coefficient, activation
        self.context, self.terms = check_width("context", context, 0), check_width("terms", terms)
        self.probes, self.input_bound, self.seed = check_width("probes", probes), input_bound, seed
        self.set_log_det(log_det)
        self.network = LipschitzMLP(
            features,
            features,
            hidden,
            coefficient=coefficient,
            activation=activation,
            context=context,
            input_bound=input_bound,
        )

    def set_log_det(self, log_det: str) -> None:
        """Choose "exact", "power" or "roulette", and with it the relation of the contribution.

        Raises:
            ConfigError: for any other name.
        """
        if log_det not in RELATIONS:
            raise ConfigError(f"log_det must be 'exact', 'power' or 'roulette'; got {log_det!r}.")
        self.log_det, self.relation = log_det, RELATIONS[log_det]

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """X + g(x), and log det(I + J) or its estimate with a standard error."""
        check_context(context, self.context, "InvertibleResidual")
        with whole_precision(x):
            point = self.network.at(x, context)
            z = x + point.value
            if self.log_det == "exact":
                return Step(z, torch.linalg.slogdet(self._one_plus(point.jacobian())).logabsdet)
            return Step(z, *mean_of_draws(self._series(point, noise)))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """The x with x + g(x) = z.

        Raises:
            ConvergenceError: if the iteration cannot reach its tolerance, as with weights that are not finite.
        """
        check_context(context, self.context, "InvertibleResidual")
        with whole_precision(z):
            layers = self.network.layers()
            x = contraction_root(lambda x: self.network(x, context, layers), z, self.coefficient)
            if not torch.is_grad_enabled():
                return x
            # dx = (I + J)^-1 (dz - dg): one step of Newton's method, with x and J as constants. As in monotone_root, a second
            # one, whose value is rounding and is taken away, has the second derivatives.
            x = x.detach()
            point = self.network.at(x, context, layers)
            inverse = torch.linalg.inv(self._one_plus(point.jacobian().detach()))

            def step(at: Tensor, value: Tensor) -> Tensor:
                missing = torch.where(torch.isinf(z), 0.0, z - at - value)
                return (inverse @ missing.unsqueeze(-1)).squeeze(-1)

            x = x + step(x, point.value)
            again = step(x, self.network.at(x, context, layers).value)
            return x + (again - again.detach())

    def _one_plus(self, jacobian: Tensor) -> Tensor:
        return jacobian + torch.eye(self.features, dtype=jacobian.dtype, device=jacobian.device)

    def _series(self, point: Linearized, noise: Noise) -> Tensor:
        """Estimates of log det(I + J), ``(draws, *batch)``, with the gradient of the Neumann series."""
        value = point.value.detach()
        if isinstance(noise, torch.Generator):
            units = torch.rand(1, device=noise.device, generator=noise).tolist()
            coins = torch.randint(2, (1, *value.shape), device=noise.device, generator=noise)
            probes = (2 * coins - 1).to(value.dtype)
        else:
            noise = noise or RowNoise()
            units = noise.common(self.probes, 2 * self.seed)
            probes = common_signs(noise, self.probes, 2 * self.seed + 1, value)
        reach = (1 + self.coefficient**2) / 2
        lengths = [self.terms] * len(units)
        if self.log_det == "roulette":
            lengths = [self.terms + int(math.log1p(-unit) / math.log(reach)) for unit in units]
        with torch.no_grad():
            total = value.new_zeros(probes.shape[:-1])
            row, left = probes, torch.zeros_like(probes)
            for k in range(1, max(lengths) + 1):
                # 1 / P(N >= k) where the roulette goes on, by probe.
                weight = reach ** -max(k - self.terms, 0)
                sign = 1.0 if k % 2 else -1.0
                weights = value.new_tensor([sign * weight * (k <= length) for length in lengths])
                weights = weights.reshape(-1, *(1,) * (total.dim() - 1))
                left = left + weights.unsqueeze(-1) * row  # v^T J^(k-1)
                row = point.vjp(row)
                total = total + weights / k * (row * probes).sum(-1)
        if not torch.is_grad_enabled():
            return total
        surrogate = (left * point.jvp(probes)).sum(-1)
        return total + surrogate - surrogate.detach()


def mean_of_draws(draws: Tensor) -> tuple[Tensor, None, Tensor | None]:
    """Contribution, residual and standard error of a step from draws ``(count, *batch)``; no error from one draw."""
    count, mean = len(draws), draws.mean(0)
    if count == 1:
        return mean, None, None
    return mean, None, ((draws - mean).detach().square().sum(0) / (count * (count - 1))).sqrt()


def common_signs(noise: RowNoise, count: int, salt: int, like: Tensor) -> Tensor:
    """Probes of +1 and -1 that depend on the seed alone, ``(count, *like.shape)``: the same for every row."""
    size = like.shape[-1]
    signs = [1.0 if unit < 0.5 else -1.0 for unit in noise.common(count * size, salt)]
    rows = like.new_tensor(signs).reshape(count, *(1,) * (like.dim() - 1), size)
    return rows.expand(count, *like.shape)
