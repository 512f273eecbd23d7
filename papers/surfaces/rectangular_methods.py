"""The methods of the study of rectangular flows, each trained on a distribution on a curve or a surface."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch

from papers.experiment import PAPER_TRAINING, Experiment, size
from papers.surfaces.manifolds import Level, ManifoldDistribution, train_in_phases, train_until_level
from pushforward.distributions import Distribution, GaussianMixture, StudentT
from pushforward.io import load, save
from pushforward.models import (
    NSF,
    AutoEncoder,
    ConformalEmbeddingFlow,
    ManifoldModel,
    Model,
    RealNVP,
    RectangularFlow,
    TwoStep,
)
from pushforward.training import fit_two_step
from pushforward.transforms import SplineTransformer

__all__ = ["Lengths", "Methods", "Outcome", "how_long", "level_of", "steps_needed"]

Lengths = Mapping[str, Sequence[Mapping[str, Any]]]
"""For each method and seed the steps of a training until level, and the number of phases that reached their limit."""

Outcome = tuple[Model, dict[str, Any]]
"""A model, and after a training until level these two figures."""


def level_of(experiment: Experiment) -> Level | None:
    """The long run trains until the loss on held-out rows is level, the others for a number of steps."""
    return Level(1500, 6) if experiment.budget == "long" else None


def steps_needed(lengths: Lengths) -> str:
    """How many steps each method needed; "" if the number was given."""
    texts = []
    for method, runs in lengths.items():
        if "steps" not in runs[0]:
            return ""
        steps, open_ends = [facts["steps"] for facts in runs], sum(facts["unfinished"] for facts in runs)
        texts.append(
            f"{method} {min(steps):,.0f} to {max(steps):,.0f}"
            + (f" ({open_ends:.0f} at the limit)" if open_ends else "")
        )
    return (
        f"; steps of all phases, and phases that reached their limit before they were level: {', '.join(texts)}"
        if texts
        else ""
    )


def how_long(experiment: Experiment) -> str:
    """When a training until level ends; "" if the number of steps was given."""
    level = level_of(experiment)
    if level is None:
        return ""
    return (
        f"; stages of {level.stage:,} steps until {level.patience} in a row do not lower the loss on 2,000 held-out rows by {level.nats} nats (manifold "
        f"alone: {100 * level.relative:g} %) from that of the last stage that did, at most {level.most} in a phase; each starts from the best stage"
    )


class Methods:
    """Trains each method on one distribution.

    Without levels all have an equal number of steps. Rectangular flows have equal networks; the networks of the autoencoder and
    the number of couplings of the ambient flow are their own.

    Args:
        experiment: the run.
        target: the distribution.
    """

    def __init__(self, experiment: Experiment, target: ManifoldDistribution) -> None:
        self.experiment, self.target = experiment, target
        self.level = level_of(experiment)
        self.steps = experiment.choose(smoke=3, quick=1500, full=12_000)
        self.width = experiment.choose(smoke=(8,), quick=(32, 32), long=(64, 64), full=(64, 64))
        self.batch = experiment.choose(smoke=20, quick=250, full=500)
        self.rows = target.sample(experiment.choose(smoke=100, quick=10_000, full=50_000), 0)
        self.held_out = target.sample(2000, 500)
        self.code_transformer = SplineTransformer(8)

    def all(self) -> dict[str, Callable[[int], Outcome]]:
        """Functions of a seed that train each method."""
        # The likelihood alone prefers a small surface to the right one, so its phase begins when there is a surface (the paper's warm-up),
        # but for the circle, where a curve trained without a likelihood covers the circle in both directions and does not recover.
        warm = {"manifold": self.steps // 3, "joint": self.steps - self.steps // 3}
        joint = {"joint": self.steps} if self.target.dim == 1 else warm
        halves = {"manifold": self.steps // 2, "density": self.steps - self.steps // 2}
        methods: dict[str, Callable[[int], Outcome]] = {
            "ambient": self.ambient,
            "conformal": partial(self.conformal, phases=warm),
            "exact": partial(self.rectangular, phases=joint, method="exact"),
        }
        if self.target.dim > 1:  # with one code there is one direction, and its random sign gives the exact value
            methods["K = 1"] = partial(self.rectangular, phases=joint, method="K = 1", volume="probes")
            # Ten probes cost ten times one, which is too much for trainings until they are level.
            if self.level is None and (self.target.name == "Swiss roll" or self.experiment.budget == "full"):
                methods["K = 10"] = partial(self.rectangular, phases=joint, method="K = 10", volume="probes", probes=10)
        free: dict[str, Any] = {
            "decoder": "free-form", "volume": "encoder", "probes": self.target.dim, "hidden": (64, 64), "reconstruction_weight": 500.0,
        }  # fmt: skip
        methods["free form"] = partial(self.rectangular, phases=warm, method="free form", **free)
        methods["M-flow"] = partial(self.rectangular, phases=halves, method="M-flow")
        methods["two-step"] = self.two_step
        return methods

    def ambient(self, seed: int) -> Outcome:
        """A flow of the whole space."""
        key = f"{self.target.name} ambient {seed}"
        make = partial(RealNVP, self.target.ambient, layers=8, hidden=self.width)
        shared: dict[str, Any] = {"seed": seed, "batch_size": self.batch, "learning_rate": 3e-3}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "columns .* linearly dependent")  # which is what this flow is to show
            if self.level is None:
                return self.experiment.train(key, make, self.rows, None, max_steps=self.steps, **shared)[0], {}
            return train_until_level(self.experiment, key, make, self.rows, self.held_out, self.level, **shared)

    def conformal(self, seed: int, phases: dict[str, int]) -> Outcome:
        """A conformal embedding flow."""
        ambient, dim = self.target.ambient, self.target.dim

        def make() -> ConformalEmbeddingFlow:
            # Codes of a distribution on the whole sphere have the tails of Student's t with d degrees of freedom.
            base = StudentT(dim, float(dim))
            return ConformalEmbeddingFlow(
                ambient, dim, hidden=self.width, transformer=self.code_transformer, base=base
            )  # fmt: skip

        return self._in_phases("conformal", make, seed, phases)

    def rectangular(self, seed: int, phases: dict[str, int], method: str, **more: Any) -> Outcome:
        """A rectangular flow, with more options than those that all of them share."""
        options: dict[str, Any] = {
            "layers": self.experiment.choose(smoke=2, quick=4, long=6, full=6), "hidden": self.width, "latent_hidden": self.width,
            "transformer": self.code_transformer, "reconstruction_weight": 50.0 if self.target.dim == 1 else 500.0,
        }  # fmt: skip
        make = partial(RectangularFlow, self.target.ambient, self.target.dim, **{**options, **more})
        return self._in_phases(method, make, seed, phases)

    def _in_phases(
        self, method: str, make: Callable[[], ManifoldModel], seed: int, phases: dict[str, int]
    ) -> Outcome:  # fmt: skip
        """Train in phases of so many steps, or each until it is level."""
        key = f"{self.target.name} {method} {seed}"
        shared: dict[str, Any] = {"seed": seed, "batch_size": self.batch, "learning_rate": 3e-3}
        if self.level is None:
            return train_in_phases(self.experiment, key, make, self.rows, phases, **shared), {}
        return train_until_level(
            self.experiment, key, make, self.rows, self.held_out, self.level, phases=tuple(phases), **shared
        )

    def two_step(self, seed: int) -> Outcome:
        """An autoencoder, and then a density of its codes."""
        key = f"{self.target.name} two-step {seed}"
        file = self.experiment.model_file(key)

        def run() -> dict[str, float]:
            model, facts = (
                self._two_step_by_steps(seed) if self.level is None else self._two_step_until(self.level, seed)
            )
            save(model, file)
            return facts

        facts = self.experiment.measure(key, run, file)
        return cast("Model", load(file)), {} if self.level is None else facts

    def _two_step_by_steps(self, seed: int) -> tuple[TwoStep, dict[str, float]]:
        """Train both steps for half of the number of steps each."""
        torch.manual_seed(seed)
        second = self._density_of_codes(seed)
        model = TwoStep(
            AutoEncoder(self.target.ambient, latent=self.target.dim, hidden=(64, 64), activation="silu"), second
        )
        fit_two_step(
            model, self.rows, batch_size=self.batch, autoencoder={"max_steps": self.steps // 2, "learning_rate": 5e-3},
            density={"max_steps": self.steps - self.steps // 2, "learning_rate": 3e-3}, validation=None, config=PAPER_TRAINING, seed=seed,
        )  # fmt: skip
        return model, {"parameters": size(model), "injective": float(model.embed.injective)}

    def _two_step_until(self, level: Level, seed: int) -> tuple[TwoStep, dict[str, float]]:
        """Train each step until it is level."""
        # Without a penalty of the codes, which bends the curve of a surface that reconstructs best.
        make = partial(
            AutoEncoder, self.target.ambient, latent=self.target.dim, hidden=(128, 128), activation="silu", penalty="mmd", penalty_weight=0.0,
        )  # fmt: skip
        key = f"{self.target.name} two-step {seed} autoencoder"
        shared: dict[str, Any] = {"seed": seed, "batch_size": self.batch}
        first, facts = train_until_level(
            self.experiment, key, make, self.rows, self.held_out, level, learning_rate=5e-3, **shared
        )
        torch.manual_seed(seed)
        model = TwoStep(cast("AutoEncoder", first), self._density_of_codes(seed))
        done = fit_two_step(
            model, self.rows, validation=self.held_out, autoencoder=False, config=PAPER_TRAINING, learning_rate=3e-3, patience=None,
            max_steps=level.stage * level.most, evaluate_every=max(1, level.stage // 4), **shared,
        )  # fmt: skip
        facts["steps"] += done.density.steps
        return model, {"parameters": size(model), "injective": float(done.injectivity.passed), **facts}

    def _density_of_codes(self, seed: int) -> Model | Distribution:
        if self.target.dim == 1:
            return GaussianMixture(1, 20, seed=seed)
        return NSF(self.target.dim, layers=3, hidden=(self.width[0], self.width[0]))
