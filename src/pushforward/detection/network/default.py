"""Which scores there are by name, and which of them make the default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pushforward.detection.network import scores
from pushforward.detection.network.combined import Combined
from pushforward.detection.network.scores import NetworkScore
from pushforward.errors import ConfigError

__all__ = ["SCORES", "default_score", "make_score"]

SCORES: dict[str, type[NetworkScore]] = {
    name: getattr(scores, name) for name in scores.__all__ if name not in ("Cost", "Need", "NetworkScore")
}
"""Every score by its name."""


def default_score(classifies: bool, head: bool, layers: bool) -> Combined:
    """The default: statistics of one forward pass, chosen on development networks (``python -m benchmarks.networks --develop``).

    Neighbors, the energy and ViM see another class or no class; the relative Mahalanobis distances, of the features and of the inner
    layers, a class that is near others; the whole distances of the inner layers and their neighbors inputs of another kind. Every
    statistic has weight 1, but the energy and ViM, which contains it, share one, and the whole distances and the neighbors of inner layers
    count half each: along most directions of an inner layer the classes do not differ, and there a distance adds noise to that of a new
    class, the more so the fewer training rows a class has. Without labels the Mahalanobis distance takes the place of those that need
    classes.

    Example:
        >>> from pushforward.detection.network import default_score
        >>> default_score(classifies=True, head=True, layers=True).names
        ('Neighbors', 'Energy', 'ViM', 'RelativeMahalanobis', 'LayerRelativeMahalanobis', 'LayerMahalanobis', 'LayerNeighbors')
    """
    parts: list[tuple[NetworkScore, float]] = [(scores.Neighbors(k=1, rows=500, single=True), 1.0)]
    if classifies:
        parts += [(scores.Energy(), 0.5), (scores.ViM(single=True), 0.5)] if head else [(scores.Energy(), 1.0)]
        parts.append((scores.RelativeMahalanobis(single=True), 1.0))
    else:
        parts.append((scores.Mahalanobis(), 1.0))
    if layers:
        parts += [(scores.LayerRelativeMahalanobis(single=True), 1.0)] if classifies else []
        parts += [(scores.LayerMahalanobis(single=True), 0.5), (scores.LayerNeighbors(single=True), 0.5)]
    return Combined([part for part, _ in parts], [weight for _, weight in parts])


def make_score(score: Any, classifies: bool, head: bool, layers: bool) -> Combined:
    """The score that a user asked for, to be fitted: objects of the user are copied, so that a fit changes none of them.

    Args:
        score: "default", the name of a score, a score, a detector of another library (:class:`~pushforward.detection.network.External`),
            several, or a :class:`~pushforward.detection.network.Combined`, which has weights.
        classifies: whether the network does.
        head: whether it has a linear head.
        layers: whether inner layers are read.

    Raises:
        ConfigError: for an unknown name, or anything else.

    Example:
        >>> from pushforward.detection.network import make_score
        >>> make_score(["Energy", "Mahalanobis"], classifies=True, head=True, layers=False).names
        ('Energy', 'Mahalanobis')
    """
    if isinstance(score, str) and score == "default":
        return default_score(classifies, head, layers)
    if isinstance(score, Combined):
        return score.copied()
    parts = score if isinstance(score, Sequence) and not isinstance(score, str) else [score]
    return Combined([_one(part) for part in parts])


def _one(part: Any) -> NetworkScore:
    if isinstance(part, NetworkScore):
        return part.copied()
    if isinstance(part, Combined):
        raise ConfigError("score must not have a Combined in a list: give the Combined alone, or its parts.")
    names = [name for name in SCORES if name not in ("DeepEnsemble", "External")]  # these need networks, or a detector
    if isinstance(part, str) and part in names:
        return SCORES[part]()
    if not isinstance(part, (str, type)) and (callable(part) or hasattr(part, "predict")):
        return scores.External(part)
    raise ConfigError(
        f"score must be 'default', one of {', '.join(names)}, a NetworkScore, or a detector with predict; got {part!r:.100}."
    )
