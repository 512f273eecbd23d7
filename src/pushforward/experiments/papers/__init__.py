"""The recipes, one file a paper; importing this registers them all."""

from pushforward.experiments.papers import cef, glow, iaf, iresnet, maf, nice, nsf, nxn, realnvp, rectangular, reviews

__all__ = ["cef", "glow", "iaf", "iresnet", "maf", "nice", "nsf", "nxn", "realnvp", "rectangular", "reviews"]
