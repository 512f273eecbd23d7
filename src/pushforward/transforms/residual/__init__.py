"""Residual flows, z = x + g(x): contractive ones, and those that use the matrix determinant lemma."""
