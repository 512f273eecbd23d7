"""What is read of a network: which linear layer is the head, where the channels are, and padding."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pushforward as pf
from pushforward.detection import network as scores
from pushforward.detection.network.layers import channels_first
from pushforward.detection.network.reading import pool
from pushforward.errors import ConfigError


class Encoder(nn.Module):
    """A block whose inner layer returns as many numbers as the network; the output is the mean over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.up, self.down, self.norm = (
            nn.Linear(3, 16),
            nn.Linear(16, 32),
            nn.Linear(32, 16),
            nn.LayerNorm(16),
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        return self.norm(h + self.down(torch.relu(self.up(h)))).mean(1)


class Picks(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.body, self.head, self.how = nn.Linear(3, 8), nn.Linear(8, 4), how

    def forward(self, x: Tensor) -> Tensor:
        z = self.head(torch.relu(self.body(x)))
        return z[:, -1] if self.how == "last" else z.mean(1)


def test_an_encoder_has_no_head() -> None:
    torch.manual_seed(0)
    net, x = Encoder().eval(), torch.randn(6, 5, 3)
    np.testing.assert_allclose(scores.Embedder(net, normalize=False)(x), net(x).detach(), rtol=1e-6)
    for how in ("last", "mean"):
        reader = scores.NetworkReader(Picks(how).eval())
        assert reader.read(x).features.shape == (6, 8)
        assert reader.head == "head"


def convolutions() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 8, 3), nn.ReLU(), nn.Conv1d(8, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 3)
    ).eval()  # fmt: skip


def test_channels_of_one_dimensional_convolutions() -> None:
    net = convolutions()
    reading = scores.NetworkReader(net).read(torch.randn(5, 2, 40))
    widths = {name: values.shape[1] for name, values in reading.layers.items()}
    assert widths
    assert all(width == {"0": 8, "1": 8, "2": 16, "3": 16, "4": 16}[name] for name, width in widths.items())
    x, y = torch.randn(800, 2, 40), torch.arange(800) % 3
    guard = pf.NetworkGuard(net, 0.05).fit((x[:400], y[:400]), calibration=x[400:])
    assert guard(torch.randn(300, 2, 60)).alarm.shape == (300,)  # another length, which the network accepts
    assert guard(5 + 5 * torch.randn(20, 2, 40)).alarm.all()


def test_files_of_before_average_over_channels_as_they_did(tmp_path) -> None:
    net, x, y = convolutions(), torch.randn(800, 2, 40), torch.arange(800) % 3
    guard = pf.NetworkGuard(net, 0.05).fit((x[:400], y[:400]), calibration=x[400:])
    guard.save(tmp_path / "g")
    again = pf.NetworkGuard.load(tmp_path / "g", net)
    np.testing.assert_array_equal(again.p_value(x[:50]), guard.p_value(x[:50]))
    header, tensors = pf.io.read(tmp_path / "g", kind="network guard")
    del header["reader"]["transposes"]
    pf.io.write(tmp_path / "old", header, tensors)
    reading = pf.NetworkGuard.load(tmp_path / "old", net).reader_.read(x[:2])
    assert any(values.shape[1] > 30 for values in reading.layers.values())  # positions


def test_where_the_channels_are() -> None:
    net = nn.Sequential(nn.Conv1d(2, 4, 3), nn.GELU(), nn.Sequential(nn.LayerNorm(38), nn.ReLU()), nn.BatchNorm1d(4))
    assert channels_first(net) == {"", "0", "1", "3"}

    class Block(nn.Module):
        """Returns (n, T, D), although its last part is a convolution."""

        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv1d(8, 8, 3, padding=1), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            return x + self.body(x.transpose(1, 2)).transpose(1, 2)

    class Plain(nn.Module):
        """One activation that is called after two layers."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.act, self.head = nn.Conv1d(2, 4, 3), nn.Conv1d(4, 6, 3), nn.ReLU(), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.act(self.two(self.act(self.one(x)))).mean(2))

    assert channels_first(Block()) == {"body", "body.0", "body.1"}
    net = nn.Sequential(nn.Linear(3, 8), Block(), Block())
    layers = scores.NetworkReader(net.eval(), layers=["1", "2"]).read(torch.randn(2, 5, 3)).layers
    assert [values.shape[1] for values in layers.values()] == [8, 8]
    layers = scores.NetworkReader(Plain().eval()).read(torch.randn(2, 2, 20)).layers
    assert {name: values.shape[1] for name, values in layers.items()} == {"one": 4, "two": 6}


def test_sums_in_half_precision_do_not_overflow() -> None:
    values, mask = torch.full((1, 1000, 2), 100.0, dtype=torch.float16), torch.ones(1, 1000, dtype=torch.bool)
    assert pool(values, mask).tolist() == pool(values, None).tolist() == [[100.0, 100.0]]


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.each, self.drop, self.head = nn.Linear(3, 8), nn.Dropout(0.3), nn.Linear(8, 3)
        self.late = nn.Dropout(0.3)

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        h = self.drop(torch.relu(self.each(x))) * attention_mask.unsqueeze(2)
        return self.head(self.late(h.sum(1) / attention_mask.sum(1, keepdim=True)))


@pytest.mark.parametrize("score", [scores.GramMatrices, lambda: scores.MCDropout(passes=5)], ids=["grams", "dropout"])
def test_padding_changes_no_score(score: Any) -> None:
    torch.manual_seed(0)
    net = Masked().eval()
    lengths = torch.randint(2, 9, (600,))
    x = torch.randn(600, 12, 3)
    mask = torch.arange(12) < lengths[:, None]

    def batch(rows: slice, width: int) -> dict[str, Tensor]:
        return {"x": x[rows, :width], "attention_mask": mask[rows, :width].float()}

    data = {**batch(slice(0, 300), 12), "labels": torch.arange(300) % 3}
    guard = pf.NetworkGuard(net, 0.05, score=score()).fit([data], calibration=[batch(slice(300, 600), 12)])
    torch.testing.assert_close(
        guard(batch(slice(0, 9), 12)).score, guard(batch(slice(0, 9), 9)).score, atol=1e-5, rtol=1e-5
    )


def test_one_dropout_layer_at_two_places_drops_different_numbers() -> None:
    from pushforward.detection.network.hooks import hooked
    from pushforward.detection.network.scores.disagreement import _mask

    drop, ones = nn.Dropout(0.5).eval(), torch.ones(1, 6, 8)
    with hooked([(drop, _mask(torch.Generator(), 0))]):
        first, second = drop(ones), drop(ones)
    assert not torch.equal(first, second)


def classifier() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(900, 4)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[:300]), y[:300]).backward()
        optimizer.step()
    return net.eval(), x, y


def test_reasons_of_a_guard_by_class_are_those_of_its_own_class() -> None:
    net, x, y = classifier()
    guard = pf.NetworkGuard(net, 0.05, score="Mahalanobis", per_class=True).fit((x[:300], y[:300]), calibration=x[300:])
    rows = torch.cat((x[:20], 6 * x[:20]))
    found = guard.explain(rows)
    np.testing.assert_allclose(np.exp(-found.surprise[:, 0]), guard(rows).p_value)


def test_gradients_go_through_all_parts_or_are_refused() -> None:
    net, x, y = classifier()
    data = (x[:300], y[:300])
    with pytest.raises(ConfigError, match="ODIN has no gradient by the input"):
        pf.NetworkGuard(net, 0.05, score="ODIN").fit(data, calibration=x[300:]).explain(x[:2], gradient=True)
    other = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)).eval()
    for score in (scores.DeepEnsemble([other]), scores.MCDropout(passes=4)):
        guard = pf.NetworkGuard(net, 0.05, score=score).fit(data, calibration=x[300:])
        row, step = x[300:301], 1e-2
        found = guard.explain(row, gradient=True).gradient
        assert found is not None
        slopes = [
            abs(float(guard(row + step * unit).score - guard(row - step * unit).score)) / (2 * step)
            for unit in torch.eye(4)
        ]
        np.testing.assert_allclose(np.asarray(found)[0], slopes, atol=0.02, rtol=0.1)


class Pair(NamedTuple):
    x: Tensor
    scale: Tensor


class Scaled(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return self.net(x * scale)


@pytest.mark.parametrize("score", ["Energy", "ODIN"])
def test_batches_that_are_named_tuples(score: str) -> None:
    net, x, y = classifier()
    batches = [(Pair(x[k : k + 100], torch.ones(100, 1)), y[k : k + 100]) for k in range(0, 900, 100)]
    guard = pf.NetworkGuard(Scaled(net).eval(), 0.05, score=score).fit(batches[:3], calibration=batches[3:])
    assert guard.p_value(batches[:1]).shape == (100,)
    assert (
        pf.NetworkGuard(Scaled(net).eval(), 0.2, score=score).fit(batches[:3], calibration="train").promised_ is False
    )
    assert guard.report(batches[:2]).to_json()


def test_the_report_uses_the_logits_that_calibrated() -> None:
    net, x, y = classifier()
    soft = nn.Sequential(net, nn.Softmax(1)).eval()
    guard = pf.NetworkGuard(soft, 0.05).fit((x[:300], y[:300]), calibration=(x[300:700], y[300:700]))
    calibration = guard.selective(coverage=0.9, temperature_part=0.0)
    out = guard(x[700:])
    sizes = calibration.sets(out.logits[~out.alarm].double().numpy()).sum(1)  # of inputs without an alarm
    shown = guard.report((x[700:], y[700:]), selective=calibration).to_json()
    assert f"{sizes.mean():.2f} classes on average" in shown
