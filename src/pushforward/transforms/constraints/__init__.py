"""Transforms between constrained parameters (simplex, correlation matrix, blocks of several constraints) and the reals."""
