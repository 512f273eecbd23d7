"""Funnels: flows that drop dimensions and stay exact (Klein et al. 2021, arXiv 2112.08069)."""

from __future__ import annotations

import math
from typing import Any

from pushforward.distributions import Normal
from pushforward.errors import ConfigError
from pushforward.models.base import Model
from pushforward.models.image.building import event_of, pixels
from pushforward.models.vector.building import vector_chain
from pushforward.numerics.checks import check_integer
from pushforward.registry import register
from pushforward.transforms import (
    ActNorm,
    AdditiveTransformer,
    AffineTransformer,
    Chain,
    ConvFunnel,
    Coupling,
    Flatten,
    Funnel,
    ImageCoupling,
    ImageFunnel,
    InvertibleConv1x1,
    LULinear,
    MaskedAutoregressive,
    Monotone,
    Permutation,
    SplineTransformer,
    Squeeze,
    Transform,
    Transformer,
)
from pushforward.transforms.base import Shape

__all__ = ["FunnelFlow"]


@register("models")
class FunnelFlow(Model):
    """A flow whose layers narrow: the density is one on all D coordinates, the base has only ``latent`` of them.

        log p(x) = log p(z) + log p(x_dropped | z) + log abs det dz/dx_kept   at each funnel.

    Vectors, funnel "coupling" (F-NSF): couplings between random permutations and LU layers, of which the one numbered ``at`` is a
    funnel to ``latent`` coordinates; the layers after it are narrow and cheaper. Kind "mlp" (F-MLP): ``flow_layers`` dense layers
    whose widths fall evenly from D to ``latent``, with elementwise splines between. Exact; ``decode`` draws what was dropped,
    or takes about its median where no generator is given, so it is the reconstruction of x from z.

    Images of integers: after dequantization Glow's scales, and between them a funnel: funnel "coupling" drops half of the
    channels by :class:`~pushforward.transforms.ImageFunnel`, funnel "conv" is a :class:`~pushforward.transforms.ConvFunnel` of 2 x 2 in place of
    the next squeeze. The likelihood is a lower bound of the images' probability because of the dequantization.

    Args:
        features: D, for vectors.
        context: width of the context that couplings, funnels and decoders read.
        latent: coordinates that reach the base, for vectors; None is half of D. All of D makes a plain flow.
        funnel: "coupling" or "mlp" for vectors, "coupling" or "conv" for images.
        law: "spline" or "affine", of the couplings and the funnel.
        decoder: p(x_dropped | z) of vectors: "normal", or "spline", an autoregressive spline flow.
        decoder_layers: of the spline flow. An early funnel wants several.
        flow_layers: of vectors; of images those of each scale.
        at: the layer that is the funnel, counted from 0, for vectors of funnel "coupling"; None is the last. The earlier, the cheaper
            and the more is asked of the decoder: no later layer sees what is dropped.
        bins: of the splines.
        tail_bound: of the splines.
        hidden_features: width of the networks.
        residual_blocks: in each network.
        activation: of the networks.
        dropout: probability, inside the blocks, for vectors.
        standardize: standardize vectors first.
        shape: (channels, height, width), for images.
        scales: of images; the sides must be divisible by 2^scales.
        levels: integer values of a pixel.
        alpha: margin of the logit that takes pixels to the reals, or None for a shift to (-1/2, 1/2).
        dequantize: "uniform" or "variational".

    Raises:
        ConfigError: for an unknown name or impossible sizes.

    Example:
        >>> import torch
        >>> model = FunnelFlow(features=6, latent=2, flow_layers=3, hidden_features=16)
        >>> x = torch.randn(4, 6)
        >>> model.log_prob(x).shape, model.encode(x).shape
        (torch.Size([4]), torch.Size([4, 2]))
    """

    def __init__(
        self,
        features: int | None = None,
        context: int = 0,
        *,
        latent: int | None = None,
        funnel: str = "coupling",
        law: str = "spline",
        decoder: str = "normal",
        decoder_layers: int = 1,
        flow_layers: int = 6,
        at: int | None = None,
        bins: int = 8,
        tail_bound: float = 4.0,
        hidden_features: int = 128,
        residual_blocks: int = 2,
        activation: str = "relu",
        dropout: float = 0.0,
        standardize: bool = True,
        shape: Shape | None = None,
        scales: int = 2,
        levels: int = 256,
        alpha: float | None = 0.0,
        dequantize: str = "uniform",
    ) -> None:
        event = event_of("FunnelFlow", features, shape)
        allowed = ("coupling", "mlp") if len(event) == 1 else ("coupling", "conv")
        for name, value, names in (("funnel", funnel, allowed), ("law", law, ("spline", "affine")),
                                   ("decoder", decoder, ("normal", "spline"))):  # fmt: skip
            if value not in names:
                raise ConfigError(f"{name} must be {' or '.join(map(repr, names))} here; got {value!r}.")
        check_integer("flow_layers", flow_layers)
        splines = 0 if decoder == "normal" else check_integer("decoder_layers", decoder_layers)
        bend = SplineTransformer(bins, tail_bound)
        f: Transformer = bend if law == "spline" else AffineTransformer()
        hidden = (check_integer("hidden_features", hidden_features),) * check_integer(
            "residual_blocks", residual_blocks
        )
        network = {"hidden": hidden, "residual": True, "activation": activation}
        if len(event) == 3:
            if latent is not None:
                raise ConfigError("the latent width of images follows from funnel and scales: leave latent out.")
            flow = _image_layers(event, funnel, f, flow_layers, scales, context, network)
            chain = Chain(*pixels(event, levels, alpha, dequantize), *flow, Flatten(flow[-1].out_shape))
        else:
            narrow = max(1, event[0] // 2) if latent is None else check_integer("latent", latent)
            if narrow > event[0]:
                raise ConfigError(f"latent is at most the {event[0]} coordinates of the data; got {latent!r}.")
            network["dropout"] = dropout
            if funnel == "mlp":
                layers = _dense_layers(event[0], narrow, flow_layers, bend, splines, context, hidden)
            else:
                place = flow_layers - 1 if at is None else min(check_integer("at", at, 0), flow_layers - 1)
                layers = _coupling_layers(event[0], narrow, flow_layers, place, f, bend, splines, context, network)
            chain = vector_chain(event[0], layers, context=context, standardize=standardize)
        super().__init__(chain, Normal(math.prod(chain.out_shape)))
        self.features = event[0] if len(event) == 1 else None
        self.context, self.latent, self.funnel, self.law, self.decoder = context, latent, funnel, law, decoder
        self.decoder_layers = decoder_layers
        self.flow_layers, self.at, self.bins, self.tail_bound = flow_layers, at, bins, tail_bound
        self.hidden_features, self.residual_blocks, self.activation = hidden_features, residual_blocks, activation
        self.dropout, self.standardize = dropout, standardize
        self.scales, self.levels, self.alpha, self.dequantize = scales, levels, alpha, dequantize


def _dropped_law(layers: int, width: int, given: int, bend: Transformer, hidden: tuple[int, ...]) -> Transform | None:
    """p(x_dropped | z): None, a normal, for no layers; else its mean and scale, then autoregressive splines, all given z."""
    if layers == 0:
        return None
    splines = [
        MaskedAutoregressive(width, bend, order="reverse" if k % 2 else None, context=given, hidden=hidden)
        for k in range(layers)
    ]
    return Chain(Monotone(width, AffineTransformer(5.0), context=given, hidden=hidden), *splines)


def _coupling_layers(
    width: int, latent: int, count: int, at: int, law: Transformer, bend: Transformer, splines: int, context: int,
    network: dict[str, Any],
) -> list[Transform]:  # fmt: skip
    transforms: list[Transform] = []
    for k in range(count):
        if width > 1:
            transforms += [Permutation(width, seed=k), LULinear(width)]
        if k == at and latent < width:
            paid = _dropped_law(splines, width - latent, latent + context, bend, network["hidden"])
            transforms.append(
                Funnel(width, latent, law, paid, decoder_hidden=network["hidden"], context=context, **network)
            )
            width = latent
        elif width > 1:
            transforms.append(Coupling(width, law, context=context, **network))
        else:
            transforms.append(Monotone(1, bend, context=context, hidden=network["hidden"]))
    return [*transforms, LULinear(width)] if width > 1 else transforms


def _dense_layers(
    width: int, latent: int, count: int, bend: Transformer, splines: int, context: int, hidden: tuple[int, ...]
) -> list[Transform]:
    """Dense layers z = A x_kept + V x_dropped + b, as LU o (x_kept + V x_dropped), with splines before each."""
    transforms: list[Transform] = []
    start = width
    for k in range(count):
        narrower = start - round((start - latent) * (k + 1) / count)
        transforms += [Monotone(width, bend), *([Permutation(width, seed=k)] if width > 1 else [])]
        if narrower < width:
            paid = _dropped_law(splines, width - narrower, narrower + context, bend, hidden)
            transforms.append(
                Funnel(width, narrower, AdditiveTransformer(), paid, hidden=(), decoder_hidden=hidden, context=context)
            )
            width = narrower
        if width > 1:
            transforms.append(LULinear(width))
    return [*transforms, Monotone(width, bend)]


def _image_layers(
    event: Shape, funnel: str, law: Transformer, steps: int, scales: int, context: int, network: dict[str, Any]
) -> list[Transform]:
    check_integer("scales", scales)
    if any(side % 2**scales for side in event[1:]):
        raise ConfigError(
            f"{scales} scales halve the sides of an image that often, and {event[1]} x {event[2]} do not allow it: use "
            "fewer, or pad the images."
        )
    transforms: list[Transform] = [Squeeze(event)]
    for scale in range(scales):
        inside = transforms[-1].out_shape
        for k in range(steps):
            transforms += [ActNorm(inside), InvertibleConv1x1(inside, seed=scale * steps + k)]
            transforms.append(ImageCoupling(inside, law, context=context, **network))
        if scale == scales - 1:
            return transforms
        if funnel == "conv":
            transforms.append(ConvFunnel(inside, hidden=network["hidden"], context=context, seed=scale))
        else:
            transforms.append(
                ImageFunnel(inside, None, law, decoder_hidden=network["hidden"][:1], context=context, **network)
            )
            transforms.append(Squeeze(transforms[-1].out_shape))
    return transforms
