"""Arrays as stacks of images."""

import numpy as np
import pytest
import torch
from PIL import Image

from pushforward.data import Photographs, as_images
from pushforward.errors import ConfigError, InputError
from pushforward.io import read_images

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
        (np.full((3, 8, 8), 1e30), "63 bits"),
        (np.full((3, 8, 8), -1e30), "smallest value is -1"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_arrays_that_are_not_images_are_refused(bad: object, words: str):
    with pytest.raises(InputError, match=words):
        as_images(bad)


def test_pictures_of_a_list_are_turned_upright_as_those_of_files(tmp_path) -> None:
    rng = np.random.default_rng(0)
    for kind in ("png", "tiff"):
        folder = tmp_path / kind
        folder.mkdir()
        for orientation in range(1, 9):
            shape = (6, 8, 3) if orientation < 5 else (8, 6, 3)
            exif = Image.Exif()
            exif[0x0112] = orientation
            picture = Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8))
            picture.save(folder / f"{orientation}.{kind}", exif=exif)
        found = as_images([Image.open(file) for file in sorted(folder.iterdir())])
        assert torch.equal(found, read_images(folder))


def test_the_picture_of_another_mode_or_size_is_named() -> None:
    gray, color, small = Image.new("L", (4, 3)), Image.new("RGB", (4, 3)), Image.new("L", (2, 3))
    with pytest.raises(InputError, match="image 2 has the mode RGB, and image 0 has L: convert"):
        as_images([gray, gray, color])
    with pytest.raises(InputError, match="image 1 is 2 wide and 3 high, and image 0 is 4 wide"):
        as_images([gray, small])


def test_pictures_of_8_and_more_bits_are_refused() -> None:
    """White is 255 in one of them and 65535 in the other."""
    deep, gray = np.full((4, 3), 60_000, np.uint16), np.full((4, 3), 255, np.uint8)
    with pytest.raises(
        InputError, match="images must have one range: image 2 has 8 bits, and image 0 has more: convert one of them"
    ):
        as_images([Image.fromarray(deep), Image.fromarray(deep), Image.fromarray(gray)])
    for few, many in ((gray, deep), (torch.from_numpy(gray), torch.from_numpy(deep)), (Image.fromarray(gray), deep)):
        with pytest.raises(InputError, match="image 0 has 8 bits, and image 1 has more"):
            as_images([few, many])
    assert as_images([deep, deep.astype(np.int64)]).amax() == 60_000


@pytest.mark.filterwarnings("error")
def test_types_that_numpy_does_not_have() -> None:
    images = torch.arange(12).reshape(1, 3, 4)
    assert torch.equal(as_images(images.bfloat16()), images[:, None].int())
    assert torch.equal(as_images([images[0].bfloat16().requires_grad_()]), images[:, None].int())
    assert torch.equal(as_images(images.half()), images[:, None].int())  # their range does not hold 2**31


@pytest.mark.parametrize("std", [0, (0.5, 0.5), (0.5, 0.0, 0.5), (0.5, float("nan"), 0.5), "abc"])
def test_photographs_need_a_positive_spread_of_each_channel(std):
    with pytest.raises(ConfigError, match="std must be"):
        Photographs(8, std=std)


def test_a_photograph_without_pixels_is_said_to_have_none() -> None:
    with pytest.raises(InputError, match="picture 0 cannot be read: it has no pixels"):
        Photographs(8)([np.zeros((0, 5, 3), np.uint8)])
