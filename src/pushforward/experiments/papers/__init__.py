"""The recipes, one file a paper; importing this registers them all."""

from pushforward.experiments.papers import aef, funnels, glow, iaf, iresnet, maf, nice, nsf, nxn, realnvp, reviews

__all__ = ["aef", "funnels", "glow", "iaf", "iresnet", "maf", "nice", "nsf", "nxn", "realnvp", "reviews"]
