"""nflows (github.com/bayesiains/nflows)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.speed.cases import BOUND, SCALES, Flow
from benchmarks.speed.devices import CPU, Device
from benchmarks.speed.libraries import NotOffered
from benchmarks.speed.libraries.torch_flow import TorchFlow, convolutions, perceptron

DISTRIBUTION = MODULE = "nflows"
IMPORT = "import nflows.flows, nflows.transforms, nflows.distributions"
START = (
    "has torch's default initial weights; scales softplus(a) + 0.001 in MAF and sigmoid(a + 2) + 0.001 in couplings, which can only "
    "contract; bins and slopes of at least 0.001; 1 x 1 convolutions start as permutations"
)


class Network(nn.Module):
    """The library passes a context, which a plain sequence does not accept."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.body(x)


def build(flow: Flow, device: Device = CPU) -> NflowsFlow:
    return NflowsFlow(flow, device)


class NflowsFlow(TorchFlow):
    def make(self, flow: Flow) -> nn.Module:
        from nflows import transforms
        from nflows.distributions.normal import StandardNormal
        from nflows.flows import Flow as Model

        if flow.members > 1:
            raise NotOffered("no ensembles")

        def network(inputs: int, outputs: int) -> nn.Module:
            return Network((convolutions if flow.kind == "glow" else perceptron)(inputs, flow.hidden, outputs))

        if flow.kind == "glow":
            return Model(scales(flow, network), StandardNormal([flow.features]))
        position = torch.arange(flow.features)
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
                layer = transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform
                layers.append(layer(flow.features, flow.width, **made, **spline))
            elif flow.kind == "rnvp":
                layers.append(transforms.AffineCouplingTransform((position + k) % 2, network))
            else:
                layer = transforms.PiecewiseRationalQuadraticCouplingTransform
                layers.append(layer((position + k) % 2, network, **spline))
        return Model(transforms.CompositeTransform(layers), StandardNormal([flow.features]))

    def log_prob(self, x: Tensor) -> Tensor:
        return self.module.log_prob(x)

    def draw(self, rows: int) -> Tensor:
        return self.module.sample(rows).flatten(1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.module._transform(x)

    def backward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = self.module._transform.inverse(z)
        return x, -log_det


def scales(flow: Flow, network: Callable[[int, int], nn.Module]) -> Any:
    """Glow: half of the channels of each scale is factored out."""
    from nflows import transforms

    whole: Any = transforms.MultiscaleCompositeTransform(SCALES)
    channels, height, width = flow.event
    for _ in range(SCALES):
        channels, height, width = 4 * channels, height // 2, width // 2
        parts: list[nn.Module] = [transforms.SqueezeTransform()]
        for _ in range(flow.layers // SCALES):
            parts += [transforms.ActNorm(channels), transforms.OneByOneConvolution(channels)]
            parts.append(transforms.AffineCouplingTransform(torch.arange(channels) >= channels // 2, network))
        whole.add_transform(transforms.CompositeTransform(parts), (channels, height, width))
        channels //= 2
    return whole
