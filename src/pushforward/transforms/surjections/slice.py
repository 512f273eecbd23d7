"""Slice and augment: coordinates that leave with a density of their own, and coordinates that are added."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.likelihood import Kind, Measure
from pushforward.numerics import Noise
from pushforward.numerics.checks import check_integer, check_widths
from pushforward.registry import register
from pushforward.transforms.base import Step, Transform
from pushforward.transforms.surjections.conditional import ConditionalDensity, check_reals, require_lebesgue
from pushforward.transforms.validation import vector_width

__all__ = ["Augment", "Slice", "parts_of"]


@register("transforms")
class Slice(Transform):
    """z = x_kept; the other coordinates are paid for by a density given z (Nielsen et al. 2020, arXiv 2007.02731, table 2).

    An inference surjection: contribution log p(x_dropped | z), EXACT, and the density of x is one on R^D although the rest
    of the chain has only k coordinates. ``decode`` draws the dropped coordinates if a generator is given, and else takes
    about their median.

    Args:
        features: D.
        keep: the coordinates that stay, in this order; or k, for the first k.
        decoder: p(x_dropped | z) as a bijection of width D - k that reads z as its context, onto a standard normal; None is a
            normal whose mean and scale follow z.
        hidden: widths of the network of that normal.

    Raises:
        ConfigError: if nothing is kept or dropped, or the decoder does not fit.
        KindError: if the decoder is no bijection, or the rest is no density on R^k.

    Example:
        >>> import torch
        >>> drop = Slice(3, keep=1, hidden=(8,))
        >>> step = drop.encode(torch.randn(5, 3))
        >>> step.z.shape, drop.decode(step.z).shape
        (torch.Size([5, 1]), torch.Size([5, 3]))
    """

    kept: Tensor
    dropped: Tensor
    back: Tensor

    def __init__(
        self,
        features: int,
        keep: int | tuple[int, ...] = 1,
        decoder: Transform | None = None,
        *,
        hidden: tuple[int, ...] = (64, 64),
    ) -> None:
        kept, dropped = parts_of(vector_width(features, "Slice"), keep, "Slice")
        super().__init__(features, len(kept))
        self.features, self.keep, self.hidden = features, keep, check_widths("hidden", hidden)
        self.given = ConditionalDensity(len(dropped), len(kept), decoder, self.hidden, "Slice")
        check_reals(self.given.flow, "Slice")
        self.register_buffer("kept", torch.tensor(kept))
        self.register_buffer("dropped", torch.tensor(dropped))
        together = [*kept, *dropped]
        self.register_buffer("back", torch.tensor(sorted(range(features), key=together.__getitem__)))

    @property
    def decoder(self) -> Transform | None:
        """The flow that was given."""
        return self.given.chosen

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """``(*batch, D)`` to ``(*batch, k)``, with log p(x_dropped | z)."""
        z = x.index_select(-1, self.kept)
        return Step(z, self.given.log_prob(x.index_select(-1, self.dropped), z))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """z with the other coordinates drawn, or about their median without a generator."""
        return torch.cat((z, self.given.draw(z, noise)), -1).index_select(-1, self.back)

    def measure(self, latent: Measure) -> Measure:
        """Lebesgue(k) becomes Lebesgue(D)."""
        return require_lebesgue(latent, self.in_shape[0], "Slice")


@register("transforms")
class Augment(Transform):
    """z = (x, e) with e drawn from q(e | x) (Nielsen et al. 2020, table 2; augmented flows, Huang et al. 2020,
    arXiv 2002.07101, eq. 4; VFlow, Chen et al. 2020, arXiv 2002.09741).

    A generative surjection: log p(x) >= E_q [ log p(x, e) - log q(e | x) ]. The contribution is -log q(e | x), kind
    LOWER_BOUND; several draws in ``evaluate`` tighten it. ``decode`` forgets e.

    Args:
        features: D.
        extra: number of coordinates added.
        encoder: q(e | x) as a bijection of width ``extra`` that reads x as its context, onto a standard normal; its decode
            should be the fast direction. None is a normal whose mean and scale follow x.
        hidden: widths of the network of that normal.

    Raises:
        ConfigError: for an impossible width, or an encoder that does not fit.
        KindError: if the encoder is no bijection, or the rest is no density on R^(D + extra).

    Example:
        >>> import torch
        >>> wider = Augment(2, extra=3, hidden=(8,))
        >>> step = wider.encode(torch.zeros(5, 2))
        >>> step.z.shape, wider.decode(step.z).shape
        (torch.Size([5, 5]), torch.Size([5, 2]))
    """

    kind = Kind.LOWER_BOUND

    def __init__(
        self, features: int, extra: int = 1, encoder: Transform | None = None, *, hidden: tuple[int, ...] = (64, 64)
    ) -> None:
        width = vector_width(features, "Augment")
        super().__init__(features, width + check_integer("extra", extra))
        self.features, self.extra, self.hidden = features, extra, check_widths("hidden", hidden)
        self.given = ConditionalDensity(extra, width, encoder, self.hidden, "Augment")
        check_reals(self.given.flow, "Augment")

    @property
    def encoder(self) -> Transform | None:
        """The flow that was given."""
        return self.given.chosen

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """``(*batch, D)`` to ``(*batch, D + extra)``, with -log q(e | x)."""
        e, log_q = self.given.draw_with_log_prob(x, x, noise)
        return Step(torch.cat((x, e), -1), -log_q)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """x without e."""
        return z[..., : self.in_shape[0]]

    def measure(self, latent: Measure) -> Measure:
        """Lebesgue(D + extra) becomes Lebesgue(D)."""
        return require_lebesgue(latent, self.in_shape[0], "Augment")


def parts_of(width: int, keep: int | tuple[int, ...], owner: str) -> tuple[list[int], list[int]]:
    """The coordinates that a surjection keeps, and those that it drops.

    Raises:
        ConfigError: unless both are at least one, and distinct indices.
    """
    if isinstance(keep, int) and not isinstance(keep, bool):
        kept = list(range(keep)) if 0 < keep < width else []
    else:
        kept = list(keep) if isinstance(keep, (tuple, list)) else []
    legal = all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < width for i in kept)
    if not legal or len(set(kept)) != len(kept) or not 0 < len(kept) < width:
        raise ConfigError(
            f"{owner} keeps some of its {width} coordinates and drops the others: keep is how many, or their indices; got "
            f"{keep!r}."
        )
    chosen = set(kept)
    return kept, [i for i in range(width) if i not in chosen]
