"""Fast scoring of few rows with fixed weights, as a service does it."""

from pushforward.compiled.scorer import CompiledScorer, compile_scorer

__all__ = ["CompiledScorer", "compile_scorer"]
