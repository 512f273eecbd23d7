"""Attacks on the guard of images, on the likelihood of its flow and on InFlow's gate.

    python -m benchmarks.quality.ood --attacks                      # fits the guard, or reads its file

A guard with default options is fitted on Fashion-MNIST as in the table of scores. The attacker has everything: weights, reference
features and calibration. Each image is attacked by itself, within a budget of gray levels per pixel:

- *raise log p* (FGSM, PGD): raises the likelihood alone, without regard to guard and gate;
- *raise log p, hide from the gate* (PGD): also raises the kernel mean, from which the gate computes the conformal p-value of a single image;
- *lower the guard's score* (FGSM, PGD): lowers the score itself. The compressors have no gradient, so the attacker uses a surrogate for the log of the
  code lengths, the sum of log(1 + differences of neighbors)^2, fitted to them. Detection is always measured with the true score, and
  the best point is kept;
- *noise*: random signs of the same size, the effect of a change of that size without an attacker.

Conversely, the guard's score of in-distribution images is raised until it alarms.

The table has the fraction that each detector detects at a promised false-alarm rate of 5 %, with 95 % intervals (Wilson), on the same
images. The detectors are the guard, and conformal p-values of -log p of its flow and of the gate's kernel mean.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import pushforward as pf
from benchmarks.common.datasets import load_images
from benchmarks.common.results import Results, footer, markdown
from benchmarks.quality.data import add_data_option
from benchmarks.quality.ood import fitted, flow_of
from pushforward.detection import ConformalCalibrator, RandomFeatures, auroc, fgsm, log_likelihood_objective, pgd
from pushforward.detection.batching import by_batches
from pushforward.detection.scores import CodeLength, DoSE, LikelihoodPath, Log, Statistic, SurpriseSum
from pushforward.detection.two_sample import median_distance
from pushforward.transforms import Chain, Step, UniformDequantize

ALPHA = 0.05
Objective = Callable[[Tensor], Tensor]


class StraightThroughDequantize(UniformDequantize):
    """Dequantization with a straight-through gradient: the value at the nearest integers, the gradient of the identity."""

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Any = None) -> Step:
        whole = x.detach().round()
        step = super().encode(whole, context, noise=noise)
        return Step(step.z + (x - whole) / self.count, step.contribution)


def guard_score(guard: pf.Guard, reference: Tensor) -> Objective:
    """A differentiable version of the guard's score, for images of its own size.

    Args:
        guard: a guard of images whose sides are multiples of 4.
        reference: images on which the surrogate of the compressors is fitted.
    """
    total = copy.deepcopy(guard.score_.inner)
    assert isinstance(total, SurpriseSum)
    dose, *networks = total.used()
    assert isinstance(dose, DoSE)
    flows = {part.model for part in dose.modules() if isinstance(part, LikelihoodPath)}
    for flow in flows:
        first, *rest = flow.chain
        assert isinstance(first, UniformDequantize)
        flow.chain = Chain(StraightThroughDequantize(first.in_shape, first.levels), *rest)
    parts: list[Statistic] = list(dose.statistics)  # pyright: ignore[reportAssignmentType]
    lines = {k: _fit_line(part, reference) for k, part in enumerate(parts) if _compresses(part)}

    def columns(x: Tensor) -> Tensor:
        found = []
        for k, part in enumerate(parts):
            if k in lines:
                true, (slopes, offsets) = part.values(x.detach().round()), lines[k]
                guess = _roughness(x)[:, None] * slopes + offsets
                found.append(true + guess - guess.detach())
            elif isinstance(part, Log):
                found.append(torch.log(part.statistic._values(x)))  # .values() has no gradient
            else:
                found.append(part._values(x))
        return torch.cat(found, 1).double()

    def score(x: Tensor) -> Tensor:
        rows = (columns(x) - dose.center) / dose.scale
        values = [-_log_mixture(rows, dose), *(network._score(x) for network in networks)]
        return total.combine(torch.stack(values, 1)).sum(1)

    return score


def _log_mixture(rows: Tensor, dose: DoSE) -> Tensor:
    from pushforward.detection.scores.densities import log_gaussians

    return log_gaussians(rows, dose.log_weights, dose.means, dose.whitenings)


def _compresses(part: Statistic) -> bool:
    return isinstance(part, Log) and isinstance(part.statistic, CodeLength)


def _roughness(x: Tensor) -> Tensor:
    """log of the sum of log(1 + d)^2 over differences d of neighbors, ``(n,)``: small where an image compresses well."""
    steps = (torch.log1p(x.diff(dim=dim).abs()).square().flatten(1).sum(1) for dim in (-1, -2))
    return torch.log1p(torch.stack(list(steps)).sum(0))


def _fit_line(part: Statistic, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes and offsets of the least-squares lines from roughness to the part's columns."""
    x, y = _roughness(reference.double()), part.values(reference)
    slopes = ((x - x.mean())[:, None] * (y - y.mean(0))).mean(0) / x.var(correction=0)
    return slopes, y.mean(0) - slopes * x.mean()


class Detectors:
    """Three detectors of single images: the guard, and two that are calibrated on the same in-distribution images."""

    def __init__(self, guard: pf.Guard, reference: Tensor, calibration: Tensor) -> None:
        self.guard, self.flow = guard, flow_of(guard)
        self.features = RandomFeatures(tuple(reference.shape[1:]))
        with torch.no_grad():
            self.known = by_batches(self.features, reference, 256)
        self.bandwidth = median_distance(self.known.double().numpy())
        self.objective = log_likelihood_objective(self.flow)
        self.scores: dict[str, Callable[[Tensor], np.ndarray]] = {
            "guard": lambda x: guard.score_(x).numpy(),
            "-log p": lambda x: -by_batches(lambda part: self.flow.evaluate(part).value.double(), x, 256).numpy(),
            "gate": lambda x: -by_batches(self.kernel_mean, x, 256).double().numpy(),
        }
        self.calibrators = {
            name: guard.calibrator_ if name == "guard" else ConformalCalibrator(score(calibration))
            for name, score in self.scores.items()
        }

    def kernel_mean(self, x: Tensor) -> Tensor:
        """Mean Gaussian kernel to the reference's features, ``(n,)``: the part of the gate's MMD of a batch of one that depends on the image."""
        return torch.exp(-torch.cdist(self.features(x), self.known).square() / (2 * self.bandwidth**2)).mean(1)

    def measure(self, x: Tensor, normal: dict[str, np.ndarray]) -> dict[str, float]:
        """Fraction that each detector detects at ALPHA, and its AUROC against in-distribution images."""
        result = {}
        for name, score in self.scores.items():
            found = score(x)
            result[f"{name} caught"] = float((self.calibrators[name].p_value(found) <= ALPHA).mean())
            result[f"{name} auroc"] = auroc(normal[name], found)
        return result


def run(options: argparse.Namespace, results: Results) -> None:
    guard, reference, calibration, test = fitted("fashion-mnist", options.seed, options)
    known, other = reference[: options.known], reference[options.known :]
    detectors = Detectors(guard, known, torch.cat((calibration, other)))
    score = guard_score(guard, known[:500])
    normal = {name: find(test[options.images : options.images + 1000]) for name, find in detectors.scores.items()}
    likely = detectors.objective

    def hidden(x: Tensor) -> Tensor:
        # The MMD^2 of one image falls by twice the gain of its kernel mean; the weight 1e4 makes both terms equally important.
        return likely(x) + 1e4 * detectors.kernel_mean(x)

    def lowered(x: Tensor) -> Tensor:
        return -score(x)

    def pgd_attack(objective: Objective) -> Callable[[Tensor, float], Tensor]:
        # Take small steps from the image itself: the density of pixels has narrow peaks, most of all at black.
        return lambda x, budget: pgd(
            objective, x, budget, steps=options.steps, step=max(1.0, budget / 8), random_start=False
        )

    def fgsm_attack(objective: Objective) -> Callable[[Tensor, float], Tensor]:
        return lambda x, budget: fgsm(objective, x, budget)

    def noise(x: Tensor, budget: float) -> Tensor:
        draw = torch.Generator().manual_seed(0)
        signs = torch.randint(2, x.shape, generator=draw) * 2 - 1
        return (x.long() + int(budget) * signs).clamp(0, 255).to(torch.uint8)

    hide = {
        "noise": noise, "FGSM, raise log p": fgsm_attack(likely), "PGD, raise log p": pgd_attack(likely),
        "PGD, raise log p, hide from the gate": pgd_attack(hidden), "FGSM, lower the guard's score": fgsm_attack(lowered),
        "PGD, lower the guard's score": pgd_attack(lowered),
    }  # fmt: skip
    alarm = {
        "noise": noise,
        "FGSM, raise the guard's score": fgsm_attack(score),
        "PGD, raise the guard's score": pgd_attack(score),
    }
    sets = {name: load_images(name, train=False, folder=options.data)[: options.images] for name in options.others}
    sets["fashion-mnist"] = test[: options.images]
    for name, images in sets.items():
        key = {"seed": options.seed, "set": name, "images": len(images), "steps": options.steps}
        for attack, make in {"none": noise, **(alarm if name == "fashion-mnist" else hide)}.items():
            for budget in (0,) if attack == "none" else options.budgets:
                if results.where(**key, attack=attack, budget=budget):
                    continue
                changed = images if budget == 0 else make(images, float(budget))
                results.add({**key, "attack": attack, "budget": budget, **detectors.measure(changed, normal)})


SHOWN = {"mnist": "MNIST", "notmnist": "notMNIST", "fashion-mnist": "Fashion-MNIST (false alarms)"}


def interval(fraction: float, count: int) -> str:
    """A fraction in percent with Wilson's 95 % interval."""
    z = 1.96
    middle = (fraction + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(fraction * (1 - fraction) / count + z**2 / (4 * count**2))
    return f"{100 * fraction:.0f} [{100 * max(0.0, middle - half):.0f}, {100 * min(1.0, middle + half):.0f}]"


def table(results: Results) -> str:
    """Fraction detected at 5 % by each detector, in percent, for each budget; then with intervals, and AUROC."""
    names = ("guard", "-log p", "gate")
    short, rows, last = [], [], ""
    for images, attack in dict.fromkeys((r["set"], r["attack"]) for r in results.records):
        found = results.where(set=images, attack=attack)
        cells = [" / ".join(f"{100 * r[f'{name} caught']:.0f}" for r in found) for name in names]
        bold = attack == "PGD, lower the guard's score"
        short.append([
            SHOWN[images] if images != last else "", f"**{attack}**" if bold else attack, f"**{cells[0]}**" if bold else cells[0], *cells[1:],
        ])  # fmt: skip
        last = images
        for r in found:
            caught = [interval(r[f"{name} caught"], r["images"]) for name in names]
            areas = [f"{100 * r[f'{name} auroc']:.1f}" for name in names]
            rows.append([images, attack, str(r["budget"]) if r["budget"] else "", *caught, *areas])
    head = [
        "images",
        "attack",
        "gray levels",
        *(f"{n}: detected at 5 %" for n in names),
        *(f"{n}: AUROC" for n in names),
    ]
    first = markdown(["images", "attack", "guard", "-log p", "gate, one image"], short)
    return "\n".join(
        [first, "", markdown(head, rows), footer("python -m benchmarks.quality.ood --attacks", results.records)]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Attacks on the guard of images.")
    add_data_option(parser)
    parser.add_argument("--seed", type=int, default=0, help="seed of the guard")
    parser.add_argument("--images", type=int, default=200, help="images of each set")
    parser.add_argument("--others", nargs="+", default=["mnist", "notmnist"])
    parser.add_argument(
        "--budgets", nargs="+", type=int, default=[2, 8, 32], help="largest change of a pixel, gray levels"
    )
    parser.add_argument("--steps", type=int, default=30, help="steps of PGD")
    parser.add_argument("--known", type=int, default=1000, help="reference images of the gate")
    parser.add_argument("--train", type=int, default=60_000, help="most training images of the guard")
    parser.add_argument(
        "--max-steps", type=int, default=None, help="training steps of the guard's flow; by default the guard's own"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/quality-attacks.jsonl"), help="the guard is saved in the same folder"
    )
    parser.add_argument("--table", action="store_true", help="print the table of existing results and run nothing")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results = Results(options.out)
    if not options.table:
        run(options, results)
    print(table(results))


if __name__ == "__main__":
    main()
