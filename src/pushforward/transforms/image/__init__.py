"""Transforms of images: convolutions, squeezing, patches and multi-scale splitting."""
