"""Several inputs of a network, with and without labels: every method reads one form in one way."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import pushforward as pf
from pushforward.detection.network import Embedder
from pushforward.detection.network.arguments import split_batch
from pushforward.errors import InputError, PushforwardWarning

torch.manual_seed(0)
X = torch.randn(1500, 6)
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()
MASK = (torch.rand(1500, 6) > 0.5).long()


class Masked(nn.Module):
    """A network whose second input is optional, as the mask of a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.head(self.hidden(x if mask is None else x * mask).relu())


class Targeted(nn.Module):
    """A network with an input that has the name of labels."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return self.head(torch.cat((x, target), 1))


def pair(start: int, stop: int) -> tuple[Tensor, Tensor]:
    return X[start:stop], MASK[start:stop]


@pytest.fixture(scope="module")
def guard() -> pf.NetworkGuard:
    torch.manual_seed(0)
    return pf.NetworkGuard(Masked().eval(), 0.05, score="Energy").fit(
        (pair(0, 600), Y[:600]), calibration=(pair(600, 1100), Y[600:1100])
    )


@pytest.mark.parametrize(
    "form",
    [
        lambda a, b: ((a, b),),
        lambda a, b: ([a, b],),
        lambda a, b: ({"x": a, "mask": b},),
        lambda a, b: {"x": a, "mask": b},
        lambda a, b: [((a[:100], b[:100]),), ((a[100:], b[100:]),)],
        lambda a, b: ((a.numpy(), b.numpy()),),
    ],
    ids=["tuple", "list", "dictionary in a tuple", "dictionary", "batches", "arrays"],
)
def test_several_inputs_without_labels(guard, form):
    expected = guard(pair(1100, 1500))
    new = form(*pair(1100, 1500))
    np.testing.assert_array_equal(guard.p_value(new), expected.p_value.numpy())
    np.testing.assert_array_equal(guard.anomaly_score(new), expected.score.numpy())
    np.testing.assert_array_equal(guard.select(new), guard.select((pair(1100, 1500), Y[1100:])))
    assert "400 inputs" in str(guard.report(new))
    again = pf.NetworkGuard(guard.net, 0.05, score="Energy").fit(
        (pair(0, 600), Y[:600]), calibration=form(*pair(600, 1100))
    )
    assert torch.equal(again(pair(1100, 1500)).p_value, expected.p_value)


def test_training_inputs_without_labels(guard):
    forms = [(pair(0, 600),), {"x": X[:600], "mask": MASK[:600]}]
    found = [
        pf.NetworkGuard(guard.net, 0.05).fit(train, calibration=(pair(600, 1100),))(pair(1100, 1500)) for train in forms
    ]
    assert torch.equal(found[0].p_value, found[1].p_value)
    assert found[0].logits is None


def test_a_second_input_in_the_place_of_labels_is_an_error(guard):
    for new in (pair(1100, 1500), [pair(1100, 1500)], (X[1100:], MASK[1100:].float())):
        for call in (guard.p_value, guard.select, guard.report):
            with pytest.raises(
                InputError, match=r"is labels, and here it is .*\(\(a, b\), labels\), or without labels"
            ):
                call(new)
        with pytest.raises(InputError, match="is labels, and here it is"):
            pf.NetworkGuard(guard.net, 0.05).fit((pair(0, 600), Y[:600]), calibration=new)
    with pytest.raises(InputError, match="is labels, and here it is"):
        Embedder(guard.net)(DataLoader(TensorDataset(*pair(1100, 1500))))
    guard.p_value((X[1100:], X[1100:, :2]))  # the target of a regression, which the network could not take


@pytest.mark.parametrize("labels", [MASK[600:1100], Y[600:1100].float()], ids=["columns", "fractions"])
def test_calibration_labels_that_are_no_classes(labels):
    net = nn.Sequential(nn.Linear(6, 3)).eval()
    with pytest.raises(InputError, match="labels must be integers of the shape"):
        pf.NetworkGuard(net, 0.05).fit((X[:600], Y[:600]), calibration=(X[600:1100], labels))


def test_an_input_with_the_name_of_labels():
    torch.manual_seed(0)
    net = Targeted().eval()

    def inputs(start: int, stop: int) -> dict[str, Tensor]:
        return {"x": X[start:stop], "target": X[start:stop].flip(1)}

    guard = pf.NetworkGuard(net, 0.05).fit((inputs(0, 600), Y[:600]), calibration=inputs(600, 1100))
    np.testing.assert_array_equal(guard.p_value(inputs(1100, 1500)), guard(inputs(1100, 1500)).p_value.numpy())


def test_labels_of_a_dictionary():
    class Trains(nn.Module):
        def forward(self, x: Tensor, labels: Tensor | None = None, targets: Tensor | None = None) -> Tensor:
            return x

    assert split_batch({"x": X, "labels": Y}, Trains())[1] is Y  # as in the models of Hugging Face
    assert split_batch({"x": X, "label": Y}, Trains())[1] is Y
    with pytest.warns(PushforwardWarning, match="'targets', which is an argument of the network's forward"):
        inputs, labels = split_batch({"x": X, "targets": Y}, Trains())
    assert list(inputs) == ["x", "targets"]
    assert labels is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert split_batch({"x": X, "target": Y}, None)[1] is Y


class Pair(NamedTuple):
    x: Tensor
    y: Tensor


def test_a_named_tuple_is_a_pair():
    net = nn.Sequential(nn.Linear(6, 3)).eval()
    expected = pf.NetworkGuard(net, 0.05).fit((X[:600], Y[:600]), calibration=X[600:1100]).p_value(X[1100:])
    found = pf.NetworkGuard(net, 0.05).fit(Pair(X[:600], Y[:600]), calibration=Pair(X[600:1100], Y[600:1100]))
    np.testing.assert_array_equal(found.p_value(Pair(X[1100:], Y[1100:])), expected)


@pytest.mark.parametrize(
    "train",
    [
        (X[:600].to_sparse(), Y[:600]),
        X[:600].to_sparse(),
        [(X[:300].to_sparse(), Y[:300]), (X[300:600].to_sparse(), Y[300:600])],
    ],
    ids=["pair", "array", "batches"],
)
def test_sparse_inputs_are_refused(train):
    net = nn.Sequential(nn.Linear(6, 3)).eval()
    with pytest.raises(InputError, match=r"rows of a sparse or nested tensor cannot be chosen: give x\.to_dense\(\)"):
        pf.NetworkGuard(net, 0.05).fit(train, calibration=X[600:1100])
