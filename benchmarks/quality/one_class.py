"""Pixels of one class of images, and embeddings of networks, as tables: the guard beside other detectors.

    python -m benchmarks.quality.one_class run --out one-class.jsonl [--repeats 3] [--tasks "mnist 1" ...]
    python -m benchmarks.quality.one_class embed --cache embeddings.npz [--fortunes FOLDER]
    python -m benchmarks.quality.one_class run --cache embeddings.npz --out one-class.jsonl
    python -m benchmarks.quality.one_class show one-class.jsonl

Images: one class is normal and the other nine are anomalies, for the classes 1, 4 and 7 of each of MNIST, Fashion-MNIST, USPS
and CIFAR-10 (12 tasks; this list was fixed before a figure was seen). A column is the gray value of a pixel: 784 columns, of USPS
256, of CIFAR-10 1,024. At most 1,000 images of the class in the set's training part train; at most 500 of the class and
500 others, of its test part, are scored.

Embeddings: the features of ``benchmarks.quality.embeddings``, whose help says which packages it needs. A task is one set of
other photographs, or one other topic of sayings. Half of the normal rows, shuffled, train, at most 1,000; of the
other half, and of the others, at most 500 are scored.

Each seed chooses rows anew. Every detector is one of ``benchmarks.quality.table_detectors`` with its usual settings, so the images
played no part in them. One JSON line is appended for each detector, task and seed, and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.datasets import load_images, load_labels, where
from benchmarks.quality.adbench import LEVELS, append, measure_each, results
from benchmarks.quality.table_detectors import DETECTORS

IMAGES = tuple(f"{name} {k}" for name in ("mnist", "fashion-mnist", "usps", "cifar10") for k in (1, 4, 7))
REFERENCES = ("knn5", "knn1", "lof", "iforest", "ocsvm", "gmm5", "ecod", "dte-np")
_TRAIN, _SCORED = 1000, 500
_LUMA = np.array([0.299, 0.587, 0.114])  # gray value of a color, ITU-R BT.601
_MARGIN = 6  # pixels around the images of USPS, which the loader adds

Rows = tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]
"""Training rows, new normal rows, and the anomalies of each task."""


def pixels(name: str, images: np.ndarray) -> np.ndarray:
    """Gray values from 0 to 255 of images ``(n, channels, height, width)``, ``(n, columns)``."""
    images = images.astype(np.float64)
    if name == "usps":
        images = images[:, :, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    gray = images[:, 0] if images.shape[1] == 1 else np.einsum("nchw,c->nhw", images, _LUMA)
    return gray.reshape(len(gray), -1)


def images_of(name: str, train: bool) -> np.ndarray:
    """The images of one part of a set."""
    return load_images(name, train=train).numpy()


def labels(name: str, train: bool) -> np.ndarray:
    """Class of each image, ``(n,)``."""
    root = where(None) or Path()
    if name == "usps":
        with np.load(root / "usps" / "usps.npz", allow_pickle=False) as archive:
            return archive["train_labels" if train else "test_labels"]
    if name == "cifar10":
        from pyarrow import parquet

        file = root / "cifar10" / ("train_10000.parquet" if train else "test.parquet")
        return parquet.read_table(file, columns=["label"])["label"].to_numpy()
    return load_labels(name, train=train).numpy()


def image_tasks(seed: int, wanted: list[str]) -> Iterator[Rows]:
    """The rows of each task of images."""
    for name in dict.fromkeys(task.rsplit(" ", 1)[0] for task in IMAGES):
        tasks = [task for task in IMAGES if task.rsplit(" ", 1)[0] == name and task in wanted]
        if not tasks:
            continue
        x, y, new, of_new = images_of(name, True), labels(name, True), images_of(name, False), labels(name, False)
        for task in tasks:
            k, generator = int(task.rsplit(" ", 1)[1]), np.random.default_rng(seed)
            parts = (np.flatnonzero(y == k), np.flatnonzero(of_new == k), np.flatnonzero(of_new != k))
            chosen = [
                generator.permutation(p)[:most] for p, most in zip(parts, (_TRAIN, _SCORED, _SCORED), strict=True)
            ]
            train, test, anomalies = (pixels(name, p[i]) for p, i in zip((x, new, new), chosen, strict=True))
            yield train, test, {task: anomalies}


def embedding_tasks(cache: Path, seed: int) -> Iterator[Rows]:
    """The rows of the tasks of each network, which share their normal rows."""
    with np.load(cache, allow_pickle=False) as archive:
        for what in dict.fromkeys(key.split("/")[0] for key in archive.files):
            normal = archive[f"{what}/normal"].astype(np.float64)
            order, half = np.random.default_rng(seed).permutation(len(normal)), len(normal) // 2
            others = {
                f"{what}: {key.split('/')[1]}": archive[key][:_SCORED].astype(np.float64)
                for key in archive.files
                if key.startswith(f"{what}/") and key != f"{what}/normal"
            }
            yield normal[order[:half][:_TRAIN]], normal[order[half:][:_SCORED]], others


def embed(cache: Path, size: int, count: int, fortunes: Path | None) -> None:
    """Write the features of photographs and of sayings."""
    from benchmarks.quality import embeddings

    if fortunes is not None:
        embeddings.FORTUNES = fortunes
    found: dict[str, np.ndarray] = {}
    for what in ("photographs", "texts"):
        embedder, normal, others = embeddings.photographs(size, count) if what == "photographs" else embeddings.texts()
        for name, data in {"normal": normal, **others}.items():
            found[f"{what}/{name}"] = np.asarray(embedder(data), dtype=np.float32)
            print(f"{what}, {name}: {found[f'{what}/{name}'].shape}", flush=True)
    np.savez(cache, **found)  # pyright: ignore[reportArgumentType]


def run(out: Path, seeds: int, detectors: list[str], wanted: list[str], cache: Path | None) -> None:
    """One line for each detector, task and seed; a seed of all tasks before the next one."""
    done = {(r["task"], r["seed"], r["detector"]) for r in results(out)}
    for seed in range(seeds):
        left = [t for t in wanted if any((t, seed, d) not in done for d in detectors)]
        for train, test, anomalies in image_tasks(seed, left) if cache is None else embedding_tasks(cache, seed):
            for detector in detectors:
                new = {task: rows for task, rows in anomalies.items() if (task, seed, detector) not in done}
                if not new:
                    continue
                for task, record in measure_each(detector, train, test, new, seed).items():
                    key: dict[str, Any] = {"task": task, "seed": seed, "detector": detector}
                    append(out, key | record | {"load": round(os.getloadavg()[0], 1)})


def show(records: list[dict[str, Any]]) -> None:
    """Print a table of pixels and one of embeddings: AUROC by task, and means."""
    for title, chosen in (
        ("images", [r for r in records if r["task"] in IMAGES]),
        ("embeddings", [r for r in records if r["task"] not in IMAGES]),
    ):
        if chosen:
            print_tasks(title, chosen)


def print_tasks(title: str, records: list[dict[str, Any]]) -> None:
    """The AUROC of each task as mean ± standard deviation over the seeds, means of all figures, mean rank, and wins."""
    from scipy.stats import wilcoxon

    from pushforward.detection import mean_rank

    names = [d for d in ("guard", *REFERENCES) if any(r["detector"] == d for r in records)]
    tasks = list(dict.fromkeys(r["task"] for r in records))
    seeds = {
        t: set.intersection(*({r["seed"] for r in records if (r["task"], r["detector"]) == (t, d)} for d in names))
        for t in tasks
    }
    tasks = [t for t in tasks if seeds[t]]

    def values(task: str, detector: str, what: str) -> np.ndarray:
        same = [r for r in records if (r["task"], r["detector"]) == (task, detector) and r["seed"] in seeds[task]]
        return np.array([r[what] for r in same], dtype=float)

    def mean(detector: str, what: str) -> float:
        return float(np.mean([values(t, detector, what).mean() for t in tasks]))

    print(f"\n| {title} | columns | train | seeds | {' | '.join(names)} |")
    print("| --- |" + " ---: |" * (3 + len(names)))
    for task in tasks:
        first = next(r for r in records if r["task"] == task)
        cells = []
        for d in names:
            area = 100 * values(task, d, "auroc")
            cells.append(f"{area.mean():.1f}" + (f" ± {area.std(ddof=1):.1f}" if len(area) > 1 else ""))
        print(f"| {task} | {first['columns']} | {first['train']:,} | {len(seeds[task])} | {' | '.join(cells)} |")
    rows = [("mean AUROC", "auroc"), ("mean AUPR", "aupr")]
    rows += [(f"mean caught at {level:.0%} false alarms", f"caught at {level}") for level in LEVELS]
    for label, what in rows:
        print(f"| **{label}** | | | | {' | '.join(f'{100 * mean(d, what):.2f}' for d in names)} |")
    seconds = [f"{mean(d, 'cpu seconds'):.1f}" for d in names]
    print(f"| **CPU seconds of a task** | | | | {' | '.join(seconds)} |")
    area = {d: [float(values(t, d, "auroc").mean()) for t in tasks] for d in names}
    ranks = mean_rank(area)
    print(f"| **mean rank** | | | | {' | '.join(f'{ranks[d]:.2f}' for d in names)} |\n")
    for d in names:
        if d != "guard" and "guard" in names:
            gain = 100 * (np.array(area["guard"]) - np.array(area[d]))
            p = wilcoxon(gain).pvalue if np.any(gain != 0) and len(gain) > 1 else 1.0
            print(
                f"- guard against {d}: {gain.mean():+.2f}, {(gain > 0).sum()} wins, {(gain < 0).sum()} losses, Wilcoxon p = {p:.2g}"
            )
    mine = [r for r in records if r["detector"] == "guard" and r["seed"] in seeds.get(r["task"], ())]
    for level in LEVELS:
        enough = [r for r in mine if r.get("calibration", 0) >= 1 / level - 1]
        if enough:
            # The tasks of one set of embeddings share their normal rows, which count once.
            rates = {(r["task"].split(":")[0], r["seed"]): r[f"false alarms promised {level}"] for r in enough}
            found = np.mean([r[f"alarms promised {level}"] for r in enough])
            each = np.array(list(rates.values()))
            spread = f" ± {each.std(ddof=1):.2%} between guards" if len(each) > 1 else ""
            print(
                f"- promised {level:.0%}: false alarms {each.mean():.2%}{spread} ({len(each)} guards), anomalies found {found:.1%}"
            )


def main() -> None:
    """Run, embed or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(dest="what", required=True)
    made = sub.add_parser("run")
    made.add_argument("--out", type=Path, required=True)
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--detectors", nargs="+", choices=DETECTORS, default=["guard", *REFERENCES])
    made.add_argument("--tasks", nargs="+", choices=IMAGES, default=list(IMAGES))
    made.add_argument("--cache", type=Path, help="features that `embed` wrote, in place of images")
    features = sub.add_parser("embed")
    features.add_argument("--cache", type=Path, required=True)
    features.add_argument("--size", type=int, default=128)
    features.add_argument("--count", type=int, default=3000)
    features.add_argument("--fortunes", type=Path, help="folder of Debian's fortunes")
    sub.add_parser("show").add_argument("file", type=Path)
    options = parser.parse_args()
    if options.what == "run":
        run(options.out, options.repeats, options.detectors, options.tasks, options.cache)
    elif options.what == "embed":
        embed(options.cache, options.size, options.count, options.fortunes)
    else:
        show(results(options.file))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
