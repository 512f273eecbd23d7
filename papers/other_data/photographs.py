"""Likelihoods of photographs and of other data: flows of constant volume on several pairs of sets, and long trainings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from papers.experiment import Experiment, UnfinishedError
from papers.other_data.constant_volume import (
    BASES,
    NORMAL,
    ImageSets,
    Variant,
    altered,
    constant_volume_flow,
    report_summary,
    run_variant,
)
from papers.other_data.likelihood_curves import CurveModel, draw_curves, follow, report_curves, report_variances
from papers.reproduction import Budget
from pushforward.models import Glow, Model, PixelCNN

__all__ = [
    "ADDITIVE_RATES",
    "CURVE_MODELS",
    "SHAPE",
    "color_photographs",
    "compare_variants",
    "follow_photographs",
    "gray_photographs",
    "variants",
]

SHAPE = (1, 28, 28)
COLOR = (3, 32, 32)
ADDITIVE_RATES: dict[Budget, float] = {"smoke": 1e-2, "quick": 1e-2, "long": 3e-3, "full": 1e-2}
"""Learning rates of flows of constant volume: the quick one is for 800 steps."""

PHOTOGRAPHS = "photographs"
"""CIFAR-10. In gray it is cut to 28 x 28, and the X-rays of PneumoniaMNIST have its mean and less than a third of its variance."""
XRAYS, SIGNS = "X-rays", "traffic signs"
"""GTSRB stands in for SVHN, which is not available. Its pixels vary more than those of CIFAR-10, which is not so for SVHN."""
CURVE_MODELS: dict[str, CurveModel] = {
    "Glow": CurveModel(
        "Glow", lambda: Glow(COLOR, alpha=None, scales=3, layers=8, hidden=(128, 128)), {"batch_size": 32, "learning_rate": 1e-3},
        "3.46 and 2.39 bits/dim on CIFAR-10 and SVHN",
    ),
    "PixelCNN++": CurveModel(
        "PixelCNN++",
        lambda: PixelCNN(COLOR, output="logistic", network="plusplus", components=10, filters=32, layers=2, dropout=0.1),
        {"batch_size": 16, "learning_rate": 1e-3},
    ),
}  # fmt: skip


def gray_photographs(images: Tensor) -> Tensor:
    """The middle 28 x 28 pixels of images ``(n, 3, 32, 32)`` in gray, by the luma of Rec. 601; uint8."""
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)[:, None, None]
    middle = images[..., 2:-2, 2:-2].double()
    return (weights * middle).sum(-3, keepdim=True).round().to(torch.uint8)


def variants(experiment: Experiment, test: Mapping[str, Tensor]) -> list[Variant]:
    """Flows of constant volume of photographs, and with the long and full budgets of color and of the paper's size."""
    rows, held_out = (
        experiment.choose(smoke=20, quick=1000, full=4000),
        experiment.choose(smoke=20, quick=500, full=500),
    )
    color, color_test = (experiment.images("cifar10", train=train) for train in (True, False))
    signs, xrays = (experiment.images(name, train=False, rows=rows) for name in ("gtsrb", "pneumonia"))
    gray, gray_test = gray_photographs(color), gray_photographs(color_test[:rows])
    photographs = ImageSets(
        PHOTOGRAPHS, gray[:-held_out], gray[-held_out:], gray_test,
        {XRAYS: xrays, SIGNS: gray_photographs(signs), **altered(gray_test)}, XRAYS,
    )  # fmt: skip
    tiny: dict[str, Any] = {"scales": 1, "layers": 1, "hidden": (4, 4)}
    paper: dict[str, Any] = {"scales": 2, "layers": 16, "hidden": (200, 200)}
    sizes: dict[str, Any] = experiment.choose(
        smoke=tiny, quick={"scales": 2, "layers": 4, "hidden": (32, 32)}, long={"scales": 2, "layers": 8, "hidden": (64, 64)},
        full=paper,
    )  # fmt: skip
    in_gray = [
        _variant(experiment, f"{kind}, of {PHOTOGRAPHS}", photographs, partial(constant_volume_flow, SHAPE, base, **sizes), 1800, ADDITIVE_RATES[experiment.budget])
        for kind, base in BASES.items()
    ]  # fmt: skip
    if experiment.budget == "quick":
        return in_gray
    wide = in_color(xrays)
    few = color_test[:rows]
    colored = ImageSets(
        f"{PHOTOGRAPHS} in color", color[:-held_out], color[-held_out:], few,
        {XRAYS: wide, SIGNS: signs, "CIFAR-100": experiment.images("cifar100", train=False, rows=rows), **altered(few)}, XRAYS,
    )  # fmt: skip
    clothes = experiment.images("fashion-mnist", train=True)
    fashion, digits = (test[name][:rows] for name in ("Fashion-MNIST", "MNIST"))
    of_paper = ImageSets(
        "Fashion-MNIST", clothes[:-held_out], clothes[-held_out:], fashion,
        {"MNIST": digits, "notMNIST": experiment.images("notmnist", train=False, rows=rows), **altered(fashion)}, "MNIST",
    )  # fmt: skip
    if experiment.budget == "smoke":
        in_three = paper = tiny
    else:
        in_three: dict[str, Any] = {"scales": 3, "layers": 8, "hidden": (64, 64)}
    return [
        *in_gray,
        _variant(experiment, f"{NORMAL}, of {colored.name}", colored,
                 partial(constant_volume_flow, COLOR, BASES[NORMAL], **in_three), 5400, 1e-3),
        _variant(experiment, f"{NORMAL}, of Fashion-MNIST, of the paper's size", of_paper,
                 partial(constant_volume_flow, SHAPE, BASES[NORMAL], **paper), 6600, 1e-3),
    ]  # fmt: skip


def _variant(
    experiment: Experiment, name: str, sets: ImageSets, make: Callable[[], Model], seconds: float, rate: float
) -> Variant:
    """A variant that trains for this CPU time with the long budget, and for hours with the full one."""
    options: dict[str, Any] = {"batch_size": 32, "learning_rate": rate, "max_steps": 800, "evaluate_every": 1000}
    if experiment.budget != "quick":
        del options["max_steps"]
        options |= experiment.time_limit(
            name, make, sets.train, smoke=2, quick=seconds, long=seconds, full=8 * 3600.0, batch_size=32
        )
    if "max_steps" in options:
        options["evaluate_every"] = max(1, options["max_steps"] // 20)
    return Variant(name, sets, make, options)


def compare_variants(experiment: Experiment, compared: list[Variant]) -> None:
    """Measure each variant, and report whether one shows both the inversion and the right prediction (sec. 4 and 5)."""
    report_summary(experiment, {variant.name: run_variant(experiment, variant) for variant in compared})


def color_photographs(experiment: Experiment) -> tuple[Tensor, Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Training and held-out photographs in color, the sets that are scored during training, and further ones for its end."""
    train, rows = experiment.images("cifar10", train=True), 4000
    sets = {"CIFAR-10": experiment.images("cifar10", train=False, rows=rows)}
    sets |= {name: experiment.images(file, train=False, rows=rows) for name, file in ((SIGNS, "gtsrb"), ("CIFAR-100", "cifar100"))}  # fmt: skip
    half = "grayed by half"
    more = {
        XRAYS: in_color(experiment.images("pneumonia", train=False, rows=rows)),
        half: altered(sets["CIFAR-10"])[half],
    }
    return train[:-500], train[-500:], sets, more


def in_color(xrays: Tensor) -> Tensor:
    """Gray images ``(n, 1, 28, 28)`` as ``(n, 3, 32, 32)``, with a mirrored border and equal channels; uint8."""
    return torch.nn.functional.pad(xrays.float(), (2, 2, 2, 2), mode="reflect").to(torch.uint8).expand(-1, 3, -1, -1)


def follow_photographs(
    experiment: Experiment,
    models: Mapping[str, CurveModel],
    train: Tensor,
    held_out: Tensor,
    sets: Mapping[str, Tensor],
    more: Mapping[str, Tensor],
) -> None:
    """Train models of photographs for up to two hours each, and follow the likelihoods of test images and of other data.

    Raises:
        UnfinishedError: if the time of the run is over, after a report of the models that are finished.
    """
    hours = experiment.choose(smoke=1 / 3600, quick=0.1, long=1.8, full=48.0)
    looks, rows = (
        experiment.choose(smoke=2, quick=12, long=24, full=24),
        experiment.choose(smoke=4, quick=500, full=500),
    )
    runs: dict[str, list[dict[str, Any]]] = {}
    unfinished: UnfinishedError | None = None
    for name, trained in models.items():
        try:
            runs[name] = [
                follow(
                    experiment,
                    trained,
                    train,
                    held_out,
                    sets,
                    seed=seed,
                    seconds=3600 * hours,
                    looks=looks,
                    rows=rows,
                    more=more,
                )
                for seed in experiment.few(1)
            ]
        except UnfinishedError as error:
            if not runs:
                raise
            unfinished = error  # report the models that are finished
            break
        report_curves(experiment, trained, runs[name], SIGNS)
        report_variances(
            experiment, trained, runs[name], {key: _variance(images) for key, images in {**sets, **more}.items()}
        )
    draw_curves(experiment, runs)
    if unfinished:
        raise unfinished


def _variance(images: Tensor) -> float:
    """The variance of each pixel over images, averaged over pixels."""
    return images.double().var(0).mean().item()
