"""Parse JSON of files that are not trusted."""

from __future__ import annotations

import json
import math
from typing import Any

__all__ = ["parse"]

_MAX_DEPTH = 64


def parse(text: str | bytes) -> dict[str, Any]:
    """Parse a text that is one JSON object without repeated keys, infinite numbers or deep nesting.

    Raises:
        ValueError: for any other text.
        RecursionError: for nesting beyond the limit of Python.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a key appears twice")
        return result

    def finite(text: str) -> float:
        if not math.isfinite(value := float(text)):
            raise ValueError(f"{text[:20]} is not a finite number")
        return value

    result = json.loads(text, object_pairs_hook=unique, parse_float=finite, parse_constant=finite)
    level, depth = [result], 0
    while level:
        if (depth := depth + 1) > _MAX_DEPTH:
            raise ValueError(f"it is nested more than {_MAX_DEPTH} deep")
        inner = [item for item in level if isinstance(item, (dict, list))]
        level = [child for item in inner for child in (item.values() if isinstance(item, dict) else item)]
    if not isinstance(result, dict):
        raise ValueError("it is not a JSON object")
    return result
