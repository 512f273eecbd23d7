"""What smoothing certifies around the network of the demo, and what it costs in detection.

    python -m benchmarks.networks.certified                       # measures what is missing, and prints the table

A guard with noise of standard deviation sigma on pixels from 0 to 1, sigma 0 for a guard without smoothing. "certified" is the share of
digits whose alarm no change of an L2 norm of at most the radius can prevent, with confidence 0.99 for each. All images come with the package.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import pushforward as pf
from benchmarks.common.results import Results, footer, markdown
from pushforward.data import load_clothes_network, load_image_labels, load_image_sample
from pushforward.data.samples.network import UNSEEN
from pushforward.detection import auroc, realized_interval

FILE = Path(__file__).parents[1] / "results" / "networks-certified.jsonl"
SIGMAS, RADII = (0.0, 0.12, 0.25), (0.1, 0.25, 0.5)
ALPHA, _HELD_OUT, _CLOTHES, _DIGITS = 0.05, UNSEEN, 1000, 100


def measure(sigma: float, results: Results, draws: int = 2000) -> None:
    """Add the record of one sigma."""
    if results.where(sigma=sigma):
        return
    images = {name: torch.from_numpy(load_image_sample(*name))[:, None] / 255 for name in
              (("fashion-mnist", "train"), ("fashion-mnist", "test"), ("mnist", "test"))}  # fmt: skip
    train, clothes, digits = images.values()
    labels = torch.from_numpy(load_image_labels("fashion-mnist", "train")).long()
    guard = pf.NetworkGuard(load_clothes_network(), ALPHA, smoothing=sigma or None)
    guard.fit((train[UNSEEN:], labels[UNSEEN:]), calibration=train[:_HELD_OUT])
    start = time.perf_counter()
    new, odd = guard(clothes[:_CLOTHES]), guard(digits[:_DIGITS])
    seconds = (time.perf_counter() - start) / (_CLOTHES + _DIGITS)
    low, high = realized_interval(guard.calibrators_[None].n, _CLOTHES, ALPHA)
    record = {
        "sigma": sigma, "auroc": auroc(new.score, odd.score), "alarms": float(new.alarm.float().mean()), "low": low, "high": high,
        "caught": float(odd.alarm.float().mean()), "ms": 1e3 * seconds, "n calibration": guard.calibrators_[None].n,
        "n clothes": _CLOTHES, "n digits": _DIGITS, "draws": draws,
    }  # fmt: skip
    if sigma:
        radius = guard.certified_radius(digits[:_DIGITS], draws=draws)
        record |= {f"certified {r:g}": float((np.nan_to_num(radius, nan=-1.0) >= r).mean()) for r in RADII}
    results.add(record)


def table(results: Results) -> str:
    """One row for each sigma."""
    rows = [
        [f"{r['sigma']:g}", f"{100 * r['auroc']:.1f}", f"{100 * r['alarms']:.1f} % ({100 * r['low']:.1f} to {100 * r['high']:.1f})",
         f"{100 * r['caught']:.0f} %", *(f"{100 * r[f'certified {x:g}']:.0f} %" if r["sigma"] else "–" for x in RADII), f"{r['ms']:.1f}"]
        for r in results.records
    ]  # fmt: skip
    head = ["sigma", "AUROC x 100", "false alarms (95 % of theory)", "digits caught",
            *(f"certified at radius {r:g}" for r in RADII), "ms for an image"]  # fmt: skip
    return (
        markdown(head, rows, ["---:"] * len(head))
        + "\n"
        + footer("python -m benchmarks.networks.certified", results.records)
    )


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.networks.certified")
    parser.add_argument("--sigmas", type=float, nargs="*", default=list(SIGMAS))
    parser.add_argument("--results", type=Path, default=FILE)
    arguments = parser.parse_args()
    results = Results(arguments.results)
    for sigma in arguments.sigmas:
        measure(sigma, results)
    print(table(results))


if __name__ == "__main__":
    main()
