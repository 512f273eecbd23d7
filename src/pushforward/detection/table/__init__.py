"""The score of tables: a pool of statistics, one family a file, weighted without anomalies."""

from pushforward.detection.table.pool import Pool
from pushforward.detection.table.pool_fit import EFFORTS, Sizes, fit_pool, fit_pool_in_time

__all__ = ["EFFORTS", "Pool", "Sizes", "fit_pool", "fit_pool_in_time"]
