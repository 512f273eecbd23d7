"""The recipes, one file a paper; importing this registers them all."""

from pushforward.experiments.papers import glow, iaf, inflow, iresnet, maf, nalisnick, nice, nsf, nxn, realnvp, reviews

__all__ = ["glow", "iaf", "inflow", "iresnet", "maf", "nalisnick", "nice", "nsf", "nxn", "realnvp", "reviews"]
