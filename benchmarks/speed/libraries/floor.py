"""The floor: only the linear layers or convolutions and the activations of the conditioners, in eager torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.speed.cases import SCALES, Flow
from benchmarks.speed.devices import CPU, Device
from benchmarks.speed.libraries import NotOffered
from benchmarks.speed.libraries.torch_flow import LEARNING_RATE, TorchFlow, convolutions, perceptron

DISTRIBUTION = MODULE = "torch"
IMPORT = "import torch"
START = (
    "is each conditioner once, on rows of its inputs, in every direction; training differentiates the mean of the outputs "
    "(by the inputs too, as a chain of layers does) and takes a step of fused Adam"
)


def build(flow: Flow, device: Device = CPU) -> Floor:
    return Floor(flow, device)


class Floor(TorchFlow):
    def make(self, flow: Flow) -> nn.Module:
        if flow.kind == "glow":
            widths = [4 * 2**scale for scale in range(SCALES) for _ in range(flow.layers // SCALES)]
            return nn.ModuleList([convolutions(width // 2, flow.hidden, width) for width in widths])
        networks = []
        for k in range(flow.layers * flow.members):
            kept = flow.features if flow.autoregressive else (flow.features + 1 - k % 2) // 2
            moved = flow.features if flow.autoregressive else flow.features - kept
            networks.append(perceptron(kept, flow.hidden, moved * flow.parameters_each))
        return nn.ModuleList(networks)

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=True)

    def log_prob(self, x: Tensor) -> Tensor:
        for network in self.networks():
            network(self.seen(x, network))
        return x.flatten(1)[:, 0]

    def seen(self, x: Tensor, network: Any) -> Tensor:
        """Input of a conditioner: some coordinates, or an image with as many pixels as there are at its scale."""
        if self.flow.kind != "glow":
            return x[:, : network[0].in_features]
        channels, side = network[0].in_channels, self.flow.event[1] // network[0].in_channels
        seen = x.flatten(1)[:, : channels * side * side].reshape(len(x), channels, side, side)
        return seen.contiguous(memory_format=torch.channels_last)  # the faster of the two layouts

    def loss(self, x: Tensor) -> Tensor:
        total = x.new_zeros(())
        for k, network in enumerate(self.networks()):
            # A layer's inputs come from the layer before it, so all but the first pass a gradient on.
            total = total + network(self.seen(x, network).detach().requires_grad_(k > 0)).mean()
        return total

    def draw(self, rows: int) -> Tensor:
        x = torch.randn(rows, *self.flow.event, device=self.device)
        self.log_prob(x)
        return x.flatten(1)

    def networks(self) -> list[Any]:
        return list(self.module.children())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        raise NotOffered("the floor is not a flow")

    def backward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        raise NotOffered("the floor is not a flow")
