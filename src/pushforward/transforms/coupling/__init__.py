"""Coupling transforms: one part of the coordinates is transformed given the other part."""
