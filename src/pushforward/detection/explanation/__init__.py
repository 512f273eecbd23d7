"""Reasons for the score of a table's row: the unusual columns, in the table's own units and as sentences."""

from pushforward.detection.explanation.evidence import Evidence
from pushforward.detection.explanation.explanation import Explanation
from pushforward.detection.explanation.reason import CELL_KINDS, Reason

__all__ = ["CELL_KINDS", "Evidence", "Explanation", "Reason"]
