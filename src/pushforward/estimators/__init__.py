"""scikit-learn estimators: `Guard` (an outlier detector) and `FlowDensity` (a density estimator)."""

from pushforward.estimators.density import FlowDensity
from pushforward.estimators.guard import Explanation, Guard

__all__ = ["Explanation", "FlowDensity", "Guard"]
