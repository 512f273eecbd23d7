"""Small conveniences over pyarrow, imported late."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["compute", "is_text", "to_numpy", "value_type"]


def compute() -> Any:
    """``pyarrow.compute``, whose functions are made at import time and so are unknown to type checkers."""
    import pyarrow.compute

    return pyarrow.compute


def to_numpy(column: Any) -> np.ndarray:
    """An array or chunked array as numpy; nulls in numbers become NaN."""
    import pyarrow as pa

    return column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)


def value_type(kind: Any) -> Any:
    """The type of a column's cells, also where the column is dictionary-encoded."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_text(kind: Any) -> bool:
    """Whether a type holds text, plain or dictionary-encoded."""
    import pyarrow as pa

    kind = value_type(kind)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
