"""Funnels on vectors: flows that drop dimensions and stay exact (Klein et al. 2021, arXiv 2112.08069)."""

from __future__ import annotations

from typing import Any

from pushforward.distributions import Normal
from pushforward.errors import ConfigError
from pushforward.models.base import Model
from pushforward.models.vector.building import autoregressive_layers, check_features, vector_chain
from pushforward.numerics.checks import check_choice, check_integer
from pushforward.registry import register
from pushforward.transforms import (
    AdditiveTransformer,
    AffineTransformer,
    Chain,
    Coupling,
    Funnel,
    LULinear,
    Monotone,
    Permutation,
    SplineTransformer,
    Transform,
    Transformer,
)

__all__ = ["FunnelFlow", "funnel_transformer"]


@register("models")
class FunnelFlow(Model):
    """A flow on vectors whose layers become narrower; the base has ``latent`` coordinates.

    The density is one on all D coordinates. :class:`~pushforward.models.ImageFunnelFlow` is the form for images.

        log p(x) = log p(z) + log p(x_dropped | z) + log abs det dz/dx_kept   at each funnel.

    Funnel "coupling" (F-NSF): couplings between random permutations and LU layers. The layer with the index
    ``funnel_layer`` is a funnel to ``latent`` coordinates; the layers after it are narrow and cheaper. Funnel "mlp"
    (F-MLP): ``layers`` dense layers whose widths fall evenly from D to ``latent``, with elementwise splines between
    them. The likelihood is exact. ``decode`` with a generator draws what was dropped; without one it takes about its
    median, and so returns the reconstruction of x from z.

    Args:
        features: D.
        context: width of the context that couplings, funnels and decoders read.
        latent: number of coordinates that reach the base; None is half of D. D makes a plain flow.
        funnel: "coupling" or "mlp".
        transformer: "spline" or "affine", for the couplings and the funnel.
        decoder: p(x_dropped | z): "normal", or "spline", an autoregressive spline flow.
        decoder_layers: number of layers of the spline flow. An early funnel needs several.
        layers: number of layers.
        funnel_layer: index of the layer that is the funnel, counted from 0, for funnel "coupling"; None is the last. An
            earlier funnel is cheaper and needs a better decoder: no later layer sees what is dropped.
        bins: number of bins of each spline.
        tail_bound: B; the splines act on [-B, B].
        hidden: number and equal width of the residual blocks of each network.
        activation: activation of the networks.
        dropout: dropout probability inside the residual blocks.
        standardize: standardize the data first.

    Raises:
        ConfigError: for an unknown name or sizes that are not possible.

    Example:
        >>> import torch
        >>> model = FunnelFlow(features=6, latent=2, layers=3, hidden=(16,))
        >>> x = torch.randn(4, 6)
        >>> model.log_prob(x).shape, model.encode(x).shape
        (torch.Size([4]), torch.Size([4, 2]))
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        *,
        latent: int | None = None,
        funnel: str = "coupling",
        transformer: str = "spline",
        decoder: str = "normal",
        decoder_layers: int = 1,
        layers: int = 6,
        funnel_layer: int | None = None,
        bins: int = 8,
        tail_bound: float = 4.0,
        hidden: tuple[int, ...] = (128, 128),
        activation: str = "relu",
        dropout: float = 0.0,
        standardize: bool = True,
    ) -> None:
        check_features("FunnelFlow", features)
        check_choice("funnel", funnel, ("coupling", "mlp"))
        check_choice("decoder", decoder, ("normal", "spline"))
        check_integer("layers", layers)
        width = max(1, features // 2) if latent is None else check_integer("latent", latent)
        if width > features:
            raise ConfigError(f"latent must be at most the number of features, {features}; got {latent!r}.")
        spline = SplineTransformer(bins, tail_bound)
        chosen = funnel_transformer(transformer, spline)
        check_integer("decoder_layers", decoder_layers)
        splines = 0 if decoder == "normal" else decoder_layers
        if funnel == "mlp":
            transforms = _dense_layers(features, width, layers, spline, splines, context, hidden)
        else:
            last = layers - 1
            index = last if funnel_layer is None else check_integer("funnel_layer", funnel_layer, 0, most=last)
            network = {"hidden": hidden, "residual": True, "activation": activation, "dropout": dropout}
            transforms = _coupling_layers(features, width, layers, index, chosen, spline, splines, context, network)
        super().__init__(vector_chain(features, transforms, context=context, standardize=standardize), Normal(width))
        self.features, self.context, self.latent = features, context, latent
        self.funnel, self.transformer, self.decoder, self.decoder_layers = funnel, transformer, decoder, decoder_layers
        self.layers, self.funnel_layer, self.bins, self.tail_bound = layers, funnel_layer, bins, tail_bound
        self.hidden, self.activation, self.dropout = tuple(hidden), activation, dropout
        self.standardize = standardize


def funnel_transformer(name: str, spline: SplineTransformer) -> Transformer:
    """The transformer of couplings and funnels.

    Raises:
        ConfigError: for another name than "spline" and "affine".
    """
    check_choice("transformer", name, ("spline", "affine"))
    return spline if name == "spline" else AffineTransformer()


def _dropped_flow(
    layers: int, width: int, given: int, spline: Transformer, hidden: tuple[int, ...]
) -> Transform | None:
    """The flow of p(x_dropped | z), or None for a normal (no layers).

    It has a mean and a scale, then autoregressive splines, all given z.
    """
    if layers == 0:
        return None
    splines = autoregressive_layers(width, spline, layers, context=given, hidden=hidden)
    return Chain(Monotone(width, AffineTransformer(5.0), context=given, hidden=hidden), *splines)


def _coupling_layers(
    width: int,
    latent: int,
    layers: int,
    funnel_layer: int,
    transformer: Transformer,
    spline: Transformer,
    splines: int,
    context: int,
    network: dict[str, Any],
) -> list[Transform]:
    """Couplings between permutations and LU layers; the layer with the index ``funnel_layer`` is the funnel."""
    hidden = network["hidden"]
    transforms: list[Transform] = []
    for k in range(layers):
        if width > 1:
            transforms += [Permutation(width, seed=k), LULinear(width)]
        if k == funnel_layer and latent < width:
            dropped = _dropped_flow(splines, width - latent, latent + context, spline, hidden)
            transforms.append(
                Funnel(width, latent, transformer, dropped, decoder_hidden=hidden, context=context, **network)
            )
            width = latent
        elif width > 1:
            transforms.append(Coupling(width, transformer, context=context, **network))
        else:
            transforms.append(Monotone(1, spline, context=context, hidden=hidden))
    return [*transforms, LULinear(width)] if width > 1 else transforms


def _dense_layers(
    width: int, latent: int, layers: int, spline: Transformer, splines: int, context: int, hidden: tuple[int, ...]
) -> list[Transform]:
    """Dense layers z = A x_kept + V x_dropped + b, as LU o (x_kept + V x_dropped), with splines before each."""
    transforms: list[Transform] = []
    features = width
    for k in range(layers):
        narrower = features - round((features - latent) * (k + 1) / layers)
        transforms += [Monotone(width, spline), *([Permutation(width, seed=k)] if width > 1 else [])]
        if narrower < width:
            dropped = _dropped_flow(splines, width - narrower, narrower + context, spline, hidden)
            transforms.append(
                Funnel(
                    width, narrower, AdditiveTransformer(), dropped, hidden=(), decoder_hidden=hidden, context=context
                )
            )
            width = narrower
        if width > 1:
            transforms.append(LULinear(width))
    return [*transforms, Monotone(width, spline)]
