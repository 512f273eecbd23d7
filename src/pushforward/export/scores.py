"""Any score of this library with calibration scores as a graph."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

from pushforward import __version__
from pushforward.detection import ConformalCalibrator, Guarantee
from pushforward.detection.modes import evaluation
from pushforward.detection.scores import Score
from pushforward.errors import ConfigError, InputError
from pushforward.graphs.files import format_of, write_graph
from pushforward.graphs.graph import OUTPUTS, Graph, Promise, promised, unit_of
from pushforward.graphs.scores import StatisticGraph

__all__ = ["export_score"]


class _Scored(nn.Module):
    """The outputs for rows of a score."""

    def __init__(self, score: nn.Module, promise: Promise) -> None:
        super().__init__()
        self.score, self.promise = score, promise

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        score = self.score(x)[:, 0]
        if x.is_floating_point():  # NaN is refused by the score, and not every score of it would be NaN
            score = torch.where(torch.isnan(x).flatten(1).any(1), torch.nan, score)
        return promised(score, self.promise)


def export_score(
    score: Score,
    calibrator: ConformalCalibrator,
    path: str | os.PathLike[str],
    example: Tensor,
    *,
    alpha: float = 0.01,
    guarantee: Guarantee = "marginal",
    delta: float = 0.05,
) -> None:
    """Write a score and its calibration as a graph with the outputs ``p_value``, ``alarm`` and ``anomaly_score``.

    The input is ``x``, of the shape and type of the example, with any number of rows.

    Args:
        score: fitted; of a flow on real numbers, of distances, or a combination of such.
        calibrator: the calibration scores, ``ConformalCalibrator(score(held_out))``.
        path: the file, ``name.onnx`` or ``name.pt2``.
        example: a batch of rows.
        alpha: promised false-alarm rate.
        guarantee: as of :class:`~pushforward.Guard`.
        delta: of the "pac" guarantee.

    Raises:
        ConfigError: for a score that no graph can compute, with the part and what to do; for something that is no score or no
            calibrator; for another ending of the name; without the extra ``export`` for ONNX.
        InputError: for an example that is no tensor with at least one row, or that the score does not read.
        CalibrationError: for too few calibration scores.
        StorageError: if the file cannot be written.

    Example:
        >>> import pathlib, tempfile, torch, pushforward as pf
        >>> from pushforward.detection import ConformalCalibrator
        >>> from pushforward.detection.scores import Neighbors
        >>> from pushforward.export import export_score
        >>> x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
        >>> score = Neighbors().fit(x[:300])
        >>> path = pathlib.Path(tempfile.mkdtemp(), "score.pt2")
        >>> export_score(score, ConformalCalibrator(score(x[300:])), path, x[:2], alpha=0.05)
        >>> torch.export.load(path).module()(torch.full((1, 3), 9.0))["alarm"]
        tensor([True])
    """
    format_of(path)
    if not isinstance(score, Score):
        raise ConfigError(f"export_score needs a Score of pushforward.detection.scores; got {type(score).__name__}.")
    if not isinstance(calibrator, ConformalCalibrator):
        raise ConfigError(
            f"calibrator must be a ConformalCalibrator, such as ConformalCalibrator(score(held_out)); got {type(calibrator).__name__}."
        )
    if not isinstance(example, Tensor):
        raise InputError(
            f"example must be a tensor, of the type that the score reads: the graph takes the same; got {type(example).__name__}."
        )
    if not example.dim() or not len(example):
        raise InputError("example has no rows: give at least one row as the score reads it.")
    score(example)  # refuses rows that it does not read
    level = calibrator.threshold(alpha, guarantee, delta)
    facts = {
        "pushforward": __version__,
        "score": type(score).__name__,
        "alpha": alpha,
        "guarantee": guarantee,
        "alarm at p-values up to": level,
        "calibration rows": calibrator.n,
    }
    rows = torch.cat((example, example))[: max(2, len(example))]
    with evaluation(score):
        graph = StatisticGraph(score)
        promise = Promise(calibrator.scores, level, graph.rounding, unit=unit_of(calibrator.scores))
        write_graph(Graph(_Scored(graph, promise).eval(), (rows,), ("x",), OUTPUTS, facts), path)
