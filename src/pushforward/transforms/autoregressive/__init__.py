"""Autoregressive transforms: each coordinate (or token) is transformed given the ones before it."""
