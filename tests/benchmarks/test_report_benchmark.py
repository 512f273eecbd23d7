"""The rows of the benchmark of reports."""

import numpy as np
import pytest

from benchmarks.reports import parts


@pytest.mark.parametrize("count", [5, 10, 25])
def test_parts_have_the_wished_number_of_rows(count):
    found = list(parts(np.arange(10)[:, None], count, 4))
    assert [len(part) for part in found] == [4] * (count // 4) + ([count % 4] if count % 4 else [])
    if count <= 10:
        assert np.concatenate(found)[:, 0].tolist() == list(range(count))  # each row once
