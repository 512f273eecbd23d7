"""FrEIA (github.com/vislearn/FrEIA)."""

from __future__ import annotations

import numpy as np
import torch
from benchmarks.speed.cases import Flow
from benchmarks.speed.libraries import NotOffered
from benchmarks.speed.libraries.torch_flow import TorchFlow, perceptron
from torch import Tensor, nn

DISTRIBUTION = MODULE = "FrEIA"
IMPORT = "import FrEIA.framework, FrEIA.modules"
START = (
    "affine couplings only (no splines in its release, no MADE); torch's default start with outputs times 0.1; scales "
    "exp(2 tanh(a)); each block also multiplies by a D x D matrix of a random permutation and has a global affine layer"
)


def build(flow: Flow) -> FreiaFlow:
    return FreiaFlow(flow)


class FreiaFlow(TorchFlow):
    def make(self, flow: Flow) -> nn.Module:
        if flow.kind != "rnvp" or flow.members > 1:
            raise NotOffered("affine couplings only")
        from FrEIA.framework import SequenceINN
        from FrEIA.modules import AllInOneBlock

        np.random.seed(0)  # noqa: NPY002  its permutations come from there
        model = SequenceINN(flow.features)
        for _ in range(flow.layers):
            model.append(
                AllInOneBlock, subnet_constructor=lambda inputs, outputs: perceptron(inputs, flow.hidden, outputs)
            )
        return model.to(self.dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        z, log_det = self.module(x)
        return log_det - 0.5 * (z.square() + np.log(2 * np.pi)).sum(1)

    def draw(self, rows: int) -> Tensor:
        return self.module(torch.randn(rows, self.flow.features), rev=True)[0]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.module(x)

    def backward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = self.module(z, rev=True)
        return x, -log_det
