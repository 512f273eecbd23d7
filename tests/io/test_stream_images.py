"""Images in parts are the images that are read as a whole."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

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


@pytest.mark.parametrize("modes", [["L"], ["RGB"], ["L", "RGB"], ["I;16"], ["1", "LA", "P", "RGBA"]])
@pytest.mark.parametrize("form", ["folder", "parquet"])
def test_the_parts_of_encoded_images_are_the_whole(tmp_path, modes, form):
    """Whether the whole is gray, and how wide its integers are, depends on all images, not on those of a part."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    for k in range(23):
        mode = modes[min(k // 8, len(modes) - 1)]
        gray = Image.fromarray(generator.integers(0, 200, (6, 5)).astype(np.uint16 if mode == "I;16" else np.uint8))
        (gray if mode == "I;16" else gray.convert(mode)).save(folder / ("more" if k % 2 else "") / f"{k:02}.png")
    path = folder
    if form == "parquet":
        path = tmp_path / "images.parquet"
        files = sorted(folder.rglob("*.png"))
        pq.write_table(
            pa.table({"image": [file.read_bytes() for file in files], "name": [file.name for file in files]}), path
        )
    whole, parts = read_images(path), list(stream_images(path, 10))
    assert [len(part) for part in parts] == [10, 10, 3]
    assert {part.dtype for part in parts} == {whole.dtype}
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("form", ["folder", "parquet"])
def test_memory_of_encoded_images_is_that_of_a_part(tmp_path, form):
    encoded = io.BytesIO()
    Image.fromarray(np.full((200, 200, 3), 7, np.uint8)).save(encoded, "png")
    path = tmp_path / "x.parquet"
    if form == "folder":
        path = tmp_path / "x"
        path.mkdir()
        for k in range(100):
            (path / f"{k}.png").write_bytes(encoded.getvalue())
    else:
        pq.write_table(pa.table({"image": [encoded.getvalue()] * 100}), path)
    list(stream_images(path, 60))  # what is loaded once
    tracemalloc.start()
    try:
        total = sum(int(part.sum()) for part in stream_images(path, 5))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == 100 * 200 * 200 * 3 * 7
    assert peak < 3e6  # all of them have 12 MB


def test_what_is_wrong_with_an_image_is_said(tmp_path):
    for k, side in enumerate((4, 4, 5)):
        Image.fromarray(np.zeros((4, side), np.uint8)).save(tmp_path / f"{k}.png")
    with pytest.raises(InputError, match=r"2\.png is 5 wide and 4 high, and the first image is 4 wide"):
        next(stream_images(tmp_path, 1))  # before any part
    (tmp_path / "2.png").write_bytes(b"no image")
    with pytest.raises(StorageError, match=r"2\.png is not an image"):
        next(stream_images(tmp_path, 1))
    pq.write_table(pa.table({"image": [(tmp_path / "0.png").read_bytes(), None]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"row 1 .* has no image"):
        next(stream_images(tmp_path / "x.parquet", 1))
    (tmp_path / "empty").mkdir()
    with pytest.raises(StorageError, match="no image files"):
        next(stream_images(tmp_path / "empty", 1))


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
