"""Estimators: `Guard` (an outlier detector), `NetworkGuard` (around a network) and `FlowDensity` (a density estimator)."""

from pushforward.estimators.density import FlowDensity
from pushforward.estimators.guard import Explanation, Guard
from pushforward.estimators.network_guard import GuardOutput, NetworkGuard

__all__ = ["Explanation", "FlowDensity", "Guard", "GuardOutput", "NetworkGuard"]
