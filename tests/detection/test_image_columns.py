"""Properties of images as columns."""

import numpy as np
import pytest
import torch

from pushforward.detection.image_columns import image_columns, image_schema


def test_values_of_small_images():
    checker = torch.tensor([[0, 10], [10, 0]], dtype=torch.uint8)[None, None]
    assert image_columns(checker)[0] == pytest.approx([5.0, 5.0, 10.0])
    color = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    color[:, 0] = 30
    assert dict(zip(image_schema(3).names, image_columns(color)[0], strict=True)) == pytest.approx(
        {"brightness": 10, "contrast": 0, "sharpness": 0, "red": 30, "green": 0, "blue": 0}
    )


def test_transparency_is_ignored_and_many_images_are_read_in_parts():
    images = torch.randint(0, 255, (2100, 4, 5, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    found = image_columns(images)
    assert found.shape == (2100, 6)
    assert np.array_equal(found, image_columns(images[:, :3]))
    assert np.array_equal(found[2000:], image_columns(images[2000:]))
    assert image_columns(images[:0, :1]).shape == (0, 3)
    assert image_columns(images[:1, :1, :1, :1]).tolist()[0][1:] == [0.0, 0.0]
