"""The recipes, one file a paper; importing this registers them all."""

from pushforward.experiments.papers import aef, bayesian, cef, cygen, funnels, glow, iaf, inflow, iresnet, maf, nalisnick, nice, nsf, nxn, realnvp, rectangular, reviews, two_step

__all__ = ["aef", "bayesian", "cef", "cygen", "funnels", "glow", "iaf", "inflow", "iresnet", "maf", "nalisnick", "nice", "nsf", "nxn", "realnvp", "rectangular", "reviews", "two_step"]
