"""Neural spline flow (Durkan, Bekasov, Murray, Papamakarios 2019, arXiv 1906.04032)."""

from __future__ import annotations

import math

from pushforward.bases import Normal, Uniform
from pushforward.errors import ConfigError
from pushforward.maps import (
    CircularSplineTransformer,
    Coupling,
    LULinear,
    Map,
    MaskedAutoregressive,
    Monotone,
    Permutation,
    SplineTransformer,
)
from pushforward.models.assembly import check_count, vector_chain
from pushforward.models.core import Model
from pushforward.registry import register

__all__ = ["NSF"]


@register("models")
class NSF(Model):
    """Rational-quadratic spline flow, RQ-NSF (C) or (AR).

    Monotone rational-quadratic splines with K bins on [-B, B] and the identity outside (sec. 3.1), whose parameters come
    from a coupling network or a masked autoregressive one (sec. 3.2), between random permutations and LU linear layers
    (sec. 3.3), over a standard normal. With one feature the splines have free parameters.

    Coupling: both directions take one pass. Autoregressive: ``log_prob`` takes one pass a layer and is the fast
    direction; sampling takes D.

    Args:
        features: D.
        context: width of the context that every network reads.
        kind: "coupling" or "autoregressive".
        flow_layers: spline layers.
        bins: K.
        tail_bound: B; data are standardised first, and B matters little between 3 and 5.
        hidden_features: width of the networks.
        residual_blocks: pre-activation residual blocks in each network.
        linear: "lu" puts a random permutation and an LU layer before each spline layer; "permutation" only permutes;
            "none" keeps the order, so that an autoregressive model factorises in the order of the columns and
            :meth:`~pushforward.models.core.Model.conditional_log_prob` is defined.
        unconditional: couplings also transform the conditioning half, by free splines.
        circular: data are angles in [-pi, pi]: circular splines (Rezende et al. 2020) over a uniform base, and no
            standardisation or LU layers.
        activation: of the networks.
        dropout: probability, inside the blocks.
        standardize: standardise the data first.

    Raises:
        ConfigError: for an unknown kind or impossible sizes.

    Example:
        >>> import torch
        >>> model = NSF(features=3, flow_layers=2, hidden_features=16)
        >>> x = model.sample(4, seed=0)
        >>> torch.allclose(model.decode(model.encode(x)), x, atol=1e-4)
        True
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        *,
        kind: str = "coupling",
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
    ) -> None:
        check_count("features", features)
        if kind not in ("coupling", "autoregressive"):
            raise ConfigError(f"kind must be 'coupling' or 'autoregressive'; got {kind!r}.")
        if linear not in ("lu", "permutation", "none"):
            raise ConfigError(f"linear must be 'lu', 'permutation' or 'none'; got {linear!r}.")
        law = CircularSplineTransformer(bins) if circular else SplineTransformer(bins, tail_bound)
        hidden = (hidden_features,) * check_count("residual_blocks", residual_blocks)
        network = {"hidden": hidden, "residual": True, "activation": activation, "dropout": dropout}
        maps: list[Map] = []
        for k in range(check_count("flow_layers", flow_layers)):
            if features > 1 and linear != "none":
                maps.append(Permutation(features, seed=k))
                if linear == "lu" and not circular:
                    maps.append(LULinear(features))
            if features == 1:
                maps.append(Monotone(1, law, context=context, hidden=hidden))
            elif kind == "coupling":
                flip = linear == "none" and k % 2 == 1
                maps.append(Coupling(features, law, flip=flip, context=context, unconditional=unconditional, **network))
            else:
                maps.append(MaskedAutoregressive(features, law, context=context, **network))
        if linear == "lu" and features > 1 and not circular:
            maps.append(LULinear(features))
        base = Uniform(features, -math.pi, math.pi) if circular else Normal(features)
        super().__init__(vector_chain(features, maps, context=context, standardize=standardize and not circular), base)
        self.features, self.context, self.kind, self.flow_layers = features, context, kind, flow_layers
        self.bins, self.tail_bound, self.hidden_features = bins, tail_bound, hidden_features
        self.residual_blocks, self.linear, self.unconditional = residual_blocks, linear, unconditional
        self.circular, self.activation, self.dropout, self.standardize = circular, activation, dropout, standardize
