"""The table's matrix: constants, missing values, unseen cells, and the way back."""

import math

import numpy as np
import pytest

from pushforward.detection.table_features import TableFeatures
from pushforward.errors import StorageError

NAN = math.nan


@pytest.fixture
def layout() -> TableFeatures:
    rows = np.array([[1.0, 5.0, 0.3, 2.0], [2.0, 5.0, NAN, 2.0], [3.0, 5.0, 0.9, 4.0], [2.0, 5.0, 0.5, 2.0]])
    return TableFeatures.fit(rows, [(0.0, 1.0), None, None, (0.0, 2.0)])


def test_constants_leave_the_matrix_and_missing_values_get_an_indicator(layout: TableFeatures) -> None:
    assert layout.kept == (0, 2, 3)
    assert layout.constants == ((1, 5.0),)
    assert layout.indicators == (1,)
    assert layout.features == 4
    assert layout.lattices == ((0, 0.0, 1.0), (2, 0.0, 2.0), (3, 0.0, 1.0))
    assert layout.fills == (2.0, 0.5, 2.0)


def test_unseen_cells_cost_the_rule_of_succession(layout: TableFeatures) -> None:
    matrix, surprise = layout.matrix(np.array([[1.0, 5.0, NAN, 2.0], [NAN, 6.0, 0.1, 4.0]]))
    price = math.log(4 + 2)
    np.testing.assert_array_equal(surprise, [[0, 0, 0, 0], [price, price, 0, 0]])
    np.testing.assert_array_equal(matrix, [[1.0, 0.5, 2.0, 1.0], [2.0, 0.1, 4.0, 0.0]])


def test_infinities_stay_for_the_density_to_judge(layout: TableFeatures) -> None:
    matrix, surprise = layout.matrix(np.array([[math.inf, 5.0, 0.1, 2.0]]))
    assert matrix[0, 0] == math.inf
    assert surprise.sum() == 0


def test_unseen_categories_cost_the_same_and_do_not_reach_the_density() -> None:
    layout = TableFeatures.fit(np.array([[0.0, 1.0], [1.0, 2.0], [1.0, 4.0]]), [(0.0, 1.0), None], coded=[True, False])
    matrix, surprise = layout.matrix(np.array([[math.inf, 1.5], [1.0, math.inf]]))
    np.testing.assert_array_equal(surprise, [[math.log(5), 0.0], [0.0, 0.0]])
    np.testing.assert_array_equal(matrix, [[1.0, 1.5], [1.0, math.inf]])


def test_round_trip_of_rows_and_of_json(layout: TableFeatures) -> None:
    rows = np.array([[1.0, 5.0, NAN, 2.0], [3.0, 5.0, 0.9, 4.0]])
    np.testing.assert_array_equal(layout.unmatrix(layout.matrix(rows)[0]), rows)
    assert TableFeatures.from_json(layout.to_json()) == layout


def test_terms_add_up_by_column(layout: TableFeatures) -> None:
    np.testing.assert_array_equal(layout.by_column(np.array([[1.0, 2.0, 4.0, 8.0]])), [[1.0, 0.0, 10.0, 4.0]])


@pytest.mark.parametrize(
    "change",
    [{"width": 3}, {"width": "4"}, {"kept": [0, 2, 9]}, {"fills": [1.0]}, {"fills": [1.0, "x", 2.0]}, {"rows": -1},
     {"lattices": [[0, 0.0, 0.0]]}, {"indicators": [1, 1]}, {"constants": [[1]]}, {"kept": None}],
)  # fmt: skip
def test_nonsense_from_a_file_is_refused(layout: TableFeatures, change: dict) -> None:
    with pytest.raises(StorageError, match="layout"):
        TableFeatures.from_json(layout.to_json() | change)
