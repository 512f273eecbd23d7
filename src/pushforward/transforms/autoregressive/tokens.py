"""Autoregressive transform of a sequence of vectors by a causal transformer network."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.networks.attention import CausalTransformer
from pushforward.numerics import Noise, sum_event
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform, check_context, within
from pushforward.transforms.transformers.affine import AffineTransformer
from pushforward.transforms.transformers.base import Transformer, check_transformer

__all__ = ["TokenAutoregressive"]


@register("transforms")
class TokenAutoregressive(Transform):
    """z_i = f(x_i; network(x_<i, context)) for a sequence of vectors x_1, ..., x_N, with a causal transformer as the network
    (TarFlow, Zhai et al. 2024, arXiv 2412.06329, eq. 5-7). The coordinates of one token are transformed independently.

    log abs det dz/dx = sum of log f'. Encoding is one pass. Decoding takes N steps; the keys and values of earlier tokens are
    cached, so it has the arithmetic of about one pass. The paper leaves the first token as it is; here its parameters come
    from a learned start token.

    Args:
        features: (number of tokens N, width of a token).
        transformer: the transformer f; affine with bounded scale by default.
        flip: reverse the order of the tokens.
        width: width of the network.
        layers: number of blocks of the network.
        heads: number of attention heads.
        context: width of the context.

    Raises:
        ConfigError: for impossible sizes, or a periodic transformer.

    Example:
        >>> import torch
        >>> layer = TokenAutoregressive((5, 2), width=16, layers=1)
        >>> x = torch.randn(3, 5, 2)
        >>> torch.allclose(layer.decode(layer.encode(x).z), x, atol=1e-5)
        True
    """

    supports_float64 = False

    def __init__(
        self,
        features: Shape,
        transformer: Transformer | None = None,
        *,
        flip: bool = False,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        context: int = 0,
    ) -> None:
        super().__init__(features)
        if len(self.in_shape) != 2:
            raise ConfigError(f"features must be (number of tokens, width of a token); got {features!r}.")
        tokens, size = self.in_shape
        self.features, self.transformer, self.flip = (
            features,
            check_transformer(transformer or AffineTransformer()),
            flip,
        )
        self.width, self.layers, self.heads, self.context = width, layers, heads, context
        self.domain = self.codomain = self.transformer.support
        if self.transformer.periodic:
            raise ConfigError(f"transformer must not be periodic, because tokens are not angles; got {transformer!r}.")
        self.network = CausalTransformer(
            tokens,
            size,
            self.transformer.parameters * size,
            width=width,
            layers=layers,
            heads=heads,
            context=context,
            output_gain=0.1 * self.transformer.output_gain,
        )
        self.decode_passes = tokens

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Data to noise in one pass."""
        flat, context = self._flat(x, context)
        raw = self.network(flat, context).to(x.dtype)
        z, slopes = self.transformer.forward(flat, self._parameters_first(raw))
        contribution = sum_event(slopes, 2).reshape(self.batch_shape(x))
        return Step(self._in_order(z).reshape(x.shape), within(contribution, x, self.domain, 2))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Noise to data, token by token."""
        return self.decode_with_contribution(z, context)[0]

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """Noise to data, token by token, with the contribution of ``encode``."""
        flat, context = self._flat(z, context)
        memory, tokens, slopes = self.network.memory(), [], []
        before: Tensor | None = None
        for position, target in enumerate(flat.unbind(1)):
            raw = self.network.step(before, position, memory, flat.shape[0], context).to(z.dtype)
            before, slope = self.transformer.inverse(target, self._parameters_first(raw))
            tokens.append(before)
            slopes.append(slope)
        x = self._in_order(torch.stack(tokens, 1)).reshape(z.shape)
        return x, sum_event(torch.stack(slopes, 1), 2).reshape(self.batch_shape(z))

    def _flat(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """``(n, tokens, size)`` in the order of the network, and the context ``(n, context)``, or None if the transform reads none."""
        check_context(context, self.context, "TokenAutoregressive")
        batch = self.batch_shape(x)
        if not self.context or context is None:
            context = None
        else:
            context = context.expand(*batch, self.context).reshape(-1, self.context)
        return self._in_order(x.reshape(-1, *self.in_shape)), context

    def _in_order(self, x: Tensor) -> Tensor:
        """Tokens ``(n, tokens, size)`` in the order of the network; applied twice it is the identity."""
        return x.flip(1) if self.flip else x

    def _parameters_first(self, raw: Tensor) -> Tensor:
        """Outputs ``(*, parameters * size)`` as ``(parameters, *, size)``."""
        return raw.unflatten(-1, (self.transformer.parameters, self.in_shape[1])).movedim(-2, 0)
