"""`EmbedContext`: a transform whose context first passes through a network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError
from pushforward.likelihood import Kind, Measure
from pushforward.numerics import Noise
from pushforward.registry import register
from pushforward.transforms.base import Step, Transform, check_context

__all__ = ["EmbedContext"]


@register("transforms")
class EmbedContext(Transform):
    """A conditional transform that reads a learned summary of its context, ``network(context)``.

    The network trains together with the transform. A context that is the same for all rows is embedded once.

    Args:
        transform: a transform with a context, or a chain of them.
        network: a module with attributes ``inputs`` (width of the context) and ``outputs``, such as
            :class:`~pushforward.networks.MLP`. ``outputs`` is the context width of the transform.

    Raises:
        ConfigError: if the widths do not fit.

    Example:
        >>> import torch
        >>> from pushforward.networks import MLP
        >>> from pushforward.transforms import Coupling, EmbedContext
        >>> transform = EmbedContext(Coupling(2, context=3, hidden=(8,)), MLP(10, 3, hidden=(16,)))
        >>> transform.context, transform.encode(torch.zeros(5, 2), torch.zeros(5, 10)).z.shape
        (10, torch.Size([5, 2]))
    """

    def __init__(self, transform: Transform, network: nn.Module) -> None:
        inputs, outputs = getattr(network, "inputs", None), getattr(network, "outputs", None)
        if not isinstance(transform, Transform) or not isinstance(inputs, int) or not isinstance(outputs, int):
            raise ConfigError("EmbedContext takes a transform, and a network with attributes inputs and outputs.")
        if transform.context != outputs:
            raise ConfigError(
                f"the network returns {outputs} numbers, and {type(transform).__name__} reads a context of width "
                f"{transform.context}."
            )
        super().__init__(transform.in_shape, transform.out_shape)
        self.transform, self.network = transform, network
        self.context = inputs
        self.domain, self.codomain = transform.domain, transform.codomain
        self.autoregressive_order = transform.autoregressive_order
        self.valid_on_manifold, self.supports_float64 = transform.valid_on_manifold, transform.supports_float64
        self.many_to_one, self.has_rsample = transform.many_to_one, transform.has_rsample
        self.encode_passes, self.decode_passes = transform.encode_passes, transform.decode_passes

    @property
    def kind(self) -> Kind:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the transform."""
        return self.transform.kind

    @property
    def bijective(self) -> bool:
        """Whether the transform is."""
        return self.transform.bijective

    @property
    def invertible(self) -> bool:
        """Whether the transform is."""
        return self.transform.invertible

    @property
    def estimators(self) -> list[Transform]:
        """Those of the transform."""
        return self.transform.estimators

    @property
    def needs_refresh(self) -> bool:
        """Whether the transform needs it."""
        return self.transform.needs_refresh

    def measure(self, latent: Measure) -> Measure:
        """That of the transform."""
        return self.transform.measure(latent)

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """The transform's encode, given the embedded context."""
        return self.transform.encode(x, self._embed(context), noise=noise)

    def encode_terms(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """The transform's terms, given the embedded context."""
        return self.transform.encode_terms(x, self._embed(context), noise=noise)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """The transform's decode, given the embedded context."""
        return self.transform.decode(z, self._embed(context), noise=noise)

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """The transform's decode with its contribution, given the embedded context."""
        return self.transform.decode_with_contribution(z, self._embed(context), noise=noise)

    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Set the data-dependent state of the transform."""
        return self.transform.initialize(x, self._embed(context), noise=noise)

    def refresh(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Refresh the statistics of the transform."""
        return self.transform.refresh(x, self._embed(context), noise=noise)

    def _embed(self, context: Tensor | None) -> Any:
        check_context(context, self.context, type(self).__name__)
        assert context is not None
        shared = (
            context.dim() > 1 and context.numel() > 0 and not any(context.stride()[:-1])
        )  # one context, expanded to all rows
        one = context[(0,) * (context.dim() - 1)] if shared else context
        embedded = self.network(one.to(next(self.network.parameters(), torch.empty(0)).dtype))
        return embedded.expand(*context.shape[:-1], -1) if shared else embedded
