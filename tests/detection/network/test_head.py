"""The last linear layer is found whatever the network makes of its output, and images with channels last are read by channel."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import pushforward as pf
from pushforward.detection.network import NetworkReader
from pushforward.detection.network.head import Head
from pushforward.errors import PushforwardWarning, StorageError


class Net(nn.Module):
    def __init__(self, outputs: int, after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.head, self.after = nn.Sequential(nn.Linear(5, 16), nn.ReLU()), nn.Linear(16, outputs), after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.head(self.body(x)))


FORMS: dict[str, tuple[int, Callable[[Tensor], Tensor], bool]] = {
    "squeezed": (1, lambda z: z.squeeze(-1), True),
    "scaled": (1, lambda z: 3 * z + 1, True),
    "temperature": (4, lambda z: z / 1.7, True),
    "two logits from one": (1, lambda z: torch.cat([torch.zeros_like(z), z], 1), True),
    "signs": (1, lambda z: torch.cat([-z, z], 1), True),
    "sigmoid": (4, torch.sigmoid, False),
    "squeezed sigmoid": (1, lambda z: torch.sigmoid(z).squeeze(-1), False),
    "exp": (1, torch.exp, False),
    "tanh": (2, torch.tanh, False),
    "softplus": (1, lambda z: nn.functional.softplus(z).squeeze(1), False),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_last_layer_is_found(form):
    outputs, after, is_output = FORMS[form]
    torch.manual_seed(0)
    net = Net(outputs, after).eval()
    reader, x = NetworkReader(net), torch.randn(40, 5)
    reading = reader.read(x)
    assert reader.head == "head"
    torch.testing.assert_close(reading.features, net.body(x))
    weight, bias = reader.weight_and_bias()
    assert reading.logits is not None
    torch.testing.assert_close(
        reading.features.double() @ weight.T + bias, reading.logits.double(), rtol=1e-4, atol=1e-4
    )
    shown = net(x) if is_output else net.head(net.body(x))
    torch.testing.assert_close(reading.logits, shown.reshape(40, -1))


def test_the_column_of_a_batch_normalization_is_found():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3), nn.BatchNorm1d(3))
    net[3].running_mean, net[3].running_var = torch.randn(3), torch.rand(3) + 0.5
    reader, x = NetworkReader(net.eval()), torch.randn(40, 5)
    reading = reader.read(x)
    assert reader.head == "2"
    weight, bias = reader.weight_and_bias()
    torch.testing.assert_close(
        reading.features.double() @ weight.T + bias, reading.logits.double(), rtol=1e-4, atol=1e-4
    )


def test_wide_activations_at_the_end_are_features_themselves():
    """A body that ends with an activation has its output as its features, not the input of its last layer."""
    net = nn.Sequential(nn.Linear(5, 16), nn.ReLU()).eval()
    reader = NetworkReader(net)
    x = torch.randn(8, 5)
    torch.testing.assert_close(reader.read(x).features, net(x))


def test_scores_of_the_weights_and_files_with_columns(tmp_path):
    torch.manual_seed(0)
    net = Net(1, lambda z: torch.cat([torch.zeros_like(z), z], 1)).eval()
    x, y = torch.randn(600, 5), torch.randint(0, 2, (600,))
    for score in ("ViM", "ReAct", "Neighbors"):
        guard = pf.NetworkGuard(net, 0.05, score=score).fit((x[:300], y[:300]), calibration=x[300:])
        guard.save(tmp_path / "guard.safetensors")
        loaded = pf.NetworkGuard.load(tmp_path / "guard.safetensors", net)
        assert loaded.reader_.found == guard.reader_.found
        assert (loaded.p_value(x) == guard.p_value(x)).all()


def test_a_file_with_columns_that_the_layer_does_not_have_is_refused(tmp_path, monkeypatch):
    torch.manual_seed(0)
    net = Net(1, lambda z: torch.cat([torch.zeros_like(z), z], 1)).eval()
    x, y = torch.randn(300, 5), torch.randint(0, 2, (300,))
    guard = pf.NetworkGuard(net, 0.05, score="MaxSoftmax").fit((x[:100], y[:100]), calibration=x[100:])
    guard.reader_.found = Head("head", -1, True, (-1, 7), (0.0, 1.0), (0.0, 0.0))
    guard.save(tmp_path / "guard.safetensors")
    with pytest.raises(StorageError, match="other columns"):
        pf.NetworkGuard.load(tmp_path / "guard.safetensors", net)
    assert Head.from_json({"head": "fc", "head_is_output": True}) == Head("fc")  # as in files of before


def test_few_outputs_as_features_are_warned_of():
    net = Net(1, lambda z: torch.sin(5 * z)).eval()
    x = torch.randn(300, 5)
    with pytest.warns(PushforwardWarning, match="the features are its 1 output, which show little"):
        pf.NetworkGuard(net, 0.05, score="Mahalanobis").fit(x[:100], calibration=x[100:])


class ChannelsLast(nn.Module):
    """Blocks as in Swin: layers of images ``(n, height, width, channels)``."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 12, 4, 4), nn.LayerNorm(12)
        self.one, self.act, self.two = nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12)
        self.last, self.head = nn.LayerNorm(12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.patches(x).permute(0, 2, 3, 1))
        x = self.last(x + self.two(self.act(self.one(x))))
        return self.head(x.mean((1, 2)))


def test_images_with_channels_last(tmp_path):
    torch.manual_seed(0)
    net = ChannelsLast().eval()
    x, y = torch.randn(300, 3, 16, 16), torch.arange(300) % 3
    guard = pf.NetworkGuard(net, 0.05).fit((x[:100], y[:100]), calibration=x[100:])
    reading = guard.reader_.read(x[:4], maps=True)
    assert {name: values.shape[1] for name, values in reading.layers.items()} != {}
    for name, values in reading.layers.items():
        channels = 24 if name in ("one", "act") else 12
        assert values.shape == (4, channels)
        assert reading.maps[name].shape == (4, channels, 4, 4)
    assert guard(torch.randn(2, 3, 32, 24)).p_value.shape == (2,)  # another size of image
    guard.save(tmp_path / "guard.safetensors")
    loaded = pf.NetworkGuard.load(tmp_path / "guard.safetensors", net)
    assert (loaded.p_value(x) == guard.p_value(x)).all()


def test_a_head_of_positions_with_channels_last():
    class Dense(ChannelsLast):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.patches(x).permute(0, 2, 3, 1)))

    torch.manual_seed(0)
    net, x = Dense().eval(), torch.randn(6, 3, 16, 16)
    reading = NetworkReader(net).read(x)
    inner = net.norm(net.patches(x).permute(0, 2, 3, 1))
    torch.testing.assert_close(reading.features, inner.mean((1, 2)))
    torch.testing.assert_close(reading.logits, net(x).mean((1, 2)))
