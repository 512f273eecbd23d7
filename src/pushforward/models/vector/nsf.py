"""Neural spline flow (Durkan, Bekasov, Murray, Papamakarios 2019, arXiv 1906.04032)."""

from __future__ import annotations

import math
from typing import Any

from pushforward.distributions import Normal, Uniform
from pushforward.errors import ConfigError
from pushforward.models.base import Model
from pushforward.models.image.building import event_of, glow_scales, pixels
from pushforward.models.vector.building import vector_chain
from pushforward.numerics.checks import check_choice, check_integer
from pushforward.registry import register
from pushforward.transforms import (
    Chain,
    CircularSplineTransformer,
    Coupling,
    InvertibleConv1x1,
    LULinear,
    MaskedAutoregressive,
    Monotone,
    Permutation,
    SplineTransformer,
    Transform,
    Transformer,
)
from pushforward.transforms.base import Shape

__all__ = ["NSF"]


@register("models")
class NSF(Model):
    """Rational-quadratic spline flow, RQ-NSF (C) or (AR).

    Monotone rational-quadratic splines with K bins on [-B, B] and the identity outside (sec. 3.1), whose parameters come
    from a coupling network or a masked autoregressive one (sec. 3.2), between random permutations and LU linear layers
    (sec. 3.3), over a standard normal. With one feature the splines have free parameters.

    Coupling: both directions take one pass. Autoregressive: ``log_prob`` takes one pass a layer and is the fast
    direction; sampling takes D.

    Images of integers are dequantized and taken to the reals; then come Glow's scales of actnorm, 1 x 1 convolution
    and spline couplings with residual convolutional networks (app. B.3). z is the vector of all D = C H W coordinates,
    coarsest scale first, and the likelihood is a lower bound of the images' probability.

    Args:
        features: D, for vectors.
        context: width of the context that every network reads.
        layer: "coupling" or "autoregressive"; images have couplings.
        flow_layers: spline layers; of images those of each scale.
        bins: K.
        tail_bound: B; data are standardized first, and B matters little between 3 and 5.
        hidden_features: width of the networks.
        residual_blocks: pre-activation residual blocks in each network.
        linear: "lu" puts a random permutation and an LU layer before each spline layer (on images a 1 x 1 convolution
            in LU form); "permutation" only permutes (channels);
            "none" keeps the order, so that an autoregressive model factorizes in the order of the columns and
            :meth:`~pushforward.models.base.Model.conditional_log_prob` is defined.
        unconditional: couplings also transform the conditioning half, by free splines.
        circular: data are angles in [-pi, pi]: circular splines (Rezende et al. 2020) over a uniform base, and no
            standardization or LU layers.
        activation: of the networks.
        dropout: probability, inside the blocks.
        standardize: standardize the data first; on images each layer's actnorm does it.
        shape: (channels, height, width), for images; both sides divisible by 2^scales.
        scales: of images.
        levels: integer values of a pixel.
        alpha: margin of the logit that takes pixels to the reals; 0 loses no mass and suits images with many pure black or
            white pixels. None shifts them to (-1/2, 1/2) instead, as in the paper.
        dequantize: "uniform" or "variational" (Ho et al. 2019), for images.
        factor_out: let half of the channels leave for the base between scales; the paper does not on CIFAR-10.

    Raises:
        ConfigError: for an unknown layer or impossible sizes.

    Example:
        >>> import torch
        >>> model = NSF(features=3, flow_layers=2, hidden_features=16)
        >>> x = model.sample(4, seed=0)
        >>> torch.allclose(model.decode(model.encode(x)), x, atol=1e-4)
        True
    """

    def __init__(
        self,
        features: int | None = None,
        context: int = 0,
        *,
        layer: str = "coupling",
        flow_layers: int = 6,
        bins: int = 8,
        tail_bound: float = 4.0,
        hidden_features: int = 128,
        residual_blocks: int = 2,
        linear: str = "lu",
        unconditional: bool = False,
        circular: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
        standardize: bool = True,
        shape: Shape | None = None,
        scales: int = 2,
        levels: int = 256,
        alpha: float | None = 0.0,
        dequantize: str = "uniform",
        factor_out: bool = True,
    ) -> None:
        event = event_of("NSF", features, shape)
        check_choice("layer", layer, ("coupling", "autoregressive"))
        check_choice("linear", linear, ("lu", "permutation", "none"))
        law = CircularSplineTransformer(bins) if circular else SplineTransformer(bins, tail_bound)
        hidden = (hidden_features,) * check_integer("residual_blocks", residual_blocks)
        network = {"hidden": hidden, "residual": True, "activation": activation, "dropout": dropout}
        check_integer("flow_layers", flow_layers)
        if len(event) == 1:
            chain = _vectors(
                event[0], law, layer, flow_layers, linear, unconditional, circular, context, network, standardize
            )
        else:
            if layer != "coupling" or unconditional or circular:
                raise ConfigError("an NSF of images has couplings, and neither unconditional nor circular splines.")

            def mix(inside: Shape, seed: int) -> list[Transform]:
                if linear == "lu":
                    return [InvertibleConv1x1(inside, seed=seed)]
                return [Permutation(inside, seed=seed, dim=-3)] if linear == "permutation" else []

            flow = glow_scales(
                event, scales=scales, steps=flow_layers, mix=mix, law=law, context=context, factor_out=factor_out,
                network=network, alternate=linear == "none",
            )  # fmt: skip
            chain = Chain(*pixels(event, levels, alpha, dequantize), flow)
        width = math.prod(event)
        super().__init__(chain, Uniform(width, -math.pi, math.pi) if circular else Normal(width))
        self.features = event[0] if len(event) == 1 else None
        self.scales, self.levels, self.alpha, self.dequantize = scales, levels, alpha, dequantize
        self.factor_out = factor_out
        self.context, self.layer, self.flow_layers = context, layer, flow_layers
        self.bins, self.tail_bound, self.hidden_features = bins, tail_bound, hidden_features
        self.residual_blocks, self.linear, self.unconditional = residual_blocks, linear, unconditional
        self.circular, self.activation, self.dropout, self.standardize = circular, activation, dropout, standardize


def _vectors(
    features: int,
    law: Transformer,
    layer: str,
    flow_layers: int,
    linear: str,
    unconditional: bool,
    circular: bool,
    context: int,
    network: dict[str, Any],
    standardize: bool,
) -> Chain:
    transforms: list[Transform] = []
    for k in range(flow_layers):
        if features > 1 and linear != "none":
            transforms.append(Permutation(features, seed=k))
            if linear == "lu" and not circular:
                transforms.append(LULinear(features))
        if features == 1:
            transforms.append(Monotone(1, law, context=context, hidden=network["hidden"]))
        elif layer == "coupling":
            flip = linear == "none" and k % 2 == 1
            transforms.append(
                Coupling(features, law, flip=flip, context=context, unconditional=unconditional, **network)
            )
        else:
            transforms.append(MaskedAutoregressive(features, law, context=context, **network))
    if linear == "lu" and features > 1 and not circular:
        transforms.append(LULinear(features))
    return vector_chain(features, transforms, context=context, standardize=standardize and not circular)
