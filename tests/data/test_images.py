"""Arrays as stacks of images."""

import numpy as np
import pytest
import torch

from pushforward.data import as_images
from pushforward.errors import InputError

GRAY = np.random.default_rng(0).integers(0, 256, (5, 4, 6), dtype=np.uint8)
COLOR = np.random.default_rng(1).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)


def test_arrays_in_every_layout_mean_the_same_images():
    first = torch.from_numpy(np.moveaxis(COLOR, -1, 1).copy())
    assert torch.equal(as_images(COLOR), first)
    assert torch.equal(as_images(first), first)
    assert torch.equal(as_images(GRAY)[:, 0], torch.from_numpy(GRAY))
    assert torch.equal(as_images(GRAY[..., None]), as_images(GRAY))
    assert torch.equal(as_images(GRAY.astype(float)), as_images(GRAY).int())


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("uint8", torch.uint8),
        ("bool", torch.uint8),
        ("uint16", torch.int32),
        ("int64", torch.int32),
        ("float32", torch.int32),
    ],
)
def test_integer_types(dtype: str, expected: torch.dtype):
    images = as_images(np.ones((2, 3, 3), dtype=dtype))
    assert images.dtype == expected
    assert images.shape == (2, 1, 3, 3)


def test_values_beyond_32_bits_are_kept():
    images = as_images(np.full((1, 1, 1), 2**40))
    assert images.dtype == torch.int64
    assert images.item() == 2**40


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.full((2, 3, 3), 0.5), "fractions"),
        (np.full((2, 3, 3), np.nan), "NaN"),
        (np.full((2, 3, 3), -1), "smallest value is -1"),
        (np.zeros((0, 3, 3)), "no images"),
        (np.zeros((2, 5, 5, 2)), "channels"),
        (np.zeros((3, 3)), "shape"),
        (np.array([["a"]]), "integers"),
        ([np.zeros((2, 2)), np.zeros((3, 3))], "do not form an array"),
        (np.full((1, 1, 1), 2**63, dtype=np.uint64), "63 bits"),
    ],
)
def test_arrays_that_are_not_images_are_refused(bad: object, words: str):
    with pytest.raises(InputError, match=words):
        as_images(bad)
