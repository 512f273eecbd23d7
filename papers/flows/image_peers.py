"""Flows of images of normflows and nflows as models of this project, so that all are trained and scored by the same code."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Size, Tensor, nn

from benchmarks.quality.images import nflows_flow, normflows_flow
from pushforward.distributions import Distribution
from pushforward.errors import KindError
from pushforward.models import Flow, Model
from pushforward.models.image.building import pixel_transforms
from pushforward.transforms import Chain
from pushforward.transforms.base import Shape

__all__ = [
    "PeerDensity",
    "installed",
    "lipschitz_bound",
    "nflows_image",
    "normflows_glow",
    "normflows_residual",
    "peer_model",
]

POWER_ITERATIONS = 5


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Hide what other libraries warn of while they make a flow, such as functions of torch that will be removed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def installed(library: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(library) is not None


class PeerDensity(Distribution):
    """The log-density of a flow of another library, as a base distribution.

    With the pixel transforms of this project before it, a peer has the same dequantization, the same noise for each test image and
    the same definition of bits/dim. Its actnorms are initialized by the training rows that initialize ours.

    Args:
        shape: of a row.
        flow: the network.
        density: function from rows to log-densities in nats.
    """

    has_rsample = False

    def __init__(self, shape: Shape, flow: nn.Module, density: Callable[[Tensor], Tensor]) -> None:
        super().__init__(shape)
        self.flow = flow
        self._density = density

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of rows ``(n, *shape)`` in nats."""
        return self._density(z)

    def sample(self, batch: Size, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Not offered: peers are trained and scored here.

        Raises:
            KindError: always.
        """
        raise KindError("a flow of another library is only trained and scored here: sample it with its own library.")

    def initialize(self, z: Tensor, context: Tensor | None = None) -> None:
        """Initialize actnorms, which the peers do at their first batch in training mode."""
        training = self.flow.training
        self.flow.train()
        with torch.no_grad():
            self._density(z)
        self.flow.train(training)


def peer_model(shape: Shape, made: tuple[nn.Module, Callable[[Tensor], Tensor]], alpha: float | None = None) -> Model:
    """A model of 8-bit images: our pixel transforms, then the flow of another library.

    Args:
        shape: (channels, height, width).
        made: the flow and its log-density.
        alpha: margin of the logit; None for the shift to (-1/2, 1/2).
    """
    return Flow(Chain(*pixel_transforms(shape, 256, alpha)), PeerDensity(shape, *made))


def normflows_glow(shape: tuple[int, ...], scales: int, layers: int, width: int) -> Model:
    """Glow of normflows: its GlowBlock, with its bound on the scales of couplings (sigmoid)."""
    with _no_warnings():
        return peer_model(shape, normflows_flow("Glow", width, shape=shape, scales=scales, steps=layers))


def nflows_image(case: str, shape: tuple[int, ...], scales: int, layers: int, width: int, **options: Any) -> Model:
    """A flow of parts of nflows; cases and options are those of ``benchmarks.quality.images.nflows_flow``."""
    with _no_warnings():
        return peer_model(shape, nflows_flow(case, width, shape=shape, scales=scales, steps=layers, **options))


def normflows_residual(
    shape: tuple[int, ...], scales: int, blocks: int, width: int, coefficient: float, alpha: float
) -> Model:
    """A residual flow of normflows: an actnorm, its Residual with a 3-1-3 network, and squeezes, as in ``ImageResidualFlow``.

    Its bound is on each of the three layers of a network, so each gets the cube root of ``coefficient``. Before each step of training
    the norms of its layers are estimated again, with ``POWER_ITERATIONS`` iterations, the number of its class.

    Args:
        shape: (channels, height, width).
        scales: number of scales.
        blocks: residual blocks in each scale.
        width: of the hidden layers.
        coefficient: bound on the Lipschitz constant of a block.
        alpha: margin of the logit.
    """
    with _no_warnings():
        import normflows as nf

    def actnorm(channels: int) -> nn.Module:
        return nf.flows.ActNorm((channels, 1, 1))

    channels, height, side = shape
    layers: list[nn.Module] = [actnorm(channels)]  # in the order from data to noise
    for scale in range(scales):
        for _ in range(blocks):
            network = nf.nets.LipschitzCNN(
                [channels, width, width, channels], [3, 1, 3], lipschitz_const=coefficient ** (1 / 3)
            )
            layers += [actnorm(channels), nf.flows.Residual(network, reverse=True)]
        layers.append(actnorm(channels))
        if scale < scales - 1:
            layers.append(nf.flows.Squeeze())
            channels, height, side = channels * 4, height // 2, side // 2
    flow: Any = nf.NormalizingFlow(nf.distributions.DiagGaussian((channels, height, side)), layers[::-1])

    def density(z: Tensor) -> Tensor:
        # Its layers keep their bound only if the user calls this after each step; here the next step does.
        if flow.training and torch.is_grad_enabled():
            nf.utils.update_lipschitz(flow, POWER_ITERATIONS)
        return flow.log_prob(z)

    return peer_model(shape, (flow, density), alpha)


@torch.no_grad()
def lipschitz_bound(model: nn.Module, iterations: int = 200) -> float:
    """The largest product of the norms of the three convolutions of a block, of a residual flow of normflows.

    Its own estimate of a norm takes five iterations in a step of training, so weights that change fast can be larger than the bound
    that it keeps. From 1 on the series of the log-determinant need not converge, and its sum need not be a likelihood.
    """
    from normflows.nets.lipschitz import InducedNormConv2d, LipschitzCNN

    largest, draw = 0.0, torch.Generator().manual_seed(0)
    for block in (part for part in model.modules() if isinstance(part, LipschitzCNN)):
        layers: list[Any] = [part for part in block.modules() if isinstance(part, InducedNormConv2d)]
        sides = next([int(side) for side in layer.spatial_dims] for layer in layers if layer.kernel_size != (1, 1))
        product = 1.0
        for layer in layers:
            weight = layer.compute_weight(update=False)
            x = torch.randn(1, layer.in_channels, *sides, generator=draw)
            for _ in range(iterations):
                y = torch.nn.functional.conv2d(x / x.norm(), weight, padding=layer.padding)
                x = torch.nn.functional.conv_transpose2d(y, weight, padding=layer.padding)
            product *= x.norm().item() ** 0.5
        largest = max(largest, product)
    return largest
