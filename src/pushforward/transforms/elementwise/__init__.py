"""Transforms of single coordinates: fixed functions, scaling, and the transformers that conditioners parameterize."""
