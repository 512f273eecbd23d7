"""Conformal calibration: p-values, thresholds and the guarantees that they carry."""
