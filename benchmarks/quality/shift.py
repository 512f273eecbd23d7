"""False alarms of a guard when the inputs shift: as it is, calibrated again, and under weighted conformal prediction.

    python -m benchmarks.quality.shift --data DATA        # runs what is missing, then prints the table
    python -m benchmarks.quality.shift --table            # only prints the table

Normal rows of ADBench. One guard for each set is fitted on 2,000 rows (alpha = 0.05) and stays as it is; its score is -log p under one
flow of 300 steps, of the kind that guards of tables had in version 0.1.0. The rest of the rows is the pool. P is the pool; Q is the pool
tilted by w(x) = exp(z), z the standardized first column between -2 and 2, drawn by rejection, so w = dQ/dP is known. The pool has at most
10,000 rows. For each of 20 redraws, 400 calibration rows and 400 new rows of Q, disjoint:

- as it is: calibrated on rows of P;
- recalibrated: ``guard.recalibrate`` on 400 rows of Q. The number of false alarms is beta-binomial (``realized_interval``);
- weights given: ``ShiftedGuard`` on 400 rows of P with w. Its distribution has no closed form: 1,000 further redraws are counted
  by plain NumPy, with the definition of Tibshirani et al. (2019) and the same scores;
- weights estimated: ``ShiftedGuard`` on 800 rows of P (half of them for the classifier) and 400 rows of Q.

"inside" counts redraws inside the central 99 % of that distribution. Redraws share the guard and the pool. The
distribution of the last row is that of given weights, because none is known for estimated ones.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import pushforward as pf
from benchmarks.common.results import Results, footer, markdown
from pushforward.detection import realized_interval
from pushforward.detection.table_score import TABLE_TRAINING, fit_table_score
from pushforward.estimators import ShiftedGuard

SETS = ("10_cover", "28_pendigits", "33_skin")
ALPHA, TRAINING, ROWS, NEW, REDRAWS, SIMULATED = 0.05, 2000, 400, 400, 20, 1000
Matrix = NDArray[np.float64]


class OneFlow:
    """A small autoregressive spline flow of a table as a detector: the log-density of rows under it, nats."""

    def __init__(self, steps: int = 300) -> None:
        self.steps = steps

    def fit(self, x: Matrix) -> OneFlow:
        config = replace(TABLE_TRAINING, max_steps=self.steps, seed=0, progress="silent")
        self.score = fit_table_score(x, effort="fast", density=True, n_estimators=1, config=config)
        return self

    def score_samples(self, x: Matrix) -> NDArray[np.float64]:
        return self.score.log_prob(x)


class Pool:
    """The rows of one set, their tilt, and draws without replacement."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            rows = file["X"][file["y"] == 0].astype(np.float64)
        rows = np.random.default_rng(0).permutation(rows)[: TRAINING + 10_000]
        self.training, self.rows = rows[:TRAINING], rows[TRAINING:]
        self.center, self.scale = self.training[:, 0].mean(), self.training[:, 0].std()

    def ratio(self, x: Matrix) -> Matrix:
        """dQ/dP up to a factor."""
        return np.exp(np.clip((np.asarray(x)[:, 0] - self.center) / self.scale, -2, 2))

    def draw(self, rng: np.random.Generator, from_p: int, from_q: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indices of rows of P and of rows of Q, all different."""
        order = rng.permutation(len(self.rows))
        p, rest = order[:from_p], order[from_p:]
        q = rest[rng.random(len(rest)) < self.ratio(self.rows[rest]) / np.exp(2)]
        if len(q) < from_q:
            raise ValueError(f"the pool has {len(q)} rows of Q, of {from_q}.")
        return p, q[:from_q]


def by_hand(score: Matrix, weight: Matrix, p: NDArray[np.int64], q: NDArray[np.int64]) -> float:
    """The false-alarm rate of weighted conformal prediction, from its definition."""
    at_least = (score[p][None, :] >= score[q][:, None]) @ weight[p]
    return float(np.mean((at_least + weight[q]) / (weight[p].sum() + weight[q]) <= ALPHA))


def measure(name: str, data: Path) -> list[dict[str, object]]:
    """The lines of one set."""
    pool = Pool(data / "adbench" / f"{name}.npz")
    guard = pf.Guard(ALPHA, score=OneFlow(), calibration=0.25, random_state=0).fit(pool.training)
    rates: dict[str, list[float]] = {
        key: [] for key in ("as it is", "recalibrated", "weights given", "weights estimated")
    }
    effective = []
    for seed in range(REDRAWS):
        p, q = pool.draw(np.random.default_rng(1000 + seed), 2 * ROWS, ROWS + NEW)
        x, again, new = pool.rows[p], pool.rows[q[:ROWS]], pool.rows[q[ROWS:]]
        rates["as it is"].append(np.mean(guard.recalibrate(x[:ROWS]).predict(new) == -1))
        rates["recalibrated"].append(np.mean(guard.recalibrate(again).predict(new) == -1))
        shifted = ShiftedGuard(guard, x[:ROWS], pool.ratio)
        effective.append(shifted.calibrator_.effective_rows)
        rates["weights given"].append(np.mean(shifted.predict(new) == -1))
        rates["weights estimated"].append(np.mean(ShiftedGuard(guard, x, shifted=again).predict(new) == -1))
    score, weight = guard.anomaly_score(pool.rows), pool.ratio(pool.rows)
    rng = np.random.default_rng(0)
    simulated = [by_hand(score, weight, *pool.draw(rng, ROWS, NEW)) for _ in range(SIMULATED)]
    tilted = tuple(float(end) for end in np.quantile(simulated, [0.005, 0.995]))
    lines = []
    for key, found in rates.items():
        low, high = tilted if key.startswith("weights") else realized_interval(ROWS, NEW, ALPHA, level=0.99)
        lines.append(
            {
                "set": name,
                "guard": key,
                "rates": [float(rate) for rate in found],
                "low": low,
                "high": high,
                "effective": None
                if key == "weights estimated"
                else float(np.mean(effective))
                if key == "weights given"
                else float(ROWS),
                "simulated mean": float(np.mean(simulated)) if key.startswith("weights") else None,
            }
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="False alarms under a known shift.")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--out", type=Path, default=Path("runs/quality-shift.jsonl"))
    parser.add_argument("--table", action="store_true", help="print the table of existing results and run nothing")
    options = parser.parse_args()
    results, rows = Results(options.out), []
    for name in options.sets:
        if not options.table and not results.where(set=name):
            for line in measure(name, options.data):
                results.add(line)
        for line in results.where(set=name):
            rates = np.array(line["rates"])
            inside = int(np.sum((rates >= line["low"]) & (rates <= line["high"])))
            rows.append(
                [
                    name,
                    line["guard"],
                    f"{rates.mean():.2%} ± {rates.std(ddof=1) / np.sqrt(len(rates)):.2%}",
                    f"{rates.min():.1%} to {rates.max():.1%}",
                    f"{line['low']:.1%} to {line['high']:.1%}",
                    f"{inside} of {len(rates)}",
                    "" if line["effective"] is None else f"{line['effective']:.0f}",
                ]
            )
    names = [
        "set",
        "guard",
        "mean rate ± standard error",
        "20 redraws",
        "99 % of the distribution",
        "inside",
        "effective rows",
    ]
    print(markdown(names, rows))
    print(footer("python -m benchmarks.quality.shift --data DATA", results.records))


if __name__ == "__main__":
    main()
