"""`fit_to_target`: fit a flow to an unnormalized log-density, and measure how well it fits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Unpack

import torch
from torch import Tensor

from pushforward.distributions import Normal
from pushforward.errors import ConfigError
from pushforward.inference.identity import start_at_identity
from pushforward.inference.modes import Mode, box_points, find_modes, laplace_draws, mixture_log_prob, start_points
from pushforward.inference.parameters import Parameters
from pushforward.inference.proposal import mixture_log_density, weighted_draws
from pushforward.inference.result import TargetFit, check_modes, warn
from pushforward.inference.reverse_kl import NoiseSource, TargetLoss, TargetRun, lower_bound
from pushforward.inference.short_chains import LACKS_NATS, missing_part
from pushforward.inference.targets import LogDensity, Target
from pushforward.inference.weights import ImportanceWeights
from pushforward.likelihood import REAL, Kind
from pushforward.models import NSF, Flow
from pushforward.models.base import Model
from pushforward.numerics import logmeanexp
from pushforward.numerics.checks import check_choice, check_integer, check_positive, is_integer
from pushforward.training.budget import seconds as duration
from pushforward.training.config import TrainingConfig, TrainingOptions, make_config, with_options
from pushforward.training.fit import move_to_device, train_run
from pushforward.training.progress import make_reporter
from pushforward.training.run import make_plan
from pushforward.training.seeds import mix, preserved
from pushforward.training.strategies import SingleModel
from pushforward.transforms import Chain, Whiten

__all__ = ["default_flow", "fit_to_target"]

_STEPS, _BATCH, _HELD_OUT, _EVALUATE_EVERY, _RATE = 1_000, 512, 2_048, 100, 3e-3
_START_ROWS, _BOUND_ROWS = 4_096, 512
_WARM_STEPS = 200
"""Most steps that fit the points of short chains before those that minimize the divergence, and at most a fifth of all."""
_MANY_LEAVE = 0.25
"""Part of short chains that leaves the Laplace approximation, from which on the flow starts where they come to."""
_FARTHEST = 50.0
"""Interquartile ranges from the median beyond which a point of short chains is an outlier."""
_SECOND_MODE = math.log(0.01)
"""Log of the mass of a second mode, in that of the largest, from which on the objective is for several modes."""
_NEGLIGIBLE = 10.0
"""Nats by which the mass of a mode may be below that of the largest for reverse KL to start there."""
_NEGLIGIBLE_OF_MANY = 30.0
"""The same where the flow starts around all modes: thousands of modes with little mass each may have most of it, as in Many Well."""
_TIME_OF_CHAINS = 0.1
"""Part of ``max_time`` after which short chains end, before training and after it."""


def default_flow(features: int) -> Flow:
    """The flow that :func:`fit_to_target` uses if it gets only a number of coordinates.

    Whitening with a Laplace approximation of the target, then a neural spline flow of couplings (Durkan et al. 2019),
    which takes one pass in both directions, over a standard normal distribution. Untrained it is the Laplace approximation.

    Example:
        >>> import torch
        >>> from pushforward.inference import default_flow
        >>> default_flow(2).sample(3, seed=0).shape
        torch.Size([3, 2])
    """
    check_integer("features", features)
    layers = NSF(features, layers=6, hidden=(64, 64), tail_bound=8.0, standardize=False)
    start_at_identity(layers.chain)
    return Flow(Chain(Whiten(features, units=True), *layers.chain), Normal(features))


@with_options
def fit_to_target(
    model: Model | int | None,
    log_density: LogDensity,
    *,
    parameters: Parameters | None = None,
    objective: str = "auto",
    gradient: str = "auto",
    importance_samples: int = 8,
    starts: Tensor | Sequence[Sequence[float]] | None = None,
    restarts: int = 8,
    spread: float = 2.0,
    draws: int = 10_000,
    config: TrainingConfig | None = None,
    **options: Unpack[TrainingOptions],
) -> TargetFit:
    """Fit a flow q to a density p that is known up to a factor: variational inference with diagnostics.

    Training starts at a Laplace approximation of p, which L-BFGS finds from several starting points, and minimizes
    KL(q | p) by gradients along the path of the samples (Roeder et al. 2017; Agrawal and Domke 2024: large batches, such
    gradients and flows together match HMC). If draws fall outside the support of p, where log p is -inf, it also maximizes the
    part of q inside, see :class:`~pushforward.inference.reverse_kl.TargetLoss`. A tenth of the noise has heavier tails, so that the tails of q are fitted too.
    If the search finds several modes, training minimizes the alpha-divergence with alpha = 2 instead, see ``objective``, and starts
    around all of them.

    Training stops when the weights of 2,048 draws have an effective sample size of 99 %, those of 10,000 draws a k-hat of at most 0.5, and both hold for 40,000 new draws. Then draws of q, a tenth of them with a wider base so that the tails are covered, get importance weights. From these follow
    k-hat, the effective sample size and the evidence, and the modes of p are compared with q. Short Hamiltonian chains of p from draws of q look
    for parts of p that q lacks. A bad result gives a warning. Where many such chains leave the Laplace approximation, as on a banana, training
    starts with the moments of the points that they come to.

    Args:
        model: a flow with an exact density and exact samples, such as ``pf.models.NSF(5)``, on the unconstrained reals; or
            the number of coordinates, for :func:`default_flow`; or None, with ``parameters``.
        log_density: log p up to a constant, nats: a torch function of ``(n, D)`` that returns ``(n,)``; a function of a
            dictionary of constrained values, with ``parameters``; a pair of functions (value, gradient); or
            :class:`~pushforward.inference.PyroTarget`.
        parameters: names and constraints of the parameters. The density then refers to the constrained values.
        objective: "reverse-kl", which tends to keep one of several modes; "importance-weighted", the bound with
            ``importance_samples`` draws (Burda et al. 2016), which covers more of p; "fab", alpha-divergence with alpha = 2 on
            annealed importance samples in a replay buffer (Midgley et al. 2023), for several modes; or "auto", which is "fab"
            if the search before training finds a second mode with at least 1 % of the mass of the largest, else "reverse-kl".
        gradient: "path", "total", or "auto", which is "path" unless log q takes one pass for each coordinate.
        importance_samples: K of the importance-weighted bound.
        starts: starting points ``(k, D)``, in the coordinates of the samples. None draws them from the box
            [-spread, spread]^D of the unconstrained reals, and adds 0.
        restarts: number of starting points, before training and again after it, for the check of dropped modes.
        spread: size of that box.
        draws: number of draws for the diagnostics, at least 100.
        config: options of the run; the options below replace its values. Here ``batch_size=None`` is 512 draws, the budget
            without any limit is 1,000 steps, the learning rate without ``config`` and ``learning_rate`` is 3e-3, ``evaluate_every=None`` is 100 steps, and ``validation`` in the events is the
            mean of log p - log q, nats, with twice the log of the part of q inside the support added.
        options: fields of :class:`TrainingConfig`.

    Returns:
        :class:`~pushforward.inference.TargetFit`.

    Raises:
        ConfigError: for a value that an option does not take, or a model without exact density or samples, or whose data
            are not all reals, such as angles.
        InputError: for a log-density with a wrong shape, without gradient, or that is -inf or NaN everywhere, or starting points that
            are not real numbers.
        TrainingError: if the loss is not finite; the model gets its best weights again.

    Warns:
        PushforwardWarning: for training that made the flow worse than its start, a k-hat above its threshold, dropped modes, a part of p
            that q lacks, points at which the density is NaN or raises an error after training began (they count as outside the support),
            and draws outside the support.

    Example:
        >>> import torch, pushforward as pf
        >>> def log_density(x):                                             # exp(-|x|^2 / 2), so Z = 2 pi
        ...     return -0.5 * x.square().sum(-1)
        >>> fit = pf.inference.fit_to_target(2, log_density, max_steps=20, progress="silent")
        >>> fit.k_hat < 0.7, round(fit.log_evidence, 2)
        (True, 1.84)
    """
    check_choice("objective", objective, ("auto", "reverse-kl", "importance-weighted", "fab"))
    check_choice("gradient", gradient, ("auto", "path", "total"))
    check_integer("importance_samples", importance_samples, 1)
    check_integer("restarts", restarts, 0)
    check_positive("spread", spread)
    check_integer("draws", draws, 100)
    if config is None and "learning_rate" not in options:
        options["learning_rate"] = _RATE
    config = _defaults(make_config(config, options))
    with preserved(torch.device("cpu")):  # the weights of a flow that is made here depend on the seed alone
        torch.default_generator.manual_seed(mix(config.seed, 104))
        flow, parameters = _flow(model, log_density, parameters)
    if config.compile or config.amp:
        raise ConfigError(
            "fit_to_target computes in full precision and without compilation: use compile=False, amp=False."
        )
    if config.microbatches not in (None, 1):
        raise ConfigError(
            "the loss of fit_to_target is of its whole batch, not a mean over rows: leave microbatches out, or take a smaller batch_size."
        )
    move_to_device(flow, config.device)
    device = next(t.device for t in (*flow.parameters(), *flow.buffers()))
    target = Target(log_density, flow.shape[0], parameters)
    seconds = None if config.max_time is None else _TIME_OF_CHAINS * duration(config.max_time)
    search = _Search(target, starts, restarts, spread, config.seed, device, seconds)
    if objective == "auto":
        objective = "fab" if search.several() else "reverse-kl"
    assert config.batch_size is not None
    group = importance_samples if objective == "importance-weighted" else 1
    batch = -(-config.batch_size // group) * group
    rows = search.even_rows if objective == "fab" else search.rows
    loss = TargetLoss(flow, target, objective, group, gradient, rows)
    wide = objective == "reverse-kl" and loss.path and flow.base.support == REAL
    warm = min(_WARM_STEPS, (config.max_steps or 5 * _WARM_STEPS) // 5)
    train = NoiseSource(
        flow, target, rows, batch, 0, config.seed, wide, None if objective == "fab" else search.warm_rows, warm
    )
    held_out = NoiseSource(flow, target, rows, batch, _HELD_OUT, config.seed)
    run = TargetRun(flow, train, held_out, config, make_plan(config, None), make_reporter(config.progress))
    run.target, run.covers = target, objective == "fab"
    strategy = SingleModel(flow, config)
    if objective == "fab":
        from pushforward.inference.fab import FabLoss

        strategy.loss_function = FabLoss(flow, target, rows, search.even_log_prob, config.seed)
    else:
        strategy.loss_function = loss
    settings = {"objective": objective, "gradient": gradient, "importance_samples": group}
    training = train_run(run, strategy, settings)
    return measure_fit(
        flow, target, training, search.modes, draws=draws, restarts=restarts, spread=spread, seed=config.seed,
        seconds=seconds, objective=objective,
    )  # fmt: skip


def measure_fit(
    flow: Model,
    target: Target,
    training: Any,
    modes: list[Mode],
    *,
    draws: int,
    restarts: int,
    spread: float,
    seed: int,
    seconds: float | None = None,
    objective: str = "reverse-kl",
) -> TargetFit:
    """Draw from a flow, weight the draws, look for modes and other parts that it lacks, and warn about what is wrong."""
    target.tolerate_errors()
    device = next(t.device for t in (*flow.parameters(), *flow.buffers()))
    found = weighted_draws(flow, target, draws, torch.Generator(device).manual_seed(mix(seed, 101)))
    unconstrained = found.points
    weights, own = ImportanceWeights.of(found.log_ratios), ImportanceWeights.of(found.own_log_ratios)
    with torch.no_grad():
        constrained = target.constrain(unconstrained)
    modes_found = check_modes(
        flow, target, unconstrained[: found.own], modes, weights.log_evidence, restarts=restarts, spread=spread,
        generator=torch.Generator().manual_seed(mix(seed, 102)),
    )  # fmt: skip
    share, _ = missing_part(
        target, unconstrained[: found.own], lambda u: mixture_log_density(flow, u), weights.log_evidence,
        torch.Generator(device).manual_seed(mix(seed, 105)), seconds=seconds,
    )  # fmt: skip
    heavy = weights.log_ratios - weights.log_evidence > LACKS_NATS  # draws with such weights show that part
    missing = max(0.0, share - float(weights.log_weights[heavy].exp().sum()))
    model = flow
    if target.parameters is not None:
        transform = target.parameters.transform().to(device, flow.dtype)
        model = Flow(Chain(transform, *flow.chain), flow.base).eval()
    fit = TargetFit(
        model,
        flow,
        weights,
        own,
        constrained,
        unconstrained,
        modes_found,
        missing,
        training,
        target,
        target.parameters,
        objective,
    )
    warn(fit)
    return fit


class _Search:
    """Starting points, the modes that they reach, and rows near the mass of the target; computed on first use."""

    def __init__(
        self, target: Target, starts: Any, restarts: int, spread: float, seed: int, device: torch.device,
        seconds: float | None,
    ) -> None:  # fmt: skip
        self.target, self.spread, self.device = target, spread, device
        self.seed, self.seconds = seed, seconds
        self._moved = False
        self.generator = torch.Generator().manual_seed(mix(seed, 103))
        width = target.features
        if starts is None:
            box = box_points(restarts, width, spread, self.generator)
            starts = torch.cat((torch.zeros(1, width, dtype=torch.float64), box))
        else:
            starts = start_points(starts, width)
            if not bool(torch.isfinite(starts).all()):
                raise ConfigError("a starting point contains NaN or infinity: give finite numbers.")
            given, starts = starts, target.unconstrain(starts)
            if not torch.allclose(target.constrain(starts).nan_to_num(nan=torch.inf), given, rtol=1e-3, atol=1e-6):
                raise ConfigError(
                    f"a starting point does not satisfy the constraints {target.parameters!r}: give points inside."
                )
        self.starts = starts.to(device)
        self._rows: Tensor | None = None

    @cached_property
    def modes(self) -> list[Mode]:
        """The modes, the largest mass first."""
        return find_modes(self.target, self.starts)

    def several(self) -> bool:
        """Whether a second mode has a part of the mass that counts, by Laplace approximations."""
        return len(self.modes) > 1 and self.modes[1].log_mass > self.modes[0].log_mass + _SECOND_MODE

    def rows(self) -> Tensor:
        """Rows of the best of several normal mixtures: the one with the largest E[log p - log q]."""
        if self._rows is None:
            start_modes = self._above(_NEGLIGIBLE)
            broad = Mode(
                torch.zeros(self.target.features, dtype=torch.float64), 0.0,
                self.spread / 2 * torch.eye(self.target.features, dtype=torch.float64), 0.0,
            )  # fmt: skip
            candidates = [(start_modes, 1.0), (start_modes[:1], 1.0), (start_modes, 0.3), ([broad], 1.0)]
            scores = [self._bound(modes, inflate) for modes, inflate in candidates]
            modes, inflate = candidates[max(range(len(scores)), key=scores.__getitem__)]
            rows = laplace_draws(modes, _START_ROWS, self.generator, inflate=inflate).to(self.device)
            self._rows = self._follow(
                rows, lambda u: mixture_log_prob(modes, u.cpu(), inflate=inflate).to(u.device), len(modes) > 1
            )
        return self._rows

    def _follow(self, rows: Tensor, log_prob: Callable[[Tensor], Tensor], several: bool) -> Tensor:
        """The rows, or where short chains of the target come to from them, if many leave the normal mixture.

        The flow starts with the mean and the covariance of these rows. Those of a bent or long-tailed target differ much from the
        curvature at its mode, in whose units the flow might not reach the tails.
        """
        with torch.no_grad():
            ratios = self.target(rows[:_BOUND_ROWS]) - log_prob(rows[:_BOUND_ROWS])
            evidence = float(logmeanexp(ratios, 0))
        generator = torch.Generator(self.device).manual_seed(mix(self.seed, 106))
        share, path = missing_part(self.target, rows, log_prob, evidence, generator, seconds=self.seconds)
        self._moved = path.shape[1] > 0 and (share > _MANY_LEAVE or several)
        return _without_outliers(path.flatten(0, 1)) if self._moved else rows

    def warm_rows(self) -> Tensor | None:
        """The rows that the first steps fit: those of short chains, if the flow starts there."""
        rows = self.rows()
        return rows if self._moved else None

    def even_rows(self) -> Tensor:
        """Rows around the modes of the start, each with the same mass, so that a flow starts wider than its target."""
        if self._rows is None:
            self._rows = laplace_draws(self._even(), _START_ROWS, self.generator).to(self.device)
        return self._rows

    def even_log_prob(self, u: Tensor) -> Tensor:
        """Log-density of :meth:`even_rows`."""
        return mixture_log_prob(self._even(), u)

    def _above(self, nats: float) -> list[Mode]:
        """The modes but for those of negligible mass, which would set the scale of the flow and fill the buffer for nothing."""
        return [mode for mode in self.modes if mode.log_mass > self.modes[0].log_mass - nats]

    def _even(self) -> list[Mode]:
        return [replace(mode, log_mass=0.0) for mode in self._above(_NEGLIGIBLE_OF_MANY)]

    @torch.no_grad()
    def _bound(self, modes: list[Mode], inflate: float) -> float:
        """E[log p - log q] of a normal mixture by a few draws, see :func:`lower_bound`."""
        u = laplace_draws(modes, _BOUND_ROWS, self.generator, inflate=inflate)
        return lower_bound(self.target(u.to(self.device)).cpu() - mixture_log_prob(modes, u, inflate=inflate))


def _without_outliers(rows: Tensor) -> Tensor:
    """The rows within some interquartile ranges of the median in every coordinate; few outliers of heavy tails would set the scale."""
    ordered = rows.sort(0).values
    low, middle, high = (ordered[part * (len(rows) - 1) // 4] for part in (1, 2, 3))
    inside = ((rows - middle).abs() <= _FARTHEST * (high - low)).all(1)
    return rows[inside] if 2 * int(inside.sum()) > len(rows) else rows


def _flow(model: Any, log_density: Any, parameters: Parameters | None) -> tuple[Model, Parameters | None]:
    if parameters is not None and not isinstance(parameters, Parameters):
        raise ConfigError(f"parameters must be pf.inference.Parameters(...); got {type(parameters).__name__}.")
    width = getattr(log_density, "features", None) if parameters is None else parameters.features
    if model is None:
        if width is None:
            raise ConfigError("fit_to_target needs a model, a number of coordinates, or parameters=.")
        model = width
    if is_integer(model):
        model = default_flow(model)
    if not isinstance(model, Model):
        raise ConfigError(
            f"fit_to_target fits a pushforward model, or takes a number of coordinates; got {model!r:.80}."
        )
    if len(model.shape) != 1 or model.context_features:
        raise ConfigError(f"fit_to_target needs a flow of vectors without a context; got {model!r:.200}.")
    if not (model.chain.bijective and model.kind is Kind.EXACT and model.base.has_rsample):
        raise ConfigError(
            f"fit_to_target needs a flow with an exact density and samples with gradients, such as MAF or NSF; {type(model).__name__} has not."
        )
    domain, image, base = model.chain.domain, model.chain.codomain, model.base.support
    box = base if domain is None else domain
    part = image is not None and not base.covers(image)  # the base has mass on a part of what the chain reaches
    if box != REAL or part or model.measure.name != "Lebesgue":
        where = str(box) if box != REAL else f"a part that its base on {base} leaves" if part else str(model.measure)
        raise ConfigError(
            f"fit_to_target needs a flow on all reals, and the data of this {type(model).__name__} lie in {where}, so it would "
            "miss the rest of the target: give a flow on the reals, such as NSF(features), and state the constraints of the "
            "parameters with parameters=, as pf.inference.Parameters(x=pf.inference.interval(0.0, 1.0))."
        )
    if width is not None and width != model.shape[0]:
        raise ConfigError(f"the flow has {model.shape[0]} coordinates and the log-density {width}.")
    return model, parameters


def _defaults(config: TrainingConfig) -> TrainingConfig:
    """The config with the defaults that suit a log-density in place of None."""
    changes: dict[str, Any] = {}
    if config.batch_size is None:
        changes["batch_size"] = _BATCH
    if config.epochs is not None:
        raise ConfigError("a log-density has no rows, so epochs cannot be counted: set max_steps or max_time.")
    if config.max_steps is None and config.max_time is None:
        changes["max_steps"] = _STEPS
    if config.evaluate_every is None:
        changes["evaluate_every"] = _EVALUATE_EVERY
    return replace(config, **changes)
