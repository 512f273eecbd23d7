"""Streams: how often a monitor raises a false alarm, and how soon it alarms after a change.

    python -m benchmarks.quality.streams                  # runs missing cases, then prints the table

Scores are standard normal, and a monitor starts from 500 reference scores. Without a change: the fraction of 500 streams of 20,000
scores that alarm at level 1 % (Ville's bound: at most 1 %). With a change: after 1,000 scores a tenth of the scores come from
N(3, 1); the number of points until the alarm, over 200 streams.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.common.results import Results, footer, markdown
from pushforward.detection import Monitor

STRATEGIES = ("mixture", "restarted", "power")
REFERENCE, QUIET, BEFORE, AFTER, FRACTION, SHIFT = 500, 20_000, 1000, 20_000, 0.1, 3.0


def quiet(betting: str, stream: int) -> bool:
    """Whether a stream without a change alarms."""
    rng = np.random.default_rng(stream)
    monitor = Monitor(rng.normal(size=REFERENCE), 0.01, betting=betting, seed=stream)
    monitor.update(rng.normal(size=QUIET))
    return monitor.alarm


def delay(betting: str, stream: int) -> float:
    """Points from the change to the alarm; infinite if none comes, negative for an alarm before it."""
    rng = np.random.default_rng(10_000 + stream)
    monitor = Monitor(rng.normal(size=REFERENCE), 0.01, betting=betting, seed=stream)
    monitor.update(rng.normal(size=BEFORE))
    for _ in range(0, AFTER, 100):
        if monitor.alarm:
            break
        monitor.update(rng.normal(size=100) + SHIFT * (rng.random(100) < FRACTION))
    return np.inf if monitor.alarm_at is None else float(monitor.alarm_at - BEFORE)


def main() -> None:
    parser = argparse.ArgumentParser(description="False alarms and delays of monitors.")
    parser.add_argument("--quiet-streams", type=int, default=500)
    parser.add_argument("--changed-streams", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("runs/quality-streams.jsonl"))
    parser.add_argument("--table", action="store_true", help="print the table of existing results and run nothing")
    options = parser.parse_args()
    results, rows = Results(options.out), []
    for betting in STRATEGIES:
        key = {"betting": betting, "quiet": options.quiet_streams, "changed": options.changed_streams}
        if not results.where(**key) and not options.table:
            alarms = [quiet(betting, stream) for stream in range(options.quiet_streams)]
            delays = [delay(betting, stream) for stream in range(options.changed_streams)]
            low, middle, high = np.quantile(delays, [0.05, 0.5, 0.95], method="inverted_cdf").tolist()
            results.add(key | {"alarms": sum(alarms), "5 %": low, "median": middle, "95 %": high})
        found = results.where(**key)[0]
        fraction = (
            f"{found['alarms']} of {options.quiet_streams} ({100 * found['alarms'] / options.quiet_streams:.1f} %)"
        )
        delays = [f"{found[name]:.0f}" if np.isfinite(found[name]) else "never" for name in ("5 %", "median", "95 %")]
        rows.append(
            [f"{betting} (the default of `guard.monitor`)" if betting == "mixture" else betting, fraction, *delays]
        )
    print(markdown(["betting", "false alarms", "delay, 5 % quantile", "median", "95 % quantile"], rows))
    print(footer("python -m benchmarks.quality.streams", results.records))


if __name__ == "__main__":
    main()
