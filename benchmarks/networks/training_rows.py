"""What breaks if rows that the network was trained on calibrate its guard, and by how much.

    export PUSHFORWARD_DATA=DATA
    python -m benchmarks.networks.training_rows                   # trains and measures what is missing, and prints the table
    python -m benchmarks.networks.training_rows --table           # only prints the table

A guard with ``calibration="train"`` sets aside a fifth of the training rows for its calibration; the network has learned them. Its
realized false-alarm rates are measured on rows that the network has not seen, and so are those of a guard with held-out rows. The
networks are the perceptron on digits of scikit-learn, the same without dropout on 300 rows for 300 epochs, which learns them by heart, and the network of the
demo. Seeds change the weights, the order of training, and which rows are held out (digits).
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pushforward as pf
from benchmarks.common.results import Results, footer, markdown
from benchmarks.networks import demo_network
from benchmarks.networks.demo_network import clothes, share_correct
from benchmarks.networks.tasks import TASKS, load_task
from benchmarks.networks.training import load_network, train
from pushforward.data.samples.network import UNSEEN

__all__ = ["NETWORKS", "measure", "table"]

FILE = Path(__file__).parents[1] / "results" / "networks-training-rows.jsonl"
NETWORKS = {
    "perceptron": "perceptron on digits",
    "memorizing": "perceptron that learned 300 digits by heart",
    "demo": "network of the demo",
}
ALPHAS = (0.01, 0.05)
_FEW = 300


@dataclass(frozen=True)
class _Case:
    """A network, its training rows, and two parts of rows that it has not seen."""

    net: nn.Module
    train: tuple[Tensor, Tensor]
    held_out: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def _case(name: str, seed: int, folder: Path) -> _Case:
    if name == "demo":
        net = demo_network.train(seed, folder)
        (x, y), test = clothes(True), clothes(False)
        return _Case(net, (x[UNSEEN:], y[UNSEEN:]), (x[:UNSEEN], y[:UNSEEN]), test)
    if name == "perceptron":
        train("digits-mlp", seed, folder, minutes=60)
        net, rows, _ = load_network("digits-mlp", seed, folder)
        return _Case(net, rows.train, rows.calibration, rows.test)
    rows = load_task(TASKS["digits-mlp"], seed)
    few = (rows.train[0][:_FEW], rows.train[1][:_FEW])
    return _Case(_memorize(*few, rows.classes, seed), few, rows.calibration, rows.test)


def _memorize(x: Tensor, y: Tensor, classes: int, seed: int, epochs: int = 300) -> nn.Module:
    """A perceptron without regularization, trained far beyond its first epoch without an error."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Linear(x.shape[1], 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, classes)
        )
        optimizer = torch.optim.Adam(net.parameters(), 2e-3)
        for _ in range(epochs):
            for index in torch.randperm(len(x)).split(32):
                loss = F.cross_entropy(net(x[index]), y[index])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
    return net.eval()


def measure(name: str, seed: int, folder: Path, results: Results) -> None:
    """Add the realized rates of a guard with training rows and of one with held-out rows."""
    if results.where(network=name, seed=seed):
        return
    case = _case(name, seed, folder)
    alpha = min(ALPHAS) if len(case.train[0]) > 1000 else max(ALPHAS)  # a fifth of 300 rows is too few for 1 %
    record = {
        "network": name, "seed": seed, "accuracy train": share_correct(case.net, *case.train),
        "accuracy new": share_correct(case.net, *case.test),
    }  # fmt: skip
    new = torch.cat((case.held_out[0], case.test[0]))
    for label, calibration, rows in (("train", "train", new), ("held out", case.held_out[0], case.test[0])):
        guard = pf.NetworkGuard(case.net, alpha, seed=seed).fit(case.train, calibration=calibration)
        p = guard.p_value(rows)
        calibrator = guard.calibrators_[None]
        for level in ALPHAS:
            if level >= alpha:
                record[f"{label} {level:g}"] = float((p <= calibrator.threshold(level)).mean())
        record |= {f"{label} n calibration": calibrator.n, f"{label} n new": len(p)}
    results.add(record)


def table(results: Results) -> str:
    """Realized rates by network: mean, and smallest to largest of the seeds."""
    rows = []
    for name, title in NETWORKS.items():
        records = results.where(network=name)
        if not records:
            continue
        cells = [title, f"{len(records)}"]
        cells += [
            f"{100 * statistics.fmean(r[f'accuracy {part}'] for r in records):.1f} %" for part in ("train", "new")
        ]
        for level in ALPHAS:
            for label in ("train", "held out"):
                found = [100 * record[f"{label} {level:g}"] for record in records if f"{label} {level:g}" in record]
                cells.append(f"{np.mean(found):.1f} ({min(found):.1f} to {max(found):.1f})" if found else "–")
        rows.append(cells)
    head = ["network", "seeds", "accuracy, training", "accuracy, new", "alarms at 1 %, training rows", "held-out rows",
            "alarms at 5 %, training rows", "held-out rows"]  # fmt: skip
    command = "python -m benchmarks.networks.training_rows"
    return markdown(head, rows, ["---", *["---:"] * (len(head) - 1)]) + "\n" + footer(command, results.records)


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
