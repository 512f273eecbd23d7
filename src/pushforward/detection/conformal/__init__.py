"""Conformal calibration: p-values, thresholds and their guarantees."""
