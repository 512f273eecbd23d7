"""The guards of the parity table: real data, many kinds of columns, images, networks, and scores that a user chose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import pushforward as pf
from pushforward.detection import ConformalCalibrator
from pushforward.detection.scores import DoSE, LatentMahalanobis, Likelihood, LikelihoodPath, Neighbors, Score
from pushforward.export import export_score
from pushforward.io import read_images

__all__ = ["CASES", "Case", "Scored"]

_FIT = 8000
ALPHA = 0.05


@dataclass
class Case:
    """A fitted guard and new rows.

    Attributes:
        guard: with ``assess``, ``calibrator_`` and ``level_``.
        rows: new rows, as many as were asked for or as the set has.
        export: writes the guard to a path.
        what: the kind of its inputs.
    """

    guard: Any
    rows: Any
    export: Callable[[Path], None]
    what: str


class Scored:
    """A score and its calibration with the methods of a guard that the benchmark needs."""

    def __init__(self, score: Score, held_out: torch.Tensor) -> None:
        self.score, self.calibrator_ = score, ConformalCalibrator(score(held_out))
        self.level_ = self.calibrator_.threshold(ALPHA)

    def assess(self, rows: torch.Tensor) -> dict[str, np.ndarray]:
        score = self.score(rows).numpy()
        p = self.calibrator_.p_value(score)
        return {"anomaly_score": score, "p_value": p, "alarm": p <= self.level_}


class Guarded:
    """A `NetworkGuard` with the methods of a guard that the benchmark needs."""

    def __init__(self, guard: pf.NetworkGuard) -> None:
        self.guard = guard
        self.calibrator_, self.level_ = guard.calibrators_[None], guard.levels_[None]

    def assess(self, rows: torch.Tensor) -> dict[str, np.ndarray]:
        found = [self.guard(part) for part in rows.split(1000)]
        names = {"anomaly_score": "score", "p_value": "p_value", "alarm": "alarm"}
        return {key: torch.cat([getattr(out, name) for out in found]).numpy() for key, name in names.items()}


def _adbench(data: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Normal rows and anomalies, each shuffled."""
    with np.load(data / "adbench" / f"{name}.npz", allow_pickle=False) as archive:
        x, y = archive["X"].astype(np.float64), archive["y"]
    rng = np.random.default_rng(0)
    return rng.permutation(x[y == 0]), rng.permutation(x[y == 1])


def _new(normal: np.ndarray, anomalous: np.ndarray, count: int) -> np.ndarray:
    """New rows, a tenth of them anomalies where the set has enough; fewer than were asked for where it has fewer."""
    rows = np.concatenate((normal, anomalous[: max(1, count // 10)]))
    return np.random.default_rng(1).permutation(rows)[:count]


def _table(work: Path, fit: Any, rows: Any, what: str, **options: Any) -> Case:
    """A guard of a table or of images, which is fitted once."""
    file = work / "guard.safetensors"
    if not file.exists():
        pf.Guard(ALPHA, random_state=0, **options).fit(fit).save(file)
    guard = pf.Guard.load(file)
    return Case(guard, rows, guard.export, what)


def _numeric(name: str, what: str, **options: Any) -> Callable[[Path, int, Path], Case]:
    def make(data: Path, count: int, work: Path) -> Case:
        normal, anomalous = _adbench(data, name)
        half = min(_FIT, len(normal) // 2)
        return _table(work, normal[:half], _new(normal[half:], anomalous, count), what, **options)

    return make


def _missing(data: Path, count: int, work: Path) -> Case:
    normal, anomalous = _adbench(data, "10_cover")
    rng = np.random.default_rng(2)
    fit, rows = normal[:_FIT].copy(), _new(normal[_FIT:], anomalous, count)
    for part in (fit, rows):
        part[:, :6][rng.random((len(part), 6)) < 0.1] = np.nan
    return _table(work, fit, rows, "10 numbers, a tenth missing in six", effort="fast")


def _texts(data: Path, count: int, work: Path) -> Case:
    import pyarrow as pa

    normal, anomalous = _adbench(data, "8_celeba")
    rows, names = _new(normal[_FIT:], anomalous, count), [f"attribute {k}" for k in range(normal.shape[1])]

    def frame(part: np.ndarray) -> Any:
        return pa.table({name: np.where(part[:, k] > 0.5, "yes", "no") for k, name in enumerate(names)})

    return _table(work, frame(normal[:_FIT]), frame(rows), "39 texts", effort="fast")


def _mixed(data: Path, count: int, work: Path) -> Case:
    import pyarrow.parquet as pq

    table = pq.read_table(data / "nab" / "nab.parquet", columns=["series", "timestamp", "value"])
    order = np.random.default_rng(0).permutation(table.num_rows)
    return _table(
        work,
        table.take(order[:_FIT]),
        table.take(order[_FIT : _FIT + count]),
        "text (58), instant, number",
        effort="fast",
    )


def _power(data: Path, count: int, work: Path) -> Case:
    import pandas as pd

    frame = pd.read_csv(
        data / "power" / "household_power_2006-12_first19446.csv.gz", parse_dates=["Datetime"], dayfirst=True
    )
    order = np.random.default_rng(0).permutation(len(frame))
    fit, rest = frame.iloc[order[:_FIT]], frame.iloc[order[_FIT:]].reset_index(drop=True)
    return _table(work, fit, rest[:count], "instant, 7 numbers, missing cells", effort="fast")


def _flow(data: Path, count: int, work: Path) -> Case:
    normal, anomalous = _adbench(data, "10_cover")
    x, rows = torch.from_numpy(normal[:_FIT]).float(), torch.from_numpy(_new(normal[_FIT:], anomalous, count)).float()
    flow = pf.models.RealNVP(features=x.shape[1], hidden=(64, 64))
    flow = _fitted(work, flow, x[:6000])
    return _scored(Likelihood(flow), x, rows, "10 numbers, likelihood of a flow")


def _chosen(data: Path, count: int, work: Path) -> Case:
    normal, anomalous = _adbench(data, "10_cover")
    x, rows = torch.from_numpy(normal[:_FIT]).float(), torch.from_numpy(_new(normal[_FIT:], anomalous, count)).float()
    flow = pf.models.NICE(features=x.shape[1], hidden=(64,))
    flow = _fitted(work, flow, x[:4000])
    parts = (LikelihoodPath(flow), LatentMahalanobis(flow), Neighbors().fit(x[:4000]))
    return _scored(DoSE(*parts, density="gmm", refit=False), x, rows, "10 numbers, DoSE of five statistics")


def _fitted(work: Path, flow: pf.models.Model, x: torch.Tensor) -> pf.models.Model:
    """The flow after a short training, which is done once."""
    file = work / "flow.safetensors"
    if not file.exists():
        pf.fit(flow, x, max_steps=300, seed=0)
        pf.save(flow, file)
    return pf.load(file)


def _scored(score: Score, x: torch.Tensor, rows: torch.Tensor, what: str) -> Case:
    score.fit(x[4000:6000])
    guard = Scored(score, x[6000:])
    return Case(guard, rows, lambda path: export_score(score, guard.calibrator_, path, rows[:2], alpha=ALPHA), what)


def _images(data: Path, count: int, work: Path) -> Case:
    x = read_images(data / "mnist" / "train-images-idx3-ubyte.gz")
    other = read_images(data / "fashion-mnist" / "t10k-images-idx3-ubyte.gz")
    rows = _shuffled((x[_FIT : _FIT + 9 * count // 10], other), count)
    options = {"exportable": True, "max_steps": 150}
    return _table(work, x[:2000], rows, "28 x 28 images, flow and distances", **options)


def _shuffled(parts: tuple[torch.Tensor, ...], count: int) -> torch.Tensor:
    whole = torch.cat([part.reshape(len(part), 1, *part.shape[-2:]) for part in parts])
    if len(whole) < count:  # images again, moved by a pixel
        whole = torch.cat((whole, whole.roll(1, -1), whole.roll(1, -2), whole.roll(-1, -1)))
    return whole[torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))[:count]]


def _train(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for step in range(300):
        batch = torch.arange(step * 64, (step + 1) * 64) % len(x)
        loss = nn.functional.cross_entropy(net(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()


def _network(score: Any, what: str) -> Callable[[Path, int, Path], Case]:
    def make(data: Path, count: int, work: Path) -> Case:
        from benchmarks.common.datasets import load_labels

        x = read_images(data / "mnist" / "train-images-idx3-ubyte.gz").reshape(-1, 1, 28, 28).float() / 255
        y = load_labels("mnist", train=True, folder=data)
        other = read_images(data / "fashion-mnist" / "t10k-images-idx3-ubyte.gz").float() / 255
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(), nn.Flatten(),
            nn.Linear(1152, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip
        weights, file = work / "network.pt", work / "guard.safetensors"
        if not file.exists():
            _train(net, x[:20_000], y[:20_000])
            torch.save(net.state_dict(), weights)
            found = pf.NetworkGuard(net, ALPHA, score=score).fit((x[:20_000], y[:20_000]), calibration=x[20_000:25_000])
            found.save(file)
        net.load_state_dict(torch.load(weights))
        guard = pf.NetworkGuard.load(file, net.eval())
        rows = _shuffled((x[25_000:], other), count)
        return Case(Guarded(guard), rows, lambda path: guard.export(path, rows[:2]), what)

    return make


CASES: dict[str, Callable[[Path, int, Path], Case]] = {
    "skin": _numeric("33_skin", "3 integers", effort="fast"),
    "cover": _numeric("10_cover", "10 numbers"),
    "cover, exportable": _numeric("10_cover", "10 numbers", exportable=True),
    "cover, missing": _missing,
    "donors": _numeric("11_donors", "10 numbers and flags", effort="fast"),
    "campaign": _numeric("5_campaign", "62 numbers and flags", effort="fast"),
    "celeba": _texts,
    "nab": _mixed,
    "power": _power,
    "cover, flow": _flow,
    "cover, own score": _chosen,
    "mnist, network": _network("default", "network of 28 x 28 images"),
    "mnist, network, energy": _network(["Energy", "MaxLogit"], "the same, score of the logits"),
    "mnist": _images,
}
