"""The recipes, one file a paper; importing this registers them all."""

from pushforward.experiments.papers import aef, bayesian, funnels, glow, iaf, inflow, iresnet, maf, nalisnick, nice, nsf, nxn, realnvp, reviews

__all__ = ["aef", "bayesian", "funnels", "glow", "iaf", "inflow", "iresnet", "maf", "nalisnick", "nice", "nsf", "nxn", "realnvp", "reviews"]
