"""Slice, which drops coordinates with their conditional density, and augment, which adds random coordinates."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.likelihood import Kind, Measure
from pushforward.numerics import Noise
from pushforward.numerics.checks import check_integer, check_widths, is_integer
from pushforward.registry import register
from pushforward.transforms.base import Step, Transform
from pushforward.transforms.linear.permutation import inverse_permutation
from pushforward.transforms.surjections.conditional import ConditionalDensity, check_reals, require_lebesgue
from pushforward.transforms.validation import vector_width

__all__ = ["Augment", "Slice", "split_coordinates"]


@register("transforms")
class Slice(Transform):
    """z = x_kept; the other coordinates are dropped, with their density given z (Nielsen et al. 2020, arXiv 2007.02731, table 2).

    An inference surjection: contribution log p(x_dropped | z), EXACT. x has a density on R^D, although the rest of the chain
    has only k coordinates. ``decode`` draws the dropped coordinates from a generator, or uses values near their median
    without one.

    Args:
        features: number of coordinates D.
        keep: the coordinates that are kept, in this order; or k, for the first k.
        decoder: p(x_dropped | z) as a bijection of width D - k to a standard normal, with context z; None is a normal with
            mean and scale from a network.
        hidden: widths of the hidden layers of that network.

    Raises:
        ConfigError: if nothing is kept or dropped, or the decoder does not fit.
        KindError: if the decoder is not a bijection, or the rest of the chain has no density on R^k.

    Example:
        >>> import torch
        >>> transform = Slice(3, keep=1, hidden=(8,))
        >>> step = transform.encode(torch.randn(5, 3))
        >>> step.z.shape, transform.decode(step.z).shape
        (torch.Size([5, 1]), torch.Size([5, 3]))
    """

    index_buffers = ("kept", "dropped")
    kept: Tensor
    dropped: Tensor
    inverse_order: Tensor

    def __init__(
        self,
        features: int,
        keep: int | tuple[int, ...] = 1,
        decoder: Transform | None = None,
        *,
        hidden: tuple[int, ...] = (64, 64),
    ) -> None:
        features = vector_width(features, "Slice")
        kept, dropped = split_coordinates(features, keep, "Slice")
        super().__init__(features, len(kept))
        self.features, self.keep, self.hidden = features, keep, check_widths("hidden", hidden)
        self.density = ConditionalDensity(len(dropped), len(kept), decoder, self.hidden, "Slice")
        check_reals(self.density.flow, "Slice")
        self.register_buffer("kept", torch.tensor(kept))
        self.register_buffer("dropped", torch.tensor(dropped))
        self.register_buffer("inverse_order", inverse_permutation([*kept, *dropped]))

    @property
    def decoder(self) -> Transform | None:
        """The flow that was given, or None for the default."""
        return self.density.given_flow

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """``(*batch, D)`` to ``(*batch, k)``, with log p(x_dropped | z)."""
        z = x.index_select(-1, self.kept)
        return Step(z, self.density.log_prob(x.index_select(-1, self.dropped), z))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """z with the dropped coordinates drawn, or near their median without a generator."""
        return torch.cat((z, self.density.draw(z, noise)), -1).index_select(-1, self.inverse_order)

    def measure(self, latent: Measure) -> Measure:
        """Lebesgue(k) becomes Lebesgue(D)."""
        return require_lebesgue(latent, self.in_shape[0], "Slice")


@register("transforms")
class Augment(Transform):
    """z = (x, e) with e drawn from q(e | x) (Nielsen et al. 2020, table 2; augmented flows, Huang et al. 2020,
    arXiv 2002.07101, eq. 4; VFlow, Chen et al. 2020, arXiv 2002.09741).

    A generative surjection: log p(x) >= E_q [ log p(x, e) - log q(e | x) ]. The contribution is -log q(e | x), kind
    LOWER_BOUND; several draws in ``evaluate`` tighten it. ``decode`` drops e.

    Args:
        features: number of coordinates D.
        extra: number of coordinates that are added.
        encoder: q(e | x) as a bijection of width ``extra`` to a standard normal, with context x; its decode should be the fast
            direction. None is a normal with mean and scale from a network.
        hidden: widths of the hidden layers of that network.

    Raises:
        ConfigError: for an impossible width, or an encoder that does not fit.
        KindError: if the encoder is not a bijection, or the rest of the chain has no density on R^(D + extra).

    Example:
        >>> import torch
        >>> transform = Augment(2, extra=3, hidden=(8,))
        >>> step = transform.encode(torch.zeros(5, 2))
        >>> step.z.shape, transform.decode(step.z).shape
        (torch.Size([5, 5]), torch.Size([5, 2]))
    """

    kind = Kind.LOWER_BOUND

    def __init__(
        self, features: int, extra: int = 1, encoder: Transform | None = None, *, hidden: tuple[int, ...] = (64, 64)
    ) -> None:
        width = vector_width(features, "Augment")
        super().__init__(features, width + check_integer("extra", extra))
        self.features, self.extra, self.hidden = features, extra, check_widths("hidden", hidden)
        self.density = ConditionalDensity(extra, width, encoder, self.hidden, "Augment")
        check_reals(self.density.flow, "Augment")

    @property
    def encoder(self) -> Transform | None:
        """The flow that was given, or None for the default."""
        return self.density.given_flow

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """``(*batch, D)`` to ``(*batch, D + extra)``, with -log q(e | x)."""
        e, log_q = self.density.draw_with_log_prob(x, x, noise)
        return Step(torch.cat((x, e), -1), -log_q)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """x without e."""
        return z[..., : self.in_shape[0]]

    def measure(self, latent: Measure) -> Measure:
        """Lebesgue(D + extra) becomes Lebesgue(D)."""
        return require_lebesgue(latent, self.in_shape[0], "Augment")


def split_coordinates(width: int, keep: int | tuple[int, ...], owner: str) -> tuple[list[int], list[int]]:
    """The coordinates that a surjection keeps, and those that it drops.

    Raises:
        ConfigError: if one of them is empty, or ``keep`` has indices that are repeated or out of range.
    """
    if is_integer(keep):
        kept = list(range(keep)) if 0 < keep < width else []  # pyright: ignore[reportOperatorIssue, reportArgumentType]
    else:
        kept = list(keep) if isinstance(keep, (tuple, list)) else []
    legal = all(is_integer(i) and 0 <= i < width for i in kept)
    if not legal or len(set(kept)) != len(kept) or not 0 < len(kept) < width:
        raise ConfigError(
            f"keep of {owner} must be an integer in 1, ..., {width - 1}, or some of the indices 0, ..., {width - 1}; got {keep!r}."
        )
    chosen = set(kept)
    return kept, [i for i in range(width) if i not in chosen]
