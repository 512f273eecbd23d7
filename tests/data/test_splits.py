"""Parts are disjoint, reproducible and of the requested sizes; equal rows stay in one part."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pushforward.data import detect_lattice, duplicate_groups, split_indices
from pushforward.errors import ConfigError, InputError


@given(
    n=st.integers(10, 300), seed=st.integers(0, 100), fractions=st.lists(st.floats(0.1, 1.0), min_size=1, max_size=5)
)
@settings(max_examples=80, deadline=None)
def test_fractions_partition_the_rows(n, seed, fractions):
    total = sum(fractions)
    fractions = [value / total for value in fractions]
    if n * min(fractions) < 1:
        return
    parts = split_indices(n, fractions, seed)
    assert sorted(np.concatenate(parts)) == list(range(n))
    assert all(abs(len(part) - n * fraction) <= 1 for part, fraction in zip(parts, fractions, strict=True))


def test_counts_are_exact_and_may_leave_rows_out():
    parts = split_indices(10, (3, 0, 4), seed=1)
    assert [len(part) for part in parts] == [3, 0, 4]
    assert len(set(np.concatenate(parts))) == 7
    assert [len(part) for part in split_indices(10, (0.5, 0.3), seed=1)] == [5, 3]


def test_the_parts_depend_on_the_seed():
    first, again, other = (split_indices(100, (0.5, 0.5), seed=seed)[0] for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_every_row_is_equally_likely_in_every_part():
    count = sum(np.isin(np.arange(20), split_indices(20, (5, 15), seed=seed)[0]) for seed in range(2000))
    # Binomial(2000, 1/4): standard deviation 19.4; five of them for twenty rows.
    assert np.abs(count - 500).max() < 97


@given(labels=st.lists(st.integers(0, 30), min_size=40, max_size=200), seed=st.integers(0, 50))
@settings(max_examples=80, deadline=None)
def test_groups_are_never_divided(labels, seed):
    labels = np.array(labels)
    if len(np.unique(labels)) < 3:
        return
    parts = split_indices(len(labels), (0.6, 0.2, 0.2), seed, groups=labels)
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))
    seen = [set(labels[part]) for part in parts]
    assert all(seen)
    assert sum(map(len, seen)) == len(np.unique(labels))


def test_groups_of_one_row_give_the_requested_sizes():
    assert [len(p) for p in split_indices(100, (0.9, 0.1), 0, groups=np.arange(100))] == [90, 10]


def test_one_large_group_leaves_rows_for_the_other_part():
    labels = np.array([0] * 98 + [1, 2])
    assert all(len(part) for seed in range(20) for part in split_indices(100, (0.9, 0.1), seed, groups=labels))


@pytest.mark.parametrize(
    ("n", "parts", "error", "words"),
    [
        (10, (0.5, 0.6), ConfigError, "at most 1"),
        (10, (5, 6), ConfigError, "add up to at most 10 rows"),
        (10, (-1, 2), ConfigError, "counts of at least 0"),
        (10, (0.5, 2), ConfigError, "all counts"),
        (10, (), ConfigError, "at least one"),
        (10, (float("nan"),), ConfigError, "all counts"),
        (3, (0.9, 0.1), InputError, "at least 10"),
    ],
)
def test_impossible_parts(n, parts, error, words):
    with pytest.raises(error, match=words):
        split_indices(n, parts, seed=0)


def test_impossible_groups():
    with pytest.raises(InputError, match="one label for each"):
        split_indices(10, (0.5, 0.5), 0, groups=np.zeros(9))
    with pytest.raises(InputError, match="too few"):
        split_indices(10, (0.5, 0.5), 0, groups=np.zeros(10))


CELLS = st.sampled_from([0.0, -0.0, 1.0, np.nan, np.inf, 1e-300])


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=CELLS))
@settings(max_examples=100, deadline=None)
def test_labels_are_equal_exactly_where_rows_are(rows):
    labels = duplicate_groups(rows)
    for i in range(len(rows)):
        for j in range(i):
            assert (labels[i] == labels[j]) == np.array_equal(rows[i], rows[j], equal_nan=True)


def test_labels_of_other_arrays():
    assert duplicate_groups(np.array([[1, 2], [1, 2], [2, 1]], dtype=np.uint8)).tolist() == [0, 0, 1]
    assert duplicate_groups(np.zeros((3, 2, 2))).tolist() == [0, 0, 0]
    assert duplicate_groups(np.array([3.0, 1.0, 3.0])).tolist() == [0, 1, 0]
    assert duplicate_groups(np.zeros((0, 2))).tolist() == []
    assert duplicate_groups(np.zeros((2, 0))).tolist() == [0, 0]
    assert duplicate_groups(np.asfortranarray([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])).tolist() == [0, 1, 0]
    with pytest.raises(InputError, match="array of numbers"):
        duplicate_groups([["a"]])


def test_many_rows_without_a_collision():
    rows = np.random.default_rng(0).integers(0, 4, (20_000, 9))
    assert duplicate_groups(rows).max() + 1 == len(np.unique(rows, axis=0))


def test_a_collision_of_hashes_does_not_join_rows(monkeypatch):
    monkeypatch.setattr("pushforward.data.splits._hash", lambda bits: np.zeros(len(bits), dtype=np.uint64))
    assert duplicate_groups([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]).tolist() == [0, 1, 0]


def test_seeds_tensors_and_ragged_rows():
    assert len(split_indices(10, (5, 5), seed=-3)) == 2
    assert duplicate_groups(torch.ones(3, 2, requires_grad=True)).tolist() == [0, 0, 0]
    with pytest.raises(InputError, match="unequal lengths"):
        duplicate_groups([[1.0], [1.0, 2.0]])
    for n, parts, seed, words in ((2.5, (1,), 0, "n must"), (9, 5, 0, "parts must"), (9, (1,), "a", "seed must")):
        with pytest.raises(ConfigError, match=words):
            split_indices(n, parts, seed)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="column of numbers"):
        detect_lattice(["a", "b"])
