"""Tests of a whole batch against reference rows, each with a valid p-value."""

from pushforward.detection.batch_tests.core import BatchTest
from pushforward.detection.batch_tests.mmd import MMDTest, median_distance, mmd_squared
from pushforward.detection.batch_tests.projections import ProjectionKSTest
from pushforward.detection.batch_tests.typicality import TypicalityTest

__all__ = ["BatchTest", "MMDTest", "ProjectionKSTest", "TypicalityTest", "median_distance", "mmd_squared"]
