"""How reasons write numbers: with the decimals that tell them from the usual ones."""

import pytest

from pushforward.data import Schema
from pushforward.detection.explanation.reason import sentence, text


@pytest.mark.parametrize(
    ("value", "width", "expected"),
    [
        (100000090.0, 40.0, "100000090.0"),
        (10132500.31, 0.02, "10132500.3100"),
        (12345678.0, 1e6, "1.235e+07"),
        (12345678.0, 0.0, "1.235e+07"),
        (2.0**60, 512.0, "1.152921504606847e+18"),
        (1.25, 0.0, "1.25"),
        (1234.5, 100.0, "1234"),
    ],
)
def test_a_narrow_range_of_large_numbers_keeps_its_digits(value, width, expected):
    assert text(value, width, True) == expected


def test_a_large_constant_that_changed_is_told_from_its_old_value():
    import numpy as np

    [column] = Schema.infer({"c": np.full(20, 1e8)}).columns
    said = sentence(column, "changed constant", 100000001.0, (1e8,), (), float("nan"))
    assert said == "c is 100000001.00; in every training row it is 100000000.00."
    assert "1.5" in sentence(column, "changed constant", 1.5, (2.0,), (), float("nan"))


def test_a_number_near_a_narrow_range_keeps_its_digits_and_one_far_away_has_four():
    import numpy as np

    [column] = Schema.infer({"hz": 1e8 + np.linspace(-20, 20, 50)}).columns
    said = [
        sentence(column, "number", value, (99999980.0, 100000020.0), (), float("nan")) for value in (100000090.0, 5e8)
    ]
    assert said[0].startswith(
        "hz is 100000090.0; given the other columns, 95 % of normal rows are between 99999980.0 and 100000020.0"
    )
    assert said[1].startswith("hz is 5e+08; ")


@pytest.mark.parametrize(
    ("value", "range_", "words"),
    [
        (0.4053, (0.4134, 6.28), "is 0.405; given the other columns, 95 % of normal rows are between 0.413 and 6.28."),
        (6.2803, (0.4134, 6.28), "is 6.2803; given the other columns, 95 % of normal rows are between 0.4134 and 6.28."),
        (0.3, (0.4134, 6.28), "is 0.3; given the other columns, 95 % of normal rows are between 0.41 and 6.28."),
        (-2.0, (0.4134, 6.28), "is -2; given the other columns, 95 % of normal rows are between 0.41 and 6.28."),
        (1.0, (0.4134, 6.28), "is 1, which is usual given the other columns: 95 % of normal rows are between 0.41 and 6.28."),
    ],
)  # fmt: skip
def test_a_number_just_outside_of_a_range_does_not_read_like_its_end(value, range_, words):
    [column] = Schema.infer({"x": [0.1, 2.0, 6.0]}).columns
    assert sentence(column, "number", value, range_, (), float("nan")) == f"x {words}"
