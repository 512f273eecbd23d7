"""FrEIA (github.com/vislearn/FrEIA)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.speed.cases import SCALES, Flow
from benchmarks.speed.devices import CPU, Device
from benchmarks.speed.libraries import NotOffered
from benchmarks.speed.libraries.torch_flow import TorchFlow, convolutions, perceptron

DISTRIBUTION = MODULE = "FrEIA"
IMPORT = "import FrEIA.framework, FrEIA.modules"
START = (
    "affine couplings only (no splines in its release, no MADE); torch's default initial weights with outputs times 0.1; scales "
    "exp(2 tanh(a)); each block also multiplies by a D x D matrix of a random permutation and has a global affine layer; in images that matrix mixes channels and is fixed, but the other libraries train theirs"
)


def build(flow: Flow, device: Device = CPU) -> FreiaFlow:
    return FreiaFlow(flow, device)


class FreiaFlow(TorchFlow):
    def make(self, flow: Flow) -> nn.Module:
        if flow.kind not in ("rnvp", "glow") or flow.members > 1:
            raise NotOffered("affine couplings only")
        from FrEIA.framework import SequenceINN
        from FrEIA.modules import AllInOneBlock

        np.random.seed(0)  # noqa: NPY002  its permutations come from there
        if flow.kind == "glow":
            return scales(flow).to(self.dtype)
        model = SequenceINN(flow.features)
        for _ in range(flow.layers):
            model.append(
                AllInOneBlock, subnet_constructor=lambda inputs, outputs: perceptron(inputs, flow.hidden, outputs)
            )
        return model.to(self.dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        z, log_det = self.forward(x)
        return log_det - 0.5 * (z.square() + np.log(2 * np.pi)).sum(1)

    def draw(self, rows: int) -> Tensor:
        return self.backward(torch.randn(rows, self.flow.features, device=self.device))[0].flatten(1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = self.module(x)
        return (z, log_det) if isinstance(z, Tensor) else (torch.cat([part.flatten(1) for part in z], 1), log_det)

    def backward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        if self.flow.kind == "glow":
            shapes = self.module.global_out_shapes
            parts = z.split([math.prod(shape) for shape in shapes], 1)
            z = [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]
        x, log_det = self.module(z, rev=True)
        return x, -log_det


def scales(flow: Flow) -> Any:
    """Glow: half of the channels of each scale is factored out."""
    from FrEIA.framework import GraphINN, InputNode, Node, OutputNode
    from FrEIA.modules import AllInOneBlock, IRevNetDownsampling, Split

    subnet = {"subnet_constructor": lambda inputs, outputs: convolutions(inputs, flow.hidden, outputs)}
    last: Any = InputNode(*flow.event)
    nodes, leaving = [last], []
    for scale in range(SCALES):
        last = Node(last, IRevNetDownsampling, {})
        nodes.append(last)
        for _ in range(flow.layers // SCALES):
            last = Node(last, AllInOneBlock, subnet)
            nodes.append(last)
        if scale < SCALES - 1:
            last = Node(last, Split, {})
            nodes.append(last)
            leaving.append(OutputNode(last.out1))
            last = last.out0
    return GraphINN([*nodes, *leaving, OutputNode(last)])
