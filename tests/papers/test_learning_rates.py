"""Which learning rates are tried, and which is taken."""

import math

import pytest

from papers.flows.equal_time import best_rate


@pytest.mark.parametrize(
    ("best", "beyond", "tried", "found"),
    [
        (3e-3, 2, [1e-3, 3e-3, 1e-2], 3e-3), (1e-2, 2, [1e-3, 3e-3, 1e-2, 3e-2], 1e-2), (0.1, 2, [1e-3, 3e-3, 1e-2, 3e-2, 9e-2], 9e-2),
        (1e-3, 2, [1e-3, 3e-3, 1e-2, 3e-4], 1e-3), (0.1, 0, [1e-3, 3e-3, 1e-2], 1e-2),
    ],
)  # fmt: skip
def test_rates_beyond_the_edge_are_tried_where_the_best_is_there(best, beyond, tried, found):
    seen = []

    def score(rate):
        seen.append(rate)
        return -abs(math.log(rate / best))

    assert best_rate((1e-3, 3e-3, 1e-2), score, beyond=beyond) == found
    assert seen == tried


def test_a_further_rate_that_diverges_is_not_the_best():
    assert best_rate((1e-3, 1e-2), lambda rate: rate if rate <= 1e-2 else None, beyond=2) == 1e-2
