"""Parts of the reproductions nalisnick and survey."""

import numpy as np
import pytest
import torch

from papers.claims.nalisnick import _neighbors
from papers.claims.survey import Split


def test_pixels_are_predicted_from_earlier_pixels():
    images = torch.randint(256, (1, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    near, pixel = _neighbors(images)
    assert near.shape == (1, 28, 28, 24)
    assert torch.equal(pixel[0], images[0, 0].double() / 255)
    changed = images.clone()
    changed[0, 0, 10, 12] ^= 255
    moved = (_neighbors(changed)[0] != near).any(-1)[0].nonzero().tolist()
    rows = [(10, column) for column in (13, 14, 15)]
    rows += [(row, column) for row in (11, 12, 13) for column in range(9, 16)]
    assert [tuple(pixel) for pixel in moved] == rows


@pytest.mark.parametrize("how", ["clean", "file order", "copies"])
def test_only_the_split_with_copies_leaks(how):
    rng = np.random.default_rng(0)
    rows, odd = rng.normal(size=(90, 3)), rng.normal(size=(10, 3))
    split = Split(rows, odd, how, 0)
    seen = {tuple(row) for row in split.train.tolist()}
    leaked = np.mean([tuple(row) in seen for row in split.test.tolist()])
    if how == "copies":
        assert len(split.train) + len(split.test) == 900
        assert len(split.odd) == 100
        assert leaked > 0.9
        return
    assert leaked == 0
    assert len(split.train) == len(split.test) == 45
    first = Split(rows, odd, "file order", 0).train
    assert torch.equal(first, split.train) == (how == "file order")
