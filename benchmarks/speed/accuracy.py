"""Errors of a flow's inverse and log-determinant, on the data and far from the data."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.speed.cases import Flow, batches
from benchmarks.speed.libraries import Built

__all__ = ["ERRORS", "errors"]

ROWS, JACOBIAN_ROWS, WIDEST_JACOBIAN, FAR = 256, 32, 100, 5
ERRORS = {
    "round trip": f"max |x - decode(encode(x))| on {ROWS} rows of data",
    "round trip x5": f"the same on these data times {FAR}",
    "two log-dets": "max |log-det of encoding - that of decoding|, nats",
    "autodiff": f"max |log-det of encoding - that of the Jacobian by autodiff in float64|, nats, on {JACOBIAN_ROWS} rows",
}


def errors(built: Built, flow: Flow) -> dict[str, Any]:
    """The largest errors of a built flow, by the names of ``ERRORS``; None where a Jacobian would be too wide."""
    x = next(batches(flow.features, ROWS, flow.dtype))
    z, log_det = built.encode(x)
    back, back_log_det = built.decode(z)
    far = x * x.dtype.type(FAR)
    exact = None
    if flow.features <= WIDEST_JACOBIAN:
        exact = worst(log_det[:JACOBIAN_ROWS] - built.autodiff_log_det(x[:JACOBIAN_ROWS]))
    found = (worst(back - x), worst(built.decode(built.encode(far)[0])[0] - far), worst(log_det - back_log_det), exact)
    return {"errors": dict(zip(ERRORS, found, strict=True))}


def worst(differences: Any) -> float:
    """The largest absolute value; NaN if there is one."""
    return float(np.abs(np.asarray(differences, dtype=np.float64)).max())
