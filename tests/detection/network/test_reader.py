"""Reading a network finds its parts, in one pass, and leaves it as it was."""

from __future__ import annotations

import math
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pushforward.detection.network import NetworkReader, Reading, digest
from pushforward.errors import ConfigError, InputError


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.deep = nn.Conv2d(4, 6, 3, stride=2)
        self.head = nn.Linear(6, 3)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = torch.relu(self.deep(torch.relu(self.norm(self.conv(x)))))
        return self.head(self.drop(x.mean((2, 3))))


def test_finds_the_head_its_input_and_the_inner_layers():
    net, x = Convolutional().eval(), torch.rand(5, 1, 9, 9)
    reader = NetworkReader(net)
    reading = reader.read(x)
    inner = torch.relu(net.norm(net.conv(x)))
    features = torch.relu(net.deep(inner)).mean((2, 3))
    assert reader.head == "head"
    assert reader.layers == ("conv", "norm", "deep")
    assert torch.allclose(reading.features, features)
    assert torch.allclose(reading.logits, net(x))
    assert torch.allclose(reading.layers["norm"], net.norm(net.conv(x)).mean((2, 3)), atol=1e-6)
    weight, bias = reader.weight_and_bias()
    assert torch.allclose(features.double() @ weight.T + bias, net(x).double(), atol=1e-6)


def test_layers_of_one_width_are_spread_over_the_depth():
    parts = [nn.Linear(8, 8), nn.ReLU(), nn.Dropout()]
    net = nn.Sequential(nn.Flatten(), *parts, *[nn.Linear(8, 8), nn.ReLU(), nn.Dropout()], nn.Linear(8, 3)).eval()
    reader = NetworkReader(net)
    reader.read(torch.randn(5, 8))
    assert reader.layers == (
        "1",
        "3",
        "4",
    )  # neither the input (0), nor 2, which 3 repeats, nor 5 and 6, which are the features


def test_the_network_stays_as_it_is_and_runs_once():
    net = Convolutional().train()
    net.norm.eval()  # a user may freeze some modules
    before, modes = digest(net), {name: module.training for name, module in net.named_modules()}
    state = torch.random.get_rng_state()
    reader = NetworkReader(net)
    reader.read(torch.rand(4, 1, 9, 9))
    net.calls = 0
    torch.random.set_rng_state(state)
    a, b = (reader.read(torch.ones(4, 1, 9, 9)).logits for _ in range(2))
    assert net.calls == 2
    assert torch.equal(a, b)  # evaluation mode: no dropout
    assert torch.equal(torch.random.get_rng_state(), state)
    assert digest(net) == before
    assert {name: module.training for name, module in net.named_modules()} == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_hooks_and_modes_are_restored_after_an_error():
    net = Convolutional().train()
    reader = NetworkReader(net)
    reader.read(torch.rand(2, 1, 9, 9))
    with pytest.raises(
        InputError, match=r"cannot read a batch of shape \(2, 7, 9, 9\) and type float32: RuntimeError: "
    ):
        reader.read(torch.rand(2, 7, 9, 9))
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("wrap", [nn.Softmax(1), nn.LogSoftmax(1)], ids=["softmax", "log-softmax"])
def test_logits_of_a_network_that_normalizes_them(wrap):
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), wrap).eval()
    x = torch.randn(6, 4)
    assert torch.allclose(NetworkReader(net).read(x).logits, net[:3](x))


Pair = namedtuple("Pair", ["hidden", "scores"])


@pytest.mark.parametrize(
    ("convert", "key"),
    [
        (lambda h, y: y, None),
        (lambda h, y: (y, h), None),
        (lambda h, y: (h, y), 1),
        (lambda h, y: {"logits": y, "hidden": h}, None),
        (lambda h, y: {"hidden": h, "prediction": y}, "prediction"),
        (lambda h, y: SimpleNamespace(loss=None, logits=y), None),
        (lambda h, y: Pair(h, y), "scores"),
    ],
)
def test_outputs_of_every_form(convert, key):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor):
            h = torch.relu(self.first(x))
            return convert(h, self.head(h))

    net, x = Net().eval(), torch.randn(6, 4)
    reader = NetworkReader(net, logits=key)
    reading = reader.read(x)
    assert reader.head == "head"
    assert torch.equal(reading.logits, net.head(torch.relu(net.first(x))))


class Transformer(nn.Module):
    """A small encoder that classifies the mean of its tokens, called as Hugging Face's are."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.encoder = nn.Linear(8, 8)
        self.classifier = nn.Linear(8, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        x = torch.tanh(self.encoder(self.embedding(input_ids)))
        weight = attention_mask[..., None].float()
        return SimpleNamespace(logits=self.classifier((x * weight).sum(1) / weight.sum(1)))


def test_dictionaries_and_padding_masks():
    net = Transformer().eval()
    ids = torch.randint(0, 20, (3, 6))
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0]])
    reader = NetworkReader(net, layers=["encoder"])
    one = reader.read({"input_ids": ids, "attention_mask": mask})
    other = reader.read({"input_ids": torch.where(mask == 1, ids, 0), "attention_mask": mask})
    assert reader.head == "classifier"
    assert torch.allclose(one.layers["encoder"], other.layers["encoder"])  # padding does not count
    tokens = net.encoder(net.embedding(ids))
    assert torch.allclose(one.layers["encoder"][0], tokens[0, :3].mean(0), atol=1e-6)


def test_several_arguments():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 2)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.head(torch.cat((a, b), 1))

    net = Two().eval()
    a, b = torch.randn(4, 2), torch.randn(4, 4)
    assert torch.equal(NetworkReader(net).read((a, b)).logits, net(a, b))


def test_a_network_without_a_linear_layer_embeds():
    net = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    x = torch.rand(4, 1, 8, 8)
    reader = NetworkReader(net)
    assert reader.head is None
    assert torch.allclose(reader.read(x).features, reader.read(x).logits)
    assert reader.weight_and_bias() is None


def test_half_precision_networks_are_read_in_single_precision():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval().to(torch.bfloat16)
    reading = NetworkReader(net).read(torch.randn(4, 4, dtype=torch.bfloat16))
    assert reading.features.dtype is torch.float32
    assert reading.output.dtype is torch.bfloat16


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning"
)  # torch's own, on import of its compiler
def test_finite_values_whose_sum_overflows_are_finite():
    reading = Reading(None, torch.full((2, 3), 3e38), torch.zeros(2, 2))
    assert reading.surely_finite
    assert reading.clean is reading
    broken = Reading(None, torch.tensor([[1.0, math.inf], [-math.inf, 0.0], [1.0, 2.0]]))
    assert not broken.surely_finite
    assert broken.clean.features.tolist() == [[0, 0], [0, 0], [1, 2]]


def test_scripted_and_compiled_networks_need_a_function():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    with pytest.raises(ConfigError, match=r"a compiled network: pass read=.*before torch.compile"):
        NetworkReader(torch.compile(net, backend="eager"))
    with pytest.raises(ConfigError, match="pass read="):
        NetworkReader(lambda x: x)  # pyright: ignore

    def read(x: Tensor) -> Reading:
        hidden = net[1](net[0](x))
        logits = net[2](hidden)
        return Reading(logits, hidden, logits)

    x = torch.randn(5, 4)
    reading = NetworkReader(torch.compile(net, backend="eager"), read=read).read(x)
    assert torch.equal(reading.logits, net(x))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"layers": ["first"]}, "no module 'first'"),
        ({"layers": "all"}, "layers must be 'auto'"),
        ({"features": "nothing"}, "no module 'nothing'"),
        ({"logits": "scores"}, "logits='scores' names no tensor"),
        ({"logits": 3}, "logits=3 names no tensor"),
    ],
)
def test_names_that_do_not_exist(options, sentence):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": self.head(x)}

    with pytest.raises(ConfigError, match=sentence):
        NetworkReader(Net().eval(), **options).read(torch.randn(2, 4))


@pytest.mark.parametrize("inputs", [(torch.randn(2, 4), torch.zeros(2), torch.zeros(2)), {"x": torch.randn(2, 4)}])
def test_a_batch_that_does_not_fit(inputs):
    with pytest.raises(
        InputError, match=r"a batch with (3 parts|the keys x) does not fit .* must be \(inputs, labels\)"
    ):
        NetworkReader(nn.Linear(4, 2).eval()).read(inputs)


def test_an_output_with_other_rows():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x)[:1]

    with pytest.raises(InputError, match="returned 1 rows for 3 inputs"):
        NetworkReader(Net().eval()).read(torch.randn(3, 4))


def test_one_input_without_a_batch_is_named():
    with pytest.raises(InputError, match=r"2 rows for a vector of 4 numbers, .* give one input as a batch, x\[None\]"):
        NetworkReader(nn.Linear(4, 2).eval()).read(torch.randn(4))


def test_the_digest_sees_every_weight_and_statistic():
    net = Convolutional()
    before = digest(net)
    assert digest(net.eval()) == before
    net.norm.running_mean[0] += 1e-6
    assert digest(net) != before
    assert digest(Convolutional().double()) != digest(Convolutional())


class Encoder(nn.Module):
    """An encoder of PyTorch, which makes nested tensors of a batch with padding when no gradient is asked for."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.embedding, self.encoder = nn.Embedding(20, 8), nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(input_ids), src_key_padding_mask=attention_mask == 0)[:, 0])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("longest", [6, 4], ids=["a row without padding", "all rows with padding"])
def test_an_encoder_that_makes_nested_tensors(longest):
    torch.manual_seed(0)
    net = Encoder().eval()
    lengths = torch.tensor([longest, 2, 3])
    batch = {
        "input_ids": torch.randint(1, 20, (3, 6)),
        "attention_mask": (torch.arange(6) < lengths[:, None]).long(),
    }
    reader = NetworkReader(net)
    reading = reader.read(batch, maps=True)
    assert reader.head == "head"
    assert reader.layers == ("embedding", "encoder.layers.0", "encoder")
    first = net.encoder.layers[0]
    for row, count in enumerate(lengths):  # each row by itself, without padding
        tokens = net.embedding(batch["input_ids"][row : row + 1, :count])
        assert torch.allclose(reading.layers["encoder.layers.0"][row], first(tokens).mean((0, 1)), atol=1e-5)
        assert torch.allclose(reading.logits[row], net.head(net.encoder(tokens)[0, 0]), atol=1e-5)
    assert reading.maps["encoder.layers.0"].shape == (3, 6, 8)


def test_arrays_get_the_precision_of_the_network_and_tensors_keep_theirs():
    net = nn.Linear(4, 3).eval()
    x = np.random.default_rng(0).normal(size=(5, 4))
    assert torch.equal(NetworkReader(net).read(x).logits, net(torch.tensor(x).float()))
    double = nn.Linear(4, 3).double().eval()
    assert torch.equal(NetworkReader(double).read(x).logits, double(torch.tensor(x)))
    with pytest.raises(InputError, match="type float64, and its weights are float32"):
        NetworkReader(net).read(torch.tensor(x))


def test_a_reading_with_another_number_of_rows():
    def read(x: Tensor) -> Reading:
        return Reading(output=None, features=x.numpy()[:3], logits=x)  # arrays become tensors

    with pytest.raises(InputError, match="3 rows of features for 5 inputs"):
        NetworkReader(lambda x: x, read=read).read(torch.zeros(5, 2))


def test_a_last_layer_that_is_called_by_keyword():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(input=self.body(x).relu())

    net, x = Net().eval(), torch.randn(5, 4)
    reading = NetworkReader(net).read(x)
    assert torch.equal(reading.features, net.body(x).relu())
    assert torch.equal(reading.logits, net(x))
