"""What breaks if rows that the network was trained on calibrate its guard, and by how much.

    export PUSHFORWARD_DATA=DATA
    python -m benchmarks.networks.training_rows                   # trains and measures what is missing, and prints the table
    python -m benchmarks.networks.training_rows --table           # only prints the table

A guard with ``calibration="train"`` sets aside a fifth of the training rows for its calibration; the network has learned them. Its
realized false-alarm rates are measured on rows that the network has not seen, and so are those of a guard with held-out rows. The
networks are the perceptron on digits of scikit-learn, the network of the demo, and the same trained on 3,000 images for 40 epochs, which
it learns by heart. The scores are the default and two that read the logits alone. Seeds change the weights, the order of training, which
rows are set aside, and which are held out (digits).
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import pushforward as pf
from benchmarks.common.results import Results, footer, markdown
from benchmarks.networks import demo_network
from benchmarks.networks.demo_network import clothes, share_correct
from benchmarks.networks.training import load_network, train
from pushforward.data.samples.network import UNSEEN

__all__ = ["NETWORKS", "measure", "table"]

FILE = Path(__file__).parents[1] / "results" / "networks-training-rows.jsonl"
NETWORKS = {
    "perceptron": "perceptron on digits",
    "demo": "network of the demo",
    "few": "the same on 3,000 images",
}
SCORES = ("default", "Energy", "MaxSoftmax")
ALPHAS = (0.01, 0.05)
_FEW, _EPOCHS = 3000, 40


@dataclass(frozen=True)
class _Case:
    """A network, its training rows, and two parts of rows that it has not seen."""

    net: nn.Module
    train: tuple[Tensor, Tensor]
    held_out: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def _case(name: str, seed: int, folder: Path) -> _Case:
    if name == "perceptron":
        train("digits-mlp", seed, folder, minutes=60)
        net, rows, _ = load_network("digits-mlp", seed, folder)
        return _Case(net, rows.train, rows.calibration, rows.test)
    (x, y), test = clothes(True), clothes(False)
    last = UNSEEN + _FEW if name == "few" else len(x)
    rows, held_out = (x[UNSEEN:last], y[UNSEEN:last]), (x[:UNSEEN], y[:UNSEEN])
    if name == "few":
        return _Case(demo_network.train(seed, folder / "few", rows, _EPOCHS), rows, held_out, test)
    return _Case(demo_network.train(seed, folder), rows, held_out, test)


def measure(name: str, seed: int, folder: Path, results: Results) -> None:
    """Add the realized rates of a guard with training rows and of one with held-out rows."""
    if results.where(network=name, seed=seed):
        return
    case = _case(name, seed, folder)
    accuracies = {
        "accuracy train": share_correct(case.net, *case.train),
        "accuracy new": share_correct(case.net, *case.test),
    }
    new = torch.cat((case.held_out[0], case.test[0]))
    records = []
    for score in SCORES:
        record = {"network": name, "seed": seed, "score": score, **accuracies}
        for label, calibration, rows in (("train", "train", new), ("held out", case.held_out[0], case.test[0])):
            guard = pf.NetworkGuard(case.net, min(ALPHAS), score=score, seed=seed).fit(
                case.train, calibration=calibration
            )
            p = guard.p_value(rows)
            calibrator = guard.calibrators_[None]
            for level in ALPHAS:
                record[f"{label} {level:g}"] = float((p <= calibrator.threshold(level)).mean())
            record |= {f"{label} n calibration": calibrator.n, f"{label} n new": len(p)}
        records.append(record)
    for record in records:
        results.add(record)


def table(results: Results) -> str:
    """Realized rates by network: mean, and smallest to largest of the seeds."""
    rows = []
    for name, score in itertools.product(NETWORKS, SCORES):
        records = results.where(network=name, score=score)
        if not records:
            continue
        cells = [NETWORKS[name], score, f"{len(records)}"]
        cells += [
            f"{100 * statistics.fmean(r[f'accuracy {part}'] for r in records):.1f} %" for part in ("train", "new")
        ]
        for level in ALPHAS:
            for label in ("train", "held out"):
                found = [100 * record[f"{label} {level:g}"] for record in records]
                cells.append(f"{statistics.fmean(found):.1f} ({min(found):.1f} to {max(found):.1f})")
        rows.append(cells)
    head = ["network", "score", "seeds", "accuracy, training", "accuracy, new", "alarms at 1 %, training rows", "held-out rows",
            "alarms at 5 %, training rows", "held-out rows"]  # fmt: skip
    command = "python -m benchmarks.networks.training_rows"
    return markdown(head, rows, ["---", "---", *["---:"] * (len(head) - 2)]) + "\n" + footer(command, results.records)


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.networks.training_rows")
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--weights", type=Path, default=Path("runs/networks"))
    parser.add_argument("--results", type=Path, default=FILE)
    parser.add_argument("--table", action="store_true", help="only print the table")
    arguments = parser.parse_args()
    results = Results(arguments.results)
    for seed in arguments.seeds if not arguments.table else []:
        for name in arguments.networks:
            measure(name, seed, arguments.weights, results)
    print(table(results))


if __name__ == "__main__":
    main()
