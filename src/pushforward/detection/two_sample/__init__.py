"""Two-sample tests of a batch against reference rows, with valid p-values."""

from pushforward.detection.two_sample.base import BatchTest
from pushforward.detection.two_sample.mmd import MMDTest, median_distance, mmd_squared
from pushforward.detection.two_sample.projections import ProjectionKSTest
from pushforward.detection.two_sample.typicality import TypicalityTest

__all__ = ["BatchTest", "MMDTest", "ProjectionKSTest", "TypicalityTest", "median_distance", "mmd_squared"]
