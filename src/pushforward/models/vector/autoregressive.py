"""Autoregressive flows with a choice of elementwise transformer, and four papers that propose such a transformer.

- :class:`SOS`: Jaini, Selby, Yu 2019, arXiv 1905.02325;
- :class:`UMNN`: Wehenkel, Louppe 2019, arXiv 1908.05164;
- :class:`NAF`: Huang, Krueger, Lacoste, Courville 2018, arXiv 1804.00779;
- :class:`BernsteinFlow`: Ramasinghe, Fernando, Khan, Barnes 2021, arXiv 2102.03509.
"""

from __future__ import annotations

from abc import ABC

from pushforward.distributions import Normal
from pushforward.models.base import Model
from pushforward.models.vector.building import autoregressive_layers, vector_chain
from pushforward.registry import register
from pushforward.transforms import (
    BernsteinTransformer,
    SigmoidalTransformer,
    SumOfSquaresTransformer,
    Transformer,
    UnconstrainedMonotoneTransformer,
)

__all__ = ["NAF", "SOS", "UMNN", "AutoregressiveFlow", "BernsteinFlow"]


class _TransformerFlow(Model, ABC):
    """The layers that the flows of this file share; only the transformer differs."""

    def __init__(
        self,
        features: int,
        context: int,
        transformer: Transformer,
        layers: int,
        hidden: tuple[int, ...],
        residual: bool,
        activation: str,
        dropout: float,
        standardize: bool,
    ) -> None:
        network = {"hidden": hidden, "residual": residual, "activation": activation, "dropout": dropout}
        transforms = autoregressive_layers(features, transformer, layers, context=context, **network)
        super().__init__(vector_chain(features, transforms, context=context, standardize=standardize), Normal(features))
        self.features, self.context, self.layers, self.hidden = features, context, layers, tuple(hidden)
        self.residual, self.activation, self.dropout, self.standardize = residual, activation, dropout, standardize


@register("models")
class AutoregressiveFlow(_TransformerFlow):
    """Stack of autoregressive layers with any elementwise transformer, over a standard normal.

    z_i = f(x_i; MADE(x_<i)) with the transformer f.

    The order is reversed from layer to layer. ``log_prob`` takes one pass a layer and is the fast direction; sampling
    takes D steps a layer. (Papamakarios et al. 2021, sec. 3.1: conditioner and transformer.)

    Args:
        features: D. With one feature the transformers have free parameters.
        context: width of the context that every MADE reads.
        transformer: f, for example ``transforms.SplineTransformer()``.
        layers: number of autoregressive layers.
        hidden: widths of the hidden layers of each MADE.
        residual: use residual MADE blocks.
        activation: activation of each MADE.
        dropout: dropout probability in each MADE.
        standardize: standardize the data first.

    Raises:
        ConfigError: for sizes that are not possible.

    Example:
        >>> import torch
        >>> from pushforward.transforms import CubicSplineTransformer
        >>> model = AutoregressiveFlow(features=3, transformer=CubicSplineTransformer(), layers=2, hidden=(16,))
        >>> x = torch.randn(4, 3)
        >>> torch.allclose(model.decode(model.encode(x)), x, atol=1e-4)
        True
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        *,
        transformer: Transformer,
        layers: int = 5,
        hidden: tuple[int, ...] = (128, 128),
        residual: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
        standardize: bool = True,
    ) -> None:
        super().__init__(features, context, transformer, layers, hidden, residual, activation, dropout, standardize)
        self.transformer = transformer


@register("models")
class SOS(_TransformerFlow):
    """Sum-of-squares polynomial flow: the transformer is the integral of a sum of squared polynomials.

    See Jaini et al. 2019, sec. 3.

    z_i = c + integral from 0 to x_i of sum_k p_k(t; MADE(x_<i))^2 dt. The transformer is a line outside its interval;
    see :class:`~pushforward.transforms.SumOfSquaresTransformer`. ``log_prob`` takes one pass a layer and is the fast
    direction; sampling takes D steps a layer, with a root to find in each.

    Args:
        features: D. With one feature the transformers have free parameters.
        context: width of the context that every MADE reads.
        polynomials: number of squares in each sum.
        degree: degree of each polynomial.
        layers: number of autoregressive layers; the order is reversed from layer to layer.
        hidden: widths of the hidden layers of each MADE.
        residual: use residual MADE blocks.
        activation: activation of each MADE.
        dropout: dropout probability in each MADE.
        standardize: standardize the data first.

    Raises:
        ConfigError: for sizes that are not possible.

    Example:
        >>> import torch
        >>> model = SOS(features=3, layers=2, hidden=(16,))
        >>> x = torch.randn(4, 3)
        >>> torch.allclose(model.decode(model.encode(x)), x, atol=1e-4)
        True
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        *,
        polynomials: int = 3,
        degree: int = 4,
        layers: int = 5,
        hidden: tuple[int, ...] = (128, 128),
        residual: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
        standardize: bool = True,
    ) -> None:
        transformer = SumOfSquaresTransformer(polynomials, degree)
        super().__init__(features, context, transformer, layers, hidden, residual, activation, dropout, standardize)
        self.polynomials, self.degree = polynomials, degree


@register("models")
class UMNN(_TransformerFlow):
    """Unconstrained monotonic neural network flow: the transformer is the integral of a positive network.

    UMNN-MAF of Wehenkel and Louppe 2019, sec. 3.

    z_i = c + integral from 0 to x_i of g(t; MADE(x_<i)) dt.
    :class:`~pushforward.transforms.UnconstrainedMonotoneTransformer` defines g and its quadrature, and states the error
    of the quadrature: with the default nodes it is below 1e-9. The paper shares the weights of g between the
    coordinates; here the MADE gives them. ``log_prob`` takes one pass a layer and is the fast direction; sampling takes
    D steps a layer, with a root to find in each.

    Args:
        features: D. With one feature the transformers have free parameters.
        context: width of the context that every MADE reads.
        units: number of units of g.
        nodes: number of nodes of the Clenshaw-Curtis quadrature.
        layers: number of autoregressive layers; the order is reversed from layer to layer.
        hidden: widths of the hidden layers of each MADE.
        residual: use residual MADE blocks.
        activation: activation of each MADE.
        dropout: dropout probability in each MADE.
        standardize: standardize the data first.

    Raises:
        ConfigError: for sizes that are not possible.

    Example:
        >>> import torch
        >>> model = UMNN(features=3, layers=2, hidden=(16,))
        >>> x = torch.randn(4, 3)
        >>> torch.allclose(model.decode(model.encode(x)), x, atol=1e-4)
        True
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        *,
        units: int = 8,
        nodes: int = 64,
        layers: int = 5,
        hidden: tuple[int, ...] = (128, 128),
        residual: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
        standardize: bool = True,
    ) -> None:
        transformer = UnconstrainedMonotoneTransformer(units, nodes)
        super().__init__(features, context, transformer, layers, hidden, residual, activation, dropout, standardize)
        self.units, self.nodes = units, nodes


@register("models")
class NAF(_TransformerFlow):
    """Neural autoregressive flow: the transformer is a deep sigmoidal network (Huang et al. 2018, eq. 5 and 8).

    z_i = f(x_i; MADE(x_<i)), with f of :class:`~pushforward.transforms.SigmoidalTransformer`: logit(sum_k w_k
    sigmoid(a_k (x - m_k))), ``transformer_layers`` times in a row. ``log_prob`` takes one pass a layer and is the fast
    direction; sampling takes D steps a layer, with a root to find in each.

    Args:
        features: D. With one feature the transformers have free parameters.
        context: width of the context that every MADE reads.
        units: number of sigmoids in each layer of a transformer.
        transformer_layers: number of layers of a transformer.
        layers: number of autoregressive layers, 5 and 10 in the paper; the order is reversed from layer to layer.
        hidden: widths of the hidden layers of each MADE.
        residual: use residual MADE blocks.
        activation: activation of each MADE.
        dropout: dropout probability in each MADE.
        standardize: standardize the data first.

    Raises:
        ConfigError: for sizes that are not possible.

    Example:
        >>> import torch
        >>> model = NAF(features=3, layers=2, hidden=(16,))
        >>> x = torch.randn(4, 3)
        >>> torch.allclose(model.decode(model.encode(x)), x, atol=1e-4)
        True
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        *,
        units: int = 16,
        transformer_layers: int = 1,
        layers: int = 5,
        hidden: tuple[int, ...] = (128, 128),
        residual: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
        standardize: bool = True,
    ) -> None:
        transformer = SigmoidalTransformer(transformer_layers, units)
        super().__init__(features, context, transformer, layers, hidden, residual, activation, dropout, standardize)
        self.units, self.transformer_layers = units, transformer_layers


@register("models")
class BernsteinFlow(_TransformerFlow):
    """Bernstein polynomial flow: the transformer is an increasing polynomial in the Bernstein basis.

    See Ramasinghe et al. 2021, sec. 3.

    z_i = sum_j a_j(x_<i) B_{j,M}(x_i). The paper works on compact sets. Here data are standardized, and the transformer
    is a line outside its interval; see :class:`~pushforward.transforms.BernsteinTransformer`. ``log_prob`` takes one
    pass a layer and is the fast direction; sampling takes D steps a layer, with a root to find in each.

    Args:
        features: D. With one feature the transformers have free parameters.
        context: width of the context that every MADE reads.
        degree: M.
        layers: number of autoregressive layers; the order is reversed from layer to layer.
        hidden: widths of the hidden layers of each MADE.
        residual: use residual MADE blocks.
        activation: activation of each MADE.
        dropout: dropout probability in each MADE.
        standardize: standardize the data first.

    Raises:
        ConfigError: for sizes that are not possible.

    Example:
        >>> import torch
        >>> model = BernsteinFlow(features=3, layers=2, hidden=(16,))
        >>> x = torch.randn(4, 3)
        >>> torch.allclose(model.decode(model.encode(x)), x, atol=1e-4)
        True
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        *,
        degree: int = 16,
        layers: int = 3,
        hidden: tuple[int, ...] = (128, 128),
        residual: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
        standardize: bool = True,
    ) -> None:
        transformer = BernsteinTransformer(degree)
        super().__init__(features, context, transformer, layers, hidden, residual, activation, dropout, standardize)
        self.degree = degree
