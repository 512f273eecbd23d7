"""The gate of InFlow: a two-sample test that is applied to every batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pushforward.detection.batching import by_batches
from pushforward.detection.two_sample import BatchTest
from pushforward.errors import InputError
from pushforward.models import GatedFlow
from pushforward.numerics.checks import check_number

__all__ = ["BatchTwoSampleGate"]

Features = Callable[[Tensor], Tensor]


class BatchTwoSampleGate:
    """The context c of a gated flow from a two-sample test: 1 for a batch like the reference, 0 for other batches.

    For a batch B, c(B) = 1 if p(B) > alpha and 0 otherwise, and the score of a row of B is -log p(x | c(B)) (Kumar et al.
    2021, arXiv 2106.12894). :meth:`scores` applies the test to every batch, in-distribution batches included, so that
    measured results include the false alarms of the gate. An evaluation that sets c = 1 for in-distribution batches is
    too optimistic.

    This is **not** a detector of single inputs: all rows of a batch get the same c. 1% of outliers in a batch either do not
    change c, or make all of the other 99% anomalous. Use :meth:`single_p_values` for single inputs.

    Args:
        test: batch test whose reference is the features of the reference rows.
        features: function that computes these features, from rows ``(n, *shape)`` to ``(n, d)`` or ``(n,)``; None flattens
            the rows.
        alpha: largest probability that a batch like the reference is rejected.

    Raises:
        ConfigError: for an alpha outside (0, 1).
        InputError: if ``test`` is not a :class:`BatchTest`.

    Example:
        >>> import torch
        >>> from pushforward.detection import BatchTwoSampleGate, MMDTest
        >>> draw = torch.Generator().manual_seed(0)
        >>> gate = BatchTwoSampleGate(MMDTest(torch.randn(200, 2, generator=draw)))
        >>> gate.accepts(torch.randn(30, 2, generator=draw)), gate.accepts(torch.randn(30, 2, generator=draw) + 2)
        (True, False)
    """

    def __init__(self, test: BatchTest, features: Features | None = None, *, alpha: float = 0.05) -> None:
        if not isinstance(test, BatchTest):
            raise InputError(
                f"BatchTwoSampleGate needs a BatchTest such as MMDTest(reference); got {type(test).__name__}."
            )
        self.test, self.features, self.alpha = test, features, check_number("alpha", alpha, 0, 1)

    def p_value(self, batch: Tensor) -> float:
        """P-value of "this batch is like the reference".

        Args:
            batch: rows, ``(n, *shape)``.

        Raises:
            InputError: for no rows, or features of a different shape than the reference.
        """
        return self.test.p_value(self._features(batch))

    def accepts(self, batch: Tensor) -> bool:
        """Whether the p-value exceeds alpha."""
        return self.p_value(batch) > self.alpha

    def scores(self, model: GatedFlow, batch: Tensor) -> Tensor:
        """-log p(x | c) of each row, float64 ``(n,)``, with one c for the whole batch.

        Args:
            model: gated flow.
            batch: rows, ``(n, *shape)``.

        Raises:
            InputError: as :meth:`p_value`, or for rows that are invalid for the model.
        """
        gated = model.gated(1.0 if self.accepts(batch) else 0.0)
        return by_batches(lambda part: -gated.evaluate(part).value.double(), batch, 256)

    def single_p_values(self, rows: Tensor) -> NDArray[np.float64]:
        """Conformal p-values of single rows, with the test's statistic as the score, ``(n,)``."""
        return self.test.single_p_values(self._features(rows))

    def _features(self, rows: Tensor) -> NDArray[np.float64]:
        features = self.features or (lambda part: part.flatten(1))
        if not isinstance(rows, Tensor) or rows.dim() < 2 or len(rows) == 0:
            raise InputError("BatchTwoSampleGate needs a tensor of shape (n, ...) with n at least 1.")
        return by_batches(lambda part: features(part).double(), rows, 256).cpu().numpy()
