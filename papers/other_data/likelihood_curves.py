"""The likelihoods of test images and of other data during a long training, for the reproduction of Nalisnick et al. 2019."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from papers.experiment import Experiment, spread
from pushforward.detection import auroc
from pushforward.errors import StorageError
from pushforward.models import Model
from pushforward.training import TrainingEvent

__all__ = ["CurveModel", "draw_curves", "follow", "report_curves", "report_variances"]

Values = dict[str, Any]


@dataclass(frozen=True)
class CurveModel:
    """A model of images and its training.

    Attributes:
        name: of the model.
        build: function that makes it.
        options: options of ``Experiment.train``, with the batch size.
        published: what the paper found, for the table.
    """

    name: str
    build: Callable[[], Model]
    options: Mapping[str, Any]
    published: str = ""


@torch.no_grad()
def _bits(model: Model, images: Tensor) -> Tensor:
    """Bits/dim of each image."""
    return torch.cat([model.evaluate(part).bits_per_dim().double() for part in images.split(100)])


def _scores(model: Model, sets: Mapping[str, Tensor], rows: int | None) -> Values:
    """Mean bits/dim and its standard error for each set, and the area under the ROC curve of the others against the first."""
    bits = {name: _bits(model, images[:rows]).numpy() for name, images in sets.items()}
    first = next(iter(bits.values()))
    return {
        "bits": {name: float(values.mean()) for name, values in bits.items()},
        "errors": {name: float(values.std() / math.sqrt(len(values))) for name, values in bits.items()},
        "auroc": {name: auroc(first, values) for name, values in list(bits.items())[1:]},
    }


def follow(
    experiment: Experiment, trained: CurveModel, train: Tensor, held_out: Tensor, sets: Mapping[str, Tensor], *, seed: int,
    seconds: float, looks: int, rows: int, more: Mapping[str, Tensor] | None = None,
) -> Values:  # fmt: skip
    """Train a model for a given time, and score all sets at equal intervals and at the end.

    Each look is a measurement, so a run that was cut off goes on from its last checkpoint and repeats no look.

    Args:
        experiment: the run.
        trained: the model.
        train: training images.
        held_out: images that choose the weights that are kept.
        sets: test images of the training set, and then other data; they choose nothing.
        seed: of weights and training.
        seconds: CPU time; wall time with the full budget.
        looks: number of looks after the start.
        rows: images of each set that a look scores; in the end all are scored.

    Returns:
        "curve", a list of scores with the minutes of training, and "end", the scores of the weights with the best held-out likelihood.
    """
    limit = experiment.time_limit(
        f"{trained.name} of photographs", trained.build, train, smoke=4, quick=seconds, long=seconds, full=seconds,
        batch_size=trained.options["batch_size"],
    )  # fmt: skip
    key = f"{trained.name} of photographs {seed}"
    steps = limit.get("max_steps")
    made: list[Model] = []

    def make() -> Model:
        made.append(trained.build())
        return made[-1]

    def look(event: TrainingEvent) -> None:
        # With a budget of steps the time is that of the timed steps, so that other work on the machine does not count.
        minutes = event.seconds / 60 if steps is None else seconds / 60 * event.step / steps
        experiment.measure(
            f"{key} at step {event.step}",
            lambda: {"minutes": minutes, "held out": event.validation, **_scores(made[-1], sets, rows)},
        )

    every = 1000 if steps is None else max(1, steps // looks)
    fitted = experiment.trained(
        key, make, train, held_out, seed=seed, patience=None, evaluate_every=every, curve=True, callback=look,
        **trained.options, **limit,
    )  # fmt: skip
    curve = [
        experiment.measure(f"{key} at step {step}", lambda step=step: _lost(key, step))
        for step, _ in fitted.facts["curve"]
    ]
    end = experiment.measure(f"{key} at the end", lambda: _scores(fitted.model, {**sets, **(more or {})}, None))
    facts = fitted.facts
    return {"curve": curve, "end": end, "parameters": facts["parameters"], "best": facts["best_step"], "steps": facts["steps"]}  # fmt: skip


def _lost(key: str, step: int) -> Values:
    raise StorageError(
        f"the scores of {key} at step {step} are missing: delete its model file, so that it is trained again."
    )


def report_curves(experiment: Experiment, trained: CurveModel, found: list[Values], other: str) -> None:
    """Report whether other data have fewer bits than test images at the end, and whether training takes that away."""
    name = next(iter(found[0]["end"]["bits"]))
    ends = [run["end"] for run in found]
    areas = [end["auroc"][other] for end in ends]
    lower = [
        end["bits"][name] - end["bits"][other] > 2 * math.hypot(end["errors"][name], end["errors"][other])
        for end in ends
    ]
    rest = [each for each in ends[0]["auroc"] if each != other]
    minutes = found[0]["curve"][-1]["minutes"]
    best = ", ".join(f"{run['best']:,} of {run['steps']:,}" for run in found)
    experiment.report(
        f"{trained.name}: trained on {name} it gives {other} a higher likelihood than test images",
        paper=trained.published,
        ours=f"{spread([end['bits'][name] for end in ends], 3)} and {spread([end['bits'][other] for end in ends], 3)} bits/dim on {name} and "
        f"{other}, AUROC of -log p {spread(areas)}"
        + "".join(f"; {each} {spread([end['bits'][each] for end in ends], 3)} bits/dim, {spread([end['auroc'][each] for end in ends])}" for each in rest),
        confirmed=all(lower) and max(areas) < 0.5,
        seeds=len(found),
        note=f"criterion: fewer bits by more than two standard errors over images, and an AUROC below 0.5; {minutes:.0f} minutes of training, "
        f"{found[0]['parameters']:,} parameters; the kept weights are those of step {best}",
    )  # fmt: skip
    early = [_near(run["curve"], 0.1)["auroc"][other] for run in found]
    late = [run["curve"][-1]["auroc"][other] for run in found]
    experiment.report(
        f"{trained.name}: longer training does not end it",
        ours=f"AUROC of -log p on {other} {spread(early)} after a tenth of the training, {spread(late)} at its end",
        confirmed=all(b < 0.5 and b - a < 0.05 for a, b in zip(early, late, strict=True)) if all(lower) else None,
        seeds=len(found),
        note="criterion: below 0.5 at the end, and less than 0.05 above that after a tenth; not tested where other data are not more likely",
    )


def report_variances(
    experiment: Experiment, trained: CurveModel, found: list[Values], variances: Mapping[str, float]
) -> None:
    """Report whether those data are more likely than test images whose pixels vary less (Nalisnick et al. 2019, sec. 5).

    Args:
        experiment: the run.
        trained: the model.
        found: of `follow`, one for each seed.
        variances: of the pixels of each set, in gray levels squared, averaged over pixels; the first is of the test images.
    """
    first, *others = variances
    ends = [run["end"] for run in found]
    right, clear = 0, 0
    for end in ends:
        for other in others:
            gap = end["bits"][other] - end["bits"][first]
            if abs(gap) > 2 * math.hypot(end["errors"][other], end["errors"][first]):
                clear += 1
                right += (gap < 0) == (variances[other] < variances[first])
    experiment.report(
        f"{trained.name}: other data are more likely than test images where their pixels vary less",
        paper="shown for flows of constant volume",
        ours=f"{right} of {clear} clear gaps; "
        + ", ".join(
            f"{other} {variances[other] / variances[first]:.2f} of the variance and {spread([end['bits'][other] for end in ends], 3)} bits/dim"
            for other in others
        ),
        confirmed=right == clear if clear else None,
        seeds=len(found),
        note=f"{first}: {spread([end['bits'][first] for end in ends], 3)} bits/dim; a gap is clear from two standard errors over images on. "
        "The means of the pixels differ too, which the prediction of the paper counts and this line does not",
    )  # fmt: skip


def _near(curve: list[Values], fraction: float) -> Values:
    """The look nearest to a fraction of the training time, after the start."""
    target = fraction * curve[-1]["minutes"]
    return min(curve[1:] or curve, key=lambda look: abs(look["minutes"] - target))


def draw_curves(experiment: Experiment, runs: Mapping[str, list[Values]]) -> None:
    """Draw bits/dim and areas against the minutes of training, one row a model, the first seed."""
    figure = experiment.figure(9, 3 * len(runs))
    for row, (model, found) in zip(figure.subplots(len(runs), 2, squeeze=False), runs.items(), strict=True):
        curve = found[0]["curve"]
        minutes = [look["minutes"] for look in curve]
        for axes, what, label in zip(row, ("bits", "auroc"), ("bits/dim", "AUROC of -log p"), strict=True):
            for index, name in enumerate(curve[0]["bits"]):
                if name not in curve[0][what]:
                    continue
                values = np.array([look[what][name] for look in curve])
                shown = values[1:] if len(values) > 1 else values
                axes.plot(minutes[1:] or minutes, shown, color=f"C{index}", marker=".", label=name)
            axes.set(title=model, xlabel="minutes of training", ylabel=label)
            axes.legend(fontsize=7)
        row[1].axhline(0.5, color="0.7", lw=0.8)
    experiment.picture("curves", figure)
