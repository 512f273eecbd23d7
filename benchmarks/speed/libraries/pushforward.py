"""pushforward itself."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.speed.cases import BOUND, SCALES, Flow
from benchmarks.speed.devices import CPU, Device
from benchmarks.speed.graphs import captured
from benchmarks.speed.libraries.torch_flow import LEARNING_RATE, TorchFlow

DISTRIBUTION = MODULE = "pushforward"
IMPORT = "import pushforward; pushforward.models.MAF"
START = (
    "starts near the identity (last layers times 0.1); scales exp(s), s = a / (1 + |a| / 3); bins of at least 1 % and slopes in "
    "[0.01, 100]; inputs of networks are clamped to [-10, 10]; actnorm starts as the identity; trains by its own fused Adam; an ensemble is trained as one "
    "stacked model on the sum of its members' losses, as in fit_members"
)


def build(flow: Flow, device: Device = CPU) -> PushforwardFlow:
    return PushforwardFlow(flow, device)


class PushforwardFlow(TorchFlow):
    def __init__(self, flow: Flow, device: Device = CPU) -> None:
        super().__init__(flow, device)
        self.graph = "PUSHFORWARD_BENCH_GRAPH" in os.environ
        self.noise = torch.Generator(self.device) if self.graph else None  # a graph cannot use a new seed in each call

    def make(self, flow: Flow) -> nn.Module:
        if flow.members == 1:
            return self.one(flow)
        return StackedMembers([self.one(flow).to(self.device) for _ in range(flow.members)], self.device)

    def one(self, flow: Flow) -> nn.Module:
        import pushforward as pf

        if flow.kind == "maf":
            return pf.models.MAF(flow.features, layers=flow.layers, hidden=flow.hidden, standardize=False)
        if flow.kind == "rnvp":
            return pf.models.RealNVP(flow.features, layers=flow.layers, hidden=flow.hidden, standardize=False)
        if flow.kind == "glow":
            return pf.models.Flow(glow(flow), pf.distributions.Normal(flow.features))
        transformer = pf.transforms.SplineTransformer(flow.bins, BOUND)
        layers: list[pf.transforms.Transform] = []
        for k in range(flow.layers):
            if flow.kind == "nsfc":
                layers.append(pf.transforms.Coupling(flow.features, transformer, flip=k % 2 == 1, hidden=flow.hidden))
            else:
                order = "reverse" if k % 2 else None
                layers.append(
                    pf.transforms.MaskedAutoregressive(flow.features, transformer, order=order, hidden=flow.hidden)
                )
        return pf.models.Flow(pf.transforms.Chain(*layers), pf.distributions.Normal(flow.features))

    scorer: Callable[[Tensor], Tensor] | None = None

    def log_prob(self, x: Tensor) -> Tensor:
        if "PUSHFORWARD_BENCH_COMPILED" not in os.environ:
            return self.module.log_prob(x)
        if self.scorer is None:  # training uses the loss and has ended
            import pushforward as pf

            self.scorer = pf.compile_scorer(self.module)
        return self.scorer(x)

    def loss(self, x: Tensor) -> Tensor:
        return self.module.loss(x)

    def ready(self, call: Callable[[], Tensor]) -> Callable[[], Tensor]:
        return call if self.noise is None else captured(call, [self.noise])

    def training(self, rows: list[Tensor]) -> Callable[[], Tensor]:
        if not self.graph:
            return super().training(rows)
        seen, turn = rows[0].clone(), itertools.cycle(rows)
        replay = captured(lambda: self.step(seen))

        def step() -> Tensor:
            seen.copy_(next(turn))
            return replay()

        return step

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        if self.graph:  # the same optimizer, with the count of steps on the device
            return torch.optim.Adam(parameters, LEARNING_RATE, fused=True, capturable=True)
        from pushforward.training.optim import make_optimizer

        return make_optimizer("adam", list(parameters), LEARNING_RATE, 0.0)

    def draw(self, rows: int) -> Tensor:
        return self.module.sample(rows, generator=self.noise).flatten(1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        step = self.module.chain.encode(x)
        return step.z, step.contribution

    def backward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.module.chain.decode_with_contribution(z)


class StackedMembers(nn.Module):
    """Members as one stacked model, which is how ``pf.training.fit_members`` trains them."""

    def __init__(self, members: list[Any], device: torch.device) -> None:
        super().__init__()
        from pushforward.training.stacking import Stack

        self.stack = Stack(members)
        self.chain = self.stack.chain
        self.noise = [torch.Generator(device) for _ in members]

    def loss(self, x: Tensor) -> Tensor:
        return self.stack.losses([x] * len(self.noise), self.noise).sum()


def glow(flow: Flow) -> Any:
    """Glow in the form of the peers: without the learned prior of factored-out channels, and without dequantization."""
    import pushforward as pf
    from pushforward.models.image.building import multi_scale

    steps = flow.layers // SCALES

    def block(shape: tuple[int, ...], scale: int) -> list[pf.transforms.Transform]:
        transforms: list[pf.transforms.Transform] = [pf.transforms.Squeeze(shape)]
        inside = transforms[0].out_shape
        for k in range(steps):
            transforms += [
                pf.transforms.ActNorm(inside),
                pf.transforms.InvertibleConv1x1(inside, seed=scale * steps + k),
            ]
            transforms.append(pf.transforms.ImageCoupling(inside, hidden=flow.hidden))
        return transforms

    return multi_scale(flow.event, SCALES, block)
