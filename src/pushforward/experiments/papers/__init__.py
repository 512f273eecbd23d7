"""The recipes, one file a paper; importing this registers them all."""

from pushforward.experiments.papers import funnels, glow, iaf, iresnet, maf, nice, nsf, nxn, realnvp, reviews

__all__ = ["funnels", "glow", "iaf", "iresnet", "maf", "nice", "nsf", "nxn", "realnvp", "reviews"]
