"""Residual flows: the identity plus a contraction, a ridge or a bump."""
