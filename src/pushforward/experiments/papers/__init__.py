"""The recipes, one file a paper; importing this registers them all."""

from pushforward.experiments.papers import (
    bayesian,
    glow,
    iaf,
    inflow,
    iresnet,
    maf,
    nalisnick,
    nice,
    nsf,
    nxn,
    realnvp,
    reviews,
)

__all__ = [
    "bayesian",
    "glow",
    "iaf",
    "inflow",
    "iresnet",
    "maf",
    "nalisnick",
    "nice",
    "nsf",
    "nxn",
    "realnvp",
    "reviews",
]
