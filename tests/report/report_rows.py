"""Rows for the tests of reports."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch

HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'


def rows(count: int, seed: int, shift: float = 0.0) -> pa.Table:
    """Rows with numbers, integers, dates, flags, missing cells, and a column whose name and values are markup."""
    rng = np.random.default_rng(seed)
    temperature = rng.normal(20 + shift, 5, count)
    return pa.table(
        {
            "temperature": temperature,
            "pressure": temperature / 5 + rng.normal(size=count),
            "count": rng.integers(0, 9, count),
            "day": rng.integers(0, 2000, count).astype("datetime64[D]"),
            "valve open": rng.random(count) < 0.3,
            "flow": pa.array(rng.normal(size=count), mask=rng.random(count) < 0.1),
            HOSTILE: rng.choice([HOSTILE, "x|y", "z`*"], count, p=[0.2, 0.5, 0.3]),
        }
    )


def labeled(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of 4 x 4 pixels, and their classes, a quarter of which are wrong."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 1, 4, 4, generator=generator)
    pixels = x.flatten(1) - 0.5
    classes = (pixels @ torch.eye(3).repeat_interleave(6, 1)[:, :16].T).argmax(1)
    other = torch.rand(count, generator=generator) < 0.25
    return x, torch.where(other, (classes + 1) % 3, classes)
