"""zuko (github.com/probabilists/zuko)."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from benchmarks.speed.cases import BOUND, Flow
from benchmarks.speed.devices import CPU, Device
from benchmarks.speed.libraries import NotOffered
from benchmarks.speed.libraries.torch_flow import TorchFlow

DISTRIBUTION = MODULE = "zuko"
IMPORT = "import zuko.flows"
START = "has torch's default initial weights; scales are exp of a soft clip at log 1000; slopes in [0.001, 1000], softly clipped bins"


def build(flow: Flow, device: Device = CPU) -> ZukoFlow:
    return ZukoFlow(flow, device)


class ZukoFlow(TorchFlow):
    def make(self, flow: Flow) -> nn.Module:
        import zuko

        if flow.members > 1 or flow.kind == "glow":
            raise NotOffered("no ensembles and no images")
        univariate_options: dict[str, Any] = {}
        if flow.spline:
            univariate = partial(zuko.transforms.MonotonicRQSTransform, bound=BOUND)
            univariate_options = {"univariate": univariate, "shapes": [(flow.bins,), (flow.bins,), (flow.bins - 1,)]}
        family = zuko.flows.MAF if flow.autoregressive else zuko.flows.RealNVP
        return family(flow.features, transforms=flow.layers, hidden_features=flow.hidden, **univariate_options)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.module().log_prob(x)

    def draw(self, rows: int) -> Tensor:
        return self.module().sample((rows,))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.module().transform.call_and_ladj(x)

    def backward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = self.module().transform.inv.call_and_ladj(z)
        return x, -log_det
