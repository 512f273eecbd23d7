"""A unified survey on anomaly, novelty, open-set and out-of-distribution detection (Salehi et al. 2021): what the protocol decides.

The survey has no table of its own. This reproduction tests the warnings that follow from it: a figure depends on how rows are
split, on which class of a metric is called positive, and on the number of rows; and it ranks flows among detectors on tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common.datasets import where
from papers.experiment import PAPER_TRAINING, Experiment, spread
from papers.reproduction import reproduction
from pushforward.detection import (
    ConformalCalibrator,
    auroc,
    average_precision,
    fpr_at_tpr,
    miss_rate_at_acceptance,
)
from pushforward.detection.scores import DoSE, Likelihood, LikelihoodPath, Neighbors, Score
from pushforward.distributions import Normal
from pushforward.errors import StorageError
from pushforward.models import NICE, Flow, Glow, Model
from pushforward.report.text import plural
from pushforward.training import fit
from pushforward.transforms import Chain, Planar, Standardize

__all__ = ["run"]

Array = NDArray[np.float64]
SETS = ("4_breastw", "15_Hepatitis", "18_Ionosphere", "20_letter", "29_Pima", "37_Stamps", "38_thyroid", "39_vertebral", "40_vowels",
        "42_WBC", "43_WDBC", "45_wine", "46_WPBC", "47_yeast")  # fmt: skip
"""Tables of ADBench of at most 3,772 rows; ten of them have fewer than 1,000."""


@reproduction(
    "survey",
    "A Unified Survey on Anomaly, Novelty, Open-Set, and Out-of-Distribution Detection (Salehi, Mirzaei, Hendrycks, Li, Rohban, "
    "Sabokrou 2021, arXiv 2110.14051)",
    data=("adbench", "fashion-mnist", "mnist"),
    full="about three hours on two cores (estimate)",
)
def run(experiment: Experiment) -> None:
    """Test splits, shapes and inversions on tables, and metrics and subsets on images."""
    tables = dict(_tables(experiment))
    _leakage(experiment, tables, _ranks(experiment, tables))
    _broadcast(experiment, tables)
    _images(experiment)


def _tables(experiment: Experiment) -> Iterator[tuple[str, tuple[Array, Array]]]:
    """Normal and anomalous rows of each set, in the order of the file, without constant columns; synthetic tables for smoke."""
    if experiment.budget == "smoke":
        rng = np.random.default_rng(0)
        yield "made", (rng.normal(size=(120, 4)), rng.normal(size=(20, 4)) + 3)
        yield "made, small", (rng.normal(size=(40, 3)), 3 * rng.normal(size=(10, 3)))
        return
    folder = where(experiment.data)
    for name in SETS:
        path = None if folder is None else folder / "adbench" / f"{name}.npz"
        if path is None or not path.exists():
            raise StorageError(
                f"adbench/{name}.npz is not in {folder or 'a data folder'}: name a folder that holds the tables of "
                "github.com/Minqi824/ADBench with --data or the environment variable PUSHFORWARD_DATA."
            )
        with np.load(path) as file:
            x, y = file["X"].astype(float), file["y"]
        x = x[:, x[y == 0].std(0) > 1e-9]
        yield name.split("_", 1)[1], (x[y == 0], x[y == 1])


class Split:
    """Training rows, test rows and anomalies of one table, in units of the training rows' medians and quartiles.

    Args:
        rows: normal rows, in the order of the file.
        odd: anomalies.
        how: "clean" (shuffled halves), "file order" (the first half trains), or "copies" (drawn with replacement up to 1,000 rows,
            anomalies in proportion, before the split).
        seed: of the shuffle.
    """

    def __init__(self, rows: Array, odd: Array, how: str, seed: int) -> None:
        rng = np.random.default_rng(seed)
        if how == "copies" and len(rows) + len(odd) < 1000:
            count = round(1000 * len(rows) / (len(rows) + len(odd)))
            rows, odd = rows[rng.integers(len(rows), size=count)], odd[rng.integers(len(odd), size=1000 - count)]
        order = np.arange(len(rows)) if how == "file order" else rng.permutation(len(rows))
        half = len(rows) // 2
        train, test = rows[order[:half]], rows[order[half:]]
        low, middle, high = np.quantile(train, (0.25, 0.5, 0.75), axis=0)
        width = np.where(high > low, high - low, np.maximum(train.std(0), 1e-6))
        self.train, self.test, self.odd = (
            torch.from_numpy(((part - middle) / width).clip(-50, 50)).float() for part in (train, test, odd)
        )

    def area(self, score: Callable[[torch.Tensor], Array]) -> float:
        """AUROC of a score of rows."""
        return auroc(score(self.test), score(self.odd))


def _flow(experiment: Experiment, make: Callable[[int], Model], train: torch.Tensor, seed: int) -> Model:
    """A flow for rows of a table, trained with noise so that repeated values have no spikes."""
    torch.manual_seed(seed)
    model = make(train.shape[1])
    draw = torch.Generator().manual_seed(seed)
    copies = torch.cat([train + 0.05 * torch.randn(train.shape, generator=draw) for _ in range(5)])
    fit(
        model, copies, validation=None, max_steps=experiment.choose(smoke=2, quick=300, full=2000), batch_size=256, learning_rate=2e-3,
        weight_decay=1e-3, config=PAPER_TRAINING, seed=seed,
    )  # fmt: skip
    return model.eval()


def _surprise(model: Model) -> Callable[[torch.Tensor], Array]:
    def score(rows: torch.Tensor) -> Array:
        with torch.no_grad():
            return -model.evaluate(rows).value.double().numpy()

    return score


def _neighbor(train: torch.Tensor) -> Callable[[torch.Tensor], Array]:
    near = Neighbors(min(5, len(train) - 1)).fit(train)
    return lambda rows: near(rows).numpy()


def _forest(train: torch.Tensor, seed: int) -> Callable[[torch.Tensor], Array]:
    from sklearn.ensemble import IsolationForest

    forest = IsolationForest(random_state=seed).fit(train.numpy())
    return lambda rows: -forest.score_samples(rows.numpy())


def _nice(width: int) -> Model:
    return NICE(width, layers=6, hidden=(64, 64), prior="normal")


def _areas(experiment: Experiment, rows: Array, odd: Array, how: str, seed: int) -> dict[str, float]:
    split = Split(rows, odd, how, seed)
    return {
        "NICE": split.area(_surprise(_flow(experiment, _nice, split.train, seed))),
        "kNN": split.area(_neighbor(split.train)),
        "isolation forest": split.area(_forest(split.train, seed)),
    }


def _by_seed(experiment: Experiment, name: str, rows: Array, odd: Array, how: str) -> list[dict[str, float]]:
    return [
        experiment.measure(f"{how} {name} {seed}", partial(_areas, experiment, rows, odd, how, seed))
        for seed in experiment.repeats
    ]


Areas = dict[str, list[dict[str, float]]]
"""For each table a list over seeds of the AUROC of each method."""


def _ranks(experiment: Experiment, tables: dict[str, tuple[Array, Array]]) -> Areas:
    """The rank of one small flow among the detectors, and whether its likelihood is inverted, as on images."""
    found = {name: _by_seed(experiment, name, *parts, "clean") for name, parts in tables.items()}
    methods = list(next(iter(found.values()))[0])
    values = np.array([[np.mean([area[m] for area in areas]) for m in methods] for areas in found.values()])
    ranks = np.array([[1 + (row > value).sum() + ((row == value).sum() - 1) / 2 for value in row] for row in values])
    inverted = [name for name, row in zip(found, values, strict=True) if row[0] < 0.5]
    experiment.report(
        "the inversion of likelihoods, which is common on images, is rare in tables",
        ours=f"AUROC of NICE's -log p below 0.5 in {len(inverted)} of {len(found)} tables"
        + (f": {', '.join(inverted)}" if inverted else ""),
        confirmed=len(inverted) <= 0.2 * len(found),
        seeds=min(map(len, found.values())),
        note="tables of ADBench, half of the normal rows train; mean over seeds; rare: at most a fifth of the tables",
    )
    means, lead = values.mean(0), values[:, 0] - values[:, 2]
    error = lead.std(ddof=1) / np.sqrt(len(lead)) if len(lead) > 1 else np.inf
    experiment.report(
        "one small flow without tuning is better than an isolation forest and equal to nearest neighbors",
        ours="; ".join(f"{m}: mean AUROC {100 * mean:.1f}, mean rank {rank:.2f}" for m, mean, rank in zip(methods, means, ranks.mean(0), strict=True))
        + f"; NICE ahead of kNN in {(values[:, 0] > values[:, 1]).sum()} and of the forest in {(values[:, 0] > values[:, 2]).sum()} of {len(found)}, "
        f"by {100 * lead.mean():.1f} ± {100 * error:.1f} points in the mean (standard error over tables)",
        confirmed=bool(lead.mean() > 2 * error and abs(means[0] - means[1]) < 0.02),
        seeds=min(map(len, found.values())),
        note=f"{plural(len(experiment.repeats), 'seed')} of split and weights; better: by two standard errors over tables; equal: within 2 points of mean AUROC",
    )  # fmt: skip
    return found


def _leakage(experiment: Experiment, tables: dict[str, tuple[Array, Array]], shuffled: Areas) -> None:
    """Test copies of training rows among test rows, and rows in the order of their file."""
    small = {name: parts for name, parts in tables.items() if sum(map(len, parts)) < 1000}
    gains: dict[str, list[float]] = {}
    for name, (rows, odd) in small.items():
        copied = _by_seed(experiment, name, rows, odd, "copies")
        for method in copied[0]:
            pairs = zip(shuffled[name], copied, strict=True)
            gain = np.mean([after[method] - before[method] for before, after in pairs])
            gains.setdefault(method, []).append(float(gain))
    experiment.report(
        "small tables that are filled up with copies before the split favor methods that memorize",
        ours="gain in AUROC by the copies, points: "
        + "; ".join(f"{m} {100 * np.mean(gain):+.1f} ({100 * min(gain):+.1f} to {100 * max(gain):+.1f})" for m, gain in gains.items()),
        confirmed=float(np.mean(gains["kNN"])) > 0.01,
        seeds=min(len(shuffled[name]) for name in small),
        note=f"{plural(len(small), 'table')} of fewer than 1,000 rows; mean (range over tables); bootstrapped to 1,000 rows as ADBench does; criterion: kNN gains more than a point",
    )  # fmt: skip
    name = "letter" if "letter" in tables else next(iter(tables))
    rows, odd = tables[name]
    ordered = experiment.measure(f"file order {name}", lambda: _areas(experiment, rows, odd, "file order", 0))
    clean = shuffled[name]
    experiment.report(
        "training on the first half of a file instead of a shuffled half can reverse a result",
        ours="; ".join(
            f"{m}: {100 * area:.1f} in file order, {spread([100 * c[m] for c in clean], 1)} shuffled"
            for m, area in ordered.items()
        ),
        confirmed=ordered["kNN"] < min(c["kNN"] for c in clean) - 0.1,
        seeds=1,
        note=f"AUROC in %, {name}; criterion: kNN more than 10 points below its worst shuffled half",
    )


def _broadcast(experiment: Experiment, tables: dict[str, tuple[Array, Array]]) -> None:
    """A published baseline adds (n, 1) and (n,) and averages a row: the base density of a row never enters its score."""
    from pushforward.detection.curvature import likelihood_terms

    def measure() -> list[list[float]]:
        found = []
        for rows, odd in tables.values():
            split = Split(rows, odd, "clean", 0)
            planar = lambda width: Flow(Chain(Standardize(width), *(Planar(width, seed=k) for k in range(10))), Normal(width))  # noqa: E731 # fmt: skip
            model = _flow(experiment, planar, split.train, 0)
            fine, strange = (likelihood_terms(model, part) for part in (split.test, split.odd))
            found.append([
                auroc(-fine.volume.numpy(), -strange.volume.numpy()),
                auroc(-fine.base.numpy(), -strange.base.numpy()),
                auroc(-fine.total.numpy(), -strange.total.numpy()),
            ])  # fmt: skip
        return found

    areas = np.array(experiment.measure("broadcast", measure))
    published, base, whole = 100 * areas.mean(0)
    better = int((areas[:, 2] > areas[:, 0]).sum())
    experiment.report(
        "a planar flow ranks low in a published comparison because its score was the log-determinant alone",
        ours=f"mean AUROC of the same weights: volume term {published:.1f}, base density {base:.1f}, log p {whole:.1f}; "
        f"log p ahead in {better} of {len(areas)} tables",
        confirmed=bool(whole > published),
        seeds=1,
        note="ten planar transforms, one seed; a sum of shapes (n, 1) and (n,) has shape (n, n); criterion: a higher mean of log p than of the volume term",
    )


def _images(experiment: Experiment) -> None:
    """Metrics and protocol on Fashion-MNIST against MNIST, and back."""
    count = experiment.choose(smoke=60, quick=2000, full=10_000)
    names = ("fashion-mnist", "mnist")
    test = {name: experiment.images(name, train=False, rows=count) for name in names}
    found: dict[str, dict[str, list[list[float]]]] = {}
    for name in names:
        train = experiment.images(name, train=True, rows=experiment.choose(smoke=100, quick=20_000, full=60_000))
        n_held_out = experiment.choose(smoke=40, quick=1000, full=5000)
        model, _ = experiment.train(
            f"flow of {name}",
            lambda: Glow((1, 28, 28), scales=2, layers=experiment.choose(smoke=1, quick=4, full=16), hidden=experiment.choose(smoke=(4,), quick=(32, 32), full=(200, 200))),
            train[:-n_held_out], None, max_steps=experiment.choose(smoke=2, quick=400, full=20_000), batch_size=64, learning_rate=2e-3,
        )  # fmt: skip
        scores: dict[str, Score] = {
            "-log p": Likelihood(model),
            "DoSE": DoSE(LikelihoodPath(model)),
            "kNN": Neighbors(),
        }

        def measure(scores: dict[str, Score] = scores, rest: torch.Tensor = train[-n_held_out:], name: str = name):
            odd = {other: images for other, images in test.items() if other != name}
            odd["constant"] = (
                (torch.arange(len(test[name])) % 256).to(torch.uint8)[:, None, None, None].expand(-1, 1, 28, 28)
            )
            odd["noise"] = torch.randint(256, (min(count, 500), 1, 28, 28), generator=torch.Generator().manual_seed(0))
            result = {}
            for label, score in scores.items():
                score.fit(rest[: len(rest) // 2])
                known = score(rest[len(rest) // 2 :])
                values = [known, score(test[name]), *(score(images) for images in odd.values())]
                result[label] = [[round(v, 3) for v in part.tolist()] for part in values]
            return result

        found[name] = experiment.measure(f"scores of {name}", measure)
    _metrics(experiment, found)


Scores = dict[str, list[np.ndarray]]
"""For each score its values of held-out rows, test rows, the other set, constant images and noise."""


def _metrics(experiment: Experiment, found: dict[str, dict[str, list[list[float]]]]) -> None:
    """Report on metrics, from the scores of models of Fashion-MNIST and of MNIST."""
    forward = {label: [np.array(part) for part in parts] for label, parts in found["fashion-mnist"].items()}
    back = {label: [np.array(part) for part in parts] for label, parts in found["mnist"].items()}
    _report_conventions(experiment, forward, back)
    _report_numbers(experiment, forward["kNN"])
    _report_directions(experiment, forward, back)
    _report_threshold(experiment, forward, back)


def _report_conventions(experiment: Experiment, forward: Scores, back: Scores) -> None:
    """Two conventions that change a metric: a sigmoid of the scores, and which class is positive."""
    squashed = [1 / (1 + np.exp(-np.clip(part, -700, 700))) for part in (back["-log p"][1], back["-log p"][2])]
    true, flat = auroc(back["-log p"][1], back["-log p"][2]), auroc(*squashed)
    experiment.report(
        "a metric library that applies a sigmoid to scores makes log-likelihoods equal",
        ours=f"MNIST against Fashion-MNIST: AUROC {true:.3f} by ranks, {flat:.3f} after a sigmoid in float64",
        confirmed=abs(flat - 0.5) < 0.01 < abs(true - 0.5),
        seeds=1,
        note="criterion: within 0.01 of 0.5 after the sigmoid only",
    )
    pairs = {label: (parts[1], parts[2]) for label, parts in forward.items()}
    experiment.report(
        "FPR at 95 % TPR has two values, which depend on the class that is called positive",
        ours="; ".join(
            f"{label}: {fpr_at_tpr(*pair, 0.95):.3f} of in-distribution rows flagged where 95 % of the others are detected, "
            f"{miss_rate_at_acceptance(*pair, 0.95):.3f} of the others accepted where 95 % of in-distribution rows are"
            for label, pair in pairs.items()
        ),
        confirmed=any(
            abs(fpr_at_tpr(*pair, 0.95) - miss_rate_at_acceptance(*pair, 0.95)) > 0.02 for pair in pairs.values()
        ),
        seeds=1,
        note="Fashion-MNIST against MNIST; criterion: more than 0.02 apart for one of the scores",
    )


def _report_numbers(experiment: Experiment, knn: list[np.ndarray]) -> None:
    """What the fraction of anomalies and the number of images do to metrics of nearest neighbors."""
    few = max(2, len(knn[2]) // 10)
    even, rare = average_precision(knn[1], knn[2]), average_precision(knn[1], knn[2][:few])
    experiment.report(
        "average precision depends on the fraction of anomalies, and AUROC does not",
        ours=f"kNN at 1 : 1 and 10 : 1: average precision {even:.3f} and {rare:.3f}, AUROC {auroc(knn[1], knn[2]):.3f} and "
        f"{auroc(knn[1], knn[2][:few]):.3f}",
        confirmed=even - rare > 2 * abs(auroc(knn[1], knn[2]) - auroc(knn[1], knn[2][:few])),
        seeds=0,
        note="criterion: average precision falls by more than twice the change of AUROC",
    )
    rng = np.random.default_rng(0)
    spreads = {
        size: np.std([auroc(rng.choice(knn[1], size), rng.choice(knn[2], size)) for _ in range(200)])
        for size in (128, 500, len(knn[1]))
    }
    experiment.report(
        "AUROC on a few hundred images varies by more than the differences that papers compare",
        ours="standard deviation over draws of n + n images, kNN: "
        + "; ".join(f"n = {n}: {s:.4f}" for n, s in spreads.items()),
        confirmed=bool(spreads[128] > 2 * spreads[max(spreads)]),
        seeds=1,
        note=f"criterion: with n = 128 more than twice that with n = {max(spreads):,}",
    )


def _report_directions(experiment: Experiment, forward: Scores, back: Scores) -> None:
    """Easy inputs, and a pair of sets in both directions."""
    _, fine, _, constant, noise = forward["-log p"]
    both = {
        label: (auroc(forward[label][1], forward[label][2]), auroc(back[label][1], back[label][2])) for label in forward
    }
    experiment.report(
        "constant images and noise reveal opposite failures, and both directions of a pair must be shown",
        ours=f"-log p of Fashion-MNIST: {auroc(fine, constant):.3f} on constant images, {auroc(fine, noise):.3f} on noise; "
        + "; ".join(f"{label}: {there:.3f} there, {again:.3f} back" for label, (there, again) in both.items()),
        confirmed=both["-log p"][0] < 0.5 < both["-log p"][1] and auroc(fine, constant) < 0.5 < auroc(fine, noise),
        seeds=1,
        note="AUROC, Fashion-MNIST against MNIST and back; criterion: for -log p below 0.5 on constant images and above on noise, and below there and "
        "above back",
    )


def _report_threshold(experiment: Experiment, forward: Scores, back: Scores) -> None:
    """Thresholds from in-distribution rows alone."""
    alarms, detected = [], []
    for parts in (forward["DoSE"], back["DoSE"]):
        calibrated = ConformalCalibrator(parts[0])
        alarms.append(float((calibrated.p_value(parts[1]) <= 0.05).mean()))
        detected.append(float((calibrated.p_value(parts[2]) <= 0.05).mean()))
    calibration = len(forward["DoSE"][0])
    allowed = 0.05 + 4 * np.sqrt(0.05 * 0.95 * (1 / calibration + 1 / len(forward["DoSE"][1])))
    experiment.report(
        "a threshold set on in-distribution rows alone keeps its false-alarm rate, and its detection rate is what a user gets",
        ours=f"DoSE, promised 5 %: {alarms[0]:.3f} and {alarms[1]:.3f} false alarms, {detected[0]:.3f} and {detected[1]:.3f} detected",
        confirmed=max(alarms) < allowed,
        seeds=1,
        note=f"{calibration:,} calibration images; trained on Fashion-MNIST and on MNIST; criterion: fewer than {allowed:.3f} false alarms, four standard errors "
        "above 0.05",
    )
