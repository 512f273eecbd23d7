"""Distributions on surfaces: learned manifolds, two steps, rectangular flows, injective decoders."""
