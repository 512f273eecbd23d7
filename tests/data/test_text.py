"""Numbers that are written as text."""

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pushforward.data.text import parse_numbers


@given(st.lists(st.one_of(st.floats(allow_nan=False), st.integers(-(10**15), 10**15)), min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_numbers_are_read_as_python_reads_them(numbers):
    values, bad = parse_numbers(pa.array([repr(number) for number in numbers]))
    assert values.tolist() == [float(number) for number in numbers]
    assert not bad.any()
    # One unreadable cell makes the slow path read the others, to the same numbers.
    values, bad = parse_numbers(pa.array([*(f" {number!r} " for number in numbers), "x"]))
    assert values[:-1].tolist() == [float(number) for number in numbers]
    assert bad.tolist() == [False] * len(numbers) + [True]


def test_cells_that_are_not_numbers_are_found():
    text = pa.array(["3", "", None, "NA", "?", "1_0", "0x1", "٣", "1 2", "--1"])
    _, bad = parse_numbers(text)
    assert bad.tolist() == [False] * 5 + [True] * 5
