"""Training data become tensors; the error for other data names the row and the column."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import torch

from pushforward.data import as_tensor_data
from pushforward.errors import InputError


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (np.ones((3, 2)), torch.float64),
        (np.ones((3, 2), dtype=np.float32), torch.float32),
        (np.ones((3, 2), dtype=">f4"), torch.float32),
        (np.ones((3, 2), dtype=np.float16), torch.float32),
        (np.ones((3, 2), dtype=np.longdouble), torch.float64),
        (np.ones((3, 2), dtype=np.uint8), torch.uint8),
        (np.ones((3, 2), dtype=np.uint16), torch.int64),
        (np.ones((3, 2), dtype=np.int32), torch.int32),
        (np.ones((3, 2), dtype=bool), torch.uint8),
        (np.ones((2, 3)).T, torch.float64),
        (np.ones((3, 2))[::-1], torch.float64),
        (torch.ones(3, 2), torch.float32),
        (torch.ones(3, 2, dtype=torch.bfloat16), torch.float32),
        (torch.ones(3, 2, dtype=torch.bool), torch.uint8),
        ([[1.0, 1.0]] * 3, torch.float64),
        (pd.DataFrame({"a": [1.0] * 3, "b": [1] * 3}), torch.float64),
        (pl.DataFrame({"a": [1] * 3, "b": [1] * 3}), torch.int64),
        (pd.DataFrame(np.ones((3, 2))), torch.float64),
    ],
)
def test_values_and_types(data, dtype):
    x, context = as_tensor_data(data)
    assert x.dtype == dtype
    assert context is None
    assert torch.equal(x, torch.ones(3, 2, dtype=dtype))


def test_memory_is_shared():
    array = np.zeros((3, 2))
    x, _ = as_tensor_data(array)
    array[0, 0] = 5.0
    assert x[0, 0] == 5.0


def test_a_memory_mapped_file_is_not_copied(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(6.0).reshape(3, 2))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    x, _ = as_tensor_data(mapped)
    assert x.data_ptr() == mapped.ctypes.data


def test_the_tensor_is_detached():
    assert not as_tensor_data(torch.ones(2, 2, requires_grad=True))[0].requires_grad


def test_context():
    x, context = as_tensor_data(np.ones((3, 2)), [[1.0], [2.0], [3.0]])
    assert x.shape == (3, 2)
    assert context.tolist() == [[1.0], [2.0], [3.0]]
    assert as_tensor_data(np.ones((3, 2)), [[7.0]])[1].tolist() == [[7.0]] * 3


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.zeros((0, 2)), "0 rows"),
        (torch.zeros(0, 2), "0 rows"),
        (3.0, "one number"),
        (torch.tensor(3.0), "one number"),
        (np.array([[0.0, 1.0], [2.0, np.nan]]), "NaN in row 1, column 1"),
        (torch.tensor([[0.0, 1.0], [-np.inf, 0.0]]), "-inf in row 1, column 0"),
        (np.ma.masked_equal([[0.0, 1.0], [2.0, 9.0]], 9.0), "NaN in row 1, column 1"),
        (np.ma.masked_equal([[0, 1], [9, 2]], 9), "NaN in row 1, column 0"),
        (np.array([0.0, np.inf]), r"inf in row 1 \(counted"),
        (np.where(np.arange(8).reshape(2, 2, 2) == 5, np.nan, 0.0), r"NaN in row 1, index \(0, 1\)"),
        (pd.DataFrame({"a": [1.0, 2.0], "b": [1.0, None]}), "NaN in row 1, column 'b'"),
        (pl.DataFrame({"a": [1, None]}), "NaN in row 1, column 'a'"),
        (pd.DataFrame({"a": ["1", "x"]}), "column 'a', row 1 .*'x'"),
        (np.array([["a"]]), "must be numbers"),
        (np.array([[None]]), "must be numbers"),
        (np.array([[{}]]), "must be numbers"),
        (np.ones((2, 2)) * 1j, "Complex"),
        (torch.ones(2, 2) * 1j, "Complex"),
        (sp.eye(3, format="csr"), "sparse"),
        (torch.eye(2).to_sparse(), "sparse"),
        ([[1.0], [1.0, 2.0]], "unequal length"),
        (np.array([[2**64 - 1]], dtype=np.uint64), "63 bits"),
        (np.array([["2024-01-01"]], dtype="datetime64[s]"), "must be numbers"),
    ],
)
def test_refused(data, words):
    with pytest.raises(InputError, match=words):
        as_tensor_data(data)


def test_a_bad_row_in_a_later_block_is_named(monkeypatch):
    monkeypatch.setattr("pushforward.data.arrays._BLOCK", 10)
    data = np.zeros((100, 3))
    data[57, 2] = np.nan
    with pytest.raises(InputError, match="NaN in row 57, column 2"):
        as_tensor_data(data)


@pytest.mark.parametrize("context", [np.ones((2, 1)), np.ones(3)])
def test_a_context_that_does_not_fit(context):
    with pytest.raises(InputError, match=r"the context must have shape \(3, width\)"):
        as_tensor_data(np.ones((3, 2)), context)


def test_integers_of_64_bits_in_a_frame_are_refused():
    frame = pd.DataFrame({"a": np.array([2**63 + 5, 1], np.uint64)})
    with pytest.raises(InputError, match="more than 63 bits"):
        as_tensor_data(frame)
    small = pd.DataFrame({"a": np.array([2**63 - 1, 1], np.uint64)})
    assert as_tensor_data(small)[0].tolist() == [[2**63 - 1], [1]]
