"""Ways to make the decoder of a two-step model injective: how many pass the test, and what it costs in fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from papers.distances import principal
from papers.experiment import PAPER_TRAINING, Experiment, spread
from papers.surfaces.injective_decoders import BEFORE, WAYS
from papers.surfaces.two_step_setting import SETS, code_densities
from pushforward.models import VAE, AutoEncoder, TwoStep
from pushforward.models.latent.autoencoder import mmd
from pushforward.training import fit, fit_two_step

__all__ = ["study_injectivity"]


@dataclass(frozen=True)
class Images:
    """Images of one set.

    Attributes:
        rows: training images.
        kept: held-out images, which choose the weights.
        test: test images.
        features: the feature space of the kernel distance.
    """

    rows: Tensor
    kept: Tensor
    test: Tensor
    features: Callable[[Tensor], Tensor]


def study_injectivity(experiment: Experiment) -> None:
    """Train the first steps of every way on both sets, test their decoders, and report."""
    few, n_held_out = (
        experiment.choose(smoke=40, quick=1000, full=10_000),
        experiment.choose(smoke=30, quick=1000, full=5000),
    )
    ways, sets = BEFORE | WAYS, experiment.choose(smoke=SETS[:1], quick=SETS, full=SETS)
    found: dict[str, dict[str, list[dict[str, Any]]]] = {way: {name: [] for name in sets} for way in ways}
    for inside in sets:
        all_rows = experiment.choose(smoke=150, quick=60_000, full=60_000)
        rows, kept, test = experiment.image_parts(inside, rows=all_rows, held_out=n_held_out, test=few)
        images = Images(rows, kept, test, principal(rows))
        for seed in experiment.few(1, long=1):  # each way is tested with four densities on two sets
            for way in ways:
                key = f"injective {inside} {way} {seed}"
                found[way][inside].append(
                    experiment.measure(key, partial(_measure, experiment, images, way, key, seed))
                )
    _report(experiment, found)


def _steps(experiment: Experiment) -> tuple[int, int]:
    """Steps of the first and of the second step."""
    return experiment.choose(smoke=(2, 2), quick=(3000, 1000), full=(40_000, 10_000))


def _measure(experiment: Experiment, images: Images, way: str, key: str, seed: int) -> dict[str, Any]:
    """The error of reconstructions, and for each density of the codes the result of the test and the distance of samples."""
    width = experiment.choose(smoke=2, quick=20, full=20)
    first = _first(experiment, images, way, width, key, seed)
    test = images.test
    with torch.no_grad():
        error = (first.decode_mean(first.code(test.float())) - test).double().square().mean().sqrt().item()
    seconds = dict(list(code_densities(experiment, width).items())[: experiment.choose(smoke=1, quick=None, full=None)])
    tests, distances = {}, {}
    for name, second in seconds.items():
        torch.manual_seed(seed)
        model = TwoStep(first, second())
        done = fit_two_step(
            model,
            images.rows,
            validation=images.kept,
            autoencoder=False,
            seed=seed,
            batch_size=256,
            max_steps=_steps(experiment)[1],
            config=PAPER_TRAINING,
        )
        tests[name] = done.injectivity._asdict()
        drawn = model.sample(len(test), seed=seed).clamp(0, 255)
        distances[name] = mmd(images.features(drawn), images.features(test)).item()
    experiment.checkpoint_file(key).unlink(missing_ok=True)
    return {"error": error, "checks": tests, "distances": distances}


def _first(experiment: Experiment, images: Images, way: str, width: int, key: str, seed: int) -> AutoEncoder | VAE:
    """A trained first step; a run that is killed in its training resumes."""
    torch.manual_seed(seed)
    first = (BEFORE | WAYS)[way]((1, 28, 28), width, experiment.choose(smoke=(16,), quick=(256, 256), full=(256, 256)))
    fit(
        first,
        images.rows,
        validation=images.kept,
        config=PAPER_TRAINING,
        seed=seed,
        batch_size=128,
        max_steps=_steps(experiment)[0],
        checkpoint=experiment.checkpoint_file(key),
    )
    return first


def _report(experiment: Experiment, found: dict[str, dict[str, list[dict[str, Any]]]]) -> None:
    def checks(way: str) -> list[dict[str, Any]]:
        return [check for each in found[way].values() for facts in each for check in facts["checks"].values()]

    def passed(way: str) -> int:
        return sum(check["passed"] for check in checks(way))

    def text(way: str) -> str:
        fits = ", ".join(
            f"{name} {spread([facts['error'] for facts in each], 1)} and {spread([facts['distances']['NF'] for facts in each], 4)}"
            for name, each in found[way].items()
        )
        return (
            f"{way}: {passed(way)} of {len(checks(way))} pass, singular values from {min(c['singular_ratio'] for c in checks(way)):.2g}, codes to "
            f"{max(c['cycle_error'] for c in checks(way)):.2g}; {fits}"
        )

    def best(kind: str, of: Iterable[str]) -> int:
        return max(passed(way) for way in of if way.split(",")[0] == kind)

    steps, second_steps = _steps(experiment)
    seeds = len(next(iter(found["AE"].values())))
    experiment.report(
        "(not the paper's) decoders that are injective by construction, or kept so by a penalty, pass the test",
        ours="; ".join(text(way) for way in found),
        confirmed=all(best(kind, WAYS) == len(checks(kind)) for kind in ("AE", "VAE"))
        and any(passed(way) < len(checks(way)) for way in BEFORE),
        seeds=seeds,
        note="autoencoders with each of four densities of the codes; smallest over largest singular value, largest error of a recovered code in "
        f"standard deviations, root mean square error of test images in gray levels, and kernel distance of samples with a flow of the "
        f"codes; {steps:,} and {second_steps:,} steps; seeds: {seeds}; criterion: for AE and for VAE one way passes every test, and not all "
        "first steps of the other measurements do",
    )
