"""Pairs of conditionals that generate in a cycle (CyGen)."""
