"""Scoring with fixed weights, as a service does it: few rows at a time, many times."""

from pushforward.compiled.scorer import CompiledScorer, compile_scorer

__all__ = ["CompiledScorer", "compile_scorer"]
