"""normflows (github.com/VincentStimper/normalizing-flows)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from benchmarks.speed.cases import BOUND, SCALES, Flow
from benchmarks.speed.devices import CPU, Device
from benchmarks.speed.libraries import NotOffered
from benchmarks.speed.libraries.nflows import Network
from benchmarks.speed.libraries.torch_flow import TorchFlow, perceptron

DISTRIBUTION = MODULE = "normflows"
IMPORT = "import normflows"
START = (
    "affine couplings and autoregressive splines start at the identity, the others with torch's default initial weights; scales sigmoid(a + 2) + "
    "0.001 in MAF, which can only contract, and exp without a bound in couplings; MAF and splines, whose fast direction is sampling as "
    "shipped, are reversed by the library's own Reverse; its MADE has no activation between its first two layers; for images scales sigmoid(a + 2), which can only contract"
)


def build(flow: Flow, device: Device = CPU) -> NormflowsFlow:
    return NormflowsFlow(flow, device)


class NormflowsFlow(TorchFlow):
    def make(self, flow: Flow) -> nn.Module:
        import normflows as nf
        from normflows.flows.neural_spline.autoregressive import MaskedPiecewiseRationalQuadraticAutoregressive
        from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling

        if flow.members > 1:
            raise NotOffered("no ensembles")

        def network(inputs: int, outputs: int) -> nn.Module:
            return Network(perceptron(inputs, flow.hidden, outputs))

        if flow.kind == "glow":
            return scales(flow)
        features, position = flow.features, torch.arange(flow.features)
        made = {"num_blocks": len(flow.hidden) - 1, "use_residual_blocks": False}
        spline = {"num_bins": flow.bins, "tails": "linear", "tail_bound": BOUND}
        layers: list[nn.Module] = []  # in the order of sampling, so the last one is next to the data
        for k in range(flow.layers):
            if flow.kind == "rnvp":
                kept = (features + 1) // 2
                net = nf.nets.MLP([kept, *flow.hidden, 2 * (features - kept)], init_zeros=True)
                layers += [nf.flows.AffineCouplingBlock(net), nf.flows.Permute(features, mode="swap")]
                continue
            if flow.kind == "nsfc":
                layers.append(
                    nf.flows.Reverse(PiecewiseRationalQuadraticCoupling((position + k) % 2, network, **spline))
                )
                continue
            layers += [Flip()] if k else []
            if flow.kind == "maf":
                layers.append(nf.flows.Reverse(nf.flows.MaskedAffineAutoregressive(features, flow.width, **made)))
            else:
                layer = MaskedPiecewiseRationalQuadraticAutoregressive
                layers.append(nf.flows.Reverse(layer(features, flow.width, **made, **spline)))
        base = nf.distributions.base.DiagGaussian(features, trainable=False)
        return nf.NormalizingFlow(base, layers)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.module.log_prob(x, None) if self.flow.kind == "glow" else self.module.log_prob(x)

    def draw(self, rows: int) -> Tensor:
        return self.module.sample(rows)[0].flatten(1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = self.module.inverse_and_log_det(x)
        return (z, log_det) if isinstance(z, Tensor) else (torch.cat([part.flatten(1) for part in z], 1), log_det)

    def backward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        if self.flow.kind == "glow":
            shapes = [base.shape for base in self.module.q0]
            parts = z.split([math.prod(shape) for shape in shapes], 1)
            z = [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]
        x, log_det = self.module.forward_and_log_det(z)
        return x, -log_det


class Flip(nn.Module):
    """The order reversed; the library permutes only at random or by halves."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z.flip(1), z.new_zeros(len(z))

    inverse = forward


def scales(flow: Flow) -> nn.Module:
    """Glow, from the coarsest scale to the finest; half of the channels of each scale is factored out."""
    import normflows as nf

    _, height, width = flow.event
    distributions, merges, flows = [], [], []
    for i in range(SCALES):
        channels, down = 2 ** (SCALES + 1 - i), 2 ** (SCALES - i)
        steps = [nf.flows.GlowBlock(channels, flow.width) for _ in range(flow.layers // SCALES)]
        flows.append([*steps, nf.flows.Squeeze()])
        merges += [nf.flows.Merge()] if i else []
        leaving = channels // 2 if i else channels
        distributions.append(
            nf.distributions.base.DiagGaussian((leaving, height // down, width // down), trainable=False)
        )
    return nf.MultiscaleFlow(distributions, flows, merges, class_cond=False)
