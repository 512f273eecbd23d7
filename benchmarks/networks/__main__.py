"""Train networks on real data, and print the card of every score that guards them.

    export PUSHFORWARD_DATA=DATA
    python -m benchmarks.networks --train                         # trains what is missing, in parts that resume
    python -m benchmarks.networks --card                          # measures what is missing, and prints the tables
    python -m benchmarks.networks --costs                         # milliseconds and MiB of the default
    python -m benchmarks.networks --redraws                       # realized false-alarm rates over 20 calibration sets
    python -m benchmarks.networks --oodeel                        # adds the scores of oodeel, in an environment that has it
    python -m benchmarks.networks --develop                       # what the default was chosen on
    python -m benchmarks.networks --table                         # only prints the tables

``--networks``, ``--seeds`` and ``--minutes`` limit each of these. The weights stay in ``--weights``, which git ignores, and the figures in
``benchmarks/results/networks.jsonl`` and ``networks-development.jsonl``.

The default score was chosen on the networks whose names begin with "dev-", which know a part of the classes, with left-out classes,
corruptions and mixtures of their own held-out rows as outliers (:func:`benchmarks.networks.sets.development_sets`). The card reports other
networks, with other sets. "Normal flagged where 95 % are caught" is the fraction of in-distribution rows above the threshold that catches
95 % of the outliers; "caught" and "false alarms" are fractions of outliers and of test rows with a p-value of at most 1 % and 5 %. "Added"
is CPU time of one thread for a batch of 64 over that of the bare network.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from benchmarks.common.results import Results
from benchmarks.networks import development
from benchmarks.networks.card import NETWORKS, measure, measure_oodeel, named, redraws, tables
from benchmarks.networks.class_rates import class_rates, class_table
from benchmarks.networks.columns import collect
from benchmarks.networks.costs import costs, costs_of_photographs, costs_of_scores, score_cost_table
from benchmarks.networks.tasks import TASKS
from benchmarks.networks.training import train, weights

FILE = Path(__file__).parents[1] / "results" / "networks.jsonl"
DEVELOPMENT = FILE.with_name("networks-development.jsonl")


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.networks")
    for action in ("train", "card", "costs", "redraws", "develop", "table"):
        parser.add_argument(f"--{action}", action="store_true")
    parser.add_argument("--oodeel", nargs="?", const="replayed", choices=["replayed", "gradient"])
    parser.add_argument("--networks", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--weights", type=Path, default=Path("runs/networks"))
    arguments = parser.parse_args()
    end, results = time.monotonic() + 60 * arguments.minutes, Results(FILE)
    chosen = [(name, seed) for seed in arguments.seeds for name in arguments.networks]
    trained = [(name, seed) for name, seed in chosen if weights(arguments.weights, name, seed).exists()]
    for name, seed in chosen if arguments.train else []:
        train(name, seed, arguments.weights, (end - time.monotonic()) / 60)
    for name, seed in trained:
        if time.monotonic() < end and not TASKS[name].development:
            if arguments.card:
                measure(name, seed, arguments.weights, results)
            if arguments.oodeel:
                measure_oodeel(name, seed, arguments.weights, results, arguments.oodeel)
            if arguments.costs:
                costs(name, seed, arguments.weights, results)
                costs_of_scores(name, seed, arguments.weights, results)
            if arguments.redraws and not results.where(network=name, seed=seed, redraws=20):
                redraws(name, seed, arguments.weights, results)
            if arguments.redraws:
                class_rates(name, seed, arguments.weights, results)
    if arguments.costs:
        costs_of_photographs(results)
    if arguments.develop:
        compared = Results(DEVELOPMENT)
        for name, seed in trained if not arguments.table else []:
            new = TASKS[name].development and not compared.where(network=name, seed=seed)
            if new and time.monotonic() < end:
                development.measure(name, seed, collect(name, seed, arguments.weights), compared)
        print(development.table(compared))
    if arguments.card or arguments.table:
        parts = tables(results), class_table(results, NETWORKS), score_cost_table(results, NETWORKS, named)
        print(*parts, sep="\n\n")


if __name__ == "__main__":
    main()
