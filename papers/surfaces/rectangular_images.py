"""Rectangular flows on MNIST and Fashion-MNIST: samples, detection and reconstruction of joint training and of two phases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from papers.distances import principal
from papers.experiment import Experiment, all_hold, clearly_below, spread
from papers.surfaces.manifolds import train_in_phases
from pushforward.detection import auroc
from pushforward.detection.scores import DensityAndDistance, Likelihood, ManifoldDistance, Score
from pushforward.models import Model, RectangularFlow
from pushforward.models.latent.autoencoder import mmd
from pushforward.report.text import plural
from pushforward.transforms import SplineTransformer

__all__ = ["SETS", "study_images"]

SETS = ("mnist", "fashion-mnist")


WEIGHT = 50.0
"""Of the residual in the loss; the paper has 5 or 50."""
Found = dict[str, dict[str, list[dict[str, Any]]]]
"""For each set and training the figures of each seed."""


@dataclass(frozen=True)
class Setting:
    """A network and the sizes of its study.

    Attributes:
        network: its name in texts; "" for the first.
        describes: what its couplings are.
        shape: of a row.
        seeds: seeds of the trainings.
        steps: steps of each training, in all phases.
        batch: rows of a step.
        options: of the flows.
        phases: the phases of each training, with the steps of each.
    """

    network: str
    describes: str
    shape: tuple[int, ...]
    seeds: range
    steps: int
    batch: int
    options: dict[str, Any]
    phases: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Sizes:
    """Sizes that all networks share.

    Attributes:
        width: number of codes.
        few: number of test images and of samples.
        kept: number of images that are held out of the training images.
    """

    width: int
    few: int
    kept: int


def sizes_of(experiment: Experiment) -> Sizes:
    """The sizes for the budget of a run."""
    return Sizes(
        width=experiment.choose(smoke=2, quick=20, full=20),
        few=experiment.choose(smoke=40, quick=1000, full=10_000),
        kept=experiment.choose(smoke=30, quick=1000, full=5000),
    )


def settings_of(experiment: Experiment) -> list[Setting]:
    """Couplings of flat pixels, and but for a quick run the paper's multi-scale couplings with residual networks, smaller ones in a long run."""
    codes: dict[str, Any] = {
        "latent_hidden": experiment.choose(smoke=(8,), quick=(64, 64), full=(64, 64)), "transformer": SplineTransformer(8), "standardize": False,
        "reconstruction_weight": WEIGHT,
    }  # fmt: skip
    flat_steps = experiment.choose(smoke=4, quick=3000, full=40_000)
    layers = experiment.choose(smoke=1, quick=4, full=8)
    flat = Setting(
        "", f"{layers} couplings of flat pixels", (784,), range(experiment.few(1, long=3)[:3].stop), flat_steps, 100,
        {"layers": layers, "hidden": experiment.choose(smoke=(8,), quick=(256,), full=(512, 512)), **codes}, _phases(flat_steps),
    )  # fmt: skip
    if experiment.budget == "quick":
        return [flat]
    steps = experiment.choose(smoke=4, quick=1200, long=1200, full=40_000)
    blocks = experiment.choose(smoke=(2,), quick=(16, 16), long=(16, 16), full=8 * (64,))
    images = Setting(
        "multi-scale ", f"couplings of 2 scales with {plural(len(blocks), 'residual block')} of {blocks[0]} channels (the paper: 8 of 64)", (1, 28, 28),
        range(experiment.few(1, long=1).stop), steps, 50,
        {"layers": experiment.choose(smoke=2, quick=6, full=6), "hidden": blocks, "volume": "probes", "tolerance": 0.1, **codes}, _phases(steps),
    )  # fmt: skip
    return [flat, images]


def _phases(steps: int) -> dict[str, dict[str, int]]:
    return {
        "RNF": {"manifold": steps // 3, "joint": steps - steps // 3},
        "M-flow": {"manifold": steps // 2, "density": steps - steps // 2},
    }


def study_images(experiment: Experiment) -> None:
    """MNIST and Fashion-MNIST with 20 codes: samples, detection and reconstruction of both trainings."""
    sizes = sizes_of(experiment)
    test = {name: _flat(experiment, name, False, sizes.few) for name in SETS}
    pictures: dict[str, Tensor] = {f"{name} test": _gray(test[name][:16]) for name in SETS}
    floors: dict[str, float] = {}
    settings = settings_of(experiment)
    found: list[Found] = [{name: {method: [] for method in setting.phases} for name in SETS} for setting in settings]
    for inside, outside in (SETS, SETS[::-1]):
        rows = _flat(experiment, inside, True, experiment.choose(smoke=150, quick=60_000, full=60_000))
        rows, kept = rows[: -sizes.kept], rows[-sizes.kept :]
        features = principal(rows)
        floors[inside] = mmd(features(rows[-sizes.few :]), features(test[inside])).item()
        for setting, all_facts in zip(settings, found, strict=True):
            train, held, near, far = (
                part.reshape(-1, *setting.shape) for part in (rows, kept, test[inside], test[outside])
            )
            for seed in setting.seeds:
                for method, phases in setting.phases.items():
                    make = partial(RectangularFlow, setting.shape, sizes.width, **setting.options)
                    key = f"{inside} {setting.network}{method} {seed}"
                    fit = partial(
                        train_in_phases, experiment, key, make, train, phases, seed=seed, batch_size=setting.batch
                    )
                    judge = partial(_judge, fit, seed, held, near, far, features)
                    facts = experiment.measure(f"{key} judged", judge)
                    all_facts[inside][method].append(facts)
                    if seed == 0:
                        pictures[f"{inside} {setting.network}{method}"] = torch.tensor(facts["images"])
    experiment.strip("images", {name: pictures[name] for name in sorted(pictures, key=_order)})
    for setting, all_facts in zip(settings, found, strict=True):
        _report_samples(experiment, setting, sizes, all_facts, floors)
        _report_detection(experiment, setting, all_facts)


def _order(name: str) -> tuple[bool, bool]:
    """Digits before clothes, and test images before samples."""
    return name.startswith(SETS[1]), not name.endswith("test")


def _flat(experiment: Experiment, name: str, train: bool, rows: int) -> Tensor:
    """Rows of 784 numbers from -0.5 to 0.5."""
    return experiment.images(name, train=train, rows=rows).flatten(1) / 255 - 0.5


def _gray(rows: Tensor) -> Tensor:
    """Images ``(n, 1, 28, 28)`` of gray levels."""
    return (255 * (rows + 0.5)).clamp(0, 255).reshape(-1, 1, 28, 28)


def _judge(
    fit: Callable[[], Model],
    seed: int,
    kept: Tensor,
    inside: Tensor,
    outside: Tensor,
    features: Callable[[Tensor], Tensor],
) -> dict[str, Any]:
    """Distance of samples from test images, error of reconstructions, AUROC by density, residual and both, and some samples."""
    model = fit()
    drawn = model.sample(len(inside), seed=seed).clamp(-0.5, 0.5).flatten(1)
    scores: dict[str, Score] = {
        "density": Likelihood(model), "residual": ManifoldDistance(model), "both": DensityAndDistance(model).fit(kept[:256]),
    }  # fmt: skip
    with torch.no_grad():
        parts = [model.evaluate(part).residual for part in inside.split(250)]
    residual = torch.cat([part for part in parts if part is not None])
    return {
        "distance": mmd(features(drawn), features(inside.flatten(1))).item(),
        "error": 255 * (residual.mean() / 784).sqrt().item(),
        "areas": [auroc(score(inside).numpy(), score(outside).numpy()) for score in scores.values()],
        "images": _gray(drawn[:16]).round().int().tolist(),
    }


def _column(found: Found, name: str, method: str, what: str) -> list[Any]:
    return [facts[what] for facts in found[name][method]]


def _couplings(setting: Setting) -> str:
    """Which couplings a claim is about."""
    return f" with {setting.network}couplings" if setting.network else ""


def _report_samples(
    experiment: Experiment, setting: Setting, sizes: Sizes, found: Found, floors: dict[str, float]
) -> None:
    column = partial(_column, found)
    experiment.report(
        f"on images{_couplings(setting)}, trained jointly, samples are nearer than those of the two phases of M-flow",
        paper="compared by FID",
        ours="; ".join(
            f"{name}: " + ", ".join(
                f"{method} {spread(column(name, method, 'distance'), 4)}, error {spread(column(name, method, 'error'), 1)} gray levels"
                for method in setting.phases
            ) for name in SETS
        ),
        confirmed=all_hold(clearly_below(column(name, "RNF", "distance"), column(name, "M-flow", "distance")) for name in SETS),
        seeds=len(setting.seeds),
        note="squared kernel distance to test images in 30 whitened principal components, not FID, where training images have "
        + ", ".join(f"{floors[name]:.4f} on {name}" for name in SETS)
        + f"; {sizes.width} codes, {setting.describes}, {setting.steps:,} steps of {setting.batch} rows for each, of which a "
        f"joint one takes longest; seeds: {len(setting.seeds)}; error: root mean square, of reconstructions",
    )  # fmt: skip


def _report_detection(experiment: Experiment, setting: Setting, found: Found) -> None:
    column = partial(_column, found)
    experiment.report(
        f"on images{_couplings(setting)}, a likelihood on the manifold detects the other set in both directions",
        paper="compared with known anomalies",
        ours="AUROC of density / residual / both: " + "; ".join(
            f"{name} against {other}: " + ", ".join(
                f"{method} " + " / ".join(spread([areas[k] for areas in column(name, method, "areas")], 2) for k in range(3))
                for method in found[name]
            ) for name, other in (SETS, SETS[::-1])
        ),
        confirmed=all(min(areas[0] for areas in column(name, "RNF", "areas")) > 0.8 for name in SETS),
        seeds=len(setting.seeds),
        note="unsupervised; criterion: the density of RNF above 0.8 in every run",
    )  # fmt: skip
