"""Scoring with fixed weights, as a service does it: few rows at a time, many times."""

from pushforward.serving.frozen import Frozen, freeze

__all__ = ["Frozen", "freeze"]
