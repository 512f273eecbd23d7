"""What the adapters of the torch libraries share: how a call is made, and how its Jacobian is differentiated."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from benchmarks.speed.cases import Flow, batches
from benchmarks.speed.libraries import Array
from torch import Tensor, nn

__all__ = ["LEARNING_RATE", "TorchFlow", "convolutions", "perceptron"]

LEARNING_RATE = 1e-3


class TorchFlow(ABC):
    """One flow of a torch library. A subclass makes the module and says how it is called."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.dtype: torch.dtype = getattr(torch, flow.dtype)
        torch.set_default_dtype(self.dtype)
        torch.manual_seed(0)
        self.module = self.make(flow)
        self.parameters = sum(weight.numel() for weight in self.module.parameters() if weight.requires_grad)
        self.optimizer: torch.optim.Optimizer | None = None

    @abstractmethod
    def make(self, flow: Flow) -> nn.Module:
        """The library's model; made with the flow's dtype as torch's default."""

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
        """What a training step minimises."""
        return -self.log_prob(x).mean()

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Adam as torch makes it by default, which is what the libraries' examples use."""
        return torch.optim.Adam(parameters, lr=LEARNING_RATE)

    @final
    def work(self, work: str, batch: int) -> Callable[[], Any]:
        feed = batches(self.flow.features, batch, self.flow.dtype)
        rows = [
            torch.from_numpy(next(feed)).reshape(batch, *self.flow.event)
            for _ in range(8 if work == "train_step" else 1)
        ]
        self.module.train(work == "train_step")
        if work == "train_step":
            return self._step(rows)
        call = (lambda: self.log_prob(rows[0])) if work == "log_prob" else (lambda: self.draw(batch))

        def without_gradient() -> Tensor:
            with torch.no_grad():
                return call()

        return without_gradient

    def _step(self, rows: list[Tensor]) -> Callable[[], Any]:
        optimizer = self.optimizer = self.optimizer or self.make_optimizer(self.module.parameters())
        turn = itertools.cycle(rows)

        def step() -> Tensor:
            optimizer.zero_grad()
            loss = self.loss(next(turn))
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    @final
    def encode(self, x: Array) -> tuple[Array, Array]:
        return self._apply(self.forward, x.reshape(len(x), *self.flow.event))

    @final
    def decode(self, z: Array) -> tuple[Array, Array]:
        return self._apply(self.backward, z)

    def _apply(self, function: Callable[[Tensor], tuple[Tensor, Tensor]], value: Array) -> tuple[Array, Array]:
        self.module.eval()
        with torch.no_grad():
            out, log_det = function(torch.from_numpy(value))
        return out.flatten(1).numpy(), log_det.expand(len(out)).numpy()

    @final
    def autodiff_log_det(self, x: Array) -> Array:
        self.module.eval().double()
        torch.set_default_dtype(torch.float64)
        try:
            rows = torch.from_numpy(x).double().requires_grad_()
            z = self.forward(rows.reshape(len(x), *self.flow.event))[0]
            columns = [torch.autograd.grad(z[:, j].sum(), rows, retain_graph=True)[0] for j in range(z.shape[1])]
            return torch.linalg.slogdet(torch.stack(columns, 1))[1].detach().numpy()
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
