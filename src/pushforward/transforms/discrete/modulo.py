"""Transforms of categories: one-hot codes, and shifts modulo K that depend on other coordinates."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError, KindError
from pushforward.likelihood import UNIT, Measure, Support
from pushforward.networks.made import MADE
from pushforward.networks.mlp import MLP
from pushforward.numerics import Noise
from pushforward.numerics.checks import check_integer, check_positive, check_widths
from pushforward.registry import register
from pushforward.transforms.base import Step, Transform, check_context, outside
from pushforward.transforms.coupling.coupling import mask_indices
from pushforward.transforms.linear.permutation import inverse_permutation
from pushforward.transforms.validation import vector_width

__all__ = ["ModuloAutoregressive", "ModuloCoupling", "OneHot"]


def check_categories(categories: int) -> int:
    """Return the number of categories K if it is at least 2.

    Raises:
        ConfigError: for anything else.
    """
    return check_integer("categories", categories, 2)


@register("transforms")
class OneHot(Transform):
    """Categories 0, ..., K-1 of D columns as one-hot rows ``(D, K)``. A bijection of finite sets: contribution 0.

    One-hot rows are corners of a simplex, so gradients with respect to them exist, which training the transforms below
    requires. A row with a value other than 0, ..., K-1 has contribution -inf. With a base distribution on one-hot rows
    (:class:`~pushforward.distributions.Categorical`) the result is a probability, on Counting(D).

    Args:
        features: number of coordinates D.
        categories: number of categories K.

    Raises:
        ConfigError: if the event is not a vector, or K is less than 2.

    Example:
        >>> import torch
        >>> from pushforward.transforms import OneHot
        >>> OneHot(2, categories=3).encode(torch.tensor([[2.0, 0.0]])).z
        tensor([[[0., 0., 1.],
                 [1., 0., 0.]]])
    """

    codomain = UNIT

    def __init__(self, features: int, categories: int = 2) -> None:
        width = vector_width(features, "OneHot")
        super().__init__(width, (width, check_categories(categories)))
        self.features, self.categories = features, categories
        self.domain = Support(0.0, categories - 1.0)

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Categories to one-hot rows; anything else is read as the nearest category."""
        z, inside = one_hot(x, self.categories)
        dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()  # integers have no -inf
        return Step(z, torch.where(inside.all(-1), 0.0, -math.inf).to(dtype))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """One-hot rows to categories, by the largest entry."""
        return z.argmax(-1).to(z.dtype)

    def measure(self, latent: Measure) -> Measure:
        """Counting(D), the measure of the latent distribution.

        Raises:
            KindError: for a latent distribution on any other measure.
        """
        return require_counting(latent, "OneHot")


class Modulo(Transform):
    """Shared parts of shifts modulo K: one-hot rows as input and output, the shift, and the measure."""

    domain = codomain = UNIT

    def __init__(self, features: int, categories: int, temperature: float) -> None:
        features = vector_width(features, type(self).__name__)
        super().__init__((features, check_categories(categories)))
        check_positive("temperature", temperature)
        self.features, self.categories, self.temperature = features, categories, temperature

    def measure(self, latent: Measure) -> Measure:
        """Counting(D), the measure of the latent distribution.

        Raises:
            KindError: for a latent distribution on any other measure.
        """
        return require_counting(latent, type(self).__name__)

    def shift(self, logits: Tensor) -> Tensor:
        """One-hot rows of the largest logits; their gradient is that of softmax(logits / temperature)."""
        hard = one_hot(logits.argmax(-1).to(logits.dtype), self.categories)[0]
        soft = torch.softmax(logits / self.temperature, -1)
        return hard + (soft - soft.detach())


@register("transforms")
class ModuloAutoregressive(Modulo):
    """z_i = (x_i - m_i(x_<i, context)) mod K on one-hot rows (Tran et al. 2019, eq. 6); contribution 0.

    A permutation of the K^D states. m_i is the largest of K logits from a MADE; its gradient is the straight-through
    estimate, that of softmax(logits / temperature) (sec. 4.3), which is biased. Encoding takes one pass, decoding D.

    The paper's scale, (m + s x) mod K with s prime to K, is not implemented.

    Args:
        features: number of coordinates D.
        categories: number of categories K.
        order: None for 0, 1, ..., D-1, or "reverse" for D-1, ..., 0.
        hidden: widths of the network's hidden layers.
        context: width of the context.
        temperature: temperature of the straight-through gradient.

    Raises:
        ConfigError: for impossible sizes, or an unknown order.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Chain, ModuloAutoregressive, OneHot
        >>> chain = Chain(OneHot(3, 5), ModuloAutoregressive(3, 5, hidden=(16,)))
        >>> x = torch.tensor([[4.0, 0.0, 2.0]])
        >>> chain.decode(chain.encode(x).z)
        tensor([[4., 0., 2.]])
    """

    supports_float64 = False

    def __init__(
        self,
        features: int,
        categories: int = 2,
        *,
        order: str | None = None,
        hidden: tuple[int, ...] = (64, 64),
        context: int = 0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(features, categories, temperature)
        self.order, self.hidden, self.context = (
            order,
            check_widths("hidden", hidden),
            check_integer("context", context, 0),
        )
        if order not in (None, "reverse"):
            raise ConfigError(f"order must be None or 'reverse'; got {order!r}.")
        features = self.features  # a width, also where a shape was given
        self.sequence = tuple(range(features))[:: -1 if order else 1]
        self.network = MADE(features, categories, hidden, context=context, order=self.sequence, copies=categories)
        self.decode_passes = features

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Data to noise in one pass."""
        return Step(rotate(x, self._shifts(x, context), backward=True), outside(x, UNIT, 2))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Noise to data, coordinate by coordinate."""
        solved = [torch.zeros_like(z[..., 0, :])] * self.features
        for i in self.sequence:
            shifts = self._shifts(torch.stack(solved, -2), context)
            solved[i] = rotate(z[..., i, :], shifts[..., i, :])
        return torch.stack(solved, -2)

    def _shifts(self, x: Tensor, context: Tensor | None) -> Tensor:
        check_context(context, self.context, "ModuloAutoregressive")
        logits = self.network(x.transpose(-1, -2).flatten(-2), context).to(x.dtype)
        return self.shift(logits.movedim(0, -1))


@register("transforms")
class ModuloCoupling(Modulo):
    """z_A = x_A, z_B = (x_B - m(x_A, context)) mod K on one-hot rows: the bipartite flow (Tran et al. 2019, sec. 4.2).

    As :class:`ModuloAutoregressive`, with one pass in both directions. With D = 1 A is empty, and m is learned directly or
    a function of the context.

    Args:
        features: number of coordinates D.
        categories: number of categories K.
        flip: swap A (coordinates 0, 2, ...) and B.
        hidden: widths of the network's hidden layers.
        context: width of the context.
        temperature: temperature of the straight-through gradient.

    Raises:
        ConfigError: for impossible sizes.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Chain, ModuloCoupling, OneHot
        >>> chain = Chain(OneHot(2, 3), ModuloCoupling(2, 3, hidden=(16,)))
        >>> chain.decode(chain.encode(torch.tensor([[2.0, 1.0]])).z)
        tensor([[2., 1.]])
    """

    index_buffers = ("kept", "shifted")
    kept: Tensor
    shifted: Tensor
    inverse_order: Tensor

    def __init__(
        self,
        features: int,
        categories: int = 2,
        *,
        flip: bool = False,
        hidden: tuple[int, ...] = (64, 64),
        context: int = 0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(features, categories, temperature)
        self.flip, self.hidden, self.context = (
            flip,
            check_widths("hidden", hidden),
            check_integer("context", context, 0),
        )
        features = self.features  # a width, also where a shape was given
        kept = mask_indices(features, "alternate")
        shifted = sorted(set(range(features)) - set(kept))
        if flip and kept:
            kept, shifted = shifted, kept
        self.register_buffer("kept", torch.tensor(kept, dtype=torch.int64))
        self.register_buffer("shifted", torch.tensor(shifted, dtype=torch.int64))
        self.register_buffer("inverse_order", inverse_permutation([*kept, *shifted]))
        inputs = len(kept) * categories + context
        self.network = MLP(inputs, len(shifted) * categories, hidden, input_bound=10.0) if inputs else None
        self.free = None if inputs else nn.Parameter(torch.zeros(len(shifted), categories))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Data to noise in one pass."""
        return Step(self._shift(x, context, backward=True), outside(x, UNIT, 2))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Noise to data in one pass."""
        return self._shift(z, context)

    def _shift(self, x: Tensor, context: Tensor | None, backward: bool = False) -> Tensor:
        a, b = x.index_select(-2, self.kept), x.index_select(-2, self.shifted)
        if self.network is None:
            assert self.free is not None
            logits = self.free.to(x.dtype)
        else:
            check_context(context, self.context, "ModuloCoupling")
            inputs = a.flatten(-2)
            if self.context and context is not None:
                inputs = torch.cat((inputs, context), -1)
            logits = self.network(inputs).to(x.dtype).unflatten(-1, b.shape[-2:])
        b = rotate(b, self.shift(logits).expand_as(b), backward)
        return torch.cat((a, b), -2).index_select(-2, self.inverse_order)


def one_hot(x: Tensor, categories: int) -> tuple[Tensor, Tensor]:
    """One-hot rows ``(*x.shape, K)`` of the nearest categories, and whether x is a category."""
    nearest = x.clamp(0, categories - 1).round()
    grid = torch.arange(categories, dtype=x.dtype, device=x.device)
    return (nearest.unsqueeze(-1) == grid).to(x.dtype), nearest == x


def rotate(x: Tensor, shift: Tensor, backward: bool = False) -> Tensor:
    """(x + m) mod K, or backward (x - m) mod K, of one-hot rows ``(*batch, K)``: a circular convolution, linear in both."""
    count = x.shape[-1]
    grid = torch.arange(count, device=x.device)
    index = (grid[:, None] + grid if backward else grid[:, None] - grid) % count  # of x, for each result and shift
    return (x[..., index] * shift.unsqueeze(-2)).sum(-1)


def require_counting(latent: Measure, owner: str) -> Measure:
    """Return the latent measure if it is a counting measure.

    Raises:
        KindError: for any other measure.
    """
    if latent.name != "Counting":
        raise KindError(
            f"{owner} transforms categories, so the rest of the chain must be on a counting measure; it is on {latent}."
        )
    return latent
