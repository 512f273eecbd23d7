"""Transforms of each coordinate by itself: fixed functions, scaling, normalization, and learned monotone functions."""
