"""Masked autoregressive transform: a MADE network computes each coordinate's parameters from the coordinates before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.networks.made import MADE
from pushforward.numerics import Noise, constant, full_precision, sum_event
from pushforward.numerics.checks import check_integer, check_widths
from pushforward.numerics.fixed_buffers import other_buffers
from pushforward.registry import register
from pushforward.transforms.autoregressive.masked_inverse import solve_autoregressive
from pushforward.transforms.base import Step, Transform, within
from pushforward.transforms.transformers.affine import AffineTransformer
from pushforward.transforms.transformers.base import Transformer, check_transformer, cos_and_sin
from pushforward.transforms.validation import vector_width

__all__ = ["MaskedAutoregressive"]


@register("transforms")
class MaskedAutoregressive(Transform):
    """z_i = f(x_i; MADE(x_<i, context)) (MAF, Papamakarios et al. 2017, eq. 3; Durkan et al. 2019, sec. 2.2).

    log abs det dz/dx = sum of log f'. Encoding is one network pass. Decoding has the arithmetic of about one pass too, but
    in D steps, each of which needs the result of the one before. If no gradient is needed, a compiled function takes all
    steps of an additive, affine or spline transformer in about the time of an encode (``pf.use_kernels``). Otherwise each of
    the D steps takes at least 0.1 ms, and if no gradient is needed few rows of many coordinates are solved by fixed-point
    sweeps instead: see :func:`~pushforward.transforms.autoregressive.masked_inverse.solve_autoregressive`. ``Inverse`` of this
    transform is the inverse autoregressive flow, which samples in one pass (Kingma et al. 2016).

    Args:
        features: number of coordinates D. With D = 1 the parameters are functions of the context, or constants that the
            network computes once for all rows.
        transformer: the transformer f, affine by default.
        order: ``order[k]`` is the k-th coordinate; None is 0, 1, ..., D-1; "reverse" is D-1, ..., 0.
        hidden: widths of the network's hidden layers.
        residual: residual blocks (ResMADE) instead of plain layers.
        activation: name of the activation function.
        dropout: dropout probability in the network.
        context: width of the context.
        input_bound: coordinates are clamped to [-input_bound, input_bound] before the network reads them.

    Raises:
        ConfigError: for an order that is not a permutation, or impossible widths.

    Example:
        >>> import torch
        >>> layer = MaskedAutoregressive(3, hidden=(16,))
        >>> x = torch.randn(5, 3)
        >>> torch.allclose(layer.decode(layer.encode(x).z), x, atol=1e-5)
        True
    """

    supports_float64 = False

    def __init__(
        self,
        features: int,
        transformer: Transformer | None = None,
        *,
        order: str | tuple[int, ...] | None = None,
        hidden: tuple[int, ...] = (128, 128),
        residual: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
        context: int = 0,
        input_bound: float = 10.0,
    ) -> None:
        super().__init__(features)
        features = vector_width(features, "MaskedAutoregressive")
        check_integer("context", context, 0)
        self.features, self.transformer = features, check_transformer(transformer or AffineTransformer())
        self.order, self.hidden, self.residual = order, check_widths("hidden", hidden, equal=residual), residual
        self.activation, self.dropout, self.context, self.input_bound = activation, dropout, context, input_bound
        self.domain = self.codomain = self.transformer.support
        if order is not None and order != "reverse" and not isinstance(order, (tuple, list)):
            raise ConfigError(f"order must be None, 'reverse' or a tuple of coordinates; got {order!r:.80}.")
        forward = tuple(range(features))
        self.sequence: tuple[int, ...] = (
            forward if order is None else forward[::-1] if isinstance(order, str) else tuple(order)
        )
        self.autoregressive_order = self.sequence
        self.network = MADE(
            features, self.transformer.parameters, hidden, context=context, order=self.sequence, residual=residual,
            activation=activation, dropout=dropout, input_bound=input_bound, output_gain=self.transformer.output_gain,
            copies=2 if self.transformer.periodic else 1,
        )  # fmt: skip
        self.decode_passes = features  # sequential, although their arithmetic is that of one pass

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, local_metadata: Any, strict: Any, missing_keys: Any,
        unexpected_keys: Any, error_msgs: list[str],
    ) -> None:  # fmt: skip
        masks = [
            name for name, _ in self.named_buffers() if name.endswith(".mask")
        ]  # decode follows the order, not the masks
        error_msgs += other_buffers(self, masks, state_dict, prefix)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Data to noise in one pass."""
        z, slopes = self.transformer.forward(x, self._raw(x, context))
        return Step(z, within(sum_event(slopes, 1), x, self.domain, 1))

    def encode_terms(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """Data to noise, with log f' of each coordinate, both ``(*batch, D)``: the terms of the chain rule; -inf outside the domain."""
        z, slopes = self.transformer.forward(x, self._raw(x, context))
        return z, within(slopes, x, self.domain, 0)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Noise to data in D small steps, or in sweeps. Dropout is off."""
        return self.decode_with_contribution(z, context)[0]

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """As ``decode``, with the contribution of ``encode``."""
        batch, features = z.shape[:-1], self.features
        if features == 1:  # the network reads the context alone
            with full_precision(z):
                x, slopes = self.transformer.inverse(z, self._raw(z, context))
            return x, sum_event(slopes, 1)
        if context is not None and self.context:
            context = context.expand(*batch, context.shape[-1]).reshape(-1, context.shape[-1])
        order = constant(self.sequence, torch.int64, z.device)
        target = z.reshape(-1, features).t().index_select(0, order)
        x, slopes = solve_autoregressive(self.network, self.transformer, target, context)
        x = x.index_select(0, order.argsort()).t().contiguous()
        return x.reshape(z.shape), sum_event(slopes.t(), 1).reshape(batch)

    def _raw(self, x: Tensor, context: Tensor | None) -> Tensor:
        """The transformer's raw parameters, ``(parameters, *x.shape)``; at least float32, under autocast too."""
        inputs = cos_and_sin(x, -1) if self.transformer.periodic else x
        return self.network(inputs, context).to(x.dtype)
