"""Continuous-time transforms: solutions of ordinary differential equations."""
