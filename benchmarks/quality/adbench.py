"""Guard on the ADBench tables: realized false alarms, and detection compared with other detectors.

    python -m benchmarks.quality.adbench alarms --data DIR --out alarms.jsonl
    python -m benchmarks.quality.adbench detection --data DIR --out detection.jsonl
    python -m benchmarks.quality.adbench tables alarms.jsonl detection.jsonl

DIR contains ``adbench/*.npz`` (arrays X and y, 1 = anomaly). Both runs append one JSON line per result and skip existing ones.

Detection follows the clean protocol: half of the normal rows, shuffled, train every detector; the other half and all
anomalies are scored; no duplication of rows. At most ``--rows`` rows train, and at most that many normal rows and
anomalies are scored. ``--detectors`` names those to run; each has a line of its own for each set and seed.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.quality.table_detectors import DETECTORS
from pushforward.detection import auroc, mean_rank, realized_interval
from pushforward.estimators import Guard

LEVELS = (0.01, 0.05)
_LEAST_NORMAL = 80  # rows of which half fit a guard whose half calibrates: enough for a level of 5 %
_SMALL = 500  # new rows: sets with fewer are shown together


def tables(data: Path, least_normal: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, normal rows and anomalies of each set with enough normal rows, narrow sets first."""
    files = list((data / "adbench").glob("*.npz"))
    if not files:
        raise SystemExit(
            f"{data} has no adbench/*.npz: get the tables from github.com/Minqi824/ADBench, and give their folder by --data."
        )
    sizes = {}
    for path in files:
        with np.load(path, allow_pickle=False) as archive:
            if (archive["y"] == 0).sum() >= least_normal:
                sizes[path] = archive["X"].shape[::-1]
    for path in sorted(sizes, key=sizes.__getitem__):
        with np.load(path, allow_pickle=False) as archive:
            x, y = archive["X"].astype(np.float64), archive["y"]
        yield path.stem.split("_", 1)[1], x[y == 0], x[y == 1]


def alarms(data: Path, out: Path, splits: int, rows: int) -> None:
    """Measure false-alarm rates on normal rows: one half fits the guard (a quarter or half of it calibrates), the other is new."""
    done = {(r["set"], r["split"]) for r in results(out)}
    for name, normal, _ in tables(data, _LEAST_NORMAL):
        for split in range(splits):
            if (name, split) in done:
                continue
            order = np.random.default_rng(split).permutation(len(normal))[: 2 * rows]
            fit_rows, new_rows = np.array_split(normal[order], 2)
            start = time.perf_counter()
            # The PAC guarantee at 1% needs 299 calibration rows.
            guard = Guard(
                0.05, effort="fast", random_state=split,
                calibration=max(299, len(fit_rows) // 4) if len(fit_rows) >= 600 else len(fit_rows) // 2,
            ).fit(fit_rows)  # fmt: skip
            scores = guard.anomaly_score(new_rows)
            calibrator = guard.calibrator_
            record = {"set": name, "split": split, "calibration": calibrator.n, "new": len(new_rows)}
            for alpha in LEVELS:
                for kind in ("marginal", "pac"):
                    try:
                        level = calibrator.threshold(alpha, kind, 0.05)
                    except ValueError:  # too few rows for this level, so the guard promises nothing
                        continue
                    record[f"{kind}@{alpha}"] = float((calibrator.p_value(scores) <= level).mean())
            append(out, record | {"seconds": time.perf_counter() - start})


def detection(data: Path, out: Path, seeds: int, rows: int, detectors: list[str]) -> None:
    """Quality of each detector on each set and seed."""
    done = {(r["set"], r["seed"], r["detector"]) for r in results(out)}
    for seed in range(seeds):
        for name, normal, anomalous in tables(data, 0):
            train, test, anomalies = split(normal, anomalous, seed, rows)
            for detector in detectors:
                if (name, seed, detector) in done:
                    continue
                record = {"set": name, "seed": seed, "detector": detector, "normal": len(normal)}
                append(out, record | measure(detector, train, test, anomalies, seed))


def measure(detector: str, train: np.ndarray, test: np.ndarray, anomalies: np.ndarray, seed: int) -> dict:
    """Fit a detector; its AUROC, AUPR and share caught, and of a guard the rates of alarms at the promised levels."""
    return measure_each(detector, train, test, {"": anomalies}, seed)[""]


def measure_each(
    detector: str, train: np.ndarray, test: np.ndarray, anomalies: dict[str, np.ndarray], seed: int
) -> dict[str, dict]:
    """The same of one fit for several sets of anomalies; each has the CPU seconds of the fit, of the normal rows and of its own."""
    start = time.perf_counter(), time.process_time()
    score = DETECTORS[detector](train, seed)
    fitted = time.process_time()
    on_normal = score(test)
    shared = time.perf_counter() - start[0], time.process_time() - start[1]
    calibrator = score.__self__.calibrator_ if isinstance(getattr(score, "__self__", None), Guard) else None  # pyright: ignore
    found: dict[str, dict] = {}
    for name, rows in anomalies.items():
        before = time.perf_counter(), time.process_time()
        on_anomalies = score(rows)
        record: dict = {
            "train": len(train), "columns": train.shape[1],
            "auroc": auroc(on_normal, on_anomalies), "aupr": average_precision(on_normal, on_anomalies),
        }  # fmt: skip
        for level in LEVELS:
            record[f"caught at {level}"] = float((on_anomalies > np.quantile(on_normal, 1 - level)).mean())
        if calibrator is not None:
            for level in LEVELS:
                for what, scores in (("false alarms", on_normal), ("alarms", on_anomalies)):
                    record[f"{what} promised {level}"] = float((calibrator.p_value(scores) <= level).mean())
            record["calibration"] = calibrator.n
        record["fit cpu seconds"] = round(fitted - start[1], 3)
        record["cpu seconds"] = round(shared[1] + time.process_time() - before[1], 3)
        record["seconds"] = round(shared[0] + time.perf_counter() - before[0], 3)
        found[name] = record
    return found


def split(normal: np.ndarray, anomalous: np.ndarray, seed: int, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training rows, new normal rows and anomalies."""
    order, half = np.random.default_rng(seed).permutation(len(normal)), len(normal) // 2
    chosen = np.random.default_rng(seed + 1000).permutation(len(anomalous))[:rows]
    return normal[order[:half][:rows]], normal[order[half:][:rows]], anomalous[chosen]


def average_precision(normal: np.ndarray, anomalous: np.ndarray) -> float:
    """Area under the precision-recall curve, anomalies positive."""
    from sklearn.metrics import average_precision_score

    labels = np.repeat((0, 1), (len(normal), len(anomalous)))
    return float(average_precision_score(labels, np.nan_to_num(np.concatenate((normal, anomalous)), posinf=1e300)))


def results(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append(path: Path, record: dict) -> None:
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
    print(record, flush=True)


def print_alarms(records: list[dict]) -> None:
    """Print the mean realized rate and how many splits lie in the central 95% of the theoretical distribution."""
    sets = list(dict.fromkeys(r["set"] for r in records))
    print(
        "\n| set | calibration | new | "
        + " | ".join(f"marginal {a:.0%} | in central 95% | PAC {a:.0%} exceeded" for a in LEVELS)
        + " |"
    )
    print("| --- |" + " ---: |" * (2 + 3 * len(LEVELS)))
    total: dict[str, list[int]] = {}
    small = {r["set"] for r in records if r["new"] < _SMALL}
    groups = {name: {name} for name in sets if name not in small}
    groups |= {f"{len(small)} sets with fewer than 1,000 normal rows": small} if small else {}
    for name, members in groups.items():
        rows = [r for r in records if r["set"] in members]
        cells = [name, *(_range([r[what] for r in rows]) for what in ("calibration", "new"))]
        for alpha in LEVELS:
            rates = [r[f"marginal@{alpha}"] for r in rows if f"marginal@{alpha}" in r]
            inside = [
                low <= r[f"marginal@{alpha}"] <= high
                for r in rows
                if f"marginal@{alpha}" in r
                for low, high in [realized_interval(r["calibration"], r["new"], alpha)]
            ]
            over = [pac_exceeded(r, alpha) for r in rows if f"pac@{alpha}" in r]
            total.setdefault(f"in {alpha}", []).extend(map(int, inside))
            total.setdefault(f"over {alpha}", []).extend(map(int, over))
            cells += [
                f"{np.mean(rates):.2%}" if rates else "-",
                f"{sum(inside)}/{len(inside)}",
                f"{sum(over)}/{len(over)}",
            ]
        print("| " + " | ".join(cells) + " |")
    for key, values in total.items():
        print(f"{key}: {sum(values)} of {len(values)} ({np.mean(values):.1%})")


def _range(values: list[int]) -> str:
    return f"{min(values)}" if min(values) == max(values) else f"{min(values)} to {max(values)}"


def pac_exceeded(record: dict, alpha: float) -> bool:
    """Whether the realized rate on new rows is above alpha (the promise is on the true rate, of which this is a sample)."""
    return record[f"pac@{alpha}"] > alpha


def print_detection(records: list[dict], detectors: list[str]) -> None:
    """AUROC by set (mean over seeds), then means, mean rank, wins and Wilcoxon's test against each other detector."""
    from scipy.stats import wilcoxon

    names = [d for d in detectors if any(r["detector"] == d for r in records)]
    sets = sorted({r["set"] for r in records}, key=str.lower)
    seeds = {s: set.intersection(*({r["seed"] for r in records if (r["set"], r["detector"]) == (s, d)} for d in names))
             for s in sets}  # fmt: skip
    sets = [s for s in sets if seeds[s]]

    def means(what: str) -> dict[str, np.ndarray]:
        kept = [r for r in records if r["seed"] in seeds.get(r["set"], ())]
        value = {(s, d): [r[what] for r in kept if (r["set"], r["detector"]) == (s, d)] for s in sets for d in names}
        return {d: np.array([100 * np.mean(value[s, d]) for s in sets]) for d in names}

    area, precision, caught = means("auroc"), means("aupr"), means(f"caught at {LEVELS[1]}")
    print(f"\n| set | seeds | {' | '.join(names)} |\n| --- | ---: |" + " ---: |" * len(names))
    for i, name in enumerate(sets):
        print(f"| {name} | {len(seeds[name])} | {' | '.join(f'{area[d][i]:.1f}' for d in names)} |")
    large = np.array([any(r["set"] == s and r["normal"] >= 1000 for r in records) for s in sets])
    every = np.ones(len(sets), dtype=bool)
    rows = [("mean AUROC", area, every), ("mean AUROC, at least 1,000 normal rows", area, large)]
    if {"guard", "knn5"} <= set(names):
        best = int(np.argmax(area["guard"] - area["knn5"]))
        rows.append(("mean AUROC without the guard's best set", area, np.arange(len(sets)) != best))
    rows += [("mean AUPR", precision, every), (f"mean caught at {LEVELS[1]:.0%} false alarms", caught, every)]
    for label, table, mask in rows:
        print(f"| **{label}** | | {' | '.join(f'{table[d][mask].mean():.2f}' for d in names)} |")
    ranks = mean_rank({d: list(v) for d, v in area.items()})
    print(f"| **mean rank** | | {' | '.join(f'{ranks[d]:.2f}' for d in names)} |")
    print()
    for d in names:
        if d != "guard" and "guard" in names:
            gain = np.round(area["guard"] - area[d], 9)  # equal areas may differ by rounding
            p = wilcoxon(gain).pvalue if np.any(gain != 0) else 1.0
            print(f"- guard against {d}: {gain.mean():+.2f} ({gain[large].mean():+.2f}), {(gain > 0).sum()} wins, "
                  f"{(gain < 0).sum()} losses, Wilcoxon p = {p:.2g}")  # fmt: skip
    mine = [r for r in records if r["detector"] == "guard"]
    for level in LEVELS:
        enough = [r for r in mine if r.get("calibration", 0) >= 1 / level - 1]
        if enough:
            false, found = (np.mean([r[f"{w} promised {level}"] for r in enough]) for w in ("false alarms", "alarms"))
            print(f"- promised {level:.0%}: false alarms {false:.2%}, anomalies found {found:.1%} ({len(enough)} runs)")
    if {"guard", "knn5"} <= set(names):
        print_differences(records, sets, large)


def print_differences(records: list[dict], sets: list[str], large: np.ndarray) -> None:
    """The guard minus kNN (5) by seed, and the larger sets on which the guard is significantly behind."""
    from scipy.stats import ttest_1samp

    area = {(r["set"], r["seed"], r["detector"]): 100 * r["auroc"] for r in records}
    seeds = sorted({seed for _, seed, _ in area})
    gain = np.array(
        [[area.get((s, k, "guard"), np.nan) - area.get((s, k, "knn5"), np.nan) for k in seeds] for s in sets]
    )
    if len(seeds) < 2 or np.isnan(gain).any():
        return
    on_all, on_large = (", ".join(f"{mean:+.2f}" for mean in rows.mean(0)) for rows in (gain, gain[large]))
    print(
        f"- the mean difference to knn5 in each of the {len(seeds)} seeds: {on_all} on all sets; {on_large} on those with 1,000 normal rows"
    )
    behind = {
        s: -row.mean() for s, row in zip(np.array(sets)[large], gain[large], strict=True)
        if row.mean() < 0 and np.ptp(row) and ttest_1samp(row, 0).pvalue < 0.05
    }  # fmt: skip
    worst = ", ".join(f"{s} by {behind[s]:.2f}" for s in sorted(behind, key=behind.__getitem__, reverse=True))
    print(
        "- of the sets with 1,000 normal rows the guard is significantly behind knn5 (paired t-test over the seeds, p < 0.05) on "
        f"{worst or 'none'} points"
    )


def print_ensemble(records: list[dict]) -> None:
    """The first form of the benchmark: one line for each set and seed, with the AUROC of the ensemble of flows and of three detectors."""
    names = ("guard", "knn", "lof", "iforest")
    sets = sorted({r["set"] for r in records})
    own = {s: [r for r in records if r["set"] == s] for s in sets}
    area = {d: np.array([100 * np.mean([r[d] for r in own[s]]) for s in sets]) for d in names}
    print(f"\n| set | columns | seeds | {' | '.join(names)} |\n| --- |" + " ---: |" * (2 + len(names)))
    for i, s in enumerate(sets):
        print(f"| {s} | {own[s][0]['columns']} | {len(own[s])} | {' | '.join(f'{area[d][i]:.1f}' for d in names)} |")
    best = int(np.argmax(area["guard"] - area["knn"]))
    print(f"| **mean** | | | {' | '.join(f'{area[d].mean():.2f}' for d in names)} |")
    print(f"| mean without {sets[best]} | | | {' | '.join(f'{np.delete(area[d], best).mean():.2f}' for d in names)} |")
    ranks = mean_rank({d: list(v) for d, v in area.items()})
    print(f"| **mean rank** | | | {' | '.join(f'{ranks[d]:.2f}' for d in names)} |\n")
    for d in names[1:]:
        won = ((area["guard"] > area[d]) + 0.5 * (area["guard"] == area[d])).sum()
        print(f"- against {d}: {won:g} wins, {len(sets) - won:g} losses")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sub = parser.add_subparsers(dest="what", required=True)
    for what in ("alarms", "detection"):
        run = sub.add_parser(what)
        run.add_argument("--data", type=Path, default=Path(os.environ.get("PUSHFORWARD_DATA", "data")))
        run.add_argument("--out", type=Path, required=True)
        run.add_argument("--repeats", type=int, default=20 if what == "alarms" else 5)
        run.add_argument("--rows", type=int, default=4000 if what == "alarms" else 3000)
        run.add_argument("--detectors", nargs="+", choices=DETECTORS, default=list(DETECTORS))
    shown = sub.add_parser("tables")
    shown.add_argument("files", nargs="+", type=Path)
    shown.add_argument("--detectors", nargs="+", choices=DETECTORS, default=list(DETECTORS))
    options = parser.parse_args()
    if options.what == "tables":
        for file in options.files:
            records = results(file)
            if "split" in records[0]:
                print_alarms(records)
            elif "detector" in records[0]:
                print_detection(records, options.detectors)
            else:
                print_ensemble(records)
    elif options.what == "alarms":
        alarms(options.data, options.out, options.repeats, options.rows)
    else:
        detection(options.data, options.out, options.repeats, options.rows, options.detectors)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
