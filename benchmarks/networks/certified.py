"""What smoothing certifies around the network of the demo, and what it costs in detection.

    python -m benchmarks.networks.certified                       # measures what is missing, and prints the table

A guard with noise of standard deviation sigma on pixels from 0 to 1, sigma 0 for a guard without smoothing. "certified" is the share of
digits whose alarm no change of an L2 norm of at most the radius can prevent, with confidence 0.99 for each. The attack knows everything
and descends the score, its mean over 16 draws of the noise, in 100 steps; ``--attack`` without a radius leaves it out. All images come with the package.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import pushforward as pf
from benchmarks.common.results import Results, footer, markdown
from benchmarks.quality.certified import attack, averaged
from pushforward.data import load_clothes_network, load_image_labels, load_image_sample
from pushforward.data.samples.network import UNSEEN
from pushforward.detection import auroc, realized_interval

FILE = Path(__file__).parents[1] / "results" / "networks-certified.jsonl"
SIGMAS, RADII = (0.0, 0.12, 0.25), (0.1, 0.25, 0.5)
ALPHA, _HELD_OUT, _CLOTHES, _DIGITS = 0.05, UNSEEN, 1000, 100


def fitted(sigma: float) -> tuple[pf.NetworkGuard, Tensor, Tensor]:
    """A guard, new clothes, and digits."""
    images = {name: torch.from_numpy(load_image_sample(*name))[:, None] / 255 for name in
              (("fashion-mnist", "train"), ("fashion-mnist", "test"), ("mnist", "test"))}  # fmt: skip
    train, clothes, digits = images.values()
    labels = torch.from_numpy(load_image_labels("fashion-mnist", "train")).long()
    guard = pf.NetworkGuard(load_clothes_network(), ALPHA, smoothing=sigma or None)
    guard.fit((train[UNSEEN:], labels[UNSEEN:]), calibration=train[:_HELD_OUT])
    return guard, clothes[:_CLOTHES], digits[:_DIGITS]


def measure(sigma: float, results: Results, draws: int = 2000) -> None:
    """Add the record of one sigma."""
    if results.where(sigma=sigma):
        return
    guard, clothes, digits = fitted(sigma)
    start = time.perf_counter()
    new, odd = guard(clothes), guard(digits)
    seconds = (time.perf_counter() - start) / (_CLOTHES + _DIGITS)
    low, high = realized_interval(guard.calibrators_[None].n, _CLOTHES, ALPHA)
    record = {
        "sigma": sigma, "auroc": auroc(new.score, odd.score), "alarms": float(new.alarm.float().mean()), "low": low, "high": high,
        "caught": float(odd.alarm.float().mean()), "ms": 1e3 * seconds, "n calibration": guard.calibrators_[None].n,
        "n clothes": _CLOTHES, "n digits": _DIGITS, "draws": draws,
    }  # fmt: skip
    if sigma:
        radius = guard.certified_radius(digits, draws=draws)
        record |= {f"certified {r:g}": float((np.nan_to_num(radius, nan=-1.0) >= r).mean()) for r in RADII}
    results.add(record)


def attacked(sigma: float, radius: float, results: Results, draws: int = 2000) -> None:
    """Add the share of digits that still raise an alarm after an attack that knows everything, and the certificates that it broke."""
    if results.where(attacked=sigma, radius=radius):
        return
    guard, _, digits = fitted(sigma)
    shape = digits.shape[1:]

    def score(x: Tensor) -> Tensor:
        reading = guard.reader_.read(x.float().reshape(-1, *shape), grad=True)
        return guard.score_(reading)

    def deployed(rows: np.ndarray) -> np.ndarray:
        return guard.anomaly_score(torch.from_numpy(rows).float().reshape(-1, *shape))

    rows = digits.flatten(1).double().numpy()
    lowest = attack(rows, radius, averaged(score, sigma, 0) if sigma else score, deployed, 0, restarts=1, tries=2)
    p = guard.calibrators_[None].p_value(lowest)
    record = {
        "attacked": sigma,
        "radius": radius,
        "caught": float((p <= guard.levels_[None]).mean()),
        "n digits": len(p),
    }
    if sigma:
        # rounding of an attacked input to float32 moves it by less than 1e-5
        certificate = guard.certify(digits, radius + 1e-5, draws=draws)
        record["broken"] = int((lowest < certificate.score).sum())
    results.add(record)


def table(results: Results) -> str:
    """One row for each sigma; and one for each attack."""
    rows = [
        [f"{r['sigma']:g}", f"{100 * r['auroc']:.1f}", f"{100 * r['alarms']:.1f} % ({100 * r['low']:.1f} to {100 * r['high']:.1f})",
         f"{100 * r['caught']:.0f} %", *(f"{100 * r[f'certified {x:g}']:.0f} %" if r["sigma"] else "–" for x in RADII), f"{r['ms']:.1f}"]
        for r in results.records
        if "sigma" in r
    ]  # fmt: skip
    head = ["sigma", "AUROC x 100", "false alarms (95 % of theory)", "digits caught",
            *(f"certified at radius {r:g}" for r in RADII), "ms for an image"]  # fmt: skip
    attacks = [
        [f"{r['attacked']:g}", f"{r['radius']:g}", f"{100 * r['caught']:.0f} %", str(r.get("broken", "–"))]
        for r in results.records
        if "attacked" in r
    ]
    return (
        markdown(head, rows, ["---:"] * len(head))
        + "\n\n"
        + markdown(["sigma", "attack's radius", "digits caught", "certificates broken"], attacks, ["---:"] * 4)
        + "\n"
        + footer("python -m benchmarks.networks.certified", results.records)
    )


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.networks.certified")
    parser.add_argument("--sigmas", type=float, nargs="*", default=list(SIGMAS))
    parser.add_argument("--attack", type=float, nargs="*", default=[0.25, 0.5], help="radii of attacks")
    parser.add_argument("--results", type=Path, default=FILE)
    parser.add_argument("--table", action="store_true", help="only print the tables")
    arguments = parser.parse_args()
    results = Results(arguments.results)
    for sigma in () if arguments.table else arguments.sigmas:
        measure(sigma, results)
        for radius in arguments.attack:
            attacked(sigma, radius, results)
    print(table(results))


if __name__ == "__main__":
    main()
