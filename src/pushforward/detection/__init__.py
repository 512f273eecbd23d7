"""Detection of inputs unlike the training data: scores, calibrated alarms, tests, and evaluation metrics."""

import importlib
from types import ModuleType

from pushforward.detection.attacks import fgsm, gate_aware_objective, log_likelihood_objective, pgd
from pushforward.detection.bootstrap import bootstrap_interval
from pushforward.detection.comparison import mean_rank, wins
from pushforward.detection.conformal.calibration import (
    ConformalCalibrator,
    FalseAlarmDistribution,
    Guarantee,
    benjamini_hochberg,
    false_alarm_distribution,
    realized_interval,
    rows_needed,
)
from pushforward.detection.conformal.likelihood_ratio import ClassifierRatio
from pushforward.detection.conformal.weighted import WeightedCalibrator
from pushforward.detection.metrics import (
    auroc,
    average_precision,
    fpr_at_tpr,
    miss_rate_at_acceptance,
    normal_average_precision,
    oscr,
    partial_auroc,
    separation,
    tpr_at_fpr,
)
from pushforward.detection.operating_point import OperatingPoint, operating_point
from pushforward.detection.proportion import exact_interval
from pushforward.detection.protocol import CheckResult, ProtocolReport, protocol_check
from pushforward.detection.random_features import RandomFeatures
from pushforward.detection.streams import Monitor, SequentialPValues
from pushforward.detection.two_sample import BatchTest, MMDTest, ProjectionKSTest, TypicalityTest
from pushforward.detection.two_sample.gate import BatchTwoSampleGate

__all__ = [
    "BatchTest",
    "BatchTwoSampleGate",
    "CheckResult",
    "ClassifierRatio",
    "ConformalCalibrator",
    "FalseAlarmDistribution",
    "Guarantee",
    "MMDTest",
    "Monitor",
    "OperatingPoint",
    "ProjectionKSTest",
    "ProtocolReport",
    "RandomFeatures",
    "SequentialPValues",
    "TypicalityTest",
    "WeightedCalibrator",
    "auroc",
    "average_precision",
    "benjamini_hochberg",
    "bootstrap_interval",
    "exact_interval",
    "false_alarm_distribution",
    "fgsm",
    "fpr_at_tpr",
    "gate_aware_objective",
    "log_likelihood_objective",
    "mean_rank",
    "miss_rate_at_acceptance",
    "normal_average_precision",
    "operating_point",
    "oscr",
    "partial_auroc",
    "pgd",
    "protocol_check",
    "realized_interval",
    "rows_needed",
    "separation",
    "tpr_at_fpr",
    "wins",
]

_PACKAGES = ("network", "scores", "selective", "smoothing", "table")


def __getattr__(name: str) -> ModuleType:
    """Import a part on first use."""
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
