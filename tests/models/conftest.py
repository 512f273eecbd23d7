"""Fixtures of the tests of image models: real images, if there are any."""

import gzip
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor


def read_idx(path: Path) -> Tensor:
    raw = gzip.decompress(path.read_bytes())
    shape = [int.from_bytes(raw[4 * k : 4 * k + 4], "big") for k in range(1, raw[3] + 1)]
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=4 * len(shape) + 4).reshape(shape).copy())


@pytest.fixture
def real_images() -> Callable[[str], tuple[Tensor, Tensor, float]]:
    """Of a data set's name: 10,000 training and 1,000 test images of 14 x 14 pixels and 16 levels, and the bits/dim of
    independent pixels, each with its training histogram and one count added."""
    if "PUSHFORWARD_DATA" not in os.environ:
        pytest.skip("needs PUSHFORWARD_DATA")

    def read(name: str) -> tuple[Tensor, Tensor, float]:
        folder = Path(os.environ["PUSHFORWARD_DATA"], name)
        train, test = (read_idx(folder / f"{part}-images-idx3-ubyte.gz")[:count, None, ::2, ::2] // 16
                       for part, count in (("train", 10_000), ("t10k", 1000)))  # fmt: skip
        counts = torch.stack([(train == level).sum(0) + 1 for level in range(16)]).double()
        log_prob = (counts / counts.sum(0)).log().gather(0, test.long())
        return train, test, -log_prob.mean().item() / math.log(2)

    return read
