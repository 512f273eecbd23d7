"""Autoregressive transforms: each coordinate is transformed given the coordinates before it."""
