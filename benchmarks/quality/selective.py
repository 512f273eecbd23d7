"""Whether promises about a classifier are kept: coverage of prediction sets and risk of abstention, over redraws of the rows.

    python -m benchmarks.quality.selective

A perceptron with one hidden layer is trained on the 60,000 training images of Fashion-MNIST (three epochs). The 10,000 test images
are divided at random, 20 times, into calibration images and new ones. Each redraw calibrates anew; what it promised is compared with
what the new images show:

- sets of 90 % coverage: the number of misses is beta-binomial, so its 95 % interval contains about 19 of 20 redraws;
- abstention: a risk of at most 5 % among the accepted images with delta 0.1, so at most about 2 of 20 redraws may exceed it (the
  new images are a sample too: the table also counts the redraws that exceed it significantly, p < 0.01);
- undetected errors: P(accepted and wrong) at most 5 % on average over redraws.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest

from benchmarks.common.datasets import load_images, load_labels
from benchmarks.common.results import Results, footer, markdown, spread
from benchmarks.quality.data import add_data_option
from pushforward.detection import realized_interval
from pushforward.detection.selective import (
    ClassifierCalibration,
    PredictionSets,
    augrc,
    aurc,
    control_risk,
    excess_aurc,
    reliability,
    sequence_thresholds,
    set_statistics,
    undetected_error_threshold,
)

COVERAGE, RISK, DELTA = 0.9, 0.05, 0.1
SETS = {"LAC": {"method": "lac"}, "APS": {"method": "aps"}, "RAPS": {"method": "raps"}}
SETS |= {"LAC, per class": {"method": "lac", "per_class": True}}


def network_logits(folder: Path | None) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits of the test images under a network that the training images trained, and the labels."""
    parts = [(load_images("fashion-mnist", train=t, folder=folder).flatten(1) / 255.0) for t in (True, False)]
    labels = [load_labels("fashion-mnist", train=t, folder=folder) for t in (True, False)]
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(784, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(3):
        for rows in torch.randperm(len(parts[0])).split(128):
            loss = torch.nn.functional.cross_entropy(network(parts[0][rows]), labels[0][rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return network(parts[1]).double().numpy(), labels[1].numpy()


def redraw(logits: NDArray[np.float64], labels: NDArray[np.int64], rows: int, seed: int) -> list[dict[str, object]]:
    """One division of the rows: the records of each promise."""
    order = np.random.default_rng(seed).permutation(len(labels))
    part, rest = order[:rows], order[rows:]
    low, high = realized_interval(rows, len(rest), 1 - COVERAGE)
    records: list[dict[str, object]] = []
    for name, options in SETS.items():
        sets = PredictionSets(coverage=COVERAGE, **options).fit(logits[part], labels[part])(logits[rest])  # pyright: ignore[reportArgumentType]
        found = set_statistics(sets, labels[rest])
        records.append({"promise": name, **found, "inside": bool(low <= 1 - found["coverage"] <= high)})
    score, wrong = 1 - np.exp(logits - np.logaddexp.reduce(logits, 1)[:, None]).max(1), logits.argmax(1) != labels
    others, calibrating = part[: rows // 5], part[rows // 5 :]
    thresholds = sequence_thresholds(score[others], len(calibrating), RISK, DELTA)
    rules = {
        "ranks": control_risk(score[part], wrong[part], RISK, DELTA).threshold,
        "sgr": control_risk(score[part], wrong[part], RISK, DELTA, method="sgr").threshold,
        "sequence": control_risk(
            score[calibrating], wrong[calibrating], RISK, DELTA, method="sequence", thresholds=thresholds
        ).threshold,
        "undetected errors": undetected_error_threshold(score[part], wrong[part], RISK),
    }
    for name, threshold in rules.items():
        accepted = score[rest] < threshold
        errors, count = int(wrong[rest][accepted].sum()), int(accepted.sum())
        sure = count > 0 and binomtest(errors, count, RISK, alternative="greater").pvalue < 0.01
        records.append(
            {"promise": name, "accepted": count / len(rest), "risk": errors / max(count, 1), "generalized_risk": errors / len(rest), "broken": bool(sure)}
        )  # fmt: skip
    fitted = ClassifierCalibration.fit(logits[part], labels[part], risk=RISK, delta=DELTA, seed=seed)
    before = reliability(np.exp(logits - np.logaddexp.reduce(logits, 1)[:, None])[rest], labels[rest])
    after = reliability(fitted.probabilities(logits[rest]), labels[rest])
    areas = {"aurc": aurc(score[rest], wrong[rest]), "excess_aurc": excess_aurc(score[rest], wrong[rest])}
    areas["augrc"] = augrc(score[rest], wrong[rest])
    records.append({"promise": "no temperature", **before, **areas})
    records.append({"promise": "temperature", "value": fitted.temperature.value, **after})
    return records


def run(options: argparse.Namespace, results: Results) -> None:
    """Add the records of the redraws that are not there yet."""
    done = {record["seed"] for record in results.where(promise="temperature", rows=options.rows)}
    todo = [seed for seed in range(options.redraws) if seed not in done]
    if todo:
        logits, labels = network_logits(options.data)
    for seed in todo:
        for record in redraw(logits, labels, options.rows, seed):
            results.add({"seed": seed, "rows": options.rows} | record)


RULES = {
    "ranks": "ranks", "sgr": "SGR", "sequence": "sequence (a fifth of the rows chooses the thresholds)",
    "undetected errors": "undetected errors, at most 5 % of all rows on average",
}  # fmt: skip


def table(results: Results) -> str:
    """Three tables: sets, abstention, probabilities."""

    def column(name: str, key: str, digits: int = 3) -> str:
        return spread([record[key] for record in results.where(promise=name)], digits)

    def count(name: str, key: str) -> str:
        return f"{sum(record[key] for record in results.where(promise=name))} of {len(results.where(promise=name))}"

    sets = [
        [n, *(column(n, k) for k in ("coverage", "worst_class_coverage", "size", "empty")), count(n, "inside")]
        for n in SETS
    ]
    rules = []
    for name in ("ranks", "sgr", "sequence", "undetected errors"):
        key = "generalized_risk" if name == "undetected errors" else "risk"
        above = sum(record[key] > RISK for record in results.where(promise=name))
        # The last one promises a mean over redraws.
        broken = "not promised" if name == "undetected errors" else count(name, "broken").split()[0]
        rules.append([RULES[name], column(name, "accepted"), column(name, key, 4), str(above), broken])
    keys = ("accuracy", "calibration_error", "adaptive_calibration_error", "brier_score", "negative_log_likelihood")
    probabilities = [[n, *(column(n, k, 4) for k in keys)] for n in ("no temperature", "temperature")]
    head = [
        "sets with a promised coverage of 90 %",
        "coverage",
        "worst class",
        "size",
        "empty",
        "misses inside their 95 % interval",
    ]
    areas = ", ".join(f"{k} {column('no temperature', k, 5)}" for k in ("aurc", "excess_aurc", "augrc"))
    return "\n\n".join(
        [
            markdown(head, sets),
            markdown(
                [
                    "abstention, 5 % errors among the accepted, delta 0.1",
                    "accepted",
                    "error rate of new images",
                    "redraws above 5 %",
                    "significantly (p < 0.01)",
                ],
                rules,
            ),
            markdown(["probabilities", *(k.replace("_", " ") for k in keys)], probabilities),
            areas.replace("_", " ") + ".",
            footer("python -m benchmarks.quality.selective", results.records),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run or print."""
    parser = argparse.ArgumentParser(description="Promises about a classifier, over redraws.")
    add_data_option(parser)
    parser.add_argument("--rows", type=int, default=2000, help="that calibrate")
    parser.add_argument("--redraws", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs/quality-selective.jsonl"))
    parser.add_argument("--table", action="store_true", help="print the table of what is there; run nothing")
    options = parser.parse_args(arguments)
    results = Results(options.out)
    if not options.table:
        run(options, results)
    print(table(results))


if __name__ == "__main__":
    main()
