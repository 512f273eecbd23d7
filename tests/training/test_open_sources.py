from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pushforward.errors import ConfigError, InputError
from pushforward.training.input_spec import InputSpec
from pushforward.training.open_sources import open_sources

from .tiny import SPEC, Items, numbered, take


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


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, pd.DataFrame, lambda x: x.tolist()])
def test_a_pair_of_arrays_serves_a_model_without_context(kind):
    """As a TensorDataset(x, y) does: the second part is ignored, in held-out rows too."""
    x = np.arange(8.0)[:, None]
    for y in (kind(x + 1), np.arange(8), np.array(["a"] * 8), kind(x[:, [0, 0]])):
        train, held = open_sources(SPEC, (kind(x), y), None, (kind(x[:3]), y[:3]), 4, 0)
        for source, count in ((train, 8), (held, 3)):
            (_, context), *_ = source.ordered()
            assert context is None
            assert torch.cat([part for part, _ in source.ordered()]).flatten().tolist() == list(range(count))
    train, held = open_sources(SPEC, (x, x), None, 0.25, 4, 0)
    assert (len(train.rows), len(held.rows)) == (6, 2)


def test_a_pair_of_rows_is_two_rows():
    two = InputSpec("Model", (3,), 0, torch.float32, torch.device("cpu"))
    rows = (np.arange(3.0), np.ones(3))
    train, held = open_sources(two, rows, None, rows, 4, 0)
    assert len(train.rows) == len(held.rows) == 2
    with pytest.raises(InputError, match=r"got \(4, 2\)"):
        open_sources(two, (np.zeros((4, 2)), np.zeros(4)), None, None, 4, 0)
    for options in ((np.zeros((4, 3)), np.zeros(3)), None), (np.zeros((4, 3)), (np.zeros((4, 3)), np.zeros((5, 1)))):
        with pytest.raises(InputError, match=r"pair \(x, y\) with 4 rows of x, and y has the shape"):
            open_sources(two, options[0], None, options[1], 4, 0)


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


class Shifted(TensorDataset):
    def __getitem__(self, index):
        return super().__getitem__(index)[0] + 100


def test_items_of_a_subclass_of_a_tensor_data_set_are_its_own():
    train, _ = open_sources(SPEC, Shifted(numbered(4)), None, None, 4, 0)
    assert next(train.ordered())[0].flatten().tolist() == [100, 101, 102, 103]


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
        (torch.zeros(4), {}, InputError, r"x.reshape\(-1, 1\)"),
        (torch.zeros(4, 2), {}, InputError, r"\(rows, 1\)"),
        (torch.zeros(4, 1, dtype=torch.complex64), {}, InputError, "real"),
        (torch.tensor([[0.0], [torch.nan], [torch.inf]]), {}, InputError, "nan at row 1, column 0"),
        (torch.tensor([[0.0], [0.0], [torch.inf]]), {}, InputError, "inf at row 2"),
        (torch.tensor([[0.0], [1e300]], dtype=torch.float64), {}, InputError, "1e\\+300 at row 1"),
        (numbered(4), {"context": numbered(4)}, ConfigError, "takes no context"),
        (numbered(4), {"context": torch.tensor(1.0)}, ConfigError, "takes no context"),
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


def test_the_shape_and_the_place_in_an_error_are_those_of_the_data():
    column = InputSpec("Model", (1,), 1, torch.float32, torch.device("cpu"))
    with pytest.raises(InputError, match=r"shape \(rows, 1\); got \(20, 3\)"):
        open_sources(column, np.zeros((20, 3)), None, None, 4, 0)
    with pytest.raises(InputError, match=r"got \(20,\): x.reshape\(-1, 1\), or to_frame\(\) of a Series"):
        open_sources(column, np.zeros(20), None, None, 4, 0)
    with pytest.raises(InputError, match="the context values have NaN in row 2"):
        open_sources(column, np.zeros((20, 1)), np.where(np.arange(20.0) == 2, np.nan, 0.0)[:, None], None, 4, 0)


def test_sparse_tensors_are_refused_in_one_sentence():
    with pytest.raises(InputError, match=r"sparse tensor.*to_dense\(\)"):
        open_sources(SPEC, numbered(8).to_sparse(), None, None, 4, 0)


def test_the_wrong_part_of_an_item_is_named():
    loader = DataLoader([(torch.zeros(1), "a")] * 4, batch_size=2)
    with pytest.raises(InputError, match=r"got (list|tuple)"):
        next(open_sources(replace(SPEC, context=1), loader, None, None, 4, 0)[0].ordered())


@pytest.mark.parametrize("wrap", [lambda *pair: pair, lambda *pair: DataLoader(TensorDataset(*pair), batch_size=4)])
def test_a_complex_context_is_refused(wrap):
    spec = replace(SPEC, context=1)
    with pytest.raises(InputError, match="a context of real numbers"):
        next(open_sources(spec, wrap(numbered(4), numbered(4) * 1j), None, None, 4, 0)[0].ordered())


def test_two_contexts_are_refused():
    spec = InputSpec("Model", (1,), 1, torch.float32, torch.device("cpu"))
    x = numbered(20)
    with pytest.raises(InputError, match=r"a tuple \(x, context\), and context= is given too"):
        open_sources(spec, (x, 10 * x), x, None, 4, 0)


def test_the_message_names_the_held_out_rows():
    x = numbered(20)
    with pytest.raises(InputError, match="the validation data have no rows"):
        open_sources(SPEC, x, None, x[:0], 4, 0)
    with pytest.raises(InputError, match=r"got \(20, 2\) as the validation data"):
        open_sources(SPEC, x, None, torch.cat((x, x), 1), 4, 0)


def test_an_iterator_is_named():
    with pytest.raises(InputError, match="the training data are an iterator, which can be read only once"):
        open_sources(SPEC, iter(numbered(20)), None, None, 4, 0)
