"""Streaming moments and the reservoir agree with the whole data, however they are divided into batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

import pushforward as pf
from pushforward.detection.network import ClassMoments, Reservoir
from pushforward.detection.network.reading import class_labels
from pushforward.detection.network.streaming import batches
from pushforward.errors import InputError


@pytest.mark.parametrize("size", [1, 7, 100])
def test_moments_are_those_of_all_rows(size):
    generator = torch.Generator().manual_seed(0)
    rows = 1e4 + torch.randn(100, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (100,), generator=generator)
    labels[labels == 2] = 1  # class 2 has no row
    moments = ClassMoments()
    for part, classes in zip(rows.split(size), labels.split(size), strict=True):
        moments.add(part, classes, 4)
    assert moments.rows == 100
    assert torch.allclose(moments.mean, rows.mean(0), atol=1e-9)
    assert torch.allclose(moments.covariance, torch.cov(rows.T, correction=0), atol=1e-9)
    centered = torch.cat([rows[labels == k] - rows[labels == k].mean(0) for k in (0, 1, 3)])
    assert torch.allclose(moments.within, centered.T @ centered / 100, atol=1e-9)
    assert moments.means[2].isnan().all()
    origin = torch.tensor([1e4, 0.0, 5.0], dtype=torch.float64)
    expected = (rows - origin).T @ (rows - origin) / 100
    assert torch.allclose(moments.second_about(origin), expected, rtol=1e-10)


def test_a_reservoir_is_bounded_uniform_and_does_not_depend_on_batches():
    rows = torch.arange(1000)
    samples = []
    for size in (1000, 64, 1):
        reservoir = Reservoir(50, seed=3)
        for part in rows.split(size):
            reservoir.add(value=part)
        samples.append(reservoir.values)
    assert all(torch.equal(sample["value"], samples[0]["value"]) for sample in samples)
    assert torch.equal(samples[0]["index"], samples[0]["value"])
    assert len(samples[0]["value"]) == 50
    counts = torch.zeros(20)
    for seed in range(2000):
        reservoir = Reservoir(5, seed=seed)
        for part in torch.arange(20).split(6):
            reservoir.add(value=part)
        counts[reservoir.values["value"]] += 1
    assert (counts / 2000 - 0.25).abs().max() < 5 * (0.25 * 0.75 / 2000) ** 0.5


X, Y = torch.arange(10.0).reshape(10, 1), torch.arange(10)


@pytest.mark.parametrize(
    "data",
    [
        (X, Y),
        (X.numpy(), Y.numpy()),
        TensorDataset(X, Y),
        DataLoader(TensorDataset(X, Y), batch_size=4),
        [(X[:4], Y[:4]), (X[4:], Y[4:])],
        ((x, y) for x, y in [(X[:4], Y[:4]), (X[4:], Y[4:])]),
        {"x": X, "labels": Y},
    ],
    ids=["pair", "numpy", "data set", "loader", "list", "generator", "dictionary"],
)
def test_every_form_of_data(data):
    found = list(batches(data, 4, "the data"))
    inputs = [x["x"] if isinstance(x, dict) else x for x, _ in found]
    assert torch.equal(torch.cat([torch.as_tensor(x) for x in inputs]), X)
    assert torch.equal(torch.cat([y for _, y in found]), Y)


def test_inputs_without_labels_and_targets_of_a_regression():
    assert [labels for _, labels in batches(X, 4, "the data")] == [None, None, None]
    ((_, target),) = batches((X, X[:, 0]), 10, "the data")
    assert torch.equal(target, X[:, 0])
    assert class_labels(target) is None


class Short(Dataset):
    """A data set whose length is wrong."""

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int):
        return X[0], 0


class Ends(DataLoader):
    def __iter__(self):
        for k, batch in enumerate(super().__iter__()):
            if k == 3:
                return
            yield batch


def test_a_loader_that_ends_early():
    with pytest.raises(InputError, match="the data ended after 3 of 10 batches"):
        list(batches(Ends(Short(), batch_size=10), 4, "the data"))


@pytest.mark.parametrize("data", [[], DataLoader(TensorDataset(X[:0]), batch_size=3)])
def test_no_batch(data):
    with pytest.raises(InputError, match="the data gave no batch"):
        list(batches(data, 4, "the data"))


def test_what_is_no_data():
    with pytest.raises(InputError, match="must be a DataLoader, a Dataset or an array"):
        list(batches(3, 4, "the data"))
    with pytest.raises(InputError, match="different numbers of rows"):
        list(batches((X, Y[:3]), 4, "the data"))


@pytest.mark.parametrize(
    "data", [torch.tensor(1.0), np.array(1.0), (torch.tensor(1.0), Y), (X, torch.tensor(1)), {"x": torch.tensor(1.0)}]
)
def test_one_number_is_no_batch(data):
    with pytest.raises(InputError, match="one row for each input; got one number"):
        list(batches(data, 4, "the data"))
    net = torch.nn.Linear(1, 2).eval()
    with pytest.raises(InputError, match="one number"):
        pf.NetworkGuard(net, 0.1).fit(data, calibration=torch.randn(100, 1))
    with pytest.raises(InputError):
        pf.detection.network.Embedder(net)(data)
