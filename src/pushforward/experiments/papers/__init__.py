"""The recipes, one file a paper; importing this registers them all."""

from pushforward.experiments.papers import cygen, glow, iaf, iresnet, maf, nice, nsf, nxn, realnvp, reviews, two_step

__all__ = ["cygen", "glow", "iaf", "iresnet", "maf", "nice", "nsf", "nxn", "realnvp", "reviews", "two_step"]
