"""Table of out-of-distribution scores on several in-distribution sets and other sets, in both directions.

    python -m benchmarks.quality.ood --data DATA                    # runs missing cases
    python -m benchmarks.quality.ood --data DATA --table            # only prints the tables
    python -m benchmarks.quality.ood --data DATA --picture card.png # also draws the heat maps

For each in-distribution set and seed one :class:`pushforward.Guard` is fitted with default options on the training
images without 3,000 of them. The other scores are fitted on 2,000 of those and calibrated on 1,000; they use the guard's own flow.
Test images of the set and of other sets (at most ``--rows`` of each) take one code path. No other image is used before, so no
option can depend on one.

``--others made`` uses outliers made from the calibration images instead of other sets. The default options were chosen on
them, because they can be made from any in-distribution images.

``--others turned`` uses the test images themselves, turned or mirrored. The network of the guard learns quarter turns and mirror
images, so these are no new kinds for it; 30 and 45 degrees are.

``--redraws 20`` draws calibration sets from the guard's calibration scores instead, and counts how often the realized
false-alarm rate on all test images lies in the central 95 % of the beta-binomial distribution that theory gives.

``--curve 500 1500 3000 6000`` fits guards whose flow trains for these numbers of steps, on all training images, and measures
them and their flow's -log p against the CPU time of the fit.

``--costs`` and ``--attacks`` run two other benchmarks: the cost of every score, and attacks on the guard.

AUROC has a 95 % interval over redrawn test images (bootstrap; it does not include the spread over training runs, which several
seeds show). ``--scores guard "-log p"`` measures only these scores. "caught" is the fraction of other images with a conformal p-value of
at most 1 % and 5 %, and "alarms" is that fraction of new in-distribution images. Milliseconds per image are CPU time of one thread.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import pushforward as pf
from benchmarks.common.datasets import load_images
from benchmarks.common.results import Record, Results, footer, markdown, spread
from benchmarks.quality.data import add_data_option
from benchmarks.quality.made_images import made_images
from pushforward.detection import ConformalCalibrator, auroc, bootstrap_interval, realized_interval
from pushforward.detection.scores import (
    Brightness,
    CodeLength,
    DoSE,
    InputComplexity,
    LatentDependence,
    LatentMahalanobis,
    LatentNeighbors,
    LatentNorm,
    Likelihood,
    LikelihoodPath,
    Neighbors,
    Score,
    SurpriseSum,
    TransformationScore,
    TwoSided,
    Typicality,
    Variance,
)
from pushforward.models import Model
from pushforward.plot import heat_map
from pushforward.plot.axes import new_figure

GRAY = ("mnist", "fashion-mnist", "notmnist", "emnist-letters", "usps", "pneumonia")
OTHERS = {"fashion-mnist": GRAY, "mnist": GRAY, "cifar10": ("gtsrb", "cifar100")}
MADE = ("constant", "noise", "inverted", "upside down")
SCORES: dict[str, Callable[[Model], Score]] = {
    "-log p": Likelihood,
    "typicality": lambda flow: Typicality(flow, "two-sided"),
    "complexity (fitted)": lambda flow: InputComplexity(flow, form="fitted", two_sided=True),
    "complexity (-l - L)": InputComplexity,
    "latent norm": LatentNorm,
    "latent Mahalanobis": LatentMahalanobis,
    "latent dependence": LatentDependence,
    "latent kNN": LatentNeighbors,
    "DoSE (path)": lambda flow: DoSE(LikelihoodPath(flow), density="gmm", components=16),
    "kNN": lambda flow: Neighbors(),
    "code length": lambda flow: TwoSided(CodeLength("png")),
    "brightness": lambda flow: Brightness(),
    "variance": lambda flow: Variance(),
}
TRANSFORMATIONS = "transformations"
ABLATION = ("without path", "without code lengths", "without distances", "without transformations")
LEVELS = (0.01, 0.05)
OTHER = {"--costs": "benchmarks.quality.score_costs", "--attacks": "benchmarks.quality.attacks"}


def images_of(name: str, like: Tensor, rows: int, folder: Path | None) -> Tensor:
    """At most ``rows`` images of a set, or synthetic ones; ``like`` is the in-distribution test set."""
    generator = torch.Generator().manual_seed(1)
    shape = tuple(like.shape[1:])
    match name:
        case "constant":
            return torch.randint(256, (rows, shape[0], 1, 1), generator=generator).expand(rows, *shape).to(torch.uint8)
        case "noise":
            return torch.randint(256, (rows, *shape), generator=generator).to(torch.uint8)
        case "inverted":
            return 255 - like[:rows]
        case "upside down":
            return like[:rows].flip(2)
    images = load_images(name, train=False, folder=folder)
    return images[torch.randperm(len(images), generator=generator)[:rows]]


def turned_images(x: Tensor) -> dict[str, Tensor]:
    """Images turned by some angles (bilinear, black outside), mirrored, and upside down."""

    def turned(degrees: float) -> Tensor:
        angle = torch.tensor(degrees).deg2rad()
        rows = torch.stack((angle.cos(), -angle.sin(), torch.zeros(()), angle.sin(), angle.cos(), torch.zeros(())))
        grid = F.affine_grid(rows.reshape(1, 2, 3).expand(len(x), 2, 3), list(x.shape), align_corners=False)
        return F.grid_sample(x.float(), grid, align_corners=False).round().clamp(0, 255).to(torch.uint8)

    return {
        "turned by 30": turned(30.0), "turned by 45": turned(45.0), "turned by 90": x.rot90(1, (2, 3)),
        "turned by 180": x.rot90(2, (2, 3)), "left and right mirrored": x.flip(3), "upside down": x.flip(2),
    }  # fmt: skip


def training_images(name: str, seed: int, options: argparse.Namespace) -> Tensor:
    """At most ``--train`` training images of a set, in an order that the seed determines."""
    train = load_images(name, train=True, folder=options.data)
    return train[torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[: options.train]]


def guard_of(images: Tensor, seed: int, steps: int | None) -> tuple[pf.Guard, float]:
    """A guard with default options except the steps, and the CPU seconds of the fit."""
    guard = pf.Guard(0.05, random_state=seed, max_steps=steps)
    start = time.process_time()
    guard.fit(images.numpy())
    return guard, time.process_time() - start


def fitted(name: str, seed: int, options: argparse.Namespace) -> tuple[pf.Guard, Tensor, Tensor, Tensor]:
    """The guard, reference and calibration images of the other scores, and the test images."""
    train = training_images(name, seed, options)
    aside, rest = train[:3000], train[3000:]
    steps = "" if options.max_steps is None else f"-{options.max_steps}-steps"
    path = options.out.parent / f"ood-guard-{name}-{seed}-{len(rest)}{steps}.safetensors"
    if path.exists():
        guard = pf.Guard.load(path)
    else:
        guard, seconds = guard_of(rest, seed, options.max_steps)
        print(f"# guard on {name}, seed {seed}: {seconds:.0f} s of CPU time", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        guard.save(path)
    return guard, aside[:2000], aside[2000:], load_images(name, train=False, folder=options.data)


def flow_of(guard: pf.Guard) -> Model:
    """The flow of a guard of images."""
    return next(part.model for part in guard.score_.inner.modules() if isinstance(part, LikelihoodPath))


def network_of(guard: pf.Guard) -> TransformationScore:
    """The score of the network of transformations of a guard of images."""
    return next(part for part in guard.score_.inner.modules() if isinstance(part, TransformationScore))


def without(guard: pf.Guard, part: str, reference: Tensor) -> Score:
    """The guard's score without some statistics, fitted again on the reference."""
    total, images = guard.score_.inner, guard.score_.prepare(reference)
    assert isinstance(total, SurpriseSum)
    dose, network = total.scores
    assert isinstance(dose, DoSE)
    path, *codes = dose.statistics
    codes, distances = codes[:2], codes[2:]
    kept = {"without path": (*codes, *distances), "without code lengths": (path, *distances), "without distances": (path, *codes)}  # fmt: skip
    rest = DoSE(*kept.get(part, (path, *codes, *distances)), density="gmm", components=16, refit=False).fit(images)
    if part == "without transformations":
        return rest
    return SurpriseSum(rest, network, weights=total.weights).fit(images)  # pyright: ignore[reportArgumentType]


def run(options: argparse.Namespace, results: Results) -> None:
    for name in options.sets:
        for seed in range(options.seeds):
            sets = [*(other for other in OTHERS[name] if other != name), *MADE]
            names = [name for name in ("guard", TRANSFORMATIONS, *SCORES, *ABLATION) if name in options.scores]
            key = {"train": name, "seed": seed, "kind": options.others}
            missing = [score for score in names if not results.where(score=score, **key)]
            if not missing:
                continue
            guard, reference, calibration, test = fitted(name, seed, options)
            flow = flow_of(guard)
            test = test[: options.rows]
            if options.others == "made":
                others = made_images(calibration)
            elif options.others == "turned":
                others = turned_images(test)
            else:
                others = {other: images_of(other, test, options.rows, options.data) for other in sets}
            for label in missing:
                if label == "guard":
                    measure, score = guard.calibrator_, guard.score_
                else:
                    if label in ABLATION:
                        score = without(guard, label, reference)
                    elif label == TRANSFORMATIONS:
                        score = network_of(guard)
                    else:
                        score = SCORES[label](flow).fit(reference)
                    measure = ConformalCalibrator(score(calibration).numpy())
                start = time.process_time()
                fine = score(test).numpy()
                cost = (time.process_time() - start) / len(test) * 1000
                alarms = {f"alarms {level:.0%}": float((measure.p_value(fine) <= level).mean()) for level in LEVELS}
                for other, images in others.items():
                    odd = score(images).numpy()
                    low, high = bootstrap_interval(auroc, fine, odd, n_resamples=500)
                    caught = {f"caught {level:.0%}": float((measure.p_value(odd) <= level).mean()) for level in LEVELS}
                    results.add(
                        {**key, "other": other, "score": label, "auroc": auroc(fine, odd), "low": low, "high": high,
                         **caught, **alarms, "ms": cost}
                    )  # fmt: skip


def curve(options: argparse.Namespace, results: Results) -> None:
    """Measure guards whose flows train for each number of steps, on each set."""
    for name in options.sets:
        for steps in options.curve:
            key = {"train": name, "seed": 0, "kind": "curve", "steps": steps}
            if results.where(**key):
                continue
            guard, seconds = guard_of(training_images(name, 0, options), 0, steps)
            test = load_images(name, train=False, folder=options.data)[: options.rows]
            sets = [*(other for other in OTHERS[name] if other != name), *MADE]
            others = {other: images_of(other, test, options.rows, options.data) for other in sets}
            readings = []
            for label, score in {"guard": guard.score_, "-log p": Likelihood(flow_of(guard))}.items():
                fine = score(test).numpy()
                for other, images in others.items():
                    odd = score(images).numpy()
                    low, high = bootstrap_interval(auroc, fine, odd, n_resamples=500)
                    reading = {
                        **key,
                        "other": other,
                        "score": label,
                        "auroc": auroc(fine, odd),
                        "low": low,
                        "high": high,
                    }
                    if label == "guard":
                        reading |= {
                            f"{what} {level:.0%}": float((guard.calibrator_.p_value(values) <= level).mean())
                            for what, values in {"caught": odd, "alarms": fine}.items()
                            for level in LEVELS
                        }
                    else:
                        reading["nats"] = -float(fine.mean())
                    readings.append({**reading, "fit seconds": seconds})
            for reading in readings:  # all at once, so that a stopped run leaves no incomplete set
                results.add(reading)


def curve_table(results: Results) -> str:
    """AUROC against the steps and the CPU time of the fit."""
    parts = []
    for name in dict.fromkeys(record["train"] for record in results.where(kind="curve")):
        records = results.where(train=name, kind="curve")
        others = list(dict.fromkeys(record["other"] for record in records))
        rows = []
        for score in ("guard", "-log p"):
            for steps in sorted({record["steps"] for record in records}):
                found = {r["other"]: r for r in records if r["steps"] == steps and r["score"] == score}
                first = found[others[0]]
                areas = [
                    f"{100 * found[o]['auroc']:.1f} [{100 * found[o]['low']:.1f}, {100 * found[o]['high']:.1f}]"
                    for o in others
                ]
                alarms = [f"{100 * first[f'alarms {lv:.0%}']:.2f}" if score == "guard" else "" for lv in LEVELS]
                nats = f"{first['nats']:.0f}" if score == "-log p" else ""
                rows.append([score, f"{steps}", f"{first['fit seconds']:.0f}", nats, *areas, *alarms])
        parts += [short_curve(records), ""] if name == "cifar10" else []
        parts.append(f"AUROC in percent against training, {name}\n")
        head = ["score", "steps", "CPU s of the fit", "log p of test images, nats", *others]
        parts.append(markdown([*head, "false alarms at 1 %", "at 5 %"], rows))
    return "\n".join([*parts, footer("python -m benchmarks.quality.ood --curve", results.where(kind="curve"))])


def redraws(options: argparse.Namespace) -> str:
    """False alarms of the guard on unseen in-distribution images, over redrawn calibration sets."""
    rows = []
    for name in options.sets:
        guard, _, _, test = fitted(name, 0, options)
        pool, fine = guard.calibrator_.scores, guard.anomaly_score(test.numpy())
        for level in LEVELS:
            low, high = realized_interval(1000, len(fine), level)
            rates = []
            for draw in range(options.redraws):
                some = np.random.default_rng(draw).choice(pool, 1000, replace=False)
                rates.append(float((ConformalCalibrator(some).p_value(fine) <= level).mean()))
            inside = sum(low <= rate <= high for rate in rates)
            spread = f"{100 * np.mean(rates):.2f} ({100 * min(rates):.2f} to {100 * max(rates):.2f})"
            rows.append(
                [name, f"{level:.0%}", spread, f"{100 * low:.2f} to {100 * high:.2f}", f"{inside} of {len(rates)}"]
            )
    return markdown(
        ["set", "promised", "realized, percent (range)", "central 95 % of the distribution", "inside"], rows
    )


def tables(results: Results, kind: str) -> str:
    """For each in-distribution set a table of AUROC by score and other set, and a table of the guard."""
    parts = []
    for name in dict.fromkeys(record["train"] for record in results.where(kind=kind)):
        records = results.where(train=name, kind=kind)
        others = list(dict.fromkeys(record["other"] for record in records))
        scores = list(dict.fromkeys(record["score"] for record in records))
        seeds = sorted({record["seed"] for record in records})
        rows = []
        for score in scores:
            mine = results.where(train=name, score=score, kind=kind)
            means = []
            for other in others:
                areas = [r["auroc"] for r in mine if r["other"] == other]
                means.append(float(np.mean(areas)) if areas else np.nan)  # a set may be measured for some scores only
            means.append(float(np.mean(means)))
            areas = ["" if np.isnan(mean) else f"{100 * mean:.1f}" for mean in means]
            rows.append([score, *areas, f"{np.mean([r['ms'] for r in mine]):.2f}"])
        if kind == "made":
            parts += [
                markdown(
                    ["score", f"mean over {len(others)} kinds"], [[row[0], row[-2]] for row in rows], ["---", "---:"]
                ),
                "",
            ]
        parts.append(f"AUROC in percent, trained on {name}; {len(seeds)} seed(s)\n")
        parts.append(markdown(["score", *others, "mean", "ms"], rows))
        parts.append(f"\nThe guard trained on {name}, percent, over the seeds\n")
        parts.append(guard_table(results.where(train=name, score="guard", kind=kind)))
        rows = []
        for record in results.where(train=name, score="guard", kind=kind):
            interval = f"{100 * record['auroc']:.2f} [{100 * record['low']:.2f}, {100 * record['high']:.2f}]"
            caught = [f"{100 * record[f'caught {level:.0%}']:.1f}" for level in LEVELS]
            alarms = [f"{100 * record[f'alarms {level:.0%}']:.2f}" for level in LEVELS]
            rows.append([record["other"], str(record["seed"]), interval, *caught, *alarms])
        parts.append(f"\nThe guard trained on {name}, percent, by seed\n")
        parts.append(markdown(["other", "seed", "AUROC", "caught at 1 %", "at 5 %", "false alarms at 1 %", "at 5 %"], rows))  # fmt: skip
        parts.append("")
    return "\n".join([*parts, footer("python -m benchmarks.quality.ood", results.records)])


def guard_table(records: list[Record]) -> str:
    """AUROC, and the anomalies that raise an alarm, as mean and standard deviation over seeds; then the false alarms by seed."""
    rows = []
    for other in dict.fromkeys(record["other"] for record in records):
        own = [record for record in records if record["other"] == other]
        caught = [spread([100 * r[f"caught {level:.0%}"] for r in own], 1) for level in LEVELS]
        rows.append(
            [other, spread([100 * r["auroc"] for r in own], 2), f"{100 * min(r['low'] for r in own):.2f}", *caught]
        )
    seeds = len({record["seed"] for record in records})
    area = f"AUROC, mean ± sd of {seeds} seeds" if seeds > 1 else "AUROC"
    first = list({record["seed"]: record for record in records}.values())
    shares = [", ".join(f"{100 * r[f'alarms {level:.0%}']:.2f}" for r in first) for level in LEVELS]
    head = ["other", area, "lowest end of an interval", "detected at 1 %", "at 5 %"]
    return (
        f"{markdown(head, rows)}\n\nFalse alarms, percent, by seed: {shares[0]} at a promised 1 %; {shares[1]} at 5 %."
    )


def compared(before: Results, now: Results) -> str:
    """For each in-distribution set the guard of an earlier result file beside that of this one."""
    parts = []
    for name in dict.fromkeys(record["train"] for record in now.where(kind="sets")):
        rows = []
        records = {
            key: results.where(train=name, score="guard", kind="sets")
            for key, results in (("before", before), ("now", now))
        }
        for other in dict.fromkeys(record["other"] for record in records["now"]):
            cells = []
            for measure, digits in (("auroc", 2), *((f"caught {level:.0%}", 1) for level in LEVELS)):
                cells += [
                    spread([100 * r[measure] for r in part if r["other"] == other], digits) for part in records.values()
                ]
            rows.append([other, *cells])
        seeds = {key: len({record["seed"] for record in part}) for key, part in records.items()}
        parts.append(f"The guard trained on {name}: {seeds['before']} seed(s) before, {seeds['now']} now\n")
        head = ["other", "AUROC before", "now", "detected at 1 % before", "now", "at 5 % before", "now"]
        parts.append(markdown(head, rows))
        first = list({record["seed"]: record for record in records["now"]}.values())
        shares = [", ".join(f"{100 * r[f'alarms {level:.0%}']:.2f}" for r in first) for level in LEVELS]
        parts.append(f"\nFalse alarms now, percent, by seed: {shares[0]} at a promised 1 %; {shares[1]} at 5 %.\n")
    return "\n".join(parts)


def short_curve(records: list[Record]) -> str:
    """AUROC of the guard, then of -log p on the first three sets, against the steps."""
    others = list(dict.fromkeys(record["other"] for record in records))
    rows = []
    for steps in sorted({record["steps"] for record in records}):
        found = {(r["score"], r["other"]): r for r in records if r["steps"] == steps}
        first = found["-log p", others[0]]
        bits = -first["nats"] / (3 * 32 * 32) / np.log(2)
        areas = [f"{100 * found['guard', o]['auroc']:.1f}" for o in others]
        likely = [f"{100 * found['-log p', o]['auroc']:.1f}" for o in others[:3]]
        rows.append([f"{steps:,}", f"{first['fit seconds']:.0f}", f"{bits:.2f}", *areas, *likely])
    head = ["steps", "CPU s", "bits/dim of the guard's flow", *others, f"-log p: {others[0]}", *others[1:3]]
    return markdown(head, rows, ["---:"] * len(head))


def picture(results: Results, kind: str, path: Path) -> None:
    """Draw heat maps of AUROC, one for each in-distribution set."""
    sets = list(dict.fromkeys(record["train"] for record in results.where(kind=kind)))
    figure = new_figure((1.5 + 5.2 * len(sets), 6.5))
    for axes, name in zip(figure.subplots(1, len(sets), squeeze=False)[0], sets, strict=True):
        records = results.where(train=name, kind=kind)
        others = list(dict.fromkeys(record["other"] for record in records))
        scores = list(dict.fromkeys(record["score"] for record in records))
        found = {(r["score"], r["other"]): [] for r in records}
        for r in records:
            found[r["score"], r["other"]].append(r["auroc"])
        values = np.array([[np.mean(found[score, other]) for other in others] for score in scores])
        heat_map(100 * values, scores, others, ax=axes, name="AUROC, percent", form=".0f", limits=(0, 100))
        axes.set_xticks(range(len(others)), others, rotation=40, ha="right")
        axes.set_title(f"trained on {name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for flag, module in OTHER.items():
        if flag in arguments:  # another benchmark with its own options
            importlib.import_module(module).main([word for word in arguments if word != flag])
            return
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality.ood", description="Table of out-of-distribution scores."
    )
    add_data_option(parser)
    parser.add_argument("--sets", nargs="+", default=["fashion-mnist", "mnist"], choices=list(OTHERS))
    parser.add_argument(
        "--others",
        choices=("sets", "made", "turned"),
        default="sets",
        help="other sets, outliers made from in-distribution images, or turned test images",
    )
    parser.add_argument("--seeds", type=int, default=1)
    names = ["guard", TRANSFORMATIONS, *SCORES, *ABLATION]
    parser.add_argument("--scores", nargs="+", default=names, choices=names, metavar="SCORE", help="; ".join(names))
    parser.add_argument(
        "--curve", nargs="+", type=int, default=[], metavar="STEPS", help="training steps of the guard's flow"
    )
    parser.add_argument("--rows", type=int, default=2000, help="most images of each test set")
    parser.add_argument("--train", type=int, default=60_000, help="most training images")
    parser.add_argument(
        "--max-steps", type=int, default=None, help="training steps of the guard's flow; by default the guard's own"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/quality-ood.jsonl"))
    parser.add_argument(
        "--redraws", type=int, default=0, help="number of calibration sets of 1,000; measures only false alarms"
    )
    parser.add_argument("--picture", type=Path, help="file for the heat maps")
    parser.add_argument(
        "--before", type=Path, help="an earlier result file: print its guard beside that of --out, and run nothing"
    )
    parser.add_argument("--table", action="store_true", help="print the tables of existing results and run nothing")
    for flag, module in OTHER.items():
        parser.add_argument(flag, action="store_true", help=f"as python -m {module}, which has its own --help")
    options: Any = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    results = Results(options.out)
    if options.before:
        print(compared(Results(options.before), results))
        return
    if options.redraws:
        print(redraws(options))
        return
    if options.curve:
        if not options.table:
            curve(options, results)
        print(curve_table(results))
        return
    if not options.table:
        run(options, results)
    print(tables(results, options.others))
    if options.picture:
        picture(results, options.others, options.picture)


if __name__ == "__main__":
    main()
