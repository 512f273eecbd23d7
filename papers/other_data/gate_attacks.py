"""Attacks on the gate of an InFlow, on its likelihood, and on a classifier, and what of them is detected."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from papers.experiment import Experiment
from papers.other_data.batch_tests import ID, FeatureCache
from papers.other_data.classifier_attacks import Classifier, train_classifier
from pushforward.detection import (
    BatchTwoSampleGate,
    MMDTest,
    auroc,
    gate_aware_objective,
    log_likelihood_objective,
    pgd,
)
from pushforward.detection.batching import by_batches
from pushforward.detection.two_sample import median_distance
from pushforward.report.text import plural

__all__ = ["Attacked", "attack_a_classifier", "attack_the_likelihood"]


class Attacked:
    """What is detected of attacked images.

    Args:
        experiment: the run.
        features: of the unchanged images.

    Attributes:
        n: images of a batch.
        batches: number of batches.
        steps: of an attack.
        known: features of the reference, which an attacker may have.
        width: of the kernel.
        gate: the gate.
    """

    def __init__(self, experiment: Experiment, features: FeatureCache) -> None:
        self.features = features
        self.n, self.batches = (
            experiment.choose(smoke=4, quick=50, full=50),
            experiment.choose(smoke=1, quick=3, full=20),
        )
        self.steps = experiment.choose(smoke=1, quick=20, full=100)
        reference = experiment.choose(smoke=20, quick=300, full=1000)
        rows = features.get(ID, "cnn")
        self.known, self.width = rows[:reference], median_distance(rows[reference : 2 * reference])
        self.gate = BatchTwoSampleGate(MMDTest(self.known, bandwidth=self.width, permutations=99), features.random)
        self._normal = -features.get(ID, "log p")[2 * reference : -self.n * self.batches]

    def parts(self, rows: Tensor) -> list[Tensor]:
        """The last rows, in batches."""
        return [rows[-self.n * (k + 1) :][: self.n] for k in range(self.batches)]

    def outcome(self, attacked: list[Tensor]) -> dict[str, float]:
        """Fraction of batches that the gate rejects at 5 %, of images that the kernel mean detects at 5 %, and AUROC of -log p."""
        log_p = self.features.functions["log p"]
        scores = -torch.cat([by_batches(log_p, x, 256) for x in attacked]).numpy()
        single = np.concatenate([self.gate.single_p_values(x) for x in attacked])
        return {
            "batch": float(np.mean([not self.gate.accepts(x) for x in attacked])),
            "single": float(np.mean(single <= 0.05)),
            "likelihood": auroc(self._normal, scores),
        }


def _row(name: str, found: dict[str, float]) -> str:
    return f"{name}: {found['batch']:.2f}, {found['single']:.2f}, {found['likelihood']:.3f}"


_ROW = "batches of {n} rejected at 5%, single images detected at 5% by the kernel mean, AUROC of -log p; {batches}"


def attack_the_likelihood(experiment: Experiment, sets: dict[str, Tensor], attacked: Attacked) -> None:
    """Raise the likelihood of outliers, with or without the gate in the objective, and lower that of Fashion-MNIST.

    MNIST is already likelier than the training data, so the attacked outliers are notMNIST.
    """
    outside = "notMNIST" if "notMNIST" in sets else "MNIST"
    steps, random = attacked.steps, attacked.features.random
    likely = log_likelihood_objective(attacked.features.model)
    aware = gate_aware_objective(likely, random, torch.from_numpy(attacked.known), attacked.width, weight=1e5)
    others, fashion = attacked.parts(sets[outside]), attacked.parts(sets[ID])

    def attack(objective: Callable[[Tensor], Tensor], batches: list[Tensor], budget: float) -> list[Tensor]:
        # Take small steps from the image itself: the density of pixels has narrow peaks, most of all at black.
        return [pgd(objective, x, budget, steps=steps, step=budget / 8, random_start=False) for x in batches]

    kinds: dict[str, Callable[[float], list[Tensor]]] = {
        f"{outside}, likelihood raised": lambda budget: attack(likely, others, budget),
        f"{outside}, raised and hidden from the gate": lambda budget: attack(aware, others, budget),
        "Fashion-MNIST, likelihood lowered": lambda budget: attack(lambda t: -likely(t), fashion, budget),
    }
    clean = f"{outside} unchanged"
    table = {clean: experiment.measure(clean, lambda: attacked.outcome(others))}
    budgets = experiment.choose(smoke=(8,), quick=(8, 64), full=(2, 8, 32, 64))
    for budget in budgets:
        for name, make in kinds.items():
            key = f"{name}, {budget} levels"
            table[key] = experiment.measure(
                key, lambda make=make, budget=budget: attacked.outcome(make(budget))
            )  # fmt: skip
    note = _ROW.format(n=attacked.n, batches=plural(attacked.batches, "batch", "batches"))
    note += f"; {plural(steps, 'step')} of PGD; the attacker has the flow, the features and the reference; criterion: more than 0.95 of the batches, each time"
    sizes = {"attacked": float(attacked.n), "attacks": float(attacked.batches)}
    _report_attacks(experiment, table, outside, budgets, sizes, note)


def attack_a_classifier(
    experiment: Experiment, train: tuple[Tensor, Tensor], rows: Tensor, labels: Tensor, attacked: Attacked
) -> None:
    """Change images so that a classifier errs, as attacks on networks do: the attacker knows neither flow nor gate.

    Args:
        experiment: the run.
        train: images and labels of the classifier.
        rows: images that are changed.
        labels: theirs.
        attacked: the gate.
    """
    pairs = list(zip(attacked.parts(rows), attacked.parts(labels), strict=True))
    classifier = train_classifier(*train, experiment.choose(smoke=2, quick=1000, full=5000))
    found = {
        "unchanged": experiment.measure("classifier unchanged", lambda: _fooled(classifier, pairs, attacked, 0, 1))
    }
    for budget in experiment.choose(smoke=(8,), quick=(8, 32, 64), full=(2, 8, 32, 64)):
        for name, steps in (("FGSM", 1), (f"{attacked.steps} steps", attacked.steps)):
            key = f"{name}, {budget} levels"
            found[key] = experiment.measure(
                f"classifier {key}", partial(_fooled, classifier, pairs, attacked, budget, steps)
            )
    changed = {key: outcome for key, outcome in found.items() if key != "unchanged"}
    experiment.report(
        "images that are changed so that a classifier errs are detected in batches",
        ours="; ".join(
            f"{_row(key, outcome)} ({100 * outcome['right']:.0f} % right)" for key, outcome in found.items()
        ),
        confirmed=min(outcome["batch"] for outcome in changed.values()) > 0.95,
        seeds=1,
        note=_ROW.format(n=attacked.n, batches=plural(attacked.batches, "batch", "batches"))
        + "; the attacker has the classifier, two convolutions and two layers, and knows neither flow nor gate; criterion: more than 0.95 of the batches "
        "for each attack and budget",
    )
    areas = [outcome["likelihood"] for outcome in changed.values()]
    experiment.report(
        "images that are changed so that a classifier errs are less likely under the flow",
        ours=f"AUROC of -log p {min(areas):.3f} to {max(areas):.3f}",
        confirmed=min(areas) > 0.9,
        seeds=1,
        note="the same images; criterion: above 0.9 for each attack and budget, set after the figures were seen",
    )


def _fooled(
    classifier: Classifier, pairs: list[tuple[Tensor, Tensor]], attacked: Attacked, budget: float, steps: int
) -> dict[str, float]:  # fmt: skip
    """What is detected of images that a classifier is to take for others, and the fraction that it still gets right."""
    moved = [classifier.attacked(x, labels, budget, steps) if budget else x for x, labels in pairs]
    right = [classifier.right(x, labels) for x, (_, labels) in zip(moved, pairs, strict=True)]
    return attacked.outcome(moved) | {"right": float(np.mean(right))}


def _report_attacks(
    experiment: Experiment, table: dict[str, dict[str, float]], outside: str, budgets: tuple[int, ...], sizes: dict[str, float],
    note: str,
) -> None:  # fmt: skip
    """Report what is detected of attacked images of Fashion-MNIST, and of those of another set."""

    figures = dict(sizes)
    for budget in budgets:
        lowered = table[f"Fashion-MNIST, likelihood lowered, {budget} levels"]
        hidden = table[f"{outside}, raised and hidden from the gate, {budget} levels"]
        figures |= {
            f"lowered_{budget}": lowered["batch"],
            f"lowered_auroc_{budget}": lowered["likelihood"],
            f"hidden_{budget}": hidden["batch"],
        }
    for claim, part in (
        ("adversarial inputs are detected", "lowered"),
        ("an attacker who raises the likelihood of outliers is detected", "raised"),
    ):
        names = [name for name in table if part in name or (part == "raised" and name == f"{outside} unchanged")]
        experiment.report(
            claim,
            ours="; ".join(_row(name, table[name]) for name in names),
            confirmed=min(table[name]["batch"] for name in names) > 0.95,
            seeds=1,
            note=note,
            figures=figures if part == "lowered" else None,
        )
