"""Images in parts are the images that are read as a whole."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from pushforward.errors import InputError, StorageError
from pushforward.io import read_images, stream_images


@pytest.mark.parametrize("shape", [(23, 6, 5), (23, 6, 5, 3), (23, 1, 6, 5)])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
@pytest.mark.parametrize("form", ["npy", "columns", "npz"])
def test_the_parts_are_the_whole(tmp_path, shape, kind, form):
    array = np.random.default_rng(0).integers(0, 200, shape).astype(kind)
    path = tmp_path / f"x.{'npz' if form == 'npz' else 'npy'}"
    if form == "npz":
        np.savez(path, X=array)
    else:
        np.save(path, np.asfortranarray(array) if form == "columns" else array)
    parts = list(stream_images(path, 10))
    assert [len(part) for part in parts] == [10, 10, 3]
    whole = read_images(path)
    assert torch.equal(torch.cat(parts), whole)
    assert parts[0].dtype == whole.dtype


def test_memory_is_that_of_a_part(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((20_000, 28, 28), np.uint8))  # 16 MB
    tracemalloc.start()
    try:
        total = sum(int(part.sum()) for part in stream_images(tmp_path / "x.npy", 1000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == 20_000 * 28 * 28
    assert peak < 4e6


def test_what_is_no_stack_of_images(tmp_path):
    np.save(tmp_path / "matrix.npy", np.ones((5, 4), np.uint8))
    with pytest.raises(InputError, match="images must have the shape"):
        list(stream_images(tmp_path / "matrix.npy", 2))
    np.save(tmp_path / "negative.npy", np.concatenate((np.ones((5, 4, 4), np.int16), -np.ones((1, 4, 4), np.int16))))
    with pytest.raises(InputError, match="at least 0"):
        list(stream_images(tmp_path / "negative.npy", 2))
    with pytest.raises(StorageError, match="there is no file"):
        list(stream_images(tmp_path / "absent.npy", 2))


def test_a_file_that_is_cut_meanwhile(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((100, 8, 8), np.uint8))
    parts = stream_images(tmp_path / "x.npy", 10)
    next(parts)
    with (tmp_path / "x.npy").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(StorageError, match="changed while it was read"):
        list(parts)
