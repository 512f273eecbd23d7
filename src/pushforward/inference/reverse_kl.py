"""Training of a flow on an unnormalized log-density: batches of noise, losses, and the run that measures them."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.func import functional_call

from pushforward.distributions.base import Distribution
from pushforward.errors import InputError
from pushforward.inference.proposal import weighted_draws, widen
from pushforward.inference.targets import Target
from pushforward.inference.weights import NEARLY_EQUAL, effective_sample_size, pareto_smooth
from pushforward.models.base import Model
from pushforward.numerics import logmeanexp
from pushforward.training.input_spec import InputSpec, Pair
from pushforward.training.run import Run
from pushforward.training.seeds import Purpose, generator, mix
from pushforward.training.sources import Batch, Position, Source

__all__ = ["NoiseSource", "TargetLoss", "TargetRun", "lower_bound"]

ROWS = 2
"""Context of rows of the target in a batch; other contexts are whether noise is that of the base."""
_PROBES = 16
_CONVERGED_ESS, _CONVERGED_K_HAT, _PROOF, _CONFIRMED = 0.99, 0.5, 10_000, 40_000
_NOISE_OF_BOUND = 0.03
"""Nats by which the evidence of nearly equal weights may be below an earlier bound. One whose KL is 0.03 has a standard error of 0.005."""
_LEAST_NATS = 10.0
"""Nats below the mean weight beyond which all draws of a flow that covers its target count alike: none has a weight."""
_FEW_INSIDE = 0.2
"""Part of the draws inside the support below which their mean says too little about where the support is."""
_EVEN = 0.1
"""Variance of the log ratios, nats^2, at which the exact gradient and that along the paths weigh the same."""


class NoiseSource(Source):
    """Endless batches of noise of the base distribution, and a fixed set of them for evaluation.

    Args:
        model: the flow.
        target: the log-density, by whose values at a few points a checkpoint recognizes it.
        start: function that returns rows near the mass of the target, from which data-dependent state is set.
        batch_size: draws in each step.
        held_out: draws for evaluation.
        seed: of the noise.
        wide: stretch a tenth of the training noise, see :func:`~pushforward.inference.proposal.widen`.
        warm_rows: function that returns rows that the first ``warm_steps`` steps fit by maximum likelihood; None for none.
        warm_steps: number of these steps.
    """

    steps = None

    def __init__(
        self, model: Model, target: Target, start: Callable[[], Tensor], batch_size: int, held_out: int, seed: int,
        wide: bool = False, warm_rows: Callable[[], Tensor | None] | None = None, warm_steps: int = 0,
    ) -> None:  # fmt: skip
        self.spec = _TargetSpec.of(model)
        self.base: Distribution = model.base
        self.target, self.start = target, start
        self.batch_size, self.held_out, self.seed, self.wide = batch_size, held_out, seed, wide
        self.warm_rows, self.warm_steps = warm_rows, warm_steps
        self.description = f"noise of {type(self.base).__name__} for a log-density on {target.features} coordinates"

    def batches(self, start: Position) -> Iterator[Batch]:
        """Noise that depends on the seed and the step alone; with wide noise the context marks the rows that are not.

        Batches of the first steps may be rows of the target, which a context :data:`ROWS` marks.
        """
        self.target.tolerate_errors()  # the first evaluation has shown that the function is right
        rows = self.warm_rows() if self.warm_rows is not None and start.step < self.warm_steps else None
        for step in itertools.count(start.step):
            if rows is not None and step < self.warm_steps:
                source = generator(self.seed, Purpose.SHUFFLE, step, device=self.spec.device)
                chosen = torch.randint(len(rows), (self.batch_size,), generator=source, device=self.spec.device)
                yield Batch(
                    rows[chosen].to(self.spec.device, self.spec.dtype), chosen.new_full(chosen.shape, ROWS), 0, step
                )
                continue
            z, own = self._draw(self.batch_size, Purpose.SHUFFLE, step), None
            if self.wide:
                wide = widen(z, generator(self.seed, Purpose.LOADING, step, device=self.spec.device))
                z, own = wide, (wide == z).flatten(1).all(1)
            yield Batch(z, own, 0, step)

    def ordered(self) -> Iterator[Pair]:
        """The noise for evaluation, always the same."""
        for index, begin in enumerate(range(0, self.held_out, 4096)):
            yield self._draw(min(4096, self.held_out - begin), Purpose.HELD_OUT, index), None

    def raw_sample(self, most: int) -> Pair:
        """Rows near the mass of the target."""
        return self.start()[:most], None

    def digest(self) -> str:
        """Hash of the log-density at a few points, to six digits."""
        points = torch.linspace(-1, 1, _PROBES * self.target.features, dtype=torch.float64)
        with torch.no_grad():
            values = self.target(points.reshape(_PROBES, -1).to(self.spec.device))
        text = ",".join(f"{value:.6g}" for value in values.tolist())
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @torch.no_grad()
    def _draw(self, count: int, purpose: Purpose, number: int) -> Tensor:
        source = generator(self.seed, purpose, number, device=self.spec.device)
        return self.base.sample(torch.Size((count,)), generator=source)


class _TargetSpec(InputSpec):
    """What the flow of a log-density reads."""

    def warn_if_imprecise(self, x: Tensor, what: str = "") -> None:
        """Nothing: the result of the fit says it, with the names of the parameters."""


class TargetLoss:
    """What training on a log-density minimizes, as a function of noise.

    "reverse-kl" is E_q[log q(x) - log p(x)] (Papamakarios et al. 2021, eq. 18). "importance-weighted" is the bound
    -E log mean_k p(x_k) / q(x_k) of Burda et al. 2016, with groups of K draws.

    Gradients follow the path of the samples only: x = T(z) carries a gradient, and log q(x) is computed again with the
    weights held fixed ("sticking the landing", Roeder, Wu, Duvenaud 2017, eq. 8; for the bound, the doubly
    reparameterized gradient of Tucker et al. 2019, eq. 8). It has zero variance where q = p. Flows whose ``log_prob``
    takes one pass for each coordinate (IAF) use the total gradient if ``gradient="auto"``.

    Draws where p is 0 or not defined have no log ratio; :class:`Target` counts them. Let S be the support of p, Q = q(S), and
    q_in = q / Q on S. The mean over the draws inside S is KL(q_in | p) + log Q - log Z, which is least where q is so wide that
    no draw is inside. So where a batch has draws outside, "reverse-kl" minimizes KL(q_in | p) - log Q, see
    :meth:`_inside`, and where nearly all are outside it fits the rows of ``start``, which pulls q back.

    Args:
        model: the flow.
        target: the log-density.
        objective: "reverse-kl" or "importance-weighted".
        group: K of the bound.
        gradient: "auto", "path" or "total".
        start: function that returns rows near the mass of the target; None if there are none to pull q back to.
    """

    def __init__(
        self, model: Model, target: Target, objective: str, group: int, gradient: str,
        start: Callable[[], Tensor] | None = None,
    ) -> None:  # fmt: skip
        self.model, self.target, self.objective, self.group = model, target, objective, group
        self.path = gradient == "path" or (gradient == "auto" and model.fast != "sample")
        self.start = start
        self._rows: Tensor | None = None
        self._was_inside = False

    def __call__(self, z: Tensor, context: Tensor | None, *, generator: torch.Generator) -> Tensor:
        """The loss of a batch of noise, a scalar.

        Args:
            z: the noise, or rows of the target.
            context: which rows are noise of the base, ``(n,)``; the others are wider. None if all are. :data:`ROWS`
                everywhere marks rows of the target, whose loss is the mean of -log q.
            generator: of the random numbers.

        Raises:
            InputError: if p is 0 or not defined at every draw and at every row of the start.
        """
        if context is not None and context.dtype != torch.bool:
            return -self.model.log_prob(z).mean()
        if self.path:
            x = self.model.rsample(noise=z)
            fixed = {name: parameter.detach() for name, parameter in self.model.named_parameters()}
            log_q = functional_call(self.model, fixed, (x,))
        else:
            x, contribution = self.model.chain.decode_with_contribution(z, noise=generator)
            log_q = self.model.base.log_prob(z) + contribution
        log_ratio = self.target(x) - log_q.double()
        finite = torch.isfinite(log_ratio)
        share = float(finite.double().mean())
        if share == 0 or (self.objective == "reverse-kl" and share < _FEW_INSIDE):
            rows = self._start_rows(x)
            if len(rows):
                chosen = torch.randint(len(rows), (len(z),), generator=generator, device=z.device)
                return -self.model.log_prob(rows[chosen]).mean()
            if share == 0:
                raise InputError(self._nothing_inside())
        self._was_inside = True
        if self.objective == "reverse-kl":
            loss = -torch.where(finite, log_ratio, 0.0).sum() / finite.sum()
            return (loss if share == 1 else self._inside(loss, x, log_ratio.detach(), context)).to(x.dtype)
        groups = torch.where(finite, log_ratio, -1e30).reshape(-1, self.group)
        if not self.path:
            return -logmeanexp(groups, 1).mean().to(x.dtype)
        weights = groups.detach().softmax(1)
        surrogate = (weights.square() * torch.where(finite.reshape(groups.shape), groups, 0.0)).sum(1)
        # The value is that of the bound; the gradient is that of the surrogate.
        return -(logmeanexp(groups.detach(), 1) + surrogate - surrogate.detach()).mean().to(x.dtype)

    def _inside(self, loss: Tensor, x: Tensor, log_ratio: Tensor, own: Tensor | None) -> Tensor:
        """KL(q_in | p) - log Q - log Z, where some draws are outside; its gradient mixes two estimates.

        The gradient of log Q is the mean of the score, grad log q(x) at a fixed x, over the draws inside, minus that over all
        draws. With f = log q - log p, the gradient of KL(q_in | p) is the covariance of f and the score over the draws inside
        (Richter et al. 2020), so that of the sum has no bias, and no variance where f is constant. Far from p it has much, and
        the path of the samples has less; but the path does not see draws that cross the edge, whose part is (1 + f_edge - mean f)
        times the gradient of log Q. A smooth q is about e times less at an edge than inside, which leaves -2 log Q.

        Args:
            loss: mean of f over all draws inside, with its gradient.
            x: the draws.
            log_ratio: -f, without a gradient; not finite outside.
            own: which rows are draws of q; None for all.
        """
        log_q = self.model.log_prob(x.detach()).double()
        counted = torch.isfinite(log_q) if own is None else own & torch.isfinite(log_q)
        inside = counted & torch.isfinite(log_ratio)
        if not bool(inside.any()):
            return loss
        score, f = log_q[inside], -log_ratio[inside]
        log_mass = score.mean() - log_q[counted].mean()
        exact = ((f - f.mean()) * score).mean() - log_mass
        trust = _EVEN / (_EVEN + f.var(correction=0))
        surrogate = trust * exact + (1 - trust) * (loss - 2 * log_mass)
        value = f.mean() - 2 * (inside.sum() / counted.sum()).log()
        return value + surrogate - surrogate.detach()

    def _start_rows(self, x: Tensor) -> Tensor:
        """The rows of the start that are inside the support, as the draws ``x`` are."""
        if self._rows is None:
            rows = x.new_zeros(0, *x.shape[1:]) if self.start is None else self.start().to(x.device, x.dtype)
            with torch.no_grad():
                self._rows = rows[torch.isfinite(self.target(rows))] if len(rows) else rows
        return self._rows

    def _nothing_inside(self) -> str:
        if self._was_inside:
            return (
                "the flow has left the support of the log-density, which is -inf or NaN at every draw now: lower learning_rate, "
                "or state the constraints of the parameters (parameters=)."
            )
        return (
            "the log-density is -inf or NaN at every draw of the flow: start the flow inside its support (starts=), "
            "or state the constraints of the parameters (parameters=)."
        )


class TargetRun(Run):
    """A run whose evaluations measure E_q[log p - log q] with fixed noise, nats, see :func:`lower_bound`; higher is better.

    It ends with the reason "converged" when the weights of these draws have an effective sample size of 99 % of their number
    and no large tail, and those of more draws, which are others at every evaluation, have neither: fixed draws alone pass by
    chance at one of many evaluations. The flow then keeps these weights, also if an earlier bound was a little larger. If it
    was much larger, the flow has lost a part of the target, and training goes on: a bound is at most log Z.

    With :attr:`covers` the best weights are those with the largest bound if no log ratio counts as less than that of a draw
    without weight. A flow that covers a target with narrow parts has a few draws where p is exp(-1e6), which cost its weights
    nothing, and its bound all.
    """

    target: Target
    converged = False
    covers = False

    def stop_reason(self) -> str | None:
        """As for other runs; "converged" if the weights are nearly equal."""
        reason = super().stop_reason()
        return "converged" if reason is None and self.converged else reason

    @torch.no_grad()
    def measure(self) -> tuple[float | None, int, tuple[int, float] | None]:
        """The bound from fixed draws, the number of draws without a finite log ratio, and the rank of the weights."""
        if self.held_out is None:
            return None, 0, None
        ratios = torch.cat([log_ratios(self.model, self.target, z)[1] for z, _ in self.held_out.ordered()]).cpu()
        self.converged = self._converged(ratios)
        bound = lower_bound(ratios)
        value = lower_bound(_with_least(ratios)) if self.covers else bound
        return bound, int((~torch.isfinite(ratios)).sum()), (int(self.converged), value)

    def warn_about_rows_outside(self) -> None:
        """Nothing: the result of the fit says it."""

    def _explain(self, batch: Batch) -> tuple[str, str]:
        """A log-density has no rows whose fault this could be."""
        return "", (
            "The density may be improper: if its integral is infinite, the flow widens without end. Give every parameter a "
            "proper prior, or bound it (pf.inference.interval); if the density is proper, lower learning_rate"
        )

    def _converged(self, ratios: Tensor) -> bool:
        """Whether weights of draws of q are nearly equal, and those of draws with a wide part have no large tail."""
        if not bool((ratios < math.inf).all()) or bool(torch.isneginf(ratios).all()):
            return False
        if effective_sample_size(ratios) < _CONVERGED_ESS * len(ratios):
            return False
        best = self.state.history[-1].best if self.state.history else None
        if best is not None and float(logmeanexp(ratios, 0)) < best - _NOISE_OF_BOUND:
            return False
        return self._equal(_PROOF, mix(self.seed, 104)) and self._equal(
            _CONFIRMED, mix(self.seed, 106, self.step), own=True
        )

    def _equal(self, count: int, seed: int, *, own: bool = False) -> bool:
        """Whether draws with a wide part have weights without a large tail; with ``own`` also whether those of q are nearly equal."""
        found = weighted_draws(self.model, self.target, count, torch.Generator(self.device).manual_seed(seed))
        if own and effective_sample_size(found.own_log_ratios) < _CONVERGED_ESS * found.own:
            return False
        ratios = found.log_ratios.cpu()
        largest = float(ratios.max() - logmeanexp(ratios, 0))
        return largest < math.log(NEARLY_EQUAL) or pareto_smooth(ratios.numpy())[1] <= _CONVERGED_K_HAT


def lower_bound(log_ratios: Tensor) -> float:
    """E[log p - log q] of draws of q, nats; if some are outside the support of p, of those inside, plus 2 log Q.

    Q is the part of them inside, and q_in = q / Q there. This is log Z - KL(q_in | p) + log Q, at most log Z, and log Z only
    where q is p. It is -inf if no draw is inside.
    """
    finite = torch.isfinite(log_ratios)
    if not bool(finite.any()):
        return -math.inf
    return log_ratios[finite].mean().item() + 2 * math.log(finite.double().mean().item())


def _with_least(log_ratios: Tensor) -> Tensor:
    """The log ratios, of which those inside the support are at least that of a draw without weight."""
    least = logmeanexp(log_ratios, 0) - _LEAST_NATS
    return torch.where(torch.isfinite(log_ratios), torch.maximum(log_ratios, least), log_ratios)


@torch.no_grad()
def log_ratios(model: Model, target: Target, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Draws of a flow from noise, log p - log q of them, and log q; float64."""
    x, contribution = model.chain.decode_with_contribution(z)
    log_q = (model.base.log_prob(z) + contribution).double()
    return x, target(x) - log_q, log_q
