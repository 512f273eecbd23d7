"""Estimators: `Guard` (an outlier detector), `NetworkGuard` (around a network), `ShiftedGuard` (after a known shift) and `FlowDensity`."""

from pushforward.estimators.density import FlowDensity
from pushforward.estimators.guard import Explanation, Guard
from pushforward.estimators.network_guard import GuardOutput, NetworkGuard
from pushforward.estimators.shifted_guard import ShiftedGuard

__all__ = ["Explanation", "FlowDensity", "Guard", "GuardOutput", "NetworkGuard", "ShiftedGuard"]
