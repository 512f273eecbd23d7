"""The score of tables: a pool of statistics, one family a file, weighted without anomalies."""

from pushforward.detection.table.pool import EFFORTS, Pool

__all__ = ["EFFORTS", "Pool"]
