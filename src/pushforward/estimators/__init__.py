"""scikit-learn estimators: `Guard` (an outlier detector), `ShiftedGuard` (a guard after a known shift of its inputs) and `FlowDensity`."""

from pushforward.estimators.density import FlowDensity
from pushforward.estimators.guard import Explanation, Guard
from pushforward.estimators.shifted_guard import ShiftedGuard

__all__ = ["Explanation", "FlowDensity", "Guard", "ShiftedGuard"]
