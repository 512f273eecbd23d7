"""Transforms of integers and categories, and dequantization."""
