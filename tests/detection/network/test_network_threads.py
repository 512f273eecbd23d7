"""Several threads that run one network: each call sees its own rows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pushforward as pf
from pushforward.detection import network as scores
from pushforward.detection.network import Embedder, NetworkReader

torch.manual_seed(0)
X = torch.randn(1500, 6)
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()


class Slow(nn.Module):
    """A network that lets other threads run between its layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.drop, self.head = nn.Linear(6, 16), nn.Dropout(0.5), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.hidden(x).relu()
        time.sleep(0.002)
        logits = self.head(self.drop(z))
        time.sleep(0.002)
        return logits


def together(*calls: Callable[[], Any], times: int = 10) -> list[list[Any]]:
    """The results of functions that threads call at the same time, again and again."""
    results: list[list[Any]] = [[] for _ in calls]
    errors: list[BaseException] = []

    def repeat(k: int) -> None:
        try:
            for _ in range(times):
                results[k].append(calls[k]())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=repeat, args=(k,)) for k in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    return results


@pytest.mark.parametrize("score", ["default", "Energy", "ODIN", scores.MCDropout(3)], ids=["default", "Energy", "ODIN", "dropout"])  # fmt: skip
def test_guards_are_called_at_once(score):
    net = Slow().eval()
    guard = pf.NetworkGuard(net, 0.05, score=score).fit((X[:600], Y[:600]), calibration=X[600:1100])
    parts = [X[1100:1150], 3 * X[1150:1180], X[1180:1181]]
    expected = [guard(part).p_value for part in parts]
    bare = net(X[1200:1290])
    *found, beside = together(*(lambda part=part: guard(part).p_value for part in parts), lambda: net(X[1200:1290]))
    for results, wanted in zip(found, expected, strict=True):
        assert all(torch.equal(result, wanted) for result in results)
    assert all(torch.equal(result, bare) for result in beside)
    assert not any(module._forward_hooks or module._forward_hooks_with_kwargs for module in net.modules())


def test_first_calls_at_once():
    net = Slow().eval()
    parts = [X[:40], 5 * X[40:60]]
    expected = [Embedder(net)(part) for part in parts]
    embed = Embedder(net)  # finds the last layer in its first call
    for results, wanted in zip(together(*(lambda part=part: embed(part) for part in parts)), expected, strict=True):
        assert all(np.array_equal(result, wanted) for result in results)


def test_a_network_in_training_mode_is_restored_by_the_last_call():
    net = Slow().train()
    net.hidden.eval()
    modes = [module.training for module in net.modules()]
    inner = nn.Sequential(net.drop, nn.Identity()).train()  # shares a part with the network
    outer, part = NetworkReader(net), NetworkReader(inner)
    expected = outer.read(X[:50]).logits
    long, short, quick = together(
        lambda: (time.sleep(0.0045), outer.read(X[:50]).logits)[1],
        lambda: (time.sleep(0.003), outer.read(X[:50]).logits)[1],
        lambda: (time.sleep(0.001), part.read(X[:50]).output)[1],
        times=30,
    )
    assert all(torch.equal(result, expected) for result in (*long, *short))
    assert all(torch.equal(result, X[:50]) for result in quick)
    assert [module.training for module in net.modules()] == modes
    assert all(module.training for module in inner.modules())
