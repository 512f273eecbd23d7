"""Command line."""

import argparse
from pathlib import Path

from benchmarks.networks.tasks import TASKS
from benchmarks.networks.training import train

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--train", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--weights", type=Path, default=Path("runs/networks"))
    a = parser.parse_args()
    for name in a.train or TASKS:
        for seed in a.seeds:
            train(name, seed, a.weights, a.minutes)
