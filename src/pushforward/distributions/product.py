"""Product of independent distributions."""

from __future__ import annotations

import itertools

import torch
from torch import Size, Tensor, nn

from pushforward.distributions.base import Distribution
from pushforward.errors import ConfigError, KindError
from pushforward.likelihood import Kind, Support, join
from pushforward.registry import register
from pushforward.transforms.base import check_event

__all__ = ["Product"]


@register("distributions")
class Product(Distribution):
    """Product of distributions of vectors: log p(z) = sum_k log p_k(z_k), where z concatenates the vectors z_k.

    Args:
        parts: at least one; distributions of vectors that have densities with respect to Lebesgue measure.

    Raises:
        ConfigError: if a part is not a distribution of vectors, or contexts differ in width.
        KindError: if the density of a part refers to another measure.

    Example:
        >>> import torch
        >>> from pushforward.distributions import Logistic, Normal, Product
        >>> Product(Normal(2), Logistic(1)).log_prob(torch.zeros(1, 3))        # -log(2 pi) - log 4
        tensor([-3.2242])
    """

    def __init__(self, *parts: Distribution) -> None:
        if not parts or not all(isinstance(part, Distribution) and len(part.shape) == 1 for part in parts):
            raise ConfigError(f"a product is made of distributions of vectors, at least one; got {parts!r:.80}.")
        if others := [part.measure for part in parts if part.measure.name != "Lebesgue"]:
            raise KindError(f"the parts of a product have densities on R^D; got one on {others[0]}.")
        contexts = {part.context for part in parts} - {0}
        if len(contexts) > 1:
            raise ConfigError(f"the parts of a product read contexts of different widths: {sorted(contexts)}.")
        super().__init__(sum(part.shape[0] for part in parts))
        self.parts = nn.ModuleList(parts)
        self.context = contexts.pop() if contexts else 0
        self.support = Support.joined([(part.support, part.shape[0]) for part in parts])
        self.sample_passes = max(part.sample_passes for part in parts)
        self.has_rsample = all(part.has_rsample for part in parts)
        ends = list(itertools.accumulate(part.shape[0] for part in parts))
        self.slices = [slice(end - part.shape[0], end) for end, part in zip(ends, parts, strict=True)]

    @property
    def kind(self) -> Kind:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of a sum over the parts."""
        return join(*(part.kind for part in self._list()))

    @property
    def autoregressive_order(self) -> tuple[int, ...] | str:
        """ "any" if all coordinates are independent, else "mixed"."""
        return "any" if all(part.autoregressive_order == "any" for part in self._list()) else "mixed"

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Sum of the parts' log-densities."""
        check_event(z, self.shape, type(self).__name__)
        terms = [part.log_prob(z[..., where], context) for part, where in zip(self._list(), self.slices, strict=True)]
        return torch.stack(terms).sum(0)

    def log_prob_terms(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of each coordinate, if all parts have such terms."""
        check_event(z, self.shape, type(self).__name__)
        pairs = zip(self._list(), self.slices, strict=True)
        return torch.cat([part.log_prob_terms(z[..., where], context) for part, where in pairs], -1)

    def initialize(self, z: Tensor, context: Tensor | None = None) -> None:
        """Initialize each part with its coordinates."""
        for part, where in zip(self._list(), self.slices, strict=True):
            part.initialize(z[..., where], context)

    @property
    def reads_raw_context(self) -> bool:
        """Whether any part standardizes the context by itself."""
        return any(part.reads_raw_context for part in self._list())

    @property
    def needs_refresh(self) -> bool:
        """Whether any part needs it."""
        return any(part.needs_refresh for part in self._list())

    def refresh(self, z: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> None:
        """Refresh each part with its coordinates."""
        for part, where in zip(self._list(), self.slices, strict=True):
            part.refresh(z[..., where], context, generator=generator)

    def sample(self, batch: Size, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Concatenated samples of the parts."""
        return torch.cat([part.sample(batch, context, generator=generator) for part in self._list()], -1)

    def _list(self) -> list[Distribution]:
        return list(self.parts)  # pyright: ignore[reportReturnType]
