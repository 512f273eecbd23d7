"""The scikit-learn faces: `Guard` (outlier detector) and `FlowDensity` (density estimator)."""

from pushforward.estimators.density import FlowDensity
from pushforward.estimators.guard import Explanation, Guard

__all__ = ["Explanation", "FlowDensity", "Guard"]
