"""Flows of tables by the recipes of their papers, until their validation is level or the time is over."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.datasets import load_power, load_table
from papers.experiment import Experiment, Trained, clearly_below, spread
from pushforward.distributions import MADEMixture
from pushforward.models import MAF, NSF, Flow, Model
from pushforward.transforms import Standardize

__all__ = ["COPIES", "PAPER_OPTIONS", "clearly_above", "compare_more", "mean_nats", "read_rows", "until_level"]

PAPER_OPTIONS: dict[str, Any] = {
    "optimizer": "adam", "learning_rate": 1e-4, "weight_decay": 1e-6, "schedule": None, "batch_size": 100,
}  # fmt: skip
"""The training of the flows of Papamakarios et al. 2017: Adam with a constant rate, and a weight decay (its L2 penalty)."""
PATIENCE = 30
"""Passes without a better validation that end a training."""
MINUTES = (5, 20)
"""Of CPU time in a long run: a training that is not level after the first is made again with the second."""
COPIES = "about 6 % of the test rows of protein are copies of other rows"
"""For notes on this table: such rows favor a density with peaks at the training rows."""


@dataclass(frozen=True)
class Rival:
    """A model that is compared with MAF (5) on tables.

    Attributes:
        build: function of the number of columns that makes it.
        options: of its training.
        claim: what the papers' figures say.
        paper: in how many of five tables they say so.
        ahead: whether the model is ahead in that claim, or MAF is.
    """

    build: Callable[[int], Model]
    options: Mapping[str, Any]
    claim: str
    paper: str
    ahead: bool = True


RIVALS = {
    "MAF MoG": Rival(
        lambda width: MAF(width, components=10, hidden=(100, 100), batch_norm=True), PAPER_OPTIONS,
        "MAF with a mixture as base (MAF MoG) beats MAF on tables", "in 5 of 5 tables",
    ),
    "MADE MoG": Rival(
        lambda width: Flow(Standardize(width), MADEMixture(width, components=10, hidden=(100, 100))),
        PAPER_OPTIONS | {"learning_rate": 1e-3}, "MAF beats one MADE with mixtures (MADE MoG) on tables", "in 3 of 5 tables", ahead=False,
    ),
    "RQ-NSF (C)": Rival(
        lambda width: NSF(width, layers=10, hidden=(64, 64), bins=8, tail_bound=3.0, dropout=0.1, unconditional=True),
        {"optimizer": "adam", "learning_rate": 5e-4, "batch_size": 512}, "spline couplings (RQ-NSF (C)) beat MAF on tables",
        "in 5 of 5 tables, by the figures of both papers",
    ),
}  # fmt: skip


def read_rows(experiment: Experiment, table: str, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Training, validation and test rows of a table; the seed splits it."""
    if table == "power":
        return load_power(seed=seed, folder=experiment.data)
    return load_table(table, seed=seed, folder=experiment.data)


def until_level(
    experiment: Experiment, key: str, build: Callable[[], Model], train: Tensor, held_out: Tensor, seed: int,
    options: Mapping[str, Any] | None = None,
) -> tuple[Trained[Model], bool]:  # fmt: skip
    """A model trained by a paper's recipe, and whether it stopped before the time was over.

    A long run that is not level after 5 minutes is made again with 20, so that one that is level early costs no more. Without
    options the recipe is ``PAPER_OPTIONS``.
    """
    chosen = PAPER_OPTIONS if options is None else options
    rows = chosen["batch_size"]

    def run(seconds: float, name: str) -> tuple[Trained[Model], bool]:
        limit = experiment.time_limit(
            key, build, train, smoke=3, quick=300, long=seconds, full=seconds, batch_size=rows
        )
        more = {"patience": PATIENCE, "evaluate_every": math.ceil(len(train) / rows)}
        trained = experiment.trained(name, build, train, held_out, seed=seed, **{**chosen, **limit, **more})
        return trained, trained.facts["steps"] < limit.get("max_steps", math.inf)

    long = tuple(60 * minutes for minutes in MINUTES)
    first, *longer = experiment.choose(smoke=(1,), quick=(300,), long=long, full=(6 * 3600,))
    trained, level = run(first, f"{key} {seed}")
    for seconds in longer:
        if not level:
            trained, level = run(seconds, f"{key} {seed}, {seconds} s")
    return trained, level


def compare_more(experiment: Experiment, maf: Mapping[str, list[float]]) -> None:
    """Train further models on the same splits of the tables, and compare each with MAF.

    Args:
        experiment: the run.
        maf: mean log-likelihood of MAF on test rows, for each table and seed.
    """
    for name, rival in RIVALS.items():
        found: dict[str, list[float]] = {}
        level: list[bool] = []
        parameters: list[int] = []
        for table in maf:
            found[table] = []
            for seed in experiment.repeats:
                train, held_out, test = read_rows(experiment, table, seed)
                if experiment.budget == "smoke":
                    train, held_out = train[:250], held_out[:50]
                build = lambda width=train.shape[1], rival=rival: rival.build(width)  # noqa: E731
                trained, early = until_level(experiment, f"{table} {name}", build, train, held_out, seed, rival.options)
                level.append(early)
                parameters.append(trained.facts["parameters"])
                nats = experiment.measure(
                    f"{trained.key} test", lambda trained=trained, test=test: mean_nats(trained.model, test)
                )
                found[table].append(nats)
        ahead = [table for table, nats in found.items() if clearly_above(nats, maf[table])]
        behind = [table for table, nats in found.items() if clearly_above(maf[table], nats)]
        held = ahead if rival.ahead else behind
        experiment.report(
            rival.claim,
            paper=rival.paper,
            ours="; ".join(
                f"{table} {spread(nats, 2)} against {spread(maf[table], 2)} (MAF)" for table, nats in found.items()
            )
            + f" nats: {name} is ahead in {len(ahead)} of {len(found)}, behind in {len(behind)}",
            confirmed=len(held) > len(found) / 2,
            seeds=min(map(len, found.values())),
            note="not the papers' tables; ahead or behind by a one-sided paired t-test over splits at 5 %; criterion: in more than half of them; "
            f"{COPIES}; "
            f"{min(parameters):,} to {max(parameters):,} parameters; {sum(level)} of {len(level)} runs ended because {PATIENCE} passes brought "
            "no better validation, the others after "
            f"{experiment.choose(smoke='', quick='', long='20 minutes of CPU time', full='6 hours')}; "
            + _recipe(rival.options),
        )


def _recipe(options: Mapping[str, Any]) -> str:
    schedule = "constant" if options.get("schedule", "cosine") is None else "with a cosine schedule"
    return f"Adam at {options['learning_rate']:g}, {schedule}, batches of {options['batch_size']}"


def clearly_above(high: list[float], low: list[float]) -> bool:
    """Whether the first values are clearly above the second ones, by ``clearly_below``."""
    return clearly_below([-value for value in high], [-value for value in low]) is True


def mean_nats(model: Model, rows: Tensor) -> float:
    """Mean log-likelihood of rows."""
    with torch.no_grad():
        return torch.cat([model.log_prob(part) for part in rows.split(4096)]).double().mean().item()
