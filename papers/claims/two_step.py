"""Two-step models against manifold overfitting (Loaiza-Ganem, Ross, Cresswell, Caterini 2022)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from papers.distances import principal
from papers.experiment import PAPER_TRAINING, Experiment, all_hold, clearly_below, spread
from papers.reproduction import reproduction
from papers.surfaces.decoder_injectivity import study_injectivity
from papers.surfaces.two_step_circle import study_circle
from papers.surfaces.two_step_setting import SETS, code_densities
from pushforward.data import intrinsic_dimension
from pushforward.detection import auroc
from pushforward.detection.scores import DensityAndDistance, Likelihood, ManifoldDistance, Score
from pushforward.io import load, save
from pushforward.models import VAE, AutoEncoder, ImageNICE, ImageNSF, Model, TwoStep
from pushforward.models.latent.autoencoder import mmd
from pushforward.training import fit_two_step

__all__ = ["run"]


@reproduction(
    "two-step",
    "Diagnosing and Fixing Manifold Overfitting in Deep Generative Models (Loaiza-Ganem et al. 2022, arXiv 2204.07172)",
    data=SETS,
    full="hours on one GPU for the two gray sets with d = 20 (estimate); the paper's other sets and adversarial first steps are left out",
)
def run(experiment: Experiment) -> None:
    """Show overfitting on a circle; compare three first steps with four second steps on images; make decoders injective."""
    study_circle(experiment)
    _images(experiment)
    if experiment.budget != "quick":
        study_injectivity(experiment)


def _second_options(experiment: Experiment) -> dict[str, Any]:
    steps = experiment.choose(smoke=2, quick=500, long=4000, full=10_000)
    return {"config": PAPER_TRAINING, "batch_size": 256, "max_steps": steps}


class Images:
    """The study of images: first steps with every density of the codes, and densities of pixels.

    Attributes:
        found: the measurements.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment, self.found = experiment, Found()
        self.width = experiment.choose(smoke=2, quick=20, full=20)
        self.few = experiment.choose(smoke=40, quick=512, long=1000, full=10_000)
        self.held_out = experiment.choose(smoke=30, quick=1000, full=5000)
        count = experiment.choose(smoke=150, quick=20_000, long=60_000, full=60_000)
        self.train = {name: experiment.images(name, train=True, rows=count) for name in SETS}
        self.test = {name: experiment.images(name, train=False, rows=self.few) for name in SETS}
        self.hidden, self.shape = experiment.choose(smoke=(16,), quick=(256, 256), full=(256, 256)), (1, 28, 28)
        self.options = {
            "batch_size": 128,
            "max_steps": experiment.choose(smoke=2, quick=1200, long=10_000, full=40_000),
        }
        self.pixels = {"batch_size": 64, "max_steps": experiment.choose(smoke=2, quick=400, long=2000, full=40_000)}

    def parts(self, name: str) -> tuple[Tensor, Tensor]:
        """Training and held-out images."""
        return self.train[name][: -self.held_out], self.train[name][-self.held_out :]

    def firsts(self) -> dict[str, Callable[[], AutoEncoder | VAE]]:
        """Functions that make the first steps."""
        sizes: dict[str, Any] = {"latent": self.width, "levels": 256, "hidden": self.hidden}
        return {
            "AE": lambda: AutoEncoder(self.shape, **sizes),
            "VAE": lambda: VAE(self.shape, **sizes),
            "WAE": lambda: AutoEncoder(self.shape, penalty="mmd", penalty_weight=300.0, **sizes),
        }

    def ambient(self) -> dict[str, Callable[[], Model]]:
        """Functions that make densities of pixels: a flow of image couplings like the paper's, and one with constant volume."""
        choose = self.experiment.choose
        return {
            "NSF": lambda: ImageNSF(
                shape=self.shape, layers=choose(smoke=1, quick=3, full=7), hidden=(choose(smoke=8, quick=24, full=96),), bins=4, factor_out=False,
            ),
            "NICE": lambda: ImageNICE(shape=self.shape, hidden=self.hidden, standardize=False),
        }  # fmt: skip

    def two_steps(self, inside: str, outside: str, seed: int) -> None:
        """Measure each first step with each second one, trained on one set."""
        rows, kept = self.parts(inside)
        pair = [self.test[inside], self.test[outside]]
        known = [self.train[inside][: self.few], self.train[outside][: self.few]]
        for kind, make in self.firsts().items():
            first, _ = self.experiment.train(f"{inside} {kind} {seed}", make, rows, kept, seed=seed, **self.options)
            noise = torch.randn(self.few, self.width, generator=torch.Generator().manual_seed(seed))
            self.found.samples(inside, f"{kind} prior", first.decode_mean(noise).detach(), rows, pair[0])
            for density, second in code_densities(self.experiment, self.width).items():
                key, name = f"{inside} {kind}+{density} {seed}", f"{kind}+{density}"
                model = _second(self.experiment, key, first, second, rows, kept, seed, self.found)
                areas = self.experiment.measure(f"{key} AUROC", partial(_areas, model, kept, *pair))
                for score, value in areas.items():
                    self.found.areas[inside, name, score].append(value)
                self.found.samples(inside, name, model.sample(self.few, seed=seed), rows, pair[0])
                if inside == "fashion-mnist" and density == "NF":
                    for part in ("manifold", "codes"):
                        stump = partial(_stump, _log_density(model, part), known, pair)
                        self.found.stumps[f"{kind} {part}"].append(
                            self.experiment.measure(f"{key} stump {part}", stump)
                        )

    def densities_of_pixels(self, inside: str, outside: str, seed: int) -> None:
        """Measure each density of pixels, trained on one set."""
        rows, kept = self.parts(inside)
        pair = [self.test[inside], self.test[outside]]
        known = [self.train[inside][: self.few], self.train[outside][: self.few]]
        for kind, make in self.ambient().items():
            options = self.options | (self.pixels if kind == "NSF" else {})
            flow, _ = self.experiment.train(f"{inside} {kind} {seed}", make, rows, kept, seed=seed, **options)
            area = self.experiment.measure(f"{inside} {kind} {seed} AUROC", partial(_area, Likelihood(flow), *pair))
            self.found.areas[inside, kind, "density"].append(area)
            if inside == "fashion-mnist":
                stump = partial(_stump, _log_density(flow, "pixels"), known, pair)
                self.found.stumps[kind].append(self.experiment.measure(f"{kind} {seed} stump", stump))

    def conditions(self) -> str:
        """Text on the training."""
        return (
            f"{self.options['max_steps']:,} steps of 128 for a first step and NICE, {_second_options(self.experiment)['max_steps']:,} of 256 for a "
            f"second step, {self.pixels['max_steps']:,} of 64 for NSF; seeds: {len(self.found.areas[SETS[0], 'NSF', 'density'])}"
        )


def _images(experiment: Experiment) -> None:
    """Samples and detection of two-step models and of densities of pixels, on MNIST and Fashion-MNIST."""
    study = Images(experiment)
    _dimension(experiment, study.train)
    for inside, outside in (SETS, SETS[::-1]):
        for seed in experiment.few(1, long=3)[: 3 if experiment.budget == "long" else None]:  # images take longest
            study.two_steps(inside, outside, seed)
            study.densities_of_pixels(inside, outside, seed)
    for inside, outside in (SETS[::-1], SETS):
        _report_detection(experiment, study.found, inside, outside, study.conditions())
    _report_stumps(experiment, study.found)
    for name in SETS:
        _report_samples(experiment, study, name)
    _report_checks(experiment, study.found)
    for name in SETS:
        experiment.strip(f"samples-{name}", study.found.strips[name])


@dataclass
class Found:
    """Measurements on images.

    Attributes:
        areas: AUROC by training set, model and score, one for each seed.
        distance: distance of samples from test images, by training set and model, one for each seed.
        stumps: accuracies with known anomalies, by first step and density, or of the flow on pixels.
        strips: samples for the pictures, by training set and model.
        checks: result of the injectivity test of each decoder.
    """

    areas: defaultdict[tuple[str, str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    distance: defaultdict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    stumps: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    strips: defaultdict[str, dict[str, Tensor]] = field(default_factory=lambda: defaultdict(dict))
    checks: dict[str, dict[str, Any]] = field(default_factory=dict)

    def samples(self, inside: str, name: str, drawn: Tensor, rows: Tensor, real: Tensor) -> None:
        """Add samples of a model, and their squared kernel distance to real images in principal components of the training rows."""
        features, drawn = principal(rows), drawn.clamp(0, 255)
        self.strips[inside].setdefault(name, drawn[:16])
        self.distance[inside, name].append(mmd(features(drawn), features(real)).item())


def _dimension(experiment: Experiment, train: dict[str, Tensor]) -> None:
    count = experiment.choose(smoke=60, quick=3000, full=20_000)
    dims = {
        name: experiment.measure(f"{name} dimension", partial(intrinsic_dimension, rows[:count]))
        for name, rows in train.items()
    }
    experiment.report(
        "images lie near a manifold of few dimensions",
        ours=", ".join(f"{name}: {found:.1f} of 784" for name, found in dims.items()),
        confirmed=max(dims.values()) < 40,
        seeds=experiment.choose(smoke=0, quick=0, full=1),  # more than 5,000 rows are sampled at random
        note=f"maximum likelihood of 20 neighbors among {count:,} rows; the codes have 20, as in the paper; criterion: fewer than 40",
    )


def _second(
    experiment: Experiment,
    key: str,
    first: AutoEncoder | VAE,
    second: Callable[[], Any],
    rows: Tensor,
    kept: Tensor,
    seed: int,
    found: Found,
) -> TwoStep:
    """A two-step model on a first step, trained once."""
    file = experiment.model_file(key)

    def train() -> dict[str, Any]:
        torch.manual_seed(seed)
        model = TwoStep(first, second())
        done = fit_two_step(model, rows, validation=kept, autoencoder=False, seed=seed, **_second_options(experiment))
        save(model, file)
        return done.injectivity._asdict()

    found.checks[key] = experiment.measure(key, train, file)
    return cast("TwoStep", load(file))


def _area(score: Score, inside: Tensor, outside: Tensor) -> float:
    return auroc(score(inside).numpy(), score(outside).numpy())


def _areas(model: TwoStep, kept: Tensor, inside: Tensor, outside: Tensor) -> dict[str, float]:
    both = DensityAndDistance(model).fit(kept[:256])
    scores = {"density": Likelihood(model), "residual": ManifoldDistance(model), "both": both}
    return {name: _area(score, inside, outside) for name, score in scores.items()}


def _log_density(model: Model, part: str) -> Callable[[Tensor], Tensor]:
    """log p of rows, ``(n,)``: that of the model, or for "codes" that of the codes of a two-step model."""
    if part != "codes":
        return lambda rows: -Likelihood(model)(rows)
    two = cast("TwoStep", model)
    return lambda rows: two.density.evaluate(two.codes(rows)).value.double()


@torch.no_grad()
def _stump(log_density: Callable[[Tensor], Tensor], known: list[Tensor], new: list[Tensor]) -> float:
    """Balanced accuracy on new rows of a decision stump that is trained on log-likelihoods of known rows.

    Rows above the threshold are taken for in-distribution.
    """
    from sklearn.tree import DecisionTreeClassifier

    inside, outside = (log_density(rows).clamp(-1e30, 1e30).numpy() for rows in known)
    labels = np.repeat([1, 0], [len(inside), len(outside)])
    tree = DecisionTreeClassifier(max_depth=1, random_state=0).fit(np.concatenate((inside, outside))[:, None], labels)
    threshold = tree.tree_.threshold[0] if tree.tree_.node_count > 1 else -math.inf
    inside, outside = (log_density(rows).numpy() for rows in new)
    return 0.5 * float((inside > threshold).mean() + (outside <= threshold).mean())


def _report_detection(experiment: Experiment, found: Found, inside: str, outside: str, trained: str) -> None:
    """Report on models of one set that detect another; ``trained`` says how long each model was."""
    areas = found.areas
    kinds = list(dict.fromkeys(kind for name, kind, _ in areas if name == inside and "+" in kind))
    table = "; ".join(
        f"{kind} " + " / ".join(spread(areas[inside, kind, name], 2) for name in ("density", "residual", "both"))
        for kind in kinds
    )
    pixels, flat = (areas[inside, kind, "density"] for kind in ("NSF", "NICE"))
    experiment.report(
        f"trained on {inside}, the density on the manifold detects {outside} better than a density of pixels",
        paper="tables of accuracies with known anomalies; see below",
        ours=f"AUROC of density / residual / both: {table}; on pixels NSF {spread(pixels, 2)}, NICE {spread(flat, 2)}",
        confirmed=clearly_below(pixels, areas[inside, "AE+NF", "density"]),
        seeds=len(pixels),
        note="unsupervised; criterion: AE+NF against NSF, a flow of couplings like the paper's; NICE has a constant volume; "
        f"{trained}",
    )
    gains = [fmean(areas[inside, kind, "both"]) - fmean(areas[inside, kind, "density"]) for kind in kinds]
    experiment.report(
        f"(not the paper's) trained on {inside}, density and residual together beat the density alone",
        ours=f"AUROC higher for {sum(gain > 0 for gain in gains)} of {len(gains)} pairs of steps, by {min(gains):+.3f} to {max(gains):+.3f}",
        confirmed=all_hold(
            clearly_below(areas[inside, kind, "density"], areas[inside, kind, "both"]) for kind in kinds
        ),
        seeds=len(pixels),
        note="criterion: clearly for every pair of steps",
    )


def _report_stumps(experiment: Experiment, found: Found) -> None:
    stumps = found.stumps
    experiment.report(
        "fashion-mnist against mnist with a decision stump trained on both: WAE+NF succeeds, and a flow on pixels is inverted",
        paper="98.07 % (density of codes) and 36.09 %",
        ours=", ".join(f"{kind} {spread([100 * v for v in values], 1)} %" for kind, values in stumps.items()),
        confirmed=all_hold(
            (
                clearly_below(stumps["NSF"], stumps["WAE codes"]),
                fmean(stumps["NSF"]) < 0.5,
                fmean(stumps["WAE codes"]) > 0.9,
            )
        ),
        seeds=len(stumps["NSF"]),
        note="densities on the manifold and of the codes alone, with a flow in the second step; supervised: known anomalies of the same "
        "kind determine the threshold; criterion: WAE codes above 90 % and clearly above NSF, which is below 50 %",
    )


def _report_samples(experiment: Experiment, study: Images, inside: str) -> None:
    distance = {name: values for (trained_on, name), values in study.found.distance.items() if trained_on == inside}
    rows = study.parts(inside)[0]
    features = principal(rows)
    floor = mmd(features(rows[-study.few :]), features(study.test[inside])).item()
    experiment.report(
        f"a second step makes better samples than the first step's own prior, on {inside}",
        paper="ahead of the first step, by FID",
        ours="kernel distance: " + ", ".join(f"{kind} {spread(values, 4)}" for kind, values in distance.items()),
        confirmed=all_hold(
            clearly_below(distance[f"{kind}+NF"], distance[f"{kind} prior"]) for kind in ("AE", "VAE", "WAE")
        ),
        seeds=len(distance["AE+NF"]),
        note=f"squared kernel distance to test images in 30 whitened principal components, not FID, where as many training images have {floor:z.4f}; "
        "criterion: with NF, for each of the three first steps",
    )


def _report_checks(experiment: Experiment, found: Found) -> None:
    checks = found.checks
    passed = [check["passed"] for check in checks.values()]
    experiment.report(
        "(not the paper's) the decoders pass the test of injectivity, so that the density is exact",
        ours=f"{sum(passed)} of {len(passed)} pass; smallest over largest singular value from "
        f"{min(check['singular_ratio'] for check in checks.values()):.2g}; codes are recovered to "
        f"{max(check['cycle_error'] for check in checks.values()):.2g} standard deviations, by the encoder alone to "
        f"{max(check['encoder_error'] for check in checks.values()):.2g}",
        confirmed=all(passed),
        seeds=len(found.areas[SETS[0], "NSF", "density"]),
        note="bounds 1e-3 and 0.1; where it fails, evaluate reports ESTIMATE",
    )
