"""Scores from gradients: ODIN's perturbed input, and GradNorm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pushforward.detection.modes import outside_inference
from pushforward.detection.network.reading import Reading, rebuilt
from pushforward.detection.network.scores.base import NetworkScore, logits_of
from pushforward.errors import ConfigError
from pushforward.numerics.checks import check_positive

__all__ = ["ODIN", "GradNorm"]


class ODIN(NetworkScore):
    """``-max_c softmax(f(x') / T)_c`` with ``x' = x - e sign(gradient of -log max softmax(f(x) / T))`` (Liang et al. 2018).

    arXiv 1706.02690, eq. 1 and 2, with the paper's temperature and step of the DenseNet on CIFAR-10; the step is in the input's own units.

    Args:
        temperature: T.
        step: e.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(600, 4), torch.arange(600) % 3
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> score = pf.detection.network.ODIN()
        >>> guard = pf.NetworkGuard(net, alpha=0.05, score=score).fit((x[:300], y[:300]), calibration=x[300:])
        >>> guard(torch.tensor([[30.0, -30.0, 30.0, 30.0]])).p_value.shape
        torch.Size([1])
    """

    needs = frozenset({"logits", "gradient"})
    differentiable = False
    cost = "a gradient of the input"

    def __init__(self, temperature: float = 1000.0, step: float = 0.0014) -> None:
        super().__init__()
        self.temperature, self.step = (
            check_positive("temperature", temperature),
            check_positive("step", step, zero=True),
        )

    def _score(self, reading: Reading) -> Tensor:
        reader = reading.reader
        assert reader is not None
        with outside_inference(), torch.enable_grad():
            inputs = ordinary(reading.inputs)
            x = first_float(inputs).detach().requires_grad_()
            logits = logits_of(reader.read(with_first(inputs, x), grad=True)) / self.temperature
            loss = -torch.log_softmax(logits, 1).amax(1).sum()
            (gradient,) = torch.autograd.grad(loss, x)
        moved = with_first(inputs, (x - self.step * gradient.sign()).detach())
        return -torch.log_softmax(logits_of(reader.read(moved)) / self.temperature, 1).amax(1).exp()


class GradNorm(NetworkScore):
    """``-||z||_1 ||softmax(f / T) - 1/C||_1 / T``: the L1 norm of a gradient of the last weights (Huang et al. 2021, arXiv 2110.00218).

    The gradient is of the mean over classes of ``-log softmax(f / T)``; its closed form (the paper's eq. 9) needs no backward pass.

    Args:
        temperature: T.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(600, 4), torch.arange(600) % 3
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> score = pf.detection.network.GradNorm()
        >>> guard = pf.NetworkGuard(net, alpha=0.05, score=score).fit((x[:300], y[:300]), calibration=x[300:])
        >>> guard(torch.tensor([[30.0, -30.0, 30.0, 30.0]])).p_value.shape
        torch.Size([1])
    """

    needs = frozenset({"logits", "head"})

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = check_positive("temperature", temperature)

    def _score(self, reading: Reading) -> Tensor:
        p = torch.softmax(logits_of(reading) / self.temperature, 1)
        offset = (p - 1 / p.shape[1]).abs().sum(1) / self.temperature
        return -reading.features.double().abs().sum(1) * offset


def ordinary(inputs: Any) -> Any:
    """The same batch with copies of the tensors that were made in inference mode, which can have no gradient."""
    if isinstance(inputs, Tensor):
        return inputs.clone() if inputs.is_inference() else inputs
    if isinstance(inputs, Mapping):
        return {key: ordinary(value) for key, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return rebuilt(inputs, list(map(ordinary, inputs)))
    return inputs


def first_float(inputs: Any) -> Tensor:
    """The first floating-point tensor of a batch, by which gradients are taken.

    Raises:
        ConfigError: for a batch of integers.
    """
    parts = (
        inputs.values() if isinstance(inputs, Mapping) else inputs if isinstance(inputs, (tuple, list)) else [inputs]
    )
    for part in parts:
        if isinstance(part, Tensor) and part.is_floating_point():
            return part
    raise ConfigError(
        "a gradient of the input needs an input of floating-point numbers; tokens have none: use another score."
    )


def with_first(inputs: Any, tensor: Tensor) -> Any:
    """The same batch with another first floating-point tensor."""
    if isinstance(inputs, Tensor):
        return tensor
    old = first_float(inputs)
    if isinstance(inputs, Mapping):
        return {key: tensor if value is old else value for key, value in inputs.items()}
    return rebuilt(inputs, [tensor if value is old else value for value in inputs])
