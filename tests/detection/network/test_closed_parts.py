"""Networks with compiled and scripted parts: what can be read is read, the rest is an error, and no hook stays."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import pushforward as pf
from pushforward.detection.network import NetworkReader, digest
from pushforward.detection.network.digest import _digest
from pushforward.errors import ConfigError, PushforwardWarning, StorageError

torch.manual_seed(0)
X = torch.randn(1500, 6)
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()
DATA = {"train": (X[:600], Y[:600]), "calibration": X[600:1100]}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(16, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.body(x))


def run(net: nn.Module) -> None:
    with torch.no_grad():
        net(X[:8])


def scripted(part: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(part)


def compiled(part: nn.Module) -> nn.Module:
    return torch.compile(part, backend="eager")  # pyright: ignore[reportReturnType]


def compiled_in_place(part: nn.Module) -> nn.Module:
    part.compile(backend="eager")
    return part


def compiled_forward(part: nn.Module) -> nn.Module:
    part.forward = torch.compile(part.forward, backend="eager")
    return part


COMPILED = pytest.mark.parametrize("close", [compiled, compiled_in_place, compiled_forward])


def no_hooks(net: nn.Module) -> bool:
    return not any(getattr(module, "_forward_hooks", None) for module in net.modules())


def test_scripted_parts_are_left_out():
    net = Net().eval()
    net.body[2] = scripted(net.body[2])
    guard = pf.NetworkGuard(net, 0.05).fit(**DATA)
    assert guard.reader_.head == "top.0"
    assert "body.0" in guard.reader_.layers
    assert "body.2" not in guard.reader_.layers
    assert no_hooks(net)
    with pytest.raises(ConfigError, match=r"cannot read the layer 'body.2', because the part 'body.2' is scripted"):
        NetworkReader(net, layers=["body.2"])


def test_a_scripted_part_with_the_last_layer():
    net = Net().eval()
    net.top = scripted(net.top)
    with pytest.raises(ConfigError, match=r"last linear layer .* was not found, and the part 'top' is scripted.*read="):
        pf.NetworkGuard(net, 0.05).fit(**DATA)
    assert no_hooks(net)
    assert NetworkReader(net, features="body").read(X[:5]).features.shape == (5, 16)


@COMPILED
def test_a_compiled_part_with_the_last_layer(close):
    net = Net().eval()
    net.top = close(net.top)
    run(net)
    for layers in ("auto", []):
        with pytest.raises(ConfigError, match=r"not found, and the part 'top' is compiled: .*before torch.compile"):
            pf.NetworkGuard(net, 0.05, layers=layers).fit(**DATA)
    assert no_hooks(net)


@COMPILED
def test_a_compiled_part_before_the_last_layer(close):
    net, plain = Net().eval(), pf.NetworkGuard(Net().eval(), 0.05, layers=[]).fit(**DATA)
    net.body = close(net.body)
    run(net)
    with pytest.warns(PushforwardWarning, match="layers of the compiled part 'body' are not read"):
        guard = pf.NetworkGuard(net, 0.05).fit(**DATA)
    assert guard.reader_.head == "top.0"
    assert torch.allclose(guard(X[1100:]).score, plain(X[1100:]).score, rtol=1e-4)
    for options in ({"layers": ["body.0"]}, {"features": "body"}):
        with pytest.raises(ConfigError, match="the part 'body' is compiled"):
            NetworkReader(net, **options)


@COMPILED
def test_a_compiled_network(close, tmp_path):
    net = Net().eval()
    guard = pf.NetworkGuard(net, 0.05).fit(**DATA)
    guard.save(tmp_path / "guard")
    other = close(Net().eval())
    assert digest(other) == guard.digest_
    with pytest.raises(ConfigError, match="a compiled network: pass read="):
        pf.NetworkGuard(other)
    advice = (
        "load the guard first" if close is compiled_in_place else "before torch.compile, which has the same weights"
    )
    with pytest.raises(StorageError, match=f"a compiled network: .*{advice}"):
        pf.NetworkGuard.load(tmp_path / "guard", other)


@COMPILED
def test_a_network_that_is_compiled_after_the_fit(close):
    net = Net().eval()
    guard = pf.NetworkGuard(net, 0.05).fit(**DATA)
    expected = guard(X[1100:]).score
    net.top = close(net.top)
    run(net)
    for _ in range(3):  # PyTorch decides whether it compiles again with the hooks
        try:
            found = guard(X[1100:]).score
        except ConfigError as error:
            found, told = expected, str(error)
        else:
            told = "the part 'top' is compiled"
        assert torch.allclose(found, expected)
        assert "the part 'top' is compiled" in told


def test_a_file_with_the_names_of_a_compiled_network(tmp_path):
    net = Net().eval()
    other = compiled(net)

    def read(x: Tensor) -> pf.detection.network.Reading:
        z = net.body(x)
        return pf.detection.network.Reading(net.top(z), z, net.top(z))

    guard = pf.NetworkGuard(other, 0.05, read=read).fit(**DATA)
    guard.digest_ = _digest(other.state_dict())
    pf.io.write(tmp_path / "old", *_with_digest(guard, tmp_path))
    again = pf.NetworkGuard.load(tmp_path / "old", other, read=read)
    assert torch.equal(again(X[1100:]).score, guard(X[1100:]).score)


def _with_digest(guard: pf.NetworkGuard, folder):
    digest_, guard.digest_ = guard.digest_, digest(guard.net)
    guard.save(folder / "new")
    header, tensors = pf.io.read(folder / "new")
    return header | {"digest": digest_}, tensors
