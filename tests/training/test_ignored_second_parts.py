"""A model without a context ignores the second part of an item, whatever it is."""

import datetime
import warnings

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import pushforward as pf
from pushforward.errors import PushforwardWarning

X = torch.randn(60, 2)
QUICK = {"max_steps": 4, "batch_size": 20, "progress": "silent"}


class Items(Dataset):
    def __init__(self, second) -> None:
        self.second = second

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, k: int):
        return X[k], self.second(k)


@pytest.mark.parametrize(
    "second",
    [
        lambda k: "cat",
        lambda k: {"a": 1},
        lambda k: None,
        lambda k: torch.zeros(k % 3),
        lambda k: datetime.date(2026, 1, 1),
    ],
)
def test_items_of_a_data_set(second):
    torch.manual_seed(0)
    with_second = pf.fit(pf.models.NICE(2), Items(second), seed=0, **QUICK)
    torch.manual_seed(0)
    alone = pf.fit(pf.models.NICE(2), Items(lambda k: torch.zeros(1)), seed=0, **QUICK)
    assert with_second.history[-1]["validation"] == alone.history[-1]["validation"]


def test_batches_of_a_loader_with_parts_of_other_widths():
    def collate(items):
        return torch.stack([x for x, _ in items]), torch.zeros(len(items), 1 + int(items[0][0][0] > 0))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loader = DataLoader(Items(lambda k: None), 10, shuffle=True, collate_fn=collate)
        options = {key: value for key, value in QUICK.items() if key != "batch_size"}
        assert pf.fit(pf.models.NICE(2), loader, validation=None, seed=0, **options).steps == 4


def test_columns_of_an_ignored_part_are_not_warned_of():
    loader = DataLoader(Items(lambda k: torch.tensor([1.7e9 + k], dtype=torch.float64)), 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = pf.fit(pf.models.NICE(2), loader, validation=None, max_steps=3, progress="silent")
    assert result.steps == 3
    with pytest.warns(PushforwardWarning, match="column 0 of the context has mean 1.7e"):  # where it is read
        pf.fit(pf.models.NICE(2, context=1), loader, validation=None, max_steps=3, progress="silent")
