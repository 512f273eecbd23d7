"""Rectangular flows on tables: samples of joint training and of two phases, compared with held-out rows."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.datasets import load_table
from papers.distances import frechet
from papers.experiment import Experiment, all_hold, clearly_below, spread
from papers.flows.table_recipes import COPIES
from papers.surfaces.manifolds import train_in_phases, train_until_level
from papers.surfaces.rectangular_methods import how_long, level_of, steps_needed
from pushforward.models import Model, RectangularFlow

__all__ = ["TABLES", "study_tables"]

TABLES = ("protein", "kin40k")


def study_tables(experiment: Experiment) -> None:
    """UCI tables at half their width: samples compared with test rows."""
    lengths: dict[str, list[dict[str, Any]]] = defaultdict(list)
    found = {name: _distances(experiment, name, lengths) for name in TABLES}
    experiment.report(
        "trained jointly, samples are nearer to held-out rows of tables than those of the two phases of M-flow",
        paper="on four tables, against training rows",
        ours="; ".join(
            f"{name}: " + ", ".join(f"{method} {spread(values)}" for method, values in each.items())
            for name, each in found.items()
        ),
        confirmed=all_hold(clearly_below(each["RNF"], each["M-flow"]) for each in found.values()),
        seeds=min(len(each["RNF"]) for each in found.values()),
        note="squared Fréchet distance of standardized columns to the published test rows, d half of D; as many training rows are the floor; "
        f"{COPIES}; criterion: on both by a one-sided paired t-test over seeds at 5 %{how_long(experiment)}{steps_needed(lengths)}",
    )


def _distances(experiment: Experiment, name: str, lengths: dict[str, list[dict[str, Any]]]) -> dict[str, list[float]]:
    """Of the samples of each method, and of as many training rows, by seed."""
    steps = experiment.choose(smoke=3, quick=600, full=20_000)
    phases = {
        "RNF": {"manifold": steps // 3, "joint": steps - steps // 3}, "M-flow": {"manifold": steps // 2, "density": steps - steps // 2},
    }  # fmt: skip
    found: dict[str, list[float]] = {**{method: [] for method in phases}, "training rows": []}
    for seed in experiment.few(2, long=5):
        train, kept, test = load_table(name, seed=seed, folder=experiment.data)
        few = experiment.choose(smoke=100, quick=len(train), full=len(train))
        for method, parts in phases.items():
            key = f"{name} {method} {seed}"
            rows = (train[:few], kept, test)
            facts = experiment.measure(key, partial(_distance, experiment, key, rows, parts, seed))
            found[method].append(facts["distance"])
            if level_of(experiment) is not None:
                lengths[f"{name} {method}"].append(facts)
        found["training rows"].append(frechet(train[: len(test)], test))
    return found


def _distance(
    experiment: Experiment, key: str, rows: tuple[Tensor, Tensor, Tensor], phases: dict[str, int], seed: int
) -> dict[str, Any]:
    """Train on the first rows, in phases of so many steps or each until it is level, and compare samples with the last rows."""
    train, kept, test = rows
    width, level = experiment.choose(smoke=(8,), quick=(64, 64), full=(128, 128, 128, 128)), level_of(experiment)
    make = partial(
        RectangularFlow, train.shape[1], train.shape[1] // 2, layers=experiment.choose(smoke=1, quick=4, full=10), hidden=width,
        latent_hidden=(32, 32),
    )  # fmt: skip
    shared: dict[str, Any] = {"seed": seed, "learning_rate": 2e-3}
    facts: dict[str, Any] = {}
    if level is None:
        model: Model = train_in_phases(experiment, key, make, train, phases, **shared)
    else:
        model, facts = train_until_level(
            experiment, key, make, train, kept[:2000], level, phases=tuple(phases), **shared
        )
    with torch.no_grad():
        return {"distance": frechet(model.sample(len(test), seed=seed), test), **facts}
