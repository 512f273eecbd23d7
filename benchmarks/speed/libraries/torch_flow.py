"""Common parts of the adapters of torch libraries: calls, and Jacobians by automatic differentiation."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import Tensor, nn

from benchmarks.speed.cases import Flow, batches
from benchmarks.speed.devices import CPU, Device
from benchmarks.speed.libraries import Array

__all__ = ["LEARNING_RATE", "TorchFlow", "convolutions", "perceptron"]

LEARNING_RATE = 1e-3


class TorchFlow(ABC):
    """One flow of a torch library, on a device. A subclass makes the module and defines the calls."""

    def __init__(self, flow: Flow, device: Device = CPU) -> None:
        self.flow = flow
        self.device = torch.device(device.name)
        self.dtype: torch.dtype = getattr(torch, flow.dtype)
        torch.set_default_dtype(self.dtype)
        torch.manual_seed(0)
        self.module = self.make(flow).to(self.device)
        self.parameters = sum(weight.numel() for weight in self.module.parameters() if weight.requires_grad)
        self.optimizer: torch.optim.Optimizer | None = None

    @abstractmethod
    def make(self, flow: Flow) -> nn.Module:
        """The library's model; it is made with the flow's dtype as torch's default, and then moved to the device."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of each row, ``(rows, *event)``."""

    @abstractmethod
    def draw(self, rows: int) -> Tensor:
        """Samples, ``(rows, D)``."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Data, ``(rows, *event)``, to noise, ``(rows, D)``, and log abs det dz/dx."""

    @abstractmethod
    def backward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Noise, ``(rows, D)``, to data of any shape, and log abs det dz/dx there."""

    def loss(self, x: Tensor) -> Tensor:
        """The loss that a training step minimizes."""
        return -self.log_prob(x).mean()

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Adam with torch's defaults, as in the libraries' examples."""
        return torch.optim.Adam(parameters, lr=LEARNING_RATE)

    @final
    def train(self, steps: int) -> None:
        self.module.train()
        turn = itertools.cycle(self._rows(512, 8) if steps else ())
        for x in itertools.islice(turn, steps):
            self.step(x)

    @final
    def work(self, work: str, batch: int) -> Callable[[], Any]:
        rows = self._rows(batch, 8 if work == "train_step" else 1)
        self.module.train(work == "train_step")
        if work == "train_step":
            return self.training(rows)
        call = (lambda: self.log_prob(rows[0])) if work == "log_prob" else (lambda: self.draw(batch))

        def without_gradient() -> Tensor:
            with torch.no_grad():
                return call()

        return self.ready(without_gradient)

    def ready(self, call: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """The call without gradient that is timed."""
        return call

    def training(self, rows: list[Tensor]) -> Callable[[], Tensor]:
        """The training step that is timed, on the batches in turn."""
        turn = itertools.cycle(rows)
        return lambda: self.step(next(turn))

    @final
    def step(self, x: Tensor) -> Tensor:
        """One training step."""
        optimizer = self.optimizer = self.optimizer or self.make_optimizer(self.module.parameters())
        optimizer.zero_grad()
        loss = self.loss(x)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def _rows(self, batch: int, count: int) -> list[Tensor]:
        feed = batches(self.flow.features, batch, self.flow.dtype)
        return [self._there(next(feed)).reshape(batch, *self.flow.event) for _ in range(count)]

    def _there(self, value: Array) -> Tensor:
        return torch.from_numpy(value).to(self.device)

    @final
    def encode(self, x: Array) -> tuple[Array, Array]:
        return self._apply(self.forward, x.reshape(len(x), *self.flow.event))

    @final
    def decode(self, z: Array) -> tuple[Array, Array]:
        return self._apply(self.backward, z)

    def _apply(self, function: Callable[[Tensor], tuple[Tensor, Tensor]], value: Array) -> tuple[Array, Array]:
        self.module.eval()
        with torch.no_grad():
            out, log_det = function(self._there(value))
        return out.flatten(1).cpu().numpy(), log_det.expand(len(out)).cpu().numpy()

    @final
    def autodiff_log_det(self, x: Array) -> Array:
        self.module.eval().double()
        torch.set_default_dtype(torch.float64)
        try:
            rows = self._there(x).double().requires_grad_()
            z = self.forward(rows.reshape(len(x), *self.flow.event))[0]
            columns = [torch.autograd.grad(z[:, j].sum(), rows, retain_graph=True)[0] for j in range(z.shape[1])]
            return torch.linalg.slogdet(torch.stack(columns, 1))[1].detach().cpu().numpy()
        finally:
            torch.set_default_dtype(self.dtype)
            self.module.to(self.dtype)


def perceptron(inputs: int, hidden: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    widths = (inputs, *hidden)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))


def convolutions(inputs: int, hidden: tuple[int, ...], outputs: int) -> nn.Sequential:
    """3 x 3, 1 x 1 and 3 x 3 convolutions with ReLU between them; the last starts at 0, as in Glow."""
    first, second = hidden
    last = nn.Conv2d(second, outputs, 3, padding=1)
    nn.init.zeros_(last.weight)
    if last.bias is not None:
        nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Conv2d(inputs, first, 3, padding=1), nn.ReLU(), nn.Conv2d(first, second, 1), nn.ReLU(), last
    )
