"""`TargetFit`: a flow that was fitted to an unnormalized log-density, and what says whether to trust it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pushforward.display import card, table
from pushforward.errors import InputError, warn_caller
from pushforward.inference.modes import Mode, box_points, find_modes
from pushforward.inference.parameters import Parameters
from pushforward.inference.summary import Summary, summarize
from pushforward.inference.targets import Target
from pushforward.inference.weights import ImportanceWeights, effective_sample_size, khat_threshold
from pushforward.models.base import Model
from pushforward.models.sampling import seeded_generator
from pushforward.numerics.checks import check_integer
from pushforward.training.result import FitResult

__all__ = ["FoundMode", "TargetFit"]

_DROPPED_NATS = 4.0
"""A mode is dropped if the flow's density there is below exp(-4), 2 %, of the normalized target's."""
_DROPPED_MASS = 0.01
"""Modes with a smaller fraction of the mass than this are not reported."""
_MISSING = 0.01
"""A flow lacks a part of the target if a larger share of short chains leaves it."""
_FEWEST_STEPS = 30
"""A coordinate whose deviation is less than this times the spacing of numbers at its mean is rounded too coarsely."""
_NEARLY_ALL = 0.99
"""Effective part of the draws from which on a large k-hat comes from a few draws at an edge."""
_LOST = 1.0
"""Nats below its start at which training counts as failed."""
_ENOUGH_STEPS = 100
"""The first steps throw a flow off its start, and shorter runs need not return."""
_NARROW = 1e-8
"""Deviations below this are far from the units in which the search for modes and the flow start."""


@dataclass(frozen=True)
class FoundMode:
    """A local maximum of the target, and whether the flow has mass there.

    Attributes:
        location: ``(D,)``, in the coordinates of the flow's samples.
        mass: fraction of the target's mass, by the Laplace approximation. The whole is the evidence, which lacks what the
            flow lacks, and the masses of the modes that the flow lacks.
        deficit: log of the target, normalized by the evidence, minus log of the flow's density at the maximum, nats.
        dropped: whether the flow lacks the mode: the deficit is above 4 nats and the mass above 1 %.

    Example:
        >>> import torch, pushforward as pf
        >>> fit = pf.inference.fit_to_target(2, lambda v: -0.5 * (v**2).sum(-1), max_steps=20, seed=0, progress="silent")
        >>> [mode.dropped for mode in fit.modes]
        [False]
    """

    location: Tensor
    mass: float
    deficit: float
    dropped: bool


@dataclass(frozen=True)
class TargetFit:
    """A flow q that was fitted to an unnormalized log-density p, with importance weights of its draws.

    k-hat, the effective sample size and the error of the evidence come from draws of q, so they tell how much p and q differ
    where q has draws. They cannot see a part of p that no draw reaches: then the evidence lacks the mass of that part, and means
    and deviations are those of the rest. Two searches look for such parts: restarts find separate modes, and short Hamiltonian
    chains of p that start at draws of q find tails and necks that are connected with them (:attr:`missing`). Both find much and
    prove nothing. Where it matters, compare two fits that differ (another ``seed``, more ``max_steps``, a wider model or
    ``objective="importance-weighted"``): log evidences that differ by more than their errors show that a part is missing, and the
    larger is usually closer. A better parametrization or ``neutra(fit)`` may find what all miss.

    Attributes:
        model: q, a density of the constrained coordinates; ``pf.save(fit.model, path)`` stores it.
        flow: q on the unconstrained reals.
        weights: importance weights of :attr:`draws`.
        flow_weights: importance weights p / q of the draws of q alone, the first nine tenths of :attr:`draws`.
        draws: flat constrained coordinates ``(n, D)``, float64. The last tenth are draws of q with a wider base.
        unconstrained: the same draws on the reals.
        modes: local maxima of p that several starts reached, and whether q has mass there.
        missing: share of 256 short chains of p, from draws of q, that end where q, with a tenth of it wider, has less than
            5 % of the density that it should have, less the part of the weights of such draws. The chains are too short to
            reach all of p, so the part that no draw shows is often larger.
        training: result of the training run.
        target: the log-density.
        parameters: names and constraints; None if there are none.
        objective: what training minimized: "reverse-kl", "importance-weighted" or "fab".

    Example:
        >>> import torch, pushforward as pf
        >>> fit = pf.inference.fit_to_target(2, lambda v: -0.5 * (v**2).sum(-1), max_steps=20, seed=0, progress="silent")
        >>> fit.reliable, fit.resample(100).shape
        (True, torch.Size([100, 2]))
    """

    model: Model
    flow: Model
    weights: ImportanceWeights
    flow_weights: ImportanceWeights = field(repr=False)
    draws: Tensor = field(repr=False)
    unconstrained: Tensor = field(repr=False)
    modes: list[FoundMode]
    missing: float
    training: FitResult
    target: Target
    parameters: Parameters | None = None
    objective: str = "reverse-kl"

    @property
    def k_hat(self) -> float:
        """Shape of the tail of the importance weights; below 0.7 the estimates are reliable where q covers p (see the class)."""
        return self.weights.k_hat

    @property
    def ess(self) -> float:
        """Effective sample size of the importance-weighted draws, between 1 and their number."""
        return self.weights.ess

    @property
    def log_evidence(self) -> float:
        """log Z of the target, nats."""
        return self.weights.log_evidence

    @property
    def log_evidence_error(self) -> float:
        """Standard error of :attr:`log_evidence`; it means nothing if k-hat is above 0.7, or if q misses a part of p."""
        return self.weights.log_evidence_error

    @property
    def dropped_modes(self) -> list[FoundMode]:
        """Modes of the target where the flow has almost no mass."""
        return [mode for mode in self.modes if mode.dropped]

    @property
    def reliable(self) -> bool:
        """Whether the weights are reliable (:attr:`ImportanceWeights.reliable`), no mode is dropped, at most 1 % of the short
        chains leave q (:attr:`missing`), and numbers are fine enough.

        It finds most bad fits, and is no proof: a part of p that no draw of q and no chain reaches shows nowhere.
        """
        return self.weights.reliable and not self.dropped_modes and self.missing <= _MISSING and not self.unresolved

    @property
    def unresolved(self) -> list[str]:
        """Parameters that vary so little beside their mean that the type of the flow rounds their draws too coarsely.

        Names, or numbers of coordinates; on the unconstrained reals, where the flow computes.
        """
        own = self.unconstrained[: len(self.flow_weights.log_ratios)]
        coarse = own.std(0) < _FEWEST_STEPS * torch.finfo(self.flow.dtype).eps * own.mean(0).abs()
        return self._names(coarse)

    def _names(self, chosen: Tensor) -> list[str]:
        names = [str(k) for k in range(len(chosen))] if self.parameters is None else self.parameters.names
        return [names[k] for k in chosen.nonzero()[:, 0].tolist()]

    def sample(self, count: int, *, seed: int | None = None) -> Any:
        """Draws of the flow itself: ``(count, D)``, or a dictionary by name if the fit has ``parameters``."""
        check_integer("count", count, 0)
        return self._named(self.model.sample(count, seed=seed))

    def resample(self, count: int, *, seed: int | None = None) -> Any:
        """Draws of the target: draws of the flow, chosen with the probabilities of their importance weights.

        They may repeat, and ``seed`` makes them reproducible. With a k-hat below 0.7 their distribution is that of the
        target, where the flow covers it, up to Monte Carlo error.
        """
        check_integer("count", count, 0)
        chosen = self.weights.resample(count, seeded_generator(seed))
        return self._named(self.draws[chosen.to(self.draws.device)])

    def mean(self) -> Tensor:
        """Importance-weighted means of the flat constrained coordinates, ``(D,)``.

        Warns:
            PushforwardWarning: if the weights are reliable and a mean is not, because of heavy tails (:meth:`summary`).
        """
        self._warn_of_tails("mean")
        return self.weights.mean(self.draws)

    def std(self) -> Tensor:
        """Importance-weighted standard deviations of the flat constrained coordinates, ``(D,)``.

        Warns:
            PushforwardWarning: if the weights are reliable and a deviation is not, because of heavy tails (:meth:`summary`).
        """
        self._warn_of_tails("std")
        return self.weights.mean((self.draws - self.weights.mean(self.draws)).square()).sqrt()

    def _warn_of_tails(self, what: str) -> None:
        """Warn of means or deviations that depend on a few draws, where the weights gave no warning."""
        if not self.weights.reliable:
            return
        found = summarize(self.draws, self.weights, probs=(), names=self._names(torch.ones(self.draws.shape[1])))
        bad = [name for name in found.unreliable if name.startswith(f"{what} of ")]
        if bad:
            warn_caller(
                f"the {', '.join(bad[:3])}{f' and {len(bad) - 3} more' if len(bad) > 3 else ''} cannot be trusted, because the target has heavy tails: "
                f"the {'estimate depends' if len(bad) == 1 else 'estimates depend'} on a few draws. Use quantiles, as those of fit.summary()."
            )

    def summary(self, *, probs: Sequence[float] = (0.05, 0.5, 0.95)) -> Summary:
        """Weighted mean with its error, deviation and quantiles of every parameter, and whether each can be trusted.

        Weights may be reliable where a mean or a deviation is not, because the target has heavy tails
        (:func:`~pushforward.inference.summarize`).

        Args:
            probs: probabilities of the quantiles.

        Example:
            >>> import torch, pushforward as pf
            >>> fit = pf.inference.fit_to_target(2, lambda v: -0.5 * (v**2).sum(-1), max_steps=20, seed=0, progress="silent")
            >>> found = fit.summary(probs=(0.5,))
            >>> bool(abs(found.std - 1).max() < 0.05), found.unreliable
            (True, [])
        """
        return summarize(self._named(self.draws), self.weights, probs=probs)

    def _named(self, x: Tensor) -> Any:
        return x if self.parameters is None else self.parameters.unflatten(x)

    def __repr__(self) -> str:
        verdict = "reliable" if self.reliable else "not reliable"
        dropped = f", {len(self.dropped_modes)} modes dropped" if self.dropped_modes else ""
        missing = f", {self.missing:.0%} of short chains leave it" if self.missing > _MISSING else ""
        return (
            f"TargetFit({verdict}: k-hat {self.k_hat:.2f}, ESS {self.ess:.0f} of {len(self.draws)}, log evidence "
            f"{self.log_evidence:.3f} +- {self.log_evidence_error:.3f}{dropped}{missing}, {self.training.seconds:.1f} s)"
        )

    def _repr_html_(self) -> str:
        """What says whether to trust the fit, and the modes, for a notebook."""
        facts = [
            ("verdict", "reliable" if self.reliable else "not reliable"),
            ("k-hat", f"{self.k_hat:.2f}"),
            ("effective sample size", f"{self.ess:.0f} of {len(self.draws)} draws"),
            ("log evidence", f"{self.log_evidence:.3f} +- {self.log_evidence_error:.3f} nats"),
            ("short chains that leave it", f"{self.missing:.1%}"),
            ("objective", self.objective),
            ("time", f"{self.training.seconds:.1f} s"),
        ]
        rows = [
            (", ".join(f"{value:.3g}" for value in mode.location[:6].tolist()), f"{mode.mass:.1%}",
             "missing in the flow" if mode.dropped else "covered")
            for mode in self.modes[:20]
        ]  # fmt: skip
        more = (
            table(("mode at", "mass", ""), rows, "1 mode" if len(rows) == 1 else f"{len(self.modes)} modes")
            if rows
            else ""
        )
        return card("Flow fitted to a log-density", facts, more)


def check_modes(
    flow: Model, target: Target, unconstrained: Tensor, known: list[Mode], log_evidence: float, *, restarts: int,
    spread: float, generator: torch.Generator,
) -> list[FoundMode]:  # fmt: skip
    """Local maxima from starting points that are spread more widely than the flow, and whether the flow covers them."""
    count, width = restarts, unconstrained.shape[1]
    center, scale = unconstrained.mean(0).cpu(), unconstrained.std(0).cpu()
    noise = torch.randn(count, width, dtype=torch.float64, generator=generator)
    wide = center + 3 * scale * noise
    box = box_points(count, width, spread, generator)
    starts = torch.where((torch.arange(count) % 2 == 0)[:, None], wide, box).to(unconstrained.device)
    modes = list(known)
    with torch.no_grad():
        usable = torch.isfinite(target(starts)) if count else torch.zeros(0, dtype=torch.bool)
    if bool(usable.any()):
        try:
            others = find_modes(target, starts)
        except (
            InputError
        ):  # it grows without bound from these points: the fit is there, and its weights say how good it is
            others = []
        modes += [mode for mode in others if not any(_near(mode, other) for other in known)]
    locations = [mode.location[None].to(unconstrained.device) for mode in modes]
    with torch.no_grad():
        log_q = [float(flow.log_prob(location.to(flow.dtype))) for location in locations]
    deficits = [mode.log_density - log_evidence - value for mode, value in zip(modes, log_q, strict=True)]
    lacking = [mode.log_mass for mode, deficit in zip(modes, deficits, strict=True) if deficit > _DROPPED_NATS]
    total = torch.tensor([log_evidence, *lacking], dtype=torch.float64).logsumexp(0)
    found = []
    for mode, location, deficit in zip(modes, locations, deficits, strict=True):
        mass = float((mode.log_mass - total).exp())
        dropped = deficit > _DROPPED_NATS and mass > _DROPPED_MASS
        found.append(FoundMode(target.constrain(location)[0].detach(), min(mass, 1.0), deficit, dropped))
    return found


def _lost(training: FitResult) -> float:
    """Nats by which the last evaluation is below the start, if no evaluation was above the start; 0 for a run of few steps."""
    if training.best_step or training.best_validation is None or training.steps < _ENOUGH_STEPS:
        return 0.0
    return training.best_validation - training.history[-1]["validation"]


def warn(fit: TargetFit) -> None:
    """Say in one warning each why the result is not to be trusted, and what to try."""
    threshold = khat_threshold(len(fit.draws))
    lost = _lost(fit.training)
    if lost > _LOST:
        warn_caller(
            f"training made the flow worse: it ended {lost:.3g} nats below its start, to which the fit has returned, so the flow is only an "
            "approximation by a normal distribution or by the moments of short chains. Try a larger batch_size=, a smaller learning_rate= or another seed=."
        )
    if fit.unresolved:
        warn_caller(
            f"parameter {fit.unresolved[0]} varies so little beside its mean that {fit.flow.dtype} rounds its draws, so "
            "deviations and the evidence may be wrong. Subtract a constant from it inside the log-density, or fit a flow in "
            "double precision, such as pf.inference.default_flow(features).double()."
        )
    if not fit.weights.reliable:
        narrow = fit._names(fit.unconstrained.std(0) < _NARROW)
        rescale = (
            f"Give parameter {narrow[0]}, which varies by less than {_NARROW:g}, a larger unit. " if narrow else ""
        )
        share = effective_sample_size(fit.weights.log_weights) / len(fit.weights.log_weights)
        fab = "" if fit.objective == "fab" else ' objective="fab" if there may be several modes,'
        advice = (
            f"{rescale}Try more steps (max_steps=), a larger flow, a parametrization with less "
            f"correlation,{fab} or pf.inference.neutra(fit) for exact draws."
        )
        if share > _NEARLY_ALL and math.isfinite(fit.k_hat):
            warn_caller(
                f"k-hat is {fit.k_hat:.2f}, above {threshold:.2f}, although the effective sample size is {share:.1%} of the draws: the flow has too "
                "little mass at an edge of the target, as at a bound where the density is not 0, so a few draws have large weights. Estimates may be "
                f"good, and their stated errors are too small. {advice}"
            )
        else:
            warn_caller(
                f"k-hat is {fit.k_hat:.2f}, above {threshold:.2f}: the flow misses a part of the target, and estimates from "
                f"its draws are not reliable. {advice}"
            )
    if fit.dropped_modes:
        worst = max(fit.dropped_modes, key=lambda mode: mode.mass)
        where = ", ".join(f"{value:.3g}" for value in worst.location[:4].tolist())
        warn_caller(
            f"the flow has almost no mass at {len(fit.dropped_modes)} of {len(fit.modes)} modes of the target; the largest "
            f"is at ({where}{', ...' if len(worst.location) > 4 else ''}) with about {worst.mass:.0%} of the mass. Try "
            + ("more steps (max_steps=)" if fit.objective == "fab" else 'objective="fab"')
            + ", more starting points (restarts=) or a wider start (spread=)."
        )
    elif fit.missing > _MISSING and fit.weights.reliable:
        warn_caller(
            f"the flow lacks a part of the target that its importance weights do not show: {fit.missing:.0%} of short chains of the "
            "target from its draws end where it has almost no mass, as in a long tail or a narrow neck. The evidence is too "
            "small, and deviations too. Try more steps (max_steps=), a larger flow, "
            'objective="importance-weighted", a parametrization with less correlation, or pf.inference.neutra(fit).'
        )
    target = fit.target
    if target.nan_count or target.error_count:
        what = f"was NaN at {target.nan_count}" if target.nan_count else ""
        if target.error_count:
            what += f"{' and ' if what else ''}raised an error at {target.error_count}"
        first = f" (the first: {target.first_error})" if target.error_count else ""
        warn_caller(
            f"the log-density {what} of {target.evaluations} points, which count as outside its support{first}."
        )
    outside = float(torch.isneginf(fit.flow_weights.log_ratios).double().mean())
    if outside > 0.01:
        warn_caller(
            f"{outside:.0%} of the flow's draws lie where the log-density is -inf. Their weight is 0, so weighted "
            "estimates stay right, but state the constraints of the parameters (parameters=) to use all draws."
        )


def _near(mode: Mode, other: Mode) -> bool:
    offset = torch.linalg.lstsq(other.factor, (mode.location - other.location)[:, None]).solution
    return bool(offset.norm() < 0.1 * len(mode.location) ** 0.5 + 1e-3)
