"""Knowing when an input is unlike the training data: calibrated alarms and the figures that judge them."""

from pushforward.detection.calibration import (
    ConformalCalibrator,
    FalseAlarmLaw,
    Guarantee,
    benjamini_hochberg,
    false_alarm_law,
    realised_interval,
    rows_needed,
)
from pushforward.detection.metrics import auroc, average_precision, fpr_at_tpr, mean_rank, tpr_at_fpr, wins

__all__ = [
    "ConformalCalibrator",
    "FalseAlarmLaw",
    "Guarantee",
    "auroc",
    "average_precision",
    "benjamini_hochberg",
    "false_alarm_law",
    "fpr_at_tpr",
    "mean_rank",
    "realised_interval",
    "rows_needed",
    "tpr_at_fpr",
    "wins",
]
