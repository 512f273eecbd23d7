"""Certificates of smoothed guards, and attacks that try to break them: handwritten digits for a guard of Fashion-MNIST.

    python -m benchmarks.quality.certified

Guards with smoothing (``pf.Guard(smoothing=sigma)``) are fitted on training images of Fashion-MNIST. Reported for each sigma:

- *clean*: AUROC of MNIST against Fashion-MNIST (test images), share caught and false alarms at the promised 5 % and 1 %, milliseconds of
  processor time for each image. Beside it the same score without noise.
- *certified*: share of MNIST images whose alarm is certified within an L2 radius, for pixels from 0 to 1 (99 % confidence, 10^6 attempts);
- *attacked*: share that still raises an alarm after an attack that knows the guard. It descends the mean score over 16 draws of noise
  (expectation over transformations; Athalye et al. 2018), 100 steps in the L2 ball, 2 restarts, on real pixels from 0 to 1. Everything is
  differentiable but the order statistic, for which the mean is used; what counts is the deployed score, at every tenth step, and then at
  20 tiny changes of the best point, which look for lucky noise;
- *broken*: images whose p-value after the attack is above the certified bound. There must be none.

The score without noise is attacked in the same way, with its own gradient.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import pushforward as pf
from benchmarks.common.datasets import load_images
from benchmarks.common.results import Record, Results, footer, markdown
from benchmarks.quality.attacks import interval
from benchmarks.quality.data import add_data_option
from pushforward.detection import ConformalCalibrator, auroc, realized_interval
from pushforward.detection.noisy_images import NoisyImages
from pushforward.detection.projected_mixture import ProjectedMixture
from pushforward.detection.smoothed_score import SmoothedScore

Array = NDArray[np.float64]
STEPS = 3000
"""Training of the network, which is the default."""
NO_NOISE = 0.02
"""Noise of the training images of the score without smoothing: it only keeps the mixture from degenerating."""


def differentiable_score(
    base: ProjectedMixture | NoisyImages, dtype: torch.dtype = torch.float64
) -> Callable[[Tensor], Tensor]:
    """A base score of rows ``(n, d)`` in torch, which has a gradient."""
    if isinstance(base, ProjectedMixture):
        return differentiable_mixture(base, dtype)
    mixture = differentiable_mixture(base.mixture, dtype)

    def score(rows: Tensor) -> Tensor:
        seen = base.network.of_batch(base.pixels(rows.float()))
        return base.combine(torch.stack((mixture(rows.to(dtype)).double(), seen), 1))

    return score


def differentiable_mixture(base: ProjectedMixture, dtype: torch.dtype = torch.float64) -> Callable[[Tensor], Tensor]:
    """The mixture's score of rows ``(n, d)`` in torch, as an independent second version of it."""
    parts = {name: torch.from_numpy(np.array(part)).to(dtype) for name, part in base.parts.items()}

    def surprise(kind: str, columns: Tensor) -> Tensor:
        white = (columns - parts[f"{kind}_center"]) / parts[f"{kind}_spread"]
        whitenings = parts[f"{kind}_whitenings"]
        away = torch.einsum("ncd,cde->nce", white[:, None] - parts[f"{kind}_means"], whitenings)
        logs = parts[f"{kind}_log_weights"] + torch.linalg.slogdet(whitenings)[1] - 0.5 * away.square().sum(2)
        return 0.5 * white.shape[1] * math.log(2 * math.pi) - torch.logsumexp(logs, 1)

    def score(rows: Tensor) -> Tensor:
        centered = rows - parts["mean"]
        inside = centered @ parts["directions"]
        outside = (centered.square().sum(1) - inside.square().sum(1)).clamp(min=1e-12)
        columns = torch.cat((inside, 0.5 * outside.log()[:, None]), 1)
        white = ((columns - parts["rows_center"]) / parts["rows_spread"])[:, :-1].square()
        bands = [
            torch.log(white[:, a:b].mean(1) + 1e-6) for a, b in ((0, 4), (4, 12), (12, None)) if white.shape[1] > a
        ]
        return surprise("statistics", torch.stack([surprise("rows", columns), *bands, columns[:, -1]], 1))

    return score


def attack(
    rows: Array, radius: float, objective: Callable[[Tensor], Tensor], deployed: Callable[[Array], Array], seed: int,
    *, steps: int = 100, restarts: int = 2, tries: int = 20,
) -> Array:  # fmt: skip
    """The lowest deployed score of each row ``(n, d)`` that the attack finds within the radius, ``(n,)``."""
    start = torch.from_numpy(rows)
    generator = torch.Generator().manual_seed(seed)
    lowest, best = deployed(rows), start.clone()

    def keep(x: Tensor) -> None:
        nonlocal lowest
        found = deployed(x.numpy())
        better = torch.from_numpy(found < lowest)
        best[better], lowest = x[better], np.minimum(found, lowest)

    def project(x: Tensor) -> Tensor:
        change = x - start
        length = change.norm(dim=1, keepdim=True).clamp(min=1e-12)
        # Clipping to the range of pixels moves no pixel away from its start, so the result stays in the ball.
        return (start + change * (radius / length).clamp(max=1.0)).clamp(0, 1)

    for restart in range(restarts):
        x = start.clone()
        if restart:
            x = project(
                x + 0.5 * radius * torch.nn.functional.normalize(torch.randn(x.shape, generator=generator), dim=1)
            )
        for step in range(steps):
            x.requires_grad_()
            (gradient,) = torch.autograd.grad(objective(x).sum(), x)
            length = 2.5 * radius / steps * 2 * (1 - step / steps) + radius / steps
            x = project(x.detach() - length * torch.nn.functional.normalize(gradient, dim=1))
            if step % 10 == 9:
                keep(x)
    for _ in range(tries):
        keep(project(best + 1e-6 * torch.randn(best.shape, generator=generator)))
    assert float((best - start).norm(dim=1).max()) <= radius * (1 + 1e-9)
    return lowest


def averaged(score: Callable[[Tensor], Tensor], sigma: float, seed: int, draws: int = 16) -> Callable[[Tensor], Tensor]:
    """The mean of a score over new noise at each call."""
    generator = torch.Generator().manual_seed(seed)

    def objective(x: Tensor) -> Tensor:
        noise = sigma * torch.randn((draws, *x.shape), generator=generator)
        return score((x.float() + noise).flatten(0, 1)).reshape(draws, len(x)).mean(0)

    return objective


def clean(
    score: Callable[[Tensor], Array], calibrator: ConformalCalibrator, normal: Tensor, other: Tensor
) -> dict[str, float]:
    """Detection without attacks."""
    begin = time.process_time()
    a, b = score(normal), score(other)
    spent = time.process_time() - begin
    record = {"auroc": auroc(a, b), "milliseconds": 1000 * spent / (len(a) + len(b)), "calibration": calibrator.n}
    record |= {"normal": len(a), "other": len(b)}
    for alpha in (0.05, 0.01):
        level = calibrator.threshold(alpha)
        record |= {f"caught_{alpha:g}": float((calibrator.p_value(b) <= level).mean())}
        record |= {f"false_{alpha:g}": float((calibrator.p_value(a) <= level).mean())}
    return record


def shares(p: Array, calibrator: ConformalCalibrator, name: str) -> dict[str, float]:
    """The share of p-values with an alarm at a promised 5 % and 1 %."""
    return {f"{name}_{alpha:g}": float((p <= calibrator.threshold(alpha)).mean()) for alpha in (0.05, 0.01)}


def without_noise(options: argparse.Namespace, results: Results, train: Tensor, normal: Tensor, other: Tensor) -> None:
    """The same kind of score without smoothing, fitted with a little noise and calibrated on as many images."""

    def rows(x: Tensor) -> Array:
        return x.flatten(1).double().numpy() / 255

    count = len(train) // 4
    base = NoisyImages.fit(train[count:], NO_NOISE, steps=STEPS, seed=options.seed)
    calibrator = ConformalCalibrator(base.score(rows(train[:count])))
    key = {"sigma": 0.0, "seed": options.seed}
    if not results.where(**key, part="clean"):
        results.add({**key, "part": "clean", **clean(lambda x: base.score(rows(x)), calibrator, normal, other)})
    score, attacked = differentiable_score(base), rows(other[: options.images])
    for radius in options.radii:
        if not results.where(**key, part="radius", radius=radius):
            p = calibrator.p_value(attack(attacked, radius, score, base.score, options.seed, steps=options.steps))
            results.add({**key, "part": "radius", "radius": radius, **shares(p, calibrator, "attacked")})


def smoothed(options: argparse.Namespace, results: Results, sigma: float, train: Tensor, normal: Tensor, other: Tensor) -> None:  # fmt: skip
    """Add what is missing of a smoothed guard: its clean figures, its certificates, and the attack at each radius."""
    key = {"sigma": sigma, "seed": options.seed}
    todo = [r for r in options.radii if not results.where(**key, part="radius", radius=r)]
    if not todo and results.where(**key, part="clean"):
        return
    file = options.out.parent / f"certified-{sigma:g}-{options.seed}-{len(train)}.safetensors"
    if not file.exists():
        begin = time.process_time()
        pf.Guard(alpha=0.05, smoothing={"sigma": sigma, "steps": STEPS}, random_state=options.seed).fit(train).save(
            file
        )
        print(f"fit {time.process_time() - begin:.0f} s of processor time", flush=True)
    guard = pf.Guard.load(file)
    base_score = guard.score_
    assert isinstance(base_score, SmoothedScore)
    calibrator, smoothing, base = guard.calibrator_, base_score.smoothing, base_score.base
    if not results.where(**key, part="clean"):
        results.add({**key, "part": "clean", **clean(base_score.score, calibrator, normal, other)})
    images = other[: options.images]
    rows = base_score.rows(images)
    for radius in todo:
        begin = time.process_time()
        bound = guard.certify(images, radius)
        spent = 1000 * (time.process_time() - begin) / len(images)
        objective = averaged(differentiable_score(base, torch.float32), sigma, options.seed)
        lowest = attack(rows, radius, objective, lambda x: smoothing.score(base, x), options.seed, steps=options.steps)
        p = calibrator.p_value(lowest)
        record = shares(bound.p_value, calibrator, "certified") | shares(p, calibrator, "attacked")
        broken = int((p > bound.p_value).sum())
        results.add(
            {**key, "part": "radius", "radius": radius, **record, "broken": broken, "images": len(images), "milliseconds": spent}
        )  # fmt: skip


def table(results: Results) -> str:
    """Two tables: without attacks, and against them."""
    rows, attacked = [], []
    for r in results.where(part="clean"):
        name = f"{r['sigma']:g}" if r["sigma"] else "no noise"
        cells = [f"{100 * r[f'{what}_{alpha:g}']:.1f}" for alpha in (0.05, 0.01) for what in ("caught", "false")]
        ends = [realized_interval(int(r["calibration"]), int(r["normal"]), alpha) for alpha in (0.05, 0.01)]
        expected = ", ".join(f"{100 * low:.1f} to {100 * high:.1f}" for low, high in ends)
        rows.append([name, str(r["seed"]), f"{100 * r['auroc']:.2f}", *cells, expected, f"{r['milliseconds']:.2f}"])
    for r in sorted(results.where(part="radius"), key=lambda r: (r["sigma"], r["seed"], r["radius"])):
        name, count = f"{r['sigma']:g}" if r["sigma"] else "no noise", r.get("images", 100)
        cells = [
            interval(r[f"{what}_{alpha:g}"], count) if f"{what}_{alpha:g}" in r else "–"
            for alpha in (0.05, 0.01)
            for what in ("certified", "attacked")
        ]
        attacked.append([name, str(r["seed"]), f"{r['radius']:g}", *cells, str(r.get("broken", "–"))])
    head = ["sigma", "seed", "AUROC", "caught at 5 %", "false alarms", "caught at 1 %", "false alarms", "95 % of such guards", "ms"]  # fmt: skip
    second = ["sigma", "seed", "radius", "certified at 5 %", "attacked", "certified at 1 %", "attacked", "broken"]
    bottom = footer("python -m benchmarks.quality.certified", results.records)
    return "\n\n".join([short_table(results), markdown(head, rows), markdown(second, attacked), bottom])


def short_table(results: Results) -> str:
    """Share with an alarm at 5 % (and at 1 %), by radius: without an attack, certified, and after the attack."""
    radii = sorted({r["radius"] for r in results.where(part="radius")})
    rows = []

    def share(record: Record | None, what: str) -> str:
        if record is None:
            return "–"
        digits = 1 if what == "caught" else 0
        return f"{100 * record[f'{what}_0.05']:.{digits}f} ({100 * record[f'{what}_0.01']:.{digits}f})"

    for clean in results.where(part="clean"):
        sigma = clean["sigma"]
        name = f"sigma {sigma:g}" if sigma else "the same score without noise"
        found = {r["radius"]: r for r in results.where(part="radius", sigma=sigma, seed=clean["seed"])}
        if sigma:
            rows.append([f"{name}: certified", "", *(share(found.get(r), "certified") for r in radii)])
        rows.append(
            [f"{name}: after the attack", share(clean, "caught"), *(share(found.get(r), "attacked") for r in radii)]
        )
    return markdown(["", "radius 0", *(f"{r:g}" if r < 1 else f"{r:.1f}" for r in radii)], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description="Certificates of smoothed guards, and attacks on them.")
    add_data_option(parser)
    parser.add_argument("--seed", type=int, default=0, help="of the guard and the attack")
    parser.add_argument("--sigmas", nargs="+", type=float, default=[0.25, 0.5])
    parser.add_argument("--radii", nargs="+", type=float, default=[0.25, 0.5, 1.0])
    parser.add_argument("--images", type=int, default=100, help="that are certified and attacked")
    parser.add_argument("--test", type=int, default=1000, help="images of each test set for the clean figures")
    parser.add_argument("--train", type=int, default=20_000, help="training images, a quarter of which calibrates")
    parser.add_argument("--steps", type=int, default=100, help="of the attack")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/quality-certified.jsonl"), help="guards are saved beside it"
    )
    parser.add_argument("--table", action="store_true", help="print the tables of what is there; run nothing")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results = Results(options.out)
    if not options.table:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        train = load_images("fashion-mnist", train=True, folder=options.data)[: options.train]
        normal = load_images("fashion-mnist", train=False, folder=options.data)[: options.test]
        other = load_images("mnist", train=False, folder=options.data)[: options.test]
        for sigma in options.sigmas:
            smoothed(options, results, sigma, train, normal, other)
        without_noise(options, results, train, normal, other)
    print(table(results))


if __name__ == "__main__":
    main()
