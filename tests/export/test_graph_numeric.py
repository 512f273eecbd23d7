"""Searches and quadratic forms of graphs against NumPy and linear algebra."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pushforward.detection import ConformalCalibrator
from pushforward.graphs.decompositions import DECOMPOSITIONS
from pushforward.graphs.graph import OUTPUTS, Promise, unique_names
from pushforward.graphs.numeric import count_below, infinite, log_sum_exp, quadratic_form


@pytest.mark.parametrize("count", [1, 2, 3, 10, 99, 100, 101])
@pytest.mark.parametrize("right", [False, True])
def test_the_count_is_that_of_searchsorted(count: int, right: bool):
    rng = np.random.default_rng(count)
    values = np.sort(rng.integers(0, 20, count).astype(float))  # with ties
    points = np.concatenate((values, values + 0.5, [-9.0, 99.0]))
    found = count_below(torch.from_numpy(values), torch.from_numpy(points), right=right)
    assert found.tolist() == np.searchsorted(values, points, side="right" if right else "left").tolist()


def test_a_batch_of_searches_is_one_for_each_row():
    rng = np.random.default_rng(0)
    values, points = np.sort(rng.normal(size=(3, 50)), 1), rng.normal(size=(3, 7))
    found = count_below(torch.from_numpy(values), torch.from_numpy(points))
    assert found.tolist() == [np.searchsorted(v, p).tolist() for v, p in zip(values, points, strict=True)]


def test_infinity_is_above_all_finite_values_and_equal_to_itself():
    values = torch.tensor([1.0, 2.0, np.inf], dtype=torch.float64)
    assert count_below(values, torch.tensor([np.inf, -np.inf], dtype=torch.float64)).tolist() == [2, 0]
    assert infinite(torch.tensor([1e300, -np.inf, np.nan], dtype=torch.float64)).tolist() == [False, True, False]


@pytest.mark.parametrize("portable", [False, True])
def test_the_quadratic_form_is_that_of_the_inverse(portable: bool):
    rng = np.random.default_rng(1)
    root, vector = rng.normal(size=(5, 4, 6)), rng.normal(size=(5, 4))
    matrix = root @ root.transpose(0, 2, 1)
    form, log_det = quadratic_form(torch.from_numpy(matrix), torch.from_numpy(vector), portable=portable)
    expected = np.einsum("ni,nij,nj->n", vector, np.linalg.inv(matrix), vector)
    np.testing.assert_allclose(form.numpy(), expected, rtol=1e-10)
    np.testing.assert_allclose(log_det.numpy(), np.linalg.slogdet(matrix)[1], rtol=1e-10)


def test_log_sum_exp_of_large_numbers():
    x = torch.tensor([[-1000.0, -1000.0], [700.0, 0.0]], dtype=torch.float64)
    np.testing.assert_allclose(log_sum_exp(x).numpy(), [-1000 + np.log(2), 700.0])
    assert log_sum_exp(torch.full((1, 2), -math.inf, dtype=torch.float64)).tolist() == [-math.inf]


def test_operations_that_onnx_lacks_are_replaced_by_equal_ones():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(7, 3, generator=generator).double(), torch.randn(9, 3, generator=generator).double()
    aten = torch.ops.aten
    torch.testing.assert_close(DECOMPOSITIONS[aten._euclidean_dist.default](x, y), torch.cdist(x, y))
    torch.testing.assert_close(DECOMPOSITIONS[aten._cdist_forward.default](x, y, 2.0), torch.cdist(x, y))
    for keepdim in (False, True):
        for found, expected in zip(
            DECOMPOSITIONS[aten.kthvalue.default](x, 2, 0, keepdim), x.kthvalue(2, 0, keepdim), strict=True
        ):
            assert torch.equal(found, expected)
    count = DECOMPOSITIONS[aten.sum.dim_IntList](x > 0, [0], dtype=torch.uint8)
    assert count.dtype is torch.uint8
    assert torch.equal(count.long(), (x > 0).sum(0))
    values, y = x[:, 0].sort().values, y.T.contiguous().T
    found = DECOMPOSITIONS[aten.searchsorted.Tensor](values, y[:, 0], right=True)
    assert torch.equal(found, torch.searchsorted(values, y[:, 0], right=True))


def test_the_promise_gives_the_p_values_of_the_calibrator():
    scores = np.array([0.1, 0.4, 0.4, 2.0, np.inf])
    calibrator = ConformalCalibrator(scores)
    new = np.array([-5.0, 0.1, 0.4, 0.41, 3.0, np.inf])
    p, alarm = Promise(calibrator.scores, 1 / 3, 1e-9)(torch.from_numpy(new))
    np.testing.assert_array_equal(p.numpy(), calibrator.p_value(new))
    np.testing.assert_array_equal(alarm.numpy(), calibrator.p_value(new) <= 1 / 3)


def test_a_score_above_a_calibration_score_by_rounding_is_equal_to_it():
    promise = Promise(np.array([1.0, 2.0, 3.0]), 0.25, 1e-9)
    p, alarm = promise(torch.tensor([3.0 + 1e-12, 3.0 + 1e-6], dtype=torch.float64))
    assert p.tolist() == [0.5, 0.25]
    assert alarm.tolist() == [False, True]


def test_a_level_of_zero_raises_no_alarm():
    assert not Promise(np.zeros(3), 0.0, 1e-9)(torch.tensor([np.inf]).double())[1].any()


def test_names_of_inputs_are_unique_and_not_those_of_outputs():
    names = unique_names(["age", "", "alarm", "input.alarm"])
    assert names[:2] == ("age", "column 1")
    assert len(set(names)) == 4
    assert not set(names) & set(OUTPUTS)


def test_a_score_that_is_no_number_is_an_alarm():
    p, alarm = Promise(np.arange(9.0), 0.1, 1e-9)(torch.tensor([math.nan, 0.5], dtype=torch.float64))
    assert p.tolist() == [0.1, 0.9]
    assert alarm.tolist() == [True, False]
