"""Glow on CIFAR-10 at equal CPU time: the sizes and the flows that several papers compare, so that they train them once."""

from __future__ import annotations

from functools import partial
from typing import Any

from papers.experiment import Experiment
from papers.flows.against_time import sample_distance
from papers.flows.image_peers import nflows_image, normflows_glow
from papers.flows.timed_training import Contender
from pushforward.models import Glow

__all__ = ["PEERS", "glow", "glow_peers", "glow_sizes"]

PEERS = ("normflows Glow", "nflows Glow")


def glow_sizes(experiment: Experiment) -> dict[str, Any]:
    """Scales, layers and widths: narrow networks for a long run, and the paper's for a full one."""
    return experiment.choose(
        smoke={"scales": 1, "layers": 1, "hidden": (4, 4)},
        quick={"scales": 3, "layers": 6, "hidden": (64, 64)},
        full={"scales": 3, "layers": 32, "hidden": (512, 512)},
    )


def glow(experiment: Experiment, shape: tuple[int, ...], linear: str) -> Contender:
    """Glow with pixels from -1/2 to 1/2, as in the paper."""
    return Contender(
        f"Glow {linear}",
        lambda: Glow(shape, linear=linear, alpha=None, **glow_sizes(experiment)),
        judge=sample_distance,
    )


def glow_peers(experiment: Experiment, shape: tuple[int, ...]) -> list[Contender]:
    """Glow of normflows and of nflows, with as many scales and layers and equal widths."""
    sizes = glow_sizes(experiment)
    parts = (shape, sizes["scales"], sizes["layers"], sizes["hidden"][0])
    return [
        Contender(PEERS[0], partial(normflows_glow, *parts), library="normflows"),
        Contender(PEERS[1], partial(nflows_image, "Glow", *parts), library="nflows"),
    ]
