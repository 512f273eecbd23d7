"""Exact densities of the features by flows: likelihood, typicality and the terms of the likelihood."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.detection.network.reading import Reading
from pushforward.detection.network.scores.base import NetworkScore, predicted
from pushforward.detection.network.streaming import Gathered
from pushforward.errors import InputError
from pushforward.models import RealNVP
from pushforward.numerics import seeded
from pushforward.numerics.checks import check_choice, check_integer
from pushforward.training import fit

__all__ = ["FeatureFlow"]

_SMALLEST = 50
"""Fewest training rows for a flow."""
_REST = 1e-3
"""Smallest variance outside the principal subspace, relative to the mean variance of all directions."""


class FeatureFlow(NetworkScore):
    """``-log p(z | c)`` or ``-log p(z)`` of the features in nats, by a flow; c is the predicted class.

    The features are rotated to their principal directions, which changes no volume. A RealNVP (Dinh et al. 2017) models the first
    ``size`` coordinates, and independent normal distributions the others, so the sum is the exact log-density of the whole vector.

    Args:
        conditional: whether the flow knows the class: the training label while it trains, the predicted class when it scores.
        form: "likelihood"; "typicality": the distance of -log p from its mean on held-out training rows (Nalisnick et al. 2019, arXiv
            1906.02994); "path": half the squared Mahalanobis distance of the three terms of log p (base, volume, other
            coordinates), because terms with opposite changes cancel in their sum (Morningstar et al. 2021).
        size: largest number of coordinates that the flow models.
        layers: number of couplings.
        hidden: width of their networks.
        max_steps: of training.
        seed: of the weights and the training.

    Raises:
        InputError: by :meth:`fit`, for fewer than 50 training rows.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(600, 4), torch.arange(600) % 3
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> score = pf.detection.network.FeatureFlow(max_steps=20)
        >>> guard = pf.NetworkGuard(net, alpha=0.05, score=score).fit((x[:300], y[:300]), calibration=x[300:])
        >>> guard(torch.tensor([[30.0, -30.0, 30.0, 30.0]])).alarm
        tensor([True])
    """

    def __init__(
        self,
        conditional: bool = True,
        form: str = "likelihood",
        size: int = 64,
        layers: int = 4,
        hidden: int = 64,
        max_steps: int = 1500,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.conditional, self.form = (
            bool(conditional),
            check_choice("form", form, ("likelihood", "typicality", "path")),
        )
        self.size, self.layers = check_integer("size", size, 2), check_integer("layers", layers)
        self.hidden, self.max_steps = check_integer("hidden", hidden), check_integer("max_steps", max_steps)
        self.seed = check_integer("seed", seed, 0)
        self.needs = frozenset({"labels"}) if conditional else frozenset()
        self.declare(origin=1, directions=2, scale=1, rest=1, shape=1, center=1, factor=2)
        self.flow: RealNVP | None = None

    origin: Tensor
    directions: Tensor
    scale: Tensor
    rest: Tensor
    shape: Tensor
    center: Tensor
    factor: Tensor

    def build(self, width: int, classes: int) -> RealNVP:
        """The flow without weights that mean anything."""
        context = classes if self.conditional and classes > 1 else 0
        with seeded(self.seed):
            return RealNVP(
                width,
                context,
                layers=self.layers,
                hidden=(self.hidden, self.hidden),
                max_log_scale=2.0,
                standardize=False,
            )

    def _learn(self, gathered: Gathered) -> None:
        rows, labels = gathered.sample["features"].double(), gathered.sample["labels"]
        if len(rows) < _SMALLEST:
            raise InputError(f"FeatureFlow needs at least {_SMALLEST} training rows; got {len(rows)}.")
        moments = gathered.moments["features"]
        variances, directions = torch.linalg.eigh(moments.covariance)
        variances, directions = variances.flip(0).clamp(min=0), directions.flip(1)
        floor = _REST * variances.mean() if variances.mean() > 0 else torch.ones_like(variances[0])
        width = min(self.size, len(variances))
        width = max(2, min(width, int((variances > floor).sum()))) if len(variances) > 1 else 1
        self.origin, self.directions = moments.mean, directions.contiguous()
        self.scale, self.rest = (
            variances[:width].clamp(min=float(floor)).sqrt(),
            variances[width:].clamp(min=float(floor)),
        )
        self.shape = torch.tensor([width, gathered.classes], dtype=torch.float64)
        flow = self.build(width, gathered.classes)
        coordinates = self._coordinates(rows)[0].float()
        context = self._context(labels)
        generator = torch.Generator().manual_seed(self.seed)
        kept = torch.rand(len(rows), generator=generator, dtype=torch.float32) >= 0.1

        def part(mask: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            return coordinates[mask] if context is None else (coordinates[mask], context[mask])

        with torch.enable_grad():
            fit(
                flow, part(kept), validation=part(~kept), max_steps=self.max_steps, batch_size=min(256, int(kept.sum())),
                learning_rate=2e-3, seed=self.seed, progress="silent",
            )  # fmt: skip
        self.flow = flow.eval().requires_grad_(False)
        terms = self._terms(rows[~kept], labels[~kept])
        self.center = terms.mean(0)
        deviations = terms - self.center
        covariance = deviations.T @ deviations / len(terms)
        covariance.diagonal().add_(1e-6 * covariance.diagonal().mean() + 1e-12)
        variances, axes = torch.linalg.eigh(covariance)
        self.factor = (axes * variances.clamp(min=1e-9 * float(variances[-1])).rsqrt()).contiguous()

    def _coordinates(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Whitened principal coordinates, and the log-density of the others minus the logarithm of the whitening's volume."""
        turned = (rows - self.origin) @ self.directions
        width = len(self.scale)
        others = turned[:, width:]
        log_rest = -0.5 * (others.square() / self.rest + (2 * math.pi * self.rest).log()).sum(1)
        return turned[:, :width] / self.scale, log_rest - self.scale.log().sum()

    def _context(self, labels: Tensor) -> Tensor | None:
        classes = int(self.shape[1])
        if not self.conditional or classes < 2:
            return None
        return torch.nn.functional.one_hot(labels, classes).float()

    def _terms(self, rows: Tensor, labels: Tensor) -> Tensor:
        """Base, volume and other coordinates: three terms in nats that add up to the log-density, ``(n, 3)``."""
        assert self.flow is not None
        coordinates, others = self._coordinates(rows)
        context = self.flow.prepare_context(self._context(labels), coordinates.shape[:1])
        step = self.flow.chain.encode(coordinates.float(), context, noise=None)
        base = self.flow.base.log_prob(step.z, context)
        return torch.stack((base.double(), step.contribution.double(), others), 1)

    def log_density(self, reading: Reading) -> Tensor:
        """log p of the features, nats, ``(n,)``."""
        return self._terms(reading.features.double(), predicted(reading)).sum(1)

    def _score(self, reading: Reading) -> Tensor:
        terms = self._terms(reading.features.double(), predicted(reading))
        if self.form == "path":
            return 0.5 * ((terms - self.center) @ self.factor).square().sum(1)
        surprise = -terms.sum(1)
        return (surprise + self.center.sum()).abs() if self.form == "typicality" else surprise
