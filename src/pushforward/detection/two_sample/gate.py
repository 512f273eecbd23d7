"""InFlow's gate as what it is: a two-sample test of a batch, the same for whatever batch comes."""

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
    """Opens a flow for a batch that a two-sample test cannot tell from the reference, and closes it for others.

    For a batch B, c(B) = 1 if p(B) > alpha and else 0, and a row of it scores -log p(x | c(B)) (Kumar et al. 2021,
    arXiv 2106.12894). Every batch goes through :meth:`scores`, in-distribution ones too, so that the gate's own false
    alarms show in what is measured: an evaluation that spares them the gate reports something else.

    **What it is not:** a detector of single inputs. All rows of a batch share one verdict: 1% of outliers go unseen, or
    condemn the other 99%. For single inputs there is :meth:`single_p_values`.

    Args:
        test: a batch test that was given the features of the reference rows.
        features: what was used for them, rows ``(n, *shape)`` to ``(n, d)`` or ``(n,)``; None flattens the rows.
        alpha: level; a batch like the reference is rejected with at most this probability.

    Raises:
        ConfigError: for a level outside (0, 1).
        InputError: if the test is none.

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
            raise InputError(f"the gate needs a batch test such as MMDTest(reference); got {type(test).__name__}.")
        self.test, self.features, self.alpha = test, features, check_number("alpha", alpha, 0, 1)

    def p_value(self, batch: Tensor) -> float:
        """P-value of "this batch is like the reference".

        Args:
            batch: ``(n, *shape)``.

        Raises:
            InputError: for no rows, or features that do not fit the reference.
        """
        return self.test.p_value(self._features(batch))

    def accepts(self, batch: Tensor) -> bool:
        """Whether the p-value exceeds alpha."""
        return self.p_value(batch) > self.alpha

    def scores(self, model: GatedFlow, batch: Tensor) -> Tensor:
        """-log p(x | c) of each row, float64 ``(n,)``, with the one c that the batch as a whole gets.

        Args:
            model: the flow.
            batch: ``(n, *shape)``.

        Raises:
            InputError: as :meth:`p_value`, or for rows that the model cannot read.
        """
        gated = model.gated(1.0 if self.accepts(batch) else 0.0)
        return by_batches(lambda part: -gated.evaluate(part).value.double(), batch, 256)

    def single_p_values(self, rows: Tensor) -> NDArray[np.float64]:
        """Each row as a batch of its own: conformal p-values with the test's statistic as score, ``(n,)``."""
        return self.test.single_p_values(self._features(rows))

    def _features(self, rows: Tensor) -> NDArray[np.float64]:
        features = self.features or (lambda part: part.flatten(1))
        if not isinstance(rows, Tensor) or rows.dim() < 2 or len(rows) == 0:
            raise InputError("the gate reads a tensor of shape (n, ...), n at least 1.")
        return by_batches(lambda part: features(part).double(), rows, 256).cpu().numpy()
