"""torchflows (github.com/davidnabergoj/torchflows)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from benchmarks.speed.cases import BOUND, Flow
from benchmarks.speed.devices import CPU, Device
from benchmarks.speed.libraries import NotOffered
from benchmarks.speed.libraries.torch_flow import TorchFlow

DISTRIBUTION = MODULE = "torchflows"
IMPORT = "import torchflows.flows, torchflows.bijections.finite.autoregressive.architectures"
START = (
    "has torch's default initial weights; scales exp(a / 2), unbounded; its MADE has tanh only; couplings condition on the first half, "
    "the order reversed between layers; spline parameters divided by 1000; without the elementwise layers and the L2 penalty "
    "that its ready-made flows add"
)


def build(flow: Flow, device: Device = CPU) -> TorchflowsFlow:
    return TorchflowsFlow(flow, device)


class TorchflowsFlow(TorchFlow):
    def make(self, flow: Flow) -> nn.Module:
        from torchflows.bijections.base import BijectiveComposition
        from torchflows.bijections.finite.autoregressive import layers as layer_types
        from torchflows.bijections.finite.matrix.permutation import ReversePermutationMatrix
        from torchflows.flows import Flow as Model

        if flow.members > 1 or flow.kind == "glow":
            raise NotOffered("no ensembles and no images")
        layer = {
            "maf": layer_types.AffineForwardMaskedAutoregressive,
            "nsfar": layer_types.RQSForwardMaskedAutoregressive,
            "rnvp": layer_types.AffineCoupling,
            "nsfc": layer_types.RQSCoupling,
        }[flow.kind]
        conditioner: dict[str, Any] = {"n_hidden": flow.width, "n_layers": len(flow.hidden) + 1}
        if not flow.autoregressive:
            conditioner["nonlinearity"] = nn.ReLU
        options: dict[str, Any] = {"conditioner_kwargs": conditioner, "l2_regularization": False}
        if flow.spline:
            options["transformer_kwargs"] = {"n_bins": flow.bins, "boundary": BOUND}
        shape = (flow.features,)
        layers: list[nn.Module] = []
        for k in range(flow.layers):
            layers += [ReversePermutationMatrix(shape)] if k else []
            layers.append(layer(shape, **options))
        return Model(BijectiveComposition(layers))

    def log_prob(self, x: Tensor) -> Tensor:
        return self.module.log_prob(x)

    def draw(self, rows: int) -> Tensor:
        return self.module.sample((rows,))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.module.bijection.forward(x)

    def backward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = self.module.bijection.inverse(z)
        return x, -log_det
