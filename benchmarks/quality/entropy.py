"""Models of targets with known density: no valid likelihood is higher than the target's own, and the mass is 1.

    python -m benchmarks.quality.entropy                  # runs missing cases, then prints the table

The mean of log p - log q over held-out draws of p is an estimate of KL(p || q), which is never negative. A reading below
zero by more than three standard errors would mean that q is not a density. In one and two dimensions the mass of each
model is also integrated on a grid, before and after training, in float64.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

import pushforward as pf
from benchmarks.common.results import Results, footer, markdown

Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Target:
    """A distribution with samples and a known log-density.

    Attributes:
        features: D.
        draw: function that draws n rows.
        log_prob: log-density of rows, nats.
        box: half the side of the box for the grid, which contains the mass of target and models; None for no grid.
        angles: whether the coordinates are angles.
        context: width of the context, which is drawn from a standard normal and passed to both functions.
    """

    features: int
    draw: Callable[[int, Generator, Rows], Rows]
    log_prob: Callable[[Rows, Rows], Rows]
    box: float | None = None
    angles: bool = False
    context: int = 0


NORMAL, MISES = scipy.stats.norm.logpdf, scipy.stats.vonmises.logpdf
CENTERS = 3 * np.stack([(math.cos(a), math.sin(a)) for a in np.arange(8) * math.pi / 4])
MIX = np.random.default_rng(5).normal(size=(5, 5))


def mixture_rows(n: int, draw: Generator, _: Rows) -> Rows:
    return CENTERS[draw.integers(8, size=n)] + 0.3 * draw.normal(size=(n, 2))


def ring_rows(n: int, draw: Generator, _: Rows) -> Rows:
    radius, angle = 3 + 0.2 * draw.normal(size=n), draw.uniform(0, 2 * math.pi, n)
    return np.stack((radius * np.cos(angle), radius * np.sin(angle)), 1)


def banana_rows(n: int, draw: Generator, _: Rows) -> Rows:
    x = draw.normal(size=(n, 2))
    return np.stack((x[:, 0], x[:, 0] ** 2 + 0.5 * x[:, 1]), 1)


def board_rows(n: int, draw: Generator, _: Rows) -> Rows:
    cells = np.array([(i, j) for i in range(4) for j in range(4) if (i + j) % 2 == 0])
    return cells[draw.integers(8, size=n)] + draw.random((n, 2)) - 2.0


def torus_rows(n: int, draw: Generator, _: Rows) -> Rows:
    a = draw.vonmises(0.5, 2.0, n)
    return np.stack((a, draw.vonmises(2 * a % (2 * math.pi) - math.pi, 4.0)), 1)


def torus_log_prob(x: Rows, _: Rows) -> Rows:
    return MISES(x[:, 0], 2.0, loc=0.5) + MISES(x[:, 1], 4.0, loc=2 * x[:, 0] % (2 * math.pi) - math.pi)


TARGETS: dict[str, Target] = {
    "two normals, 1-D": Target(
        1,
        lambda n, draw, _: np.where(draw.random((n, 1)) < 0.3, -2.0, 1.0) + 0.5 * draw.normal(size=(n, 1)),
        lambda x, _: np.logaddexp(math.log(0.3) + NORMAL(x, -2, 0.5), math.log(0.7) + NORMAL(x, 1, 0.5))[:, 0],
        box=40.0,
    ),
    "Student t, 3 degrees, 1-D": Target(
        1, lambda n, draw, _: draw.standard_t(3, (n, 1)), lambda x, _: scipy.stats.t.logpdf(x, 3)[:, 0], box=400.0
    ),
    "von Mises, 1-D": Target(
        1, lambda n, draw, _: draw.vonmises(3.0, 4.0, (n, 1)), lambda x, _: MISES(x, 4.0, loc=3.0)[:, 0],
        box=math.pi, angles=True,
    ),
    "banana, 2-D": Target(
        2, banana_rows, lambda x, _: NORMAL(x[:, 0]) + NORMAL(x[:, 1], x[:, 0] ** 2, 0.5), box=40.0
    ),
    "ring, 2-D": Target(
        2, ring_rows,
        lambda x, _: NORMAL(np.hypot(*x.T), 3, 0.2) - np.log(2 * math.pi * np.hypot(*x.T)), box=100.0,
    ),
    "eight normals, 2-D": Target(
        2, mixture_rows,
        lambda x, _: scipy.special.logsumexp(NORMAL(x[:, None], CENTERS, 0.3).sum(-1), axis=1) - math.log(8), box=100.0,
    ),
    "checkerboard, 2-D": Target(2, board_rows, lambda x, _: np.full(len(x), -math.log(8)), box=60.0),
    "two angles, 2-D": Target(2, torus_rows, torus_log_prob, box=math.pi, angles=True),
    "normal given a context, 1-D": Target(
        1,
        lambda n, draw, c: np.sin(2 * c) + np.exp(0.5 * c) * 0.3 * draw.normal(size=(n, 1)),
        lambda x, c: NORMAL(x, np.sin(2 * c), 0.3 * np.exp(0.5 * c))[:, 0],
        context=1,
    ),
    "correlated normal, 5-D": Target(
        5, lambda n, draw, _: draw.normal(size=(n, 5)) @ MIX.T,
        lambda x, _: scipy.stats.multivariate_normal.logpdf(x, cov=MIX @ MIX.T),
    ),
}  # fmt: skip

MODELS: dict[str, Callable[..., pf.models.Model]] = {
    "NICE": pf.models.NICE,
    "RealNVP": pf.models.RealNVP,
    "MAF": pf.models.MAF,
    "MAF MoG": lambda features, context: pf.models.MAF(features, context, components=8),
    "IAF": pf.models.IAF,
    "NSF (C)": lambda features, context: pf.models.NSF(features, context, layer="coupling"),
    "NSF (AR)": lambda features, context: pf.models.NSF(features, context, layer="autoregressive"),
}
ANGLES: dict[str, Callable[..., pf.models.Model]] = {
    "NSF (C)": lambda features, context: pf.models.NSF(features, context, circular=True),
    "NSF (AR)": lambda features, context: pf.models.NSF(features, context, circular=True, layer="autoregressive"),
}
TRAIN, HELD_OUT, FRESH, BATCH = 8000, 2000, 50_000, 256


def rows(target: Target, count: int, seed: int) -> tuple[Rows, Rows]:
    draw = np.random.default_rng(seed)
    context = draw.normal(size=(count, target.context))
    return target.draw(count, draw, context), context


def log_prob(model: pf.models.Model, x: Tensor, context: Tensor | None) -> Tensor:
    parts = range(0, len(x), 20_000)
    with torch.no_grad():
        return torch.cat(
            [model.log_prob(x[i : i + 20_000], None if context is None else context[i : i + 20_000]) for i in parts]
        )


def mass(model: pf.models.Model, target: Target, side: int) -> float | None:
    """Mass by the midpoint rule on a grid, ``side`` squared points in 2-D, denser in the middle of the box."""
    if target.box is None:
        return None
    count = 20_000 if target.features == 1 else side
    middle = (torch.arange(count, dtype=torch.float64) + 0.5) / count * 2 - 1
    if target.angles:
        points, weights = target.box * middle, torch.full_like(middle, 2 * target.box / count)
    else:  # x = sinh(k u) / sinh(k) box: dense in the middle, coarse at the ends
        stretch = 4.0
        points = target.box * torch.sinh(stretch * middle) / math.sinh(stretch)
        weights = target.box * stretch * torch.cosh(stretch * middle) / math.sinh(stretch) * 2 / count
    exact = model.double()
    grid = points[:, None] if target.features == 1 else torch.cartesian_prod(points, points)
    weight = weights if target.features == 1 else torch.outer(weights, weights).flatten()
    found = (log_prob(exact, grid, None).exp() * weight).sum().item()
    model.float()
    return found


def measure(name: str, model: str, seed: int, steps: int) -> dict[str, Any]:
    """KL estimate with its standard error, and masses."""
    target = TARGETS[name]
    torch.manual_seed(seed)
    flow = (ANGLES if target.angles else MODELS)[model](target.features, target.context)
    (x, c), (held, held_c), (new, new_c) = (
        rows(target, n, 10 * seed + k) for k, n in enumerate((TRAIN, HELD_OUT, FRESH))
    )
    contexts = [torch.as_tensor(part).float() if target.context else None for part in (c, held_c, new_c)]
    data = [torch.as_tensor(part).float() for part in (x, held, new)]
    flow.initialize(data[0], contexts[0])
    before = mass(flow, target, 400)  # smooth: an untrained flow is close to its base
    pf.fit(
        flow, data[0], context=contexts[0], validation=(data[1], contexts[1]) if target.context else data[1], max_steps=steps, batch_size=BATCH, ema=None, patience=None, seed=seed,
        progress="silent",
    )  # fmt: skip
    excess = target.log_prob(data[2].double().numpy(), new_c) - log_prob(flow, data[2], contexts[2]).double().numpy()
    return {
        "kl": excess.mean(),
        "error": excess.std(ddof=1) / math.sqrt(len(excess)),
        "mass before": before,
        "mass after": mass(flow, target, 800),
    }


def broken(records: list[dict[str, Any]]) -> list[str]:
    """Results that no density can have, as lines."""
    lines = [
        f"{r['target']}, {r['model']}: KL {r['kl']:.4f} ± {r['error']:.4f}"
        for r in records
        if r["kl"] < -3 * r["error"]
    ]
    for record in records:
        for when in ("mass before", "mass after"):
            if record[when] is not None and abs(record[when] - 1) > 1e-3:
                lines += [f"{record['target']}, {record['model']}: {when} {record[when]:.5f}"]
    return lines


def table(records: list[dict[str, Any]], steps: int) -> str:
    lines = []
    for name in TARGETS:
        cells = []
        for model in MODELS:
            found = [r for r in records if r["target"] == name and r["model"] == model and r["steps"] == steps]
            kl = [r["kl"] for r in found]
            cells.append(f"{np.mean(kl):.3f} ± {np.mean([r['error'] for r in found]):.3f}" if found else "–")
        off = [
            abs(r[when] - 1) for r in records if r["target"] == name and r["steps"] == steps
            for when in ("mass before", "mass after") if r[when] is not None
        ]  # fmt: skip
        lines.append([name, *cells, f"≤ {max(*off, 1e-6):.0e}" if off else "–"])
    title = (
        f"KL(target, model) in nats, mean over seeds ± standard error of one result over {FRESH:,} draws, after {steps} "
        "steps; never below 0 beyond its error. Last column: largest distance of a mass from 1, before or after training.\n"
    )
    return "\n".join([title, markdown(["target", *MODELS, "mass"], lines)])


def main() -> None:
    parser = argparse.ArgumentParser(description="Models of targets with known density.")
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=TARGETS, metavar="TARGET")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("runs/quality-entropy.jsonl"))
    parser.add_argument("--table", action="store_true", help="print the table of existing results and run nothing")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = Results(options.out)
    for name in () if options.table else options.targets:
        for model in options.models if not TARGETS[name].angles else [m for m in options.models if m in ANGLES]:
            for seed in range(options.seeds):
                key = {"target": name, "model": model, "seed": seed, "steps": options.steps}
                if not results.where(**key):
                    results.add(key | measure(name, model, seed, options.steps))
    print(table(results.records, options.steps))
    print(footer(f"python -m benchmarks.quality.entropy --steps {options.steps}", results.records))
    if lines := broken(results.records):
        raise SystemExit("these results are impossible for a density, so a model is wrong:\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
