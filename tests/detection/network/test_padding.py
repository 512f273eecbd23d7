"""Sequences with padding: a row has the score of its own positions, whatever batch it comes in."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pushforward as pf
from pushforward.detection.network import NetworkReader
from pushforward.detection.network.padding import Padding, find_padding, positional_names
from pushforward.errors import PushforwardWarning

WORDS, WIDTH = 50, 8


class Recurrent(nn.Module):
    """Reads packed sequences, whose lengths are its second argument."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.step, self.head = (
            nn.Embedding(WORDS, WIDTH),
            nn.GRU(WIDTH, 12, batch_first=True),
            nn.Linear(12, 3),
        )

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(
            self.embed(ids), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        return self.head(self.step(packed)[1][0])


class Mean(nn.Module):
    """The mean over the positions that a mask keeps, or drops, or that are no padding token."""

    def __init__(self, how: str = "keep") -> None:
        super().__init__()
        self.embed, self.body, self.head, self.how = (
            nn.Embedding(WORDS, WIDTH),
            nn.Linear(WIDTH, 12),
            nn.Linear(12, 3),
            how,
        )

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.how == "token":
            kept = ids != 0
        else:
            assert mask is not None
            kept = mask.bool() if self.how == "keep" else ~mask.bool()
        weight = kept.float().unsqueeze(2)
        found = torch.tanh(self.body(self.embed(ids))) * weight
        return self.head(found.sum(1) / weight.sum(1))


class Frames(nn.Module):
    """Reads sequences of vectors, and leaves frames of zeros out."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        weight = (x != 0).any(2).float().unsqueeze(2)
        return self.head((torch.tanh(self.body(x)) * weight).sum(1) / weight.sum(1))


def ids_and_lengths(rows: int, seed: int = 0, most: int = 20) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, most, (rows,), generator=generator)
    lengths[0] = most
    ids = torch.randint(1, WORDS, (rows, most), generator=generator)
    return ids * (torch.arange(most) < lengths[:, None]), lengths


Form = Callable[[Tensor, Tensor], Any]
CASES: dict[str, tuple[Callable[[], nn.Module], Form]] = {
    "lengths by name": (Recurrent, lambda ids, lengths: {"ids": ids, "lengths": lengths}),
    "lengths by position": (Recurrent, lambda ids, lengths: (ids, lengths)),
    "mask by name": (Mean, lambda ids, lengths: {"ids": ids, "mask": torch.arange(ids.shape[1]) < lengths[:, None]}),
    "mask by position": (Mean, lambda ids, lengths: (ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long())),
    "mask of what is left out": (
        lambda: Mean("drop"),
        lambda ids, lengths: (ids, torch.arange(ids.shape[1]) >= lengths[:, None]),
    ),
    "token": (lambda: Mean("token"), lambda ids, lengths: ids),
    "frames": (Frames, lambda ids, lengths: torch.stack([ids * k for k in (0.3, -0.1, 0.2, 0.7)], 2)),
}


@pytest.mark.parametrize("case", CASES)
def test_layers_do_not_see_padding(case):
    make, form = CASES[case]
    torch.manual_seed(0)
    reader = NetworkReader(make().eval())
    ids, lengths = ids_and_lengths(40)
    together = reader.read(form(ids, lengths))
    assert reader.layers
    for row in (1, 7, 23):
        own = slice(row, row + 1)
        alone = reader.read(form(ids[own, : lengths[row]], lengths[own]))
        longer = torch.cat([ids[own], torch.zeros(1, 9, dtype=ids.dtype)], 1)
        for other in (alone, reader.read(form(longer, lengths[own]))):
            torch.testing.assert_close(other.features, together.features[own], rtol=1e-4, atol=1e-5)
            for name, values in together.layers.items():
                torch.testing.assert_close(other.layers[name], values[own], rtol=1e-4, atol=1e-5)


def test_a_guard_keeps_its_promise_for_single_inputs_and_after_loading(tmp_path):
    torch.manual_seed(0)
    net = Recurrent().eval()

    def batches(rows: int, size: int, seed: int) -> Iterator[dict[str, Tensor]]:
        ids, lengths = ids_and_lengths(rows, seed)
        for first in range(0, rows, size):
            own = slice(first, first + size)
            steps = int(lengths[own].max())
            yield {"ids": ids[own, :steps], "lengths": lengths[own], "labels": ids[own, 0] % 3}

    guard = pf.NetworkGuard(net, alpha=0.1).fit(batches(400, 40, 1), calibration=batches(300, 30, 2))
    together = guard.p_value(batches(200, 50, 3))
    alone = guard.p_value(batches(200, 1, 3))
    np.testing.assert_allclose(alone, together, atol=0.02)
    guard.save(tmp_path / "guard.safetensors")
    loaded = pf.NetworkGuard.load(tmp_path / "guard.safetensors", net)
    assert loaded.reader_.padding == guard.reader_.padding
    np.testing.assert_array_equal(loaded.p_value(batches(200, 1, 3)), alone)


def test_what_is_no_padding_is_not_taken_for_it():
    """Types of tokens, a number for each row, and words that end in zeros but are read."""

    class Typed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.types, self.kinds = (
                nn.Embedding(WORDS, WIDTH),
                nn.Embedding(2, WIDTH),
                nn.Embedding(30, WIDTH),
            )
            self.head = nn.Linear(WIDTH, 3)

        def forward(self, ids: Tensor, types: Tensor, kind: Tensor) -> Tensor:
            return self.head((self.words(ids) + self.types(types)).mean(1) + self.kinds(kind))

    torch.manual_seed(0)
    net = Typed().eval()
    ids, lengths = ids_and_lengths(30)
    for types in ((torch.arange(20) < lengths[:, None]).long(), torch.zeros_like(ids)):
        inputs = (ids, types, lengths.clamp(max=20))
        assert find_padding(net, inputs, lambda x: net(*x)).kind == ""


def test_a_mask_by_its_name_needs_no_padding_in_the_first_batch():
    net = Mean().eval()
    ids = torch.randint(1, WORDS, (10, 6))
    found = find_padding(net, (ids, torch.ones(10, 6).bool()), lambda x: net(*x))
    assert (found.kind, found.part) == ("keep", "mask")
    other = Recurrent().eval()
    assert find_padding(other, (ids, torch.full((10,), 6)), lambda x: other(*x)).kind == "lengths"


def test_names_of_masks_hold_by_position_too():
    class Named(nn.Module):
        def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
            return ids.float()

    padding = Padding(names=positional_names(Named()))
    mask = torch.tensor([[1, 1, 0]])
    assert torch.equal(padding.mask((torch.zeros(1, 3), mask)), mask.bool())
    assert torch.equal(padding.mask({"key_padding_mask": mask}), ~mask.bool())
    assert Padding.from_json(padding.to_json()) == padding
    assert Padding.from_json(None).mask((torch.zeros(1, 3), mask)) is None  # as files of before
    with pytest.raises(ValueError, match="another form"):
        Padding.from_json({**padding.to_json(), "kind": "middle"})


def test_sequences_of_several_lengths_without_known_padding_warn():
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.body, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, 12), nn.Linear(12, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(torch.tanh(self.body(self.embed(ids))).mean(1))

    torch.manual_seed(0)
    net = Plain().eval()

    def batches(lengths: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
        return [(torch.randint(1, WORDS, (60, steps)), torch.randint(0, 3, (60,))) for steps in lengths]

    with pytest.warns(PushforwardWarning, match="sequences of several lengths"):
        pf.NetworkGuard(net, alpha=0.1).fit(batches((8, 12)), calibration=batches((8, 8)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pf.NetworkGuard(net, alpha=0.1).fit(batches((8, 8)), calibration=batches((8, 8)))
