"""Selective prediction: abstaining with a promised risk, prediction sets with a promised coverage, calibrated probabilities.

All parts work on arrays of logits, labels and scores, from any network.
"""

from pushforward.detection.selective.classifier import ClassifierCalibration
from pushforward.detection.selective.conformal_risk import conformal_risk_control, undetected_error_threshold
from pushforward.detection.selective.open_set import OpenSetCurve, correct_rate_at_acceptance, open_set_curve, oscr
from pushforward.detection.selective.prediction_sets import PredictionSets
from pushforward.detection.selective.reliability import (
    brier_score,
    calibration_error,
    negative_log_likelihood,
    reliability,
)
from pushforward.detection.selective.risk_bounds import risk_p_value, risk_upper_bound
from pushforward.detection.selective.risk_control import AbstentionRule, control_risk, sequence_thresholds
from pushforward.detection.selective.risk_coverage import RiskCoverage, augrc, aurc, excess_aurc, risk_coverage_curve
from pushforward.detection.selective.set_statistics import set_statistics
from pushforward.detection.selective.temperature import Temperature, fit_temperature

__all__ = [
    "AbstentionRule",
    "ClassifierCalibration",
    "OpenSetCurve",
    "PredictionSets",
    "RiskCoverage",
    "Temperature",
    "augrc",
    "aurc",
    "brier_score",
    "calibration_error",
    "conformal_risk_control",
    "control_risk",
    "correct_rate_at_acceptance",
    "excess_aurc",
    "fit_temperature",
    "negative_log_likelihood",
    "open_set_curve",
    "oscr",
    "reliability",
    "risk_coverage_curve",
    "risk_p_value",
    "risk_upper_bound",
    "sequence_thresholds",
    "set_statistics",
    "undetected_error_threshold",
]
