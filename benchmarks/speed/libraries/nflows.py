"""nflows (github.com/bayesiains/nflows)."""

from __future__ import annotations

import torch
from benchmarks.speed.cases import BOUND, Flow
from benchmarks.speed.libraries import NotOffered
from benchmarks.speed.libraries.torch_flow import TorchFlow, perceptron
from torch import Tensor, nn

DISTRIBUTION = MODULE = "nflows"
IMPORT = "import nflows.flows, nflows.transforms, nflows.distributions"
START = (
    "has torch's default start; scales softplus(a) + 0.001 in MAF and sigmoid(a + 2) + 0.001 in couplings, which can only "
    "contract; bins and slopes of at least 0.001"
)


class Perceptron(nn.Module):
    """The library passes a context on, which a plain sequence does not take."""

    def __init__(self, inputs: int, hidden: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.body = perceptron(inputs, hidden, outputs)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.body(x)


def build(flow: Flow) -> NflowsFlow:
    return NflowsFlow(flow)


class NflowsFlow(TorchFlow):
    def make(self, flow: Flow) -> nn.Module:
        from nflows import transforms
        from nflows.distributions.normal import StandardNormal
        from nflows.flows import Flow as Model

        if flow.members > 1:
            raise NotOffered("no ensembles")

        def network(inputs: int, outputs: int) -> nn.Module:
            return Perceptron(inputs, flow.hidden, outputs)

        place = torch.arange(flow.features)
        # A first layer and one more of the same width are the two hidden layers.
        made = {"num_blocks": len(flow.hidden) - 1, "use_residual_blocks": False}
        spline = {"num_bins": flow.bins, "tails": "linear", "tail_bound": BOUND}
        layers: list[nn.Module] = []
        for k in range(flow.layers):
            if flow.autoregressive and k:
                layers.append(transforms.ReversePermutation(flow.features))
            if flow.kind == "maf":
                layers.append(transforms.MaskedAffineAutoregressiveTransform(flow.features, flow.width, **made))
            elif flow.kind == "nsfar":
                law = transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform
                layers.append(law(flow.features, flow.width, **made, **spline))
            elif flow.kind == "rnvp":
                layers.append(transforms.AffineCouplingTransform((place + k) % 2, network))
            else:
                law = transforms.PiecewiseRationalQuadraticCouplingTransform
                layers.append(law((place + k) % 2, network, **spline))
        return Model(transforms.CompositeTransform(layers), StandardNormal([flow.features]))

    def log_prob(self, x: Tensor) -> Tensor:
        return self.module.log_prob(x)

    def draw(self, rows: int) -> Tensor:
        return self.module.sample(rows)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.module._transform(x)

    def backward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = self.module._transform.inverse(z)
        return x, -log_det
