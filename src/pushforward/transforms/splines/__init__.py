"""Monotone splines as transformers."""
