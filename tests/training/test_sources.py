from __future__ import annotations

import itertools

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pushforward.errors import ConfigError, InputError
from pushforward.training.input_spec import InputSpec
from pushforward.training.open_sources import open_sources
from pushforward.training.sources import ArrayRows, DatasetRows, LoaderRows, Position

from .tiny import Items

SPEC = InputSpec("Model", (1,), 0, torch.float32, torch.device("cpu"))


def numbered(count: int) -> torch.Tensor:
    return torch.arange(count, dtype=torch.float32)[:, None]


def take(source, count: int, start: Position = Position()):  # noqa: B008
    return list(itertools.islice(source.batches(start), count))


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
def test_any_place_can_be_found_again(kind):
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
    assert whole[0][2:] == (0, 0)
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


def test_split_is_a_partition_and_depends_on_the_seed_only():
    x = numbered(100)
    train, held = open_sources(SPEC, x, None, 0.2, 16, 0)
    assert held is not None
    first = torch.cat([part for part, _ in held.ordered()]).flatten()
    second = torch.cat([part for part, _ in train.ordered()]).flatten()
    assert len(first) == 20
    assert sorted(torch.cat([first, second]).tolist()) == list(range(100))
    _, again = open_sources(SPEC, x, None, 0.2, 50, 0)
    assert torch.equal(torch.cat([part for part, _ in again.ordered()]).flatten(), first)
    _, other = open_sources(SPEC, x, None, 0.2, 16, 1)
    assert not torch.equal(torch.cat([part for part, _ in other.ordered()]).flatten(), first)


@pytest.mark.parametrize(("count", "held"), [(1, 0), (2, 0), (4, 0), (5, 1), (14, 1), (15, 2), (50, 5)])
def test_size_of_the_held_out_part(count, held):
    train, validation = open_sources(SPEC, numbered(count), None, 0.1, 512, 0)
    assert (0 if validation is None else len(validation.rows)) == held
    assert len(train.rows) == count - held


def test_sample_is_spread_over_all_rows():
    source = ArrayRows(SPEC, numbered(1000), None, torch.arange(1000), 10, seed=0)
    assert source.raw_sample(10)[0].flatten().tolist() == list(range(0, 1000, 100))
    assert len(source.raw_sample(5000)[0]) == 1000


def test_context_forms():
    spec = InputSpec("Model", (1,), 2, torch.float32, torch.device("cpu"))
    own = torch.arange(6.0).reshape(3, 2)
    assert torch.equal(spec.cast(numbered(3), own)[1], own)
    assert torch.equal(spec.cast(numbered(3), own[0])[1], own[:1].expand(3, 2))
    single = InputSpec("Model", (1,), 1, torch.float32, torch.device("cpu"))
    assert single.cast(numbered(3), torch.arange(3))[1].tolist() == [[0], [1], [2]]
    for wrong in (own[:2], own[:, :1], own[None]):
        with pytest.raises(InputError, match=r"\(3, 2\)"):
            spec.cast(numbered(3), wrong)
    with pytest.raises(InputError, match="context=2"):
        spec.cast(numbered(3), None)


def test_context_stays_with_its_row():
    spec = InputSpec("Model", (1,), 1, torch.float32, torch.device("cpu"))
    x = numbered(20)
    for data, context in ((x, 10 * x), ((x, 10 * x), None), (TensorDataset(x, 10 * x), None)):
        train, held = open_sources(spec, data, context, 0.25, 4, 0)
        for source in (train, held):
            for part, its in source.ordered():
                assert torch.equal(its, 10 * part)
        for batch in take(train, 10):
            assert torch.equal(batch.context, 10 * batch.x)


def test_items_with_a_label_serve_a_model_without_context():
    data = [(torch.tensor([float(k)]), k % 2) for k in range(8)]

    class Labeled(Items):
        def __getitem__(self, index):
            return data[index]

    train, _ = open_sources(SPEC, Labeled(numbered(8)), None, None, 4, 0)
    assert train.spec.cast(*train.read(torch.tensor([3, 1])))[0].flatten().tolist() == [3.0, 1.0]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(numbered(6))


class Empty(IterableDataset):
    def __iter__(self):
        return iter(())


def test_iterable_data_set():
    train, _ = open_sources(SPEC, Stream(), None, None, 4, 0)
    assert train.steps is None
    assert [batch.x.flatten().tolist() for batch in take(train, 3)] == [[0, 1, 2, 3], [4, 5], [0, 1, 2, 3]]
    empty, _ = open_sources(SPEC, Empty(), None, None, 4, 0)
    with pytest.raises(InputError, match="no batch"):
        take(empty, 1)


@pytest.mark.parametrize(
    ("data", "options", "error", "words"),
    [
        (DataLoader(TensorDataset(numbered(4))), {}, ConfigError, "cannot be split"),
        (Stream(), {}, ConfigError, "cannot be split"),
        (numbered(4), {"validation": 1.0}, ConfigError, "fraction"),
        (numbered(4), {"validation": -0.1}, ConfigError, "fraction"),
        (numbered(4), {"validation": True}, ConfigError, "fraction"),
        (numbered(2), {"validation": 0.9}, ConfigError, "leaves none"),
        (numbered(0), {}, InputError, "no rows"),
        (torch.zeros(4), {}, InputError, r"x\[:, None\]"),
        (torch.zeros(4, 2), {}, InputError, r"\(rows, 1\)"),
        (torch.zeros(4, 1, dtype=torch.complex64), {}, InputError, "real"),
        (torch.tensor([[0.0], [torch.nan], [torch.inf]]), {}, InputError, "nan at row 1, column 0"),
        (torch.tensor([[0.0], [0.0], [torch.inf]]), {}, InputError, "inf at row 2"),
        (torch.tensor([[0.0], [1e300]], dtype=torch.float64), {}, InputError, "1e\\+300 at row 1"),
        (numbered(4), {"context": numbered(4)}, ConfigError, "takes no context"),
        (numbered(4), {"validation": torch.tensor([[torch.nan]])}, InputError, "validation data contain nan"),
        (numbered(4), {"validation": numbered(0)}, InputError, "validation data have no rows"),
        (TensorDataset(numbered(4)), {"context": numbered(4)}, ConfigError, "yields"),
        (5, {}, InputError, "got int"),
        ("file.csv", {}, InputError, "got str"),
        (None, {}, InputError, "got NoneType"),
    ],
)
def test_refusals(data, options, error, words):
    with pytest.raises(error, match=words):
        open_sources(SPEC, data, options.get("context"), options.get("validation", 0.1), 2, 0)
