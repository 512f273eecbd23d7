"""Neural spline flow on vectors (Durkan, Bekasov, Murray, Papamakarios 2019, arXiv 1906.04032)."""

from __future__ import annotations

import math

from pushforward.distributions import Normal, Uniform
from pushforward.errors import ConfigError
from pushforward.models.base import Model
from pushforward.models.vector.angles import check_angles, layers_with_angles
from pushforward.models.vector.building import check_features, vector_chain
from pushforward.numerics.checks import check_choice, check_integer, check_positive
from pushforward.registry import register
from pushforward.transforms import (
    Chain,
    CircularSplineTransformer,
    Coupling,
    LULinear,
    MaskedAutoregressive,
    Monotone,
    Permutation,
    SplineTransformer,
)

__all__ = ["NSF"]


@register("models")
class NSF(Model):
    """Rational-quadratic neural spline flow on vectors, RQ-NSF (C) or (AR).

    :class:`~pushforward.models.ImageNSF` is the form for images.

    Monotone rational-quadratic splines with K bins on [-B, B] and the identity outside (sec. 3.1). A coupling network
    or a masked autoregressive network gives their parameters (sec. 3.2). Random permutations and LU linear layers are
    between the splines (sec. 3.3), and the base is a standard normal. With one feature the splines have free
    parameters.

    Coupling: both directions take one pass. Autoregressive: ``log_prob`` takes one pass a layer and is the fast
    direction; sampling takes D.

    Args:
        features: D.
        context: width of the context that every network reads.
        layer: "coupling" or "autoregressive".
        layers: number of spline layers.
        bins: K.
        tail_bound: B; data are standardized first, and B matters little between 3 and 5.
        hidden: number and equal width of the residual blocks of each network.
        linear: "lu" puts a random permutation and an LU layer before each spline layer. "permutation" only permutes.
            "none" keeps the order of the coordinates: an autoregressive model then factorizes in the order of the
            columns, and :meth:`~pushforward.models.base.Model.conditional_log_prob` is defined.
        unconditional: couplings also transform the conditioning half, by splines with free parameters.
        circular: True if all columns are angles in [-pi, pi]: circular splines (Rezende et al. 2020) over a uniform base, without
            standardization and LU layers. The indices of the angles, such as ``(0, 2)``, if other columns are numbers; each of
            the layers is then a coupling of numbers and one of angles, whose networks read columns of both kinds.
        activation: activation of the networks.
        dropout: dropout probability inside the residual blocks.
        standardize: standardize the data first.

    Raises:
        ConfigError: for an unknown name or sizes that are not possible; for autoregressive layers or ``unconditional`` with
            angles beside numbers.

    Example:
        >>> import torch
        >>> model = NSF(features=3, layers=2, hidden=(16, 16))
        >>> x = model.sample(4, seed=0)
        >>> torch.allclose(model.decode(model.encode(x)), x, atol=1e-4)
        True
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        *,
        layer: str = "coupling",
        layers: int = 6,
        bins: int = 8,
        tail_bound: float = 4.0,
        hidden: tuple[int, ...] = (128, 128),
        linear: str = "lu",
        unconditional: bool = False,
        circular: bool | tuple[int, ...] = False,
        activation: str = "relu",
        dropout: float = 0.0,
        standardize: bool = True,
    ) -> None:
        check_features("NSF", features)
        check_choice("layer", layer, ("coupling", "autoregressive"))
        check_choice("linear", linear, ("lu", "permutation", "none"))
        check_positive("tail_bound", tail_bound)
        check_integer("layers", layers)
        angles = check_angles(features, circular)
        network = {"hidden": hidden, "residual": True, "activation": activation, "dropout": dropout, "context": context}
        if 0 < len(angles) < features:
            if layer != "coupling" or unconditional:
                raise ConfigError(
                    "angles beside numbers need layer='coupling' and unconditional=False, because a layer transforms coordinates of one kind."
                )
            transforms, base = layers_with_angles(
                features, angles, layers=layers, spline=SplineTransformer(bins, tail_bound), linear=linear, standardize=standardize, **network
            )  # fmt: skip
            super().__init__(Chain(*transforms), base)
        else:
            spline = CircularSplineTransformer(bins) if angles else SplineTransformer(bins, tail_bound)
            permute = features > 1 and linear != "none"
            mix = features > 1 and linear == "lu" and not angles
            transforms = []
            for k in range(layers):
                if permute:
                    transforms.append(Permutation(features, seed=k))
                if mix:
                    transforms.append(LULinear(features))
                if features == 1:
                    transforms.append(Monotone(1, spline, context=context, hidden=hidden))
                elif layer == "coupling":
                    flip = linear == "none" and k % 2 == 1
                    transforms.append(Coupling(features, spline, flip=flip, unconditional=unconditional, **network))
                else:
                    transforms.append(MaskedAutoregressive(features, spline, **network))
            if mix:
                transforms.append(LULinear(features))
            chain = vector_chain(features, transforms, context=context, standardize=standardize and not angles)
            super().__init__(chain, Uniform(features, -math.pi, math.pi) if angles else Normal(features))
        self.features, self.context, self.layer, self.layers = features, context, layer, layers
        self.bins, self.tail_bound, self.hidden, self.linear = bins, tail_bound, tuple(hidden), linear
        self.unconditional, self.circular = unconditional, circular
        self.activation, self.dropout, self.standardize = activation, dropout, standardize
