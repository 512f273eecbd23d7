"""Monotone splines as elementwise transformers."""
