from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from pushforward.training.sources import ArrayRows, DatasetRows, LoaderRows, Position

from .tiny import SPEC, Items, numbered, take


@pytest.mark.parametrize(("count", "size"), [(10, 4), (10, 5), (7, 3), (5, 5), (5, 9), (1, 1), (12, 1)])
def test_every_row_is_read_equally_often_in_equal_batches(count, size):
    source = ArrayRows(SPEC, numbered(count), None, torch.arange(count), size, seed=3)
    size = min(size, count)
    assert source.steps == count / size
    batches = take(source, 4 * count)  # 4 * size passes
    assert {len(batch.x) for batch in batches} == {size}
    stream = torch.cat([batch.x for batch in batches]).flatten().int().reshape(4 * size, count)
    for one_pass in stream:
        assert sorted(one_pass.tolist()) == list(range(count))
    if count > 4:
        assert len({tuple(one_pass.tolist()) for one_pass in stream}) > 1  # passes differ in order


@pytest.mark.parametrize("kind", ["array", "dataset", "loader", "loader with generator"])
def test_any_position_can_be_restored(kind):
    def source():
        if kind == "array":
            return ArrayRows(SPEC, numbered(10), None, torch.arange(10), 4, seed=1)
        if kind == "dataset":
            return DatasetRows(SPEC, Items(numbered(10), noise=0.1), torch.arange(10), 4, seed=1)
        own = torch.Generator().manual_seed(8) if "generator" in kind else None
        loader = DataLoader(Items(numbered(10), noise=0.1), batch_size=4, shuffle=True, generator=own)
        return LoaderRows(SPEC, loader, seed=1)

    whole = take(source(), 9)
    assert [batch.epoch for batch in whole] == sorted(batch.epoch for batch in whole)
    assert (whole[0].epoch, whole[0].number, whole[0].whole) == (0, 0, None)
    for step in range(9):
        torch.manual_seed(step)  # the caller's state must not matter
        position = Position(step, *((whole[step - 1].epoch, whole[step - 1].number + 1) if step else (0, 0)))
        again = take(source(), 9 - step, position)
        for one, other in zip(whole[step:], again, strict=True):
            assert torch.equal(one.x, other.x)
            assert one[2:] == other[2:]


def test_seeds_give_different_batches():
    one, other = (ArrayRows(SPEC, numbered(50), None, torch.arange(50), 25, seed=seed) for seed in (0, 1))
    assert not torch.equal(take(one, 1)[0].x, take(other, 1)[0].x)


def test_sample_is_spread_over_all_rows():
    source = ArrayRows(SPEC, numbered(1000), None, torch.arange(1000), 10, seed=0)
    assert source.raw_sample(10)[0].flatten().tolist() == list(range(0, 1000, 100))
    assert len(source.raw_sample(5000)[0]) == 1000


def test_empty_batches_of_a_loader_are_skipped():
    """A function that drops bad rows may drop all of a batch."""
    x = numbered(6)
    source = LoaderRows(SPEC, DataLoader([x[:3], x[:0], x[3:]], batch_size=None), seed=0)
    assert [len(batch.x) for batch in take(source, 4)] == [3, 3, 3, 3]
    assert len(torch.cat([x for x, _ in source.ordered()])) == 6
