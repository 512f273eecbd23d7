"""The card: AUROC and false-alarm rates of every score, ours and those of pytorch-ood and oodeel, and what the default costs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common.results import Results, markdown, spread
from benchmarks.networks.columns import MOST_CALIBRATION, MOST_TRAIN, collect
from benchmarks.networks.combinations import ABLATIONS, DEFAULT
from benchmarks.networks.costs import cost_table
from benchmarks.networks.oodeel_scores import oodeel_scores
from benchmarks.networks.sets import LARGEST, test_sets
from benchmarks.networks.tasks import TASKS
from benchmarks.networks.training import load_network
from pushforward.detection import ConformalCalibrator, auroc, fpr_at_tpr, realized_interval
from pushforward.detection.network import Combined, Energy

__all__ = ["NETWORKS", "measure", "measure_oodeel", "named", "redraws", "tables"]

_REFERENCE = 0.3


def combined(columns: dict[str, Any], parts: dict[str, float], seed: int) -> dict[str, np.ndarray]:
    """The scores of all sets by a combination; "calibration" without the rows that set the scale, as in the guard."""
    names = [str(name) for name in columns["names"]]
    index = [names.index(part) for part in parts]
    score = Combined([Energy()] * len(parts), list(parts.values()))
    held = torch.from_numpy(columns["calibration"][:, index])
    order = torch.randperm(len(held), generator=torch.Generator().manual_seed(seed))
    count = round(_REFERENCE * len(held))
    score.set_scale(held[order[:count]])
    found = {
        key: score.combine(torch.from_numpy(columns[key][:, index])).numpy()
        for key in columns
        if key == "test" or key.startswith(("near", "far"))
    }
    return found | {"calibration": score.combine(held[order[count:]]).numpy()}


def measure(name: str, seed: int, folder: Path, results: Results) -> None:
    """Add one record for each score of a network that has none yet, ours and those of pytorch-ood."""
    known = {record.get("score") for record in results.where(network=name, seed=seed)}
    columns = collect(name, seed, folder)
    every = {label: combined(columns, parts, seed) for label, parts in ABLATIONS.items()}
    for index, label in enumerate(map(str, columns["names"])):
        every[label] = {
            key: columns[key][:, index]
            for key in ("test", "calibration", *columns)
            if getattr(columns[key], "ndim", 0) == 2
        }
    for label, values in every.items():
        if label not in known:
            results.add(_record(name, seed, float(columns["accuracy"]), label, values))


def measure_oodeel(name: str, seed: int, folder: Path, results: Results, which: str) -> None:
    """Add one record for each score of oodeel, on the same rows."""
    known = {record.get("score") for record in results.where(network=name, seed=seed)}
    net, rows, accuracy = load_network(name, seed, folder)
    parts = {"test": rows.test[0][:LARGEST], "calibration": rows.calibration[0][:MOST_CALIBRATION]}
    parts |= {f"{side}: {key}": x for key, (side, x) in test_sets(TASKS[name], rows).items()}
    train = (rows.train[0][:MOST_TRAIN], rows.train[1][:MOST_TRAIN])
    for label, values in oodeel_scores(net, train, parts, which, known):
        results.add(_record(name, seed, accuracy, label, values))


def _record(name: str, seed: int, accuracy: float, label: str, values: dict[str, np.ndarray]) -> dict[str, Any]:
    """What is reported of a score: for each set the AUROC, the normal rows flagged where 95 % of the set are caught, and the share caught."""
    calibrator = ConformalCalibrator(values["calibration"])
    p_test = calibrator.p_value(values["test"])
    each = {}
    for key, found in values.items():
        if key.startswith(("near", "far")):
            p = calibrator.p_value(found)
            numbers = {
                "auroc": auroc(values["test"], found), "flagged at 95%": fpr_at_tpr(values["test"], found, 0.95),
                "caught 1%": float((p <= 0.01).mean()), "caught 5%": float((p <= 0.05).mean()),
            }  # fmt: skip
            each[key] = {word: round(number, 5) for word, number in numbers.items()}
    return {
        "network": name, "seed": seed, "accuracy": accuracy, "score": label, "sets": each,
        "alarms 1%": float((p_test <= 0.01).mean()), "alarms 5%": float((p_test <= 0.05).mean()),
        "n calibration": calibrator.n, "n test": len(p_test),
    }  # fmt: skip


def redraws(name: str, seed: int, folder: Path, results: Results, count: int = 20) -> None:
    """Realized false-alarm rates of the default over redrawn calibration rows, against the beta-binomial distribution."""
    values = combined(collect(name, seed, folder), DEFAULT, seed)
    pool = np.concatenate((values["calibration"], values["test"]))
    for alpha in (0.01, 0.05):
        inside, rates, n = 0, [], len(pool) // 2
        for draw in range(count):
            order = np.random.default_rng(draw).permutation(len(pool))
            calibrator = ConformalCalibrator(pool[order[:n]])
            rate = float((calibrator.p_value(pool[order[n:]]) <= calibrator.threshold(alpha)).mean())
            low, high = realized_interval(n, len(pool) - n, alpha)
            inside += low <= rate <= high
            rates.append(rate)
        results.add({
            "network": name, "seed": seed, "redraws": count, "alpha": alpha, "inside": inside, "mean rate": float(np.mean(rates)),
            "n calibration": n, "n test": len(pool) - n,
        })  # fmt: skip


NETWORKS = {
    "digits-mlp": "digits", "fashion-cnn": "Fashion-MNIST", "fashion-resnet": "Fashion-MNIST, residual", "cifar10-resnet": "CIFAR-10, residual",
    "gtsrb-cnn": "traffic signs", "mnist-cnn": "MNIST",
}  # fmt: skip
"""The networks of the card by their names in the tables."""
SIDES = ("near", "far")
PEERS = ("pytorch-ood", "oodeel")


class Card:
    """The records of the networks of the card, with means over sets by score, network and seed."""

    def __init__(self, results: Results) -> None:
        self.records = [record for record in results.records if "sets" in record and record["network"] in NETWORKS]
        self.seeds = sorted({record["seed"] for record in self.records})
        self.labels = list(dict.fromkeys(record["score"] for record in self.records))
        self.own = {(record["score"], record["network"], record["seed"]): record for record in self.records}

    def seeds_of(self, label: str) -> list[int]:
        """The seeds with which a score was measured on every network."""
        return [seed for seed in self.seeds if all((label, network, seed) in self.own for network in NETWORKS)]

    def complete(self, label: str) -> bool:
        """Whether a score was measured on every network with some seed."""
        return bool(self.seeds_of(label))

    def shown(self, label: str) -> str:
        """The name of a score, with its seeds where it does not have all."""
        seeds = self.seeds_of(label)
        return named(label) + ("" if seeds == self.seeds else f", seed {', '.join(map(str, seeds))}")

    def value(self, label: str, network: str, seed: int, side: str, key: str = "auroc") -> float:
        """The mean over the near or the far sets, in percent."""
        sets = self.own[label, network, seed]["sets"]
        return 100 * float(np.mean([numbers[key] for name, numbers in sets.items() if name.startswith(side)]))

    def over_networks(self, label: str, side: str, key: str = "auroc") -> list[float]:
        """The mean over the networks, for each seed."""
        return [
            float(np.mean([self.value(label, network, seed, side, key) for network in NETWORKS]))
            for seed in self.seeds_of(label)
        ]

    def over_seeds(self, label: str, network: str, side: str) -> float:
        """The mean over the seeds."""
        return float(np.mean([self.value(label, network, seed, side) for seed in self.seeds_of(label)]))


def named(label: str) -> str:
    """A score as a reader knows it: "ViM of pytorch-ood"."""
    for peer in PEERS:
        if label.startswith(peer):
            return f"{label.removeprefix(peer + ' ')} of {peer}"
    label = re.sub(r"Neighbors k=(\d) of (\d+)", r"Neighbors, k = \1 of \2 rows", label)
    return label.replace("FeatureFlow", "feature flow").replace("of 1000", "of 1,000")


def ranking(card: Card, most: int | None = None) -> str:
    """Every score, or the best ones, by the mean over near and far sets: mean and standard deviation over seeds, and each network."""
    rows = []
    for label in filter(card.complete, card.labels):
        means = {side: card.over_networks(label, side) for side in SIDES}
        each = [" / ".join(f"{card.over_seeds(label, network, side):.1f}" for side in SIDES) for network in NETWORKS]
        order = sum(float(np.mean(values)) for values in means.values())
        rows.append((order, [card.shown(label), *(spread(means[side], 1) for side in SIDES), *each]))
    rows = [row for _, row in sorted(rows, key=lambda item: -item[0])[:most]]
    return markdown(["score", *SIDES, *NETWORKS.values()], rows, ["---", *["---:"] * (2 + len(NETWORKS))])


def behind(card: Card) -> str:
    """The default beside the best score of other libraries on each network."""
    peers = [label for label in card.labels if label.startswith(PEERS) and card.complete(label)]
    if not peers:
        return ""
    rows = []
    for network, name in NETWORKS.items():
        accuracies = [100 * card.own["default", network, seed]["accuracy"] for seed in card.seeds]
        cells = [name, spread(accuracies, 1)]
        for side in SIDES:
            own = [card.value("default", network, seed, side) for seed in card.seeds]
            best = max(peers, key=lambda label, network=network, side=side: card.over_seeds(label, network, side))
            theirs = [card.value(best, network, seed, side) for seed in card.seeds_of(best)]
            cells += [spread(own, 1), f"{spread(theirs, 1)} ({card.shown(best)})"]
        rows.append(cells)
    head = ["network", "accuracy, %", "near: default", "near: best of others", "far: default", "far: best of others"]
    return markdown(head, rows, ["---", *["---:"] * 5])


def rates(card: Card) -> str:
    """What a user sees at a promised rate: the share caught, normal rows flagged where 95 % are caught, and realized false alarms."""
    rows = []
    for label in filter(card.complete, ["default", *_best(card)]):
        for side in SIDES:
            keys = ("caught 1%", "caught 5%", "flagged at 95%")
            cells = [spread(card.over_networks(label, side, key), 1) for key in keys]
            alarms = [
                spread([
                    100 * float(np.mean([card.own[label, network, seed][f"alarms {level}"] for network in NETWORKS]))
                    for seed in card.seeds_of(label)
                ], 2)
                for level in ("1%", "5%")
            ]  # fmt: skip
            rows.append([card.shown(label), side, *cells, *(alarms if side == "near" else ["", ""])])
    head = [
        "score",
        "sets",
        "caught at 1 %, %",
        "at 5 %, %",
        "normal flagged where 95 % are caught, %",
        "false alarms at 1 %, %",
        "at 5 %, %",
    ]
    return markdown(head, rows, ["---", "---", *["---:"] * 5])


def _best(card: Card) -> list[str]:
    """The six scores of other libraries with the best means."""
    peers = [label for label in card.labels if label.startswith(PEERS) and card.complete(label)]
    means = {label: sum(float(np.mean(card.over_networks(label, side))) for side in SIDES) for label in peers}
    return sorted(peers, key=lambda label: -means[label])[:6]


def redraw_table(results: Results) -> str:
    """Realized false-alarm rates over redrawn calibration rows."""
    rows = []
    for network, name in NETWORKS.items():
        cells = [name]
        for level in (0.01, 0.05):
            own = [r for r in results.records if r.get("redraws") and (r["network"], r["alpha"]) == (network, level)]
            if own:
                total = sum(r["redraws"] for r in own)
                cells += [spread([100 * r["mean rate"] for r in own], 2), f"{sum(r['inside'] for r in own)} of {total}"]
        rows += [cells] if len(cells) == 5 else []
    head = ["network", "false alarms at 1 %, %", "inside", "at 5 %, %", "inside"]
    return markdown(head, rows, ["---", *["---:"] * 4]) if rows else ""


def tables(results: Results) -> str:
    """All tables of the card."""
    card = Card(results)
    if not card.complete("default"):
        missing = [f"{n} {s}" for n in NETWORKS for s in card.seeds or [0] if ("default", n, s) not in card.own]
        return f"not measured yet: {', '.join(missing)}"
    parts = [
        behind(card),
        ranking(card, 24),
        rates(card),
        redraw_table(results),
        cost_table(results, NETWORKS),
        ranking(card),
    ]
    return "\n\n".join(part for part in parts if part)
