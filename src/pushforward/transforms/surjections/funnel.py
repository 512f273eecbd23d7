"""Funnels: part of the coordinates moves the others, then leaves with a density of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.likelihood import Measure
from pushforward.networks.mlp import check_hidden, check_width
from pushforward.numerics import Noise
from pushforward.registry import register
from pushforward.transforms.base import Step, Transform, check_context
from pushforward.transforms.coupling.coupling import Coupling
from pushforward.transforms.elementwise.transformers import AffineTransformer, Transformer
from pushforward.transforms.surjections.conditional import ConditionalDensity, check_reals, require_lebesgue
from pushforward.transforms.surjections.slice import parts_of
from pushforward.transforms.validation import vector_width

__all__ = ["Funnel"]


@register("transforms")
class Funnel(Transform):
    """z = f(x_kept; network(x_dropped, context)), and x_dropped leaves (Klein et al. 2021, arXiv 2112.08069).

        log p(x) = log p(z) + log p(x_dropped | z) + log abs det dz/dx_kept

    An inference surjection, EXACT: the density of x is one on R^D, while the rest of the chain has only k coordinates. It is
    the coupling (x_kept, x_dropped) to (z, x_dropped), of which the second part is sliced off. With an additive law and
    ``hidden=()`` it is the paper's dense layer z = x_kept + V x_dropped + b. ``decode`` draws x_dropped given z if a generator
    is given, else takes about its median, and then inverts f.

    Args:
        features: D.
        keep: the coordinates that are kept, in this order; or k, for the first k.
        transformer: the law f, affine by default.
        decoder: p(x_dropped | z) as a bijection of width D - k that reads z (and then the context) as its context, onto a
            standard normal; None is a normal whose mean and scale follow them.
        hidden: widths of the hidden layers of the network behind f.
        decoder_hidden: of the network of the normal decoder.
        residual: residual blocks in the network behind f.
        activation: of the network behind f.
        dropout: probability, there.
        context: width of the context.

    Raises:
        ConfigError: if nothing is kept or dropped, or the parts do not fit.
        KindError: if the decoder is no bijection, or the rest is no density on R^k.

    Example:
        >>> import torch
        >>> funnel = Funnel(5, keep=2, hidden=(8,), decoder_hidden=(8,))
        >>> step = funnel.encode(torch.randn(3, 5))
        >>> step.z.shape, step.contribution.shape
        (torch.Size([3, 2]), torch.Size([3]))
    """

    def __init__(
        self,
        features: int,
        keep: int | tuple[int, ...] = 1,
        transformer: Transformer | None = None,
        decoder: Transform | None = None,
        *,
        hidden: tuple[int, ...] = (128, 128),
        decoder_hidden: tuple[int, ...] = (64, 64),
        residual: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
        context: int = 0,
    ) -> None:
        kept, dropped = parts_of(vector_width(features, "Funnel"), keep, "Funnel")
        super().__init__(features, len(kept))
        check_width("context", context, 0)
        self.features, self.keep, self.transformer = features, keep, transformer or AffineTransformer()
        self.hidden, self.residual, self.activation, self.dropout = tuple(hidden), residual, activation, dropout
        self.decoder_hidden, self.context = check_hidden(decoder_hidden, False), context
        self.move = Coupling(
            features, self.transformer, mask=tuple(dropped), hidden=hidden, residual=residual, activation=activation,
            dropout=dropout, context=context,
        )  # fmt: skip
        self.given = ConditionalDensity(len(dropped), len(kept) + context, decoder, self.decoder_hidden, "Funnel")
        check_reals(self.move, "Funnel")
        check_reals(self.given.flow, "Funnel")
        self.register_buffer("kept", torch.tensor(kept))
        self.register_buffer("dropped", torch.tensor(dropped))
        together = [*kept, *dropped]
        self.register_buffer("back", torch.tensor(sorted(range(features), key=together.__getitem__)))

    kept: Tensor
    dropped: Tensor
    back: Tensor

    @property
    def decoder(self) -> Transform | None:
        """The flow that was given."""
        return self.given.chosen

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """``(*batch, D)`` to ``(*batch, k)``."""
        moved, contribution = self.move(x, context)
        z = moved.index_select(-1, self.kept)
        return Step(z, contribution + self.given.log_prob(x.index_select(-1, self.dropped), self._seen(z, context)))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Draw what was dropped, or take about its median; then invert f."""
        dropped = self.given.draw(self._seen(z, context), noise)
        return self.move.decode(torch.cat((z, dropped), -1).index_select(-1, self.back), context)

    def measure(self, latent: Measure) -> Measure:
        """Lebesgue(k) becomes Lebesgue(D)."""
        return require_lebesgue(latent, self.in_shape[0], "Funnel")

    def _seen(self, z: Tensor, context: Tensor | None) -> Tensor:
        check_context(context, self.context, "Funnel")
        return z if context is None or not self.context else torch.cat((z, context), -1)
