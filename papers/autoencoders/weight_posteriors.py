"""Scores of several models' log-likelihoods, and why their spread detects what it detects: likelihood, noise, chain.

Only the authors' scores are public, not their models. The means of these scores are those of a Bernoulli decoder on gray levels, which is
no density of integers. Here the same network is trained with that likelihood and with a discretized logistic one, and one
thing at a time is changed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from papers.experiment import Experiment, spread
from pushforward.detection import auroc
from pushforward.models import VAE, Flow, Model
from pushforward.models.latent.vae import prior_distribution
from pushforward.plot import heat_map
from pushforward.registry import register
from pushforward.report.text import plural
from pushforward.training.bayes import Posterior, bayes_by_backprop, sghmc, swag
from pushforward.transforms import Chain, Variational
from pushforward.transforms.stochastic.discrete_likelihoods import DiscreteLikelihood

__all__ = [
    "DRAWS",
    "RELEASED",
    "SCORES",
    "GrayBernoulli",
    "Setting",
    "areas",
    "causes",
    "compare",
    "make_vae",
    "posterior",
    "settings",
    "spreads",
]

LATENT, HIDDEN = 20, 400
DRAWS = (1, 5)
LIKELIHOODS = ("Bernoulli", "logistic")
CONVOLUTIONAL = "Bernoulli, convolutional"
CHANNELS = (32, 64)
"""Convolutions of stride 2 of the encoder, and the decoder's in reverse order. The authors' networks are not public."""
REPEATED, SNAPSHOTS, ALONE = ("SGHMC", "BBB"), "SWAG", "one model, many times"
RELEASED = ", from the scores that the authors released"
"""Where the figures of the paper come from: its printed tables were not available."""
SCORES = ("disagreement", "expected LL", "entropy", "WAIC", "std", "typicality")
Table = dict[tuple[str, str], list[dict[str, dict[str, float]]]]
"""For each likelihood (or network) and setting the seeds' AUROC by noise and score."""


def spreads(values: Tensor, center: float) -> dict[str, Tensor]:
    """The scores of log-likelihoods ``(M, n)``, each ``(n,)``, higher for more anomalous.

    Args:
        values: nats, of M models.
        center: mean log-likelihood of in-distribution rows that were not trained on.
    """
    mean, variance = values.mean(0), values.var(0, correction=0)
    weights = torch.softmax(values, 0)
    return {
        "disagreement": -1 / weights.square().sum(0),  # Daxberger, Hernandez-Lobato 2019
        "expected LL": -mean,
        "entropy": torch.special.entr(weights).sum(0).neg(),
        "WAIC": variance - mean,
        "std": variance.sqrt(),
        "typicality": (mean - center).abs(),
    }


def compare(inside: dict[str, Tensor], outside: dict[str, Tensor]) -> dict[str, float]:
    """AUROC of each score."""
    return {name: auroc(inside[name].numpy(), outside[name].numpy()) for name in inside}


@register("likelihoods")
@dataclass(frozen=True)
class GrayBernoulli(DiscreteLikelihood):
    """``g log sigmoid(raw) + (1 - g) log sigmoid(-raw)`` with the gray level g = x / 255: it does not sum to 1 over the levels."""

    levels: int = 256

    def outputs(self, channels: int) -> int:
        """A logit for each channel."""
        return channels

    def log_prob(self, x: Tensor, raw: Tensor) -> Tensor:
        """The cross entropy of gray level and decoder, negated."""
        gray = x / (self.levels - 1)
        return gray * F.logsigmoid(raw) + (1 - gray) * F.logsigmoid(-raw)

    def sample(self, raw: Tensor, u: Tensor) -> Tensor:
        """White with probability sigmoid(raw), else black."""
        return (u > torch.sigmoid(-raw)).to(u.dtype) * (self.levels - 1)

    def mean(self, raw: Tensor, channels: int) -> Tensor:
        """255 sigmoid(raw)."""
        return torch.sigmoid(raw) * (self.levels - 1)


@dataclass(frozen=True)
class Setting:
    """A trained VAE and a posterior of its decoder.

    Attributes:
        steps: of the training.
        method: "SGHMC", "BBB", "SWAG", or "none" for the same weights in every model.
        models: number of models.
        thin: steps between two models of a chain; burn-in takes as many steps as ten of these.
        temperature: of the chain.
    """

    steps: int
    method: str = "SGHMC"
    models: int = 20
    thin: int = 20
    temperature: float = 1.0


def settings(experiment: Experiment) -> dict[str, Setting]:
    """The settings by name: a base, and settings that differ from it in one thing."""
    base = Setting(
        steps=experiment.choose(smoke=2, quick=1000, long=12_000, full=50_000), models=experiment.choose(smoke=2, quick=20, full=50),
        thin=experiment.choose(smoke=1, quick=20, long=100, full=500),
    )  # fmt: skip
    return {
        "SGHMC": base,
        "a tenth of the training": replace(base, steps=max(2, base.steps // 10)),
        "a tenth of the chain": replace(base, thin=max(1, base.thin // 10)),
        "five times the models": replace(base, models=5 * base.models),
        "temperature 10": replace(base, temperature=10.0),
        "BBB": replace(base, method="BBB"),
        SNAPSHOTS: replace(base, method="SWAG"),
        ALONE: replace(base, method="none"),
    }


def causes(experiment: Experiment) -> None:
    """AUROC of the scores of Fashion-MNIST against MNIST by likelihood, setting and noise of the bound."""
    train, held_out, inside = experiment.image_parts(
        "fashion-mnist",
        rows=experiment.choose(smoke=200, quick=10_000, long=60_000, full=60_000),
        held_out=experiment.choose(smoke=40, quick=500, full=2000),
        test=experiment.choose(smoke=30, quick=400, long=1000, full=5000),
    )
    outside = experiment.images("mnist", train=False, rows=len(inside))
    table: Table = {}
    for likelihood in LIKELIHOODS if experiment.budget == "quick" else (*LIKELIHOODS, CONVOLUTIONAL):
        for name, setting in settings(experiment).items():
            if likelihood == CONVOLUTIONAL and name not in (*REPEATED, SNAPSHOTS, ALONE):
                continue
            for seed in experiment.few(2, long=5) if name in (*REPEATED, SNAPSHOTS) else range(1):

                def measure(
                    likelihood: str = likelihood, setting: Setting = setting, seed: int = seed
                ) -> dict[str, dict[str, float]]:
                    model, _ = experiment.train(
                        f"causes {likelihood} {setting.steps} {seed}", partial(make_vae, likelihood), train, held_out, seed=seed,
                        max_steps=setting.steps, batch_size=128, patience=None, evaluate_every=max(1, setting.steps // 4),
                    )  # fmt: skip
                    return areas(posterior(setting, model, train, held_out, seed), held_out, inside, outside)

                found = experiment.measure(f"causes {likelihood} {name} {seed}", measure)
                table.setdefault((likelihood, name), []).append(found)
    _picture(experiment, table)
    _report(experiment, table, len(train), len(inside))


def make_vae(likelihood: str) -> Model:
    """A VAE with "Bernoulli", "logistic" or CONVOLUTIONAL as its likelihood."""
    if likelihood == "logistic":
        return VAE((1, 28, 28), LATENT, hidden=(HIDDEN,))
    channels = CHANNELS if likelihood == CONVOLUTIONAL else ()
    inner = Variational((1, 28, 28), LATENT, GrayBernoulli(), None, hidden=(HIDDEN,), channels=channels)
    return Flow(Chain(inner), prior_distribution(None, LATENT))


def posterior(
    setting: Setting,
    model: Model,
    train: Tensor,
    held_out: Tensor,
    seed: int,
    parameters: Sequence[str] | None = ("decoder",),
) -> Posterior:
    """Models from the posterior of the weights of some submodules (None: of all weights), which starts from a trained model."""
    common = {
        "seed": seed,
        "batch_size": 128,
        "progress": "silent",
        "parameters": None if parameters is None else list(parameters),
    }
    if setting.method == "none":
        return Posterior(model, setting.models, ())
    if setting.method == "SWAG":
        every = max(1, setting.steps // (4 * setting.models))  # as many steps in all as BBB
        return swag(
            model, train, setting.models, validation=held_out, snapshots=setting.models, snapshot_every=every,
            rank=max(2, setting.models // 2), **common,
        )  # fmt: skip
    common["prior_scale"] = 0.1
    if setting.method == "BBB":
        steps = max(2, setting.steps // 4)
        return bayes_by_backprop(
            model, train, setting.models, initial_scale=0.02, learning_rate=2e-3, max_steps=steps, **common
        )
    rows = math.ceil(len(train) / setting.temperature)  # exp(-U / T) for the likelihood, at the same prior
    return sghmc(model, train, setting.models, burn_in=10 * setting.thin, thin=setting.thin, n_rows=rows, **common)


def areas(models: Posterior, held_out: Tensor, inside: Tensor, outside: Tensor) -> dict[str, dict[str, float]]:
    """AUROC of the scores with noise that all models share and with each model's own, and the mean log-likelihood."""
    found: dict[str, dict[str, float]] = {}
    for label, common in (("shared", True), ("own", False)):
        for draws in DRAWS:
            held, new, other = (
                models.log_likelihoods(rows, samples=draws, common=common) for rows in (held_out, inside, outside)
            )
            center = held.mean().item()
            scores = compare(spreads(new, center), spreads(other, center)) | {"nats": new.mean().item()}
            found[f"{label} {draws}"] = {name: round(value, 4) for name, value in scores.items()}
    return found


def _mean(table: Table, likelihood: str, name: str, noise: str, score: str) -> float:
    return 100 * statistics.fmean(found[noise][score] for found in table[likelihood, name])


def _picture(experiment: Experiment, table: Table) -> None:
    noises = {f"{label} {draws}": f"{label}\nK = {draws}" for label in ("shared", "own") for draws in DRAWS}
    values = [[_mean(table, *key, noise, "std") for noise in noises] for key in table]
    figure = experiment.figure(8, 1 + 0.28 * len(table))
    axes = figure.subplots()
    rows = [f"{likelihood}, {name}" for likelihood, name in table]
    heat_map(
        values,
        rows,
        list(noises.values()),
        ax=axes,
        name="AUROC of the std, percent",
        form=".1f",
        limits=(50, 100),
    )
    axes.set_yticks(range(len(rows)), rows, fontsize=8)  # whole names, where a heat map cuts long ones
    axes.set_xlabel("noise of the bound, and its draws K")
    experiment.picture("causes", figure)


def _report(experiment: Experiment, table: Table, rows: int, tested: int) -> None:
    few, many = f"shared {DRAWS[-1]}", f"own {DRAWS[-1]}"
    named = {few: "with noise that all models share", many: "with each model's own noise"}

    def std(likelihood: str, name: str, noise: str) -> float:
        return _mean(table, likelihood, name, noise, "std")

    def all_scores(likelihood: str) -> str:
        return "; ".join(
            f"{method} {words} "
            + " / ".join(f"{_mean(table, likelihood, method, noise, score):.1f}" for score in SCORES)
            for method in REPEATED
            for noise, words in named.items()
        )

    def best(likelihood: str) -> list[bool]:
        return [
            areas["std"] >= max(areas[score] for score in SCORES) and areas["entropy"] > areas["disagreement"]
            for method in REPEATED for found in table[likelihood, method] for areas in (found[few], found[many])
        ]  # fmt: skip

    base = settings(experiment)["SGHMC"]
    seeds = len(table[LIKELIHOODS[0], "SGHMC"])
    scale = (
        f"{rows:,} training rows, {base.steps:,} steps of training, {base.models} models, {tested:,} images each, {plural(seeds, 'seed')}, {DRAWS[-1]} draws "
        "of the bound"
    )
    authors = "SGHMC 95.3 / 40.4 / 97.3 / 55.8 / 99.6 / 41.0; BBB 96.4 / 40.4 / 98.0 / 59.5 / 99.6 / 40.5" + RELEASED
    experiment.report(
        "with the paper's likelihood, a Bernoulli on gray levels, the std is the best score and the entropy beats the disagreement "
        "(fashion-mnist against mnist)",
        paper=authors,
        ours=f"AUROC in %, {' / '.join(SCORES)}: {all_scores('Bernoulli')}",
        confirmed=all(best("Bernoulli")),
        seeds=seeds,
        note=f"in {sum(best('Bernoulli'))} of {len(best('Bernoulli'))} readings; {scale}; test rows "
        f"{_mean(table, 'Bernoulli', 'SGHMC', many, 'nats') / 100:.0f} nats, where the authors' have -238",
    )  # fmt: skip
    experiment.report(
        "with a discretized logistic, which is a distribution of the gray levels, they are not",
        ours=f"AUROC in %, {' / '.join(SCORES)}: {all_scores('logistic')}",
        confirmed=not any(best("logistic")),
        seeds=seeds,
        note=f"the claim is ours, not the paper's; {scale}",
    )
    experiment.report(
        "a part of the std is the noise of the bound, if each model draws its own: it detects without any posterior of the weights",
        ours="; ".join(
            f"{kind}: one model many times {std(kind, ALONE, many):.1f}, SGHMC with its own noise {std(kind, 'SGHMC', many):.1f}, "
            f"with shared noise {std(kind, 'SGHMC', few):.1f}"
            for kind in LIKELIHOODS
        ),
        confirmed=all(std(kind, ALONE, many) > 75 for kind in LIKELIHOODS),
        seeds=len(table[LIKELIHOODS[0], ALONE]),
        note=f"the claim is ours, not the paper's; criterion: above 75 with one model many times; {scale}; one model many times has one seed",
    )
    _report_snapshots(experiment, table, scale)
    if (CONVOLUTIONAL, ALONE) in table:
        _report_convolutional(experiment, table, all_scores(CONVOLUTIONAL), scale, authors)
    changes = {
        (kind, name): [std(kind, name, noise) - std(kind, "SGHMC", noise) for noise in named]
        for kind in LIKELIHOODS for name in settings(experiment) if name not in (*REPEATED, SNAPSHOTS, ALONE)
    }  # fmt: skip
    likelihood = [std("logistic", "SGHMC", noise) - std("Bernoulli", "SGHMC", noise) for noise in named]
    experiment.report(
        "of likelihood, training, chain, temperature and number of models, the likelihood changes the std most",
        ours=f"the logistic in place of the Bernoulli {likelihood[0]:+.1f} with shared noise and {likelihood[1]:+.1f} with own; "
        + "; ".join(f"{kind}, {name} {first:+.1f} and {second:+.1f}" for (kind, name), (first, second) in changes.items()),
        confirmed=all(max(abs(pair[k]) for pair in changes.values()) < abs(likelihood[k]) for k in range(2)),
        seeds=min(len(table[key]) for key in changes),
        note=f"points of AUROC against the base, whose chain burns in for {10 * base.thin:,} steps and keeps each {base.thin}th state; the claim "
        f"is ours, not the paper's; {scale}; one seed for all but the base",
    )  # fmt: skip


def _report_snapshots(experiment: Experiment, table: Table, scale: str) -> None:
    shared = f"shared {DRAWS[-1]}"
    snapshots = {kind: [found[shared] for found in runs] for (kind, name), runs in table.items() if name == SNAPSHOTS}
    experiment.report(
        "with the paper's likelihood SWAG's std does not detect, as in the paper",
        paper=f"SWAG 80.0 / 25.1 / 82.5 / 19.9 / 19.9 / 56.4{RELEASED}",
        ours=f"AUROC in %, {' / '.join(SCORES)}, with noise that all models share: "
        + "; ".join(
            f"{kind} " + " / ".join(spread([100 * areas[score] for areas in found], 1) for score in SCORES)
            for kind, found in snapshots.items()
        ),
        confirmed=all(areas["std"] < 0.5 for kind, found in snapshots.items() if kind != "logistic" for areas in found),
        seeds=min(map(len, snapshots.values())),
        note=f"criterion: a std below 50 in every run with a Bernoulli; held-out rows choose the scale of SWAG; {scale}",
    )


def _report_convolutional(experiment: Experiment, table: Table, scores: str, scale: str, authors: str) -> None:
    few, many = f"shared {DRAWS[-1]}", f"own {DRAWS[-1]}"
    runs = [found for method in REPEATED for found in table[CONVOLUTIONAL, method]]
    shared = [found[few]["std"] for found in runs]
    alone = _mean(table, CONVOLUTIONAL, ALONE, many, "std")
    ours = f"AUROC in %, {' / '.join(SCORES)}: {scores}; the std of one model many times {alone:.1f}"
    networks = (
        f"convolutions of {' and '.join(map(str, CHANNELS))} channels with stride 2, and the decoder's in reverse order: the authors' networks are not "
        f"public; test rows {_mean(table, CONVOLUTIONAL, 'SGHMC', few, 'nats') / 100:.0f} nats, where the authors' have -238"
    )
    experiment.report(
        "with convolutional networks the std of models with their own noise is the best score too, and one model many times has it as well",
        paper=authors,
        ours=ours,
        confirmed=all(found[many]["std"] >= max(found[many][score] for score in SCORES) for found in runs)
        and alone > _mean(table, CONVOLUTIONAL, "SGHMC", many, "std") - 5,
        seeds=len(table[CONVOLUTIONAL, ALONE]),
        note=f"{networks}; criterion: in every run, and one model within 5 points of SGHMC; {scale}; one model many times has one seed",
    )
    experiment.report(
        "with convolutional networks the posterior of the weights detects without the noise of the bound",
        ours="std with noise that all models share "
        + ", ".join(f"{100 * std:.1f}" for std in shared)
        + " (SGHMC, then BBB)",
        confirmed=min(shared) > 0.95,
        seeds=len(table[CONVOLUTIONAL, "SGHMC"]),
        note=f"{networks}; criterion: above 95 in every run, set after the first seed was seen; {scale}",
    )
