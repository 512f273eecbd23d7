"""What a log-likelihood means: how it relates to the true value (`Kind`), and which measure its density refers to (`Measure`).

The literature calls eight different numbers a "log-likelihood". :class:`LogLik` is a number with its kind and its measure, and
operations that would be wrong raise :class:`~pushforward.errors.KindError`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

import torch
from torch import Tensor

from pushforward.display import card, table
from pushforward.errors import KindError
from pushforward.numerics.tracing import constant

__all__ = [
    "CIRCLE",
    "REAL",
    "UNIT",
    "Counting",
    "Extended",
    "Kind",
    "Lebesgue",
    "LogLik",
    "Manifold",
    "Measure",
    "Mixed",
    "Support",
    "join",
]  # fmt: skip


class Kind(Enum):
    """How a returned value v relates to the true log-likelihood L of the model.

    EXACT implies UNBIASED, which implies LOWER_BOUND and UPPER_BOUND. The contributions of a chain are added, and the kind of a
    sum is the strongest statement that holds for every term (:func:`join`).

    Example:
        >>> import torch, pushforward as pf
        >>> vae = pf.models.VAE(3, latent=2, hidden=(8,))
        >>> vae.evaluate(torch.zeros(1, 3)).kind.value
        'lower bound'
    """

    EXACT = "exact"
    """v = L."""
    UNBIASED = "unbiased"
    """E v = L over the model's own randomness; it comes with a standard error."""
    LOWER_BOUND = "lower bound"
    """E v <= L."""
    UPPER_BOUND = "upper bound"
    """E v >= L."""
    ESTIMATE = "estimate"
    """No guarantee."""
    UNNORMALIZED = "unnormalized"
    """v = L + an unknown constant."""

    def __or__(self, other: Kind) -> Kind:
        """Join: the kind of a sum of two terms.

        >>> Kind.EXACT | Kind.LOWER_BOUND
        <Kind.LOWER_BOUND: 'lower bound'>
        >>> Kind.LOWER_BOUND | Kind.UPPER_BOUND
        <Kind.ESTIMATE: 'estimate'>
        """
        low, high = sorted((self, other), key=_ORDER.index)
        if {low, high} == {Kind.LOWER_BOUND, Kind.UPPER_BOUND}:
            return Kind.ESTIMATE
        return high


_ORDER = list(Kind)


def join(*kinds: Kind) -> Kind:
    """Kind of a sum of terms; EXACT for no terms.

    Example:
        >>> from pushforward.likelihood import Kind, join
        >>> join(Kind.EXACT, Kind.LOWER_BOUND).value
        'lower bound'
    """
    result = Kind.EXACT
    for kind in kinds:
        result = result | kind
    return result


@dataclass(frozen=True)
class Measure:
    """The measure that a density refers to. Two log-likelihoods compare only if their measures are equal.

    Made by :func:`Lebesgue`, :func:`Counting`, :func:`Mixed`, :func:`Manifold` and :func:`Extended`.

    Example:
        >>> import pushforward as pf
        >>> pf.Lebesgue(2) == pf.Lebesgue(2), pf.Lebesgue(2) == pf.Counting(2)
        (True, False)
    """

    name: str
    dim: int
    """Dimension that the density refers to."""
    ambient: int
    """Number of coordinates of a data point."""
    counted: int = 0
    """Number of coordinates under the counting measure."""
    manifold: str = field(default="", compare=False, repr=False)
    """Name of the manifold, such as :data:`SPHERE`, if it is known. Measures of different manifolds of one dimension are equal."""

    def __str__(self) -> str:
        match self.name:
            case "Mixed":
                return f"Mixed({self.dim - self.counted} continuous, {self.counted} counted)"
            case "Manifold" | "Extended":
                return f"{self.name}({self.dim}, {self.ambient})"
        return f"{self.name}({self.dim})"


def Lebesgue(dim: int) -> Measure:
    """Volume on R^D, for the density of continuous data.

    Example:
        >>> import pushforward as pf
        >>> print(pf.Lebesgue(2))
        Lebesgue(2)
    """
    return Measure("Lebesgue", dim, dim)


def Counting(dim: int) -> Measure:
    """Counting measure on D integers, for the probability of discrete data such as pixels.

    Example:
        >>> import pushforward as pf
        >>> print(pf.Counting(784))
        Counting(784)
    """
    return Measure("Counting", dim, dim, dim)


def Mixed(continuous: int, counted: int) -> Measure:
    """Product of Lebesgue and counting measure, for a table with real and with integer columns.

    Example:
        >>> import pushforward as pf
        >>> print(pf.Mixed(continuous=3, counted=2))
        Mixed(3 continuous, 2 counted)
    """
    if counted == 0:
        return Lebesgue(continuous)
    if continuous == 0:
        return Counting(counted)
    return Measure("Mixed", continuous + counted, continuous + counted, counted)


SPHERE = "sphere"
"""The manifold of all points at one distance from 0."""


def Manifold(dim: int, ambient: int, name: str = "") -> Measure:
    """Area on a d-dimensional manifold in R^D; ``name`` is for transforms that are right on one manifold only.

    Example:
        >>> import pushforward as pf
        >>> print(pf.Manifold(2, 3))
        Manifold(2, 3)
    """
    return Measure("Manifold", dim, ambient, manifold=name)


def Extended(dim: int, ambient: int) -> Measure:
    """Volume on an extended space of D + k coordinates, for data of D coordinates.

    Example:
        >>> import pushforward as pf
        >>> print(pf.Extended(5, 3))
        Extended(5, 3)
    """
    return Measure("Extended", dim, ambient)


_ROUNDING = 1e-6
_FLOAT32 = 2.0**-23
"""Largest relative distance of neighboring numbers in float32."""


def _at_most(end: float, other: float) -> bool:
    return end <= other or (math.isfinite(other) and end <= other + _ROUNDING * abs(other))


def reach(low: float, high: float) -> tuple[float, float]:
    """The ends up to which a coordinate counts as inside: those of angles, -pi and pi, with the rounding of float32.

    pi in float32 is more than pi in float64, and both are the same angle. All other ends are as they are.
    """
    if low == -math.pi and high == math.pi:
        return low * (1 + _FLOAT32), high * (1 + _FLOAT32)
    return low, high


_NAMED = ("increasing", "simplex", "correlation")
"""Constraints that say which part of a box is meant; every other name stands for an unknown part."""


@dataclass(frozen=True)
class Support:
    """A set of points: the domain or codomain of a transform, or the support of a distribution.

    It is a box, or the part of a box that meets a constraint between the coordinates of the last dimension.

    Args:
        low: lower end of every coordinate, or the lowest if ``ends`` is given.
        high: upper end of every coordinate, or the highest.
        within: name of the constraint: "" for none, or "increasing" for x_1 <= x_2 <= ... <= x_D. Any other name stands for an
            unknown part of the box; see :meth:`reordered`.
        ends: for vectors whose coordinates have different ends, the pair (low, high) of each; see :meth:`joined`.

    Example:
        >>> from pushforward.likelihood import Support
        >>> print(Support(0.0, 1.0))
        (0, 1)
    """

    low: float = -math.inf
    high: float = math.inf
    within: str = ""
    ends: tuple[tuple[float, float], ...] = ()

    @staticmethod
    def joined(parts: Sequence[tuple[Support, int]]) -> Support:
        """The support of a vector made of vectors side by side, each given by its support and its number of coordinates."""
        low, high = min(part.low for part, _ in parts), max(part.high for part, _ in parts)
        if any(part.within for part, _ in parts):
            return Support(low, high, "with constraints between some coordinates")
        ends = tuple(
            itertools.chain.from_iterable(part.ends or ((part.low, part.high),) * width for part, width in parts)
        )
        return Support(low, high, ends=() if len(set(ends)) == 1 else ends)

    def __str__(self) -> str:
        if self.ends:
            boxes = dict.fromkeys(str(Support(low, high)) for low, high in self.ends)
            return f"{' or '.join(boxes)}, by coordinate"
        box = "the reals" if math.isinf(self.low) and math.isinf(self.high) else f"({self.low:g}, {self.high:g})"
        return f"{box}, {self.within}" if self.within else box

    def contains(self, x: Tensor) -> Tensor:
        """For each coordinate, whether it lies in the box, ends included, and not below the one before it if "increasing".

        Angles may exceed pi by the rounding of float32.
        """
        low, high = reach(self.low, self.high)
        if self.ends:
            dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
            ends = tuple(itertools.starmap(reach, self.ends))
            low, high = (constant(column, dtype, x.device) for column in zip(*ends, strict=True))
        inside = (x >= low) & (x <= high)
        if self.within == "increasing":
            inside = inside & (torch.diff(x, dim=-1, prepend=x[..., :1]) >= 0)
        return inside

    def covers(self, other: Support) -> bool:
        """Whether ``other`` is known to be a subset of this set, up to the rounding of ends that parameters in float32 give."""
        count = max(len(self.ends), len(other.ends), 1)
        mine, others = (box.ends or ((box.low, box.high),) * count for box in (self, other))
        inside = len(mine) == len(others) and all(
            _at_most(low, c) and _at_most(-high, -d) for (low, high), (c, d) in zip(mine, others, strict=True)
        )
        return inside and (not self.within or (self.within == other.within and self.within in _NAMED))

    def reordered(self, name: str) -> Support:
        """This set after the transform ``name`` reordered coordinates: the same box, or an unknown part of it."""
        if not self.within and not self.ends:
            return self
        return Support(self.low, self.high, f"{self.within or 'bounds by coordinate'} before {name}")


REAL = Support()
UNIT = Support(0.0, 1.0)
CIRCLE = Support(-math.pi, math.pi)


@dataclass(frozen=True)
class LogLik:
    """Log-likelihoods of a batch, with their kind and measure.

    Args:
        value: nats, shape ``batch``.
        kind: how ``value`` relates to the true log-likelihood.
        measure: the measure that the density refers to.
        stderr: standard error of ``value`` over the model's own randomness, shape ``batch``; None if there is none.
        residual: squared distance of each row to the manifold, shape ``batch``; None for other models.
        terms: the terms that add up to ``value``: the contribution of each transform, and the base's log-density. Those of
            several draws are means over the draws, so their sum is the mean log-likelihood of a draw. A row with an infinite
            entry has the value -inf, whatever its terms are.

    Example:
        >>> import torch, pushforward as pf
        >>> found = pf.models.NICE(features=2).evaluate(torch.zeros(3, 2))
        >>> found.kind.value, str(found.measure), found.value.shape
        ('exact', 'Lebesgue(2)', torch.Size([3]))
    """

    value: Tensor
    kind: Kind
    measure: Measure
    stderr: Tensor | None = None
    residual: Tensor | None = None
    terms: Mapping[str, Tensor] = field(default_factory=lambda: MappingProxyType({}))

    def bits_per_dim(self) -> Tensor:
        """-log2 p for each coordinate, shape ``batch``; for the probability of discrete data only.

        Raises:
            KindError: unless the measure is Counting and the kind EXACT, UNBIASED or LOWER_BOUND.
        """
        if self.measure.name != "Counting":
            raise KindError(
                f"bits_per_dim is for the probability of discrete data, and this is a density on {self.measure}: use "
                ".nats_per_dim() or .value, or put a dequantization first in the chain."
                if self.measure.name in ("Lebesgue", "Mixed")
                else f"bits_per_dim is not defined for a density on {self.measure}: use .value together with .residual."
            )
        if self.kind not in (Kind.EXACT, Kind.UNBIASED, Kind.LOWER_BOUND):
            raise KindError(f"bits_per_dim is not defined for {_named(self.kind)} value: use .value.")
        return -self.value / (self.measure.dim * math.log(2.0))

    def nats_per_dim(self) -> Tensor:
        """-log p for each coordinate in nats, shape ``batch``.

        Raises:
            KindError: on a manifold or an extended space, or for an unnormalized value.
        """
        if self.measure.name in ("Manifold", "Extended") or self.kind is Kind.UNNORMALIZED:
            raise KindError(f"nats_per_dim is not defined for {_named(self.kind)} value on {self.measure}: use .value.")
        return -self.value / self.measure.dim

    def __sub__(self, other: LogLik) -> Tensor:
        """Difference in nats of two log-likelihoods of the same rows, shape ``batch``.

        Raises:
            KindError: if the measures differ, or only one of the values is unnormalized.
        """
        if not isinstance(other, LogLik):
            return NotImplemented
        if self.measure != other.measure:
            raise KindError(
                f"a density on {self.measure} and one on {other.measure} have different units, so their difference has no "
                "meaning: use models of the same data space, or compare calibrated p-values."
            )
        if Kind.UNNORMALIZED in (self.kind, other.kind) and self.kind is not other.kind:
            raise KindError(
                "an unnormalized value and a normalized one differ by an unknown constant: compare rows of one model."
            )
        return self.value - other.value

    def require_log_prob(self) -> Tensor:
        """``value``, if it is the exact log-density or log-probability of the data.

        Raises:
            KindError: if it is not.
        """
        require_log_prob(self.kind, self.measure)
        return self.value

    def __repr__(self) -> str:
        shape = tuple(self.value.shape)
        mean = self.value.double().mean().item() if self.value.numel() else math.nan
        return f"LogLik({_named(self.kind)} value on {self.measure}, shape {shape}, mean {mean:.4g} nats)"

    def _repr_html_(self) -> str:
        """The mean of the value and of its terms, for a notebook."""
        value = self.value.detach().double()
        rows = value.numel()
        terms = [
            (name, f"{term.detach().double().mean().item():.4g}") for name, term in self.terms.items() if term.numel()
        ]
        facts = [
            ("kind", self.kind.value), ("measure", self.measure), ("shape", tuple(value.shape)),
            ("mean", f"{value.mean().item():.4g} nats" if rows else None),
            ("smallest, largest", f"{value.min().item():.4g}, {value.max().item():.4g} nats" if rows else None),
            ("mean standard error", None if self.stderr is None or not rows else
             f"{self.stderr.detach().double().mean().item():.2g} nats"),
            ("mean squared distance to the manifold", None if self.residual is None or not rows else
             f"{self.residual.detach().double().mean().item():.4g}"),
        ]  # fmt: skip
        more = table(("term", "mean, nats"), terms, f"{len(terms)} terms") if terms else ""
        return card("Log-likelihood", facts, more)


def require_log_prob(kind: Kind, measure: Measure) -> None:
    """Refuse a number that is not a log-probability or log-density of the data.

    Raises:
        KindError: unless the kind is EXACT and the measure is Lebesgue, Counting or Mixed.
    """
    if kind is not Kind.EXACT:
        raise KindError(
            f"log_prob is for exact values, and this model gives {_named(kind)} value: call evaluate(x), which returns it with "
            "its kind, measure and standard error."
        )
    if measure.name in ("Manifold", "Extended"):
        raise KindError(
            f"log_prob is for densities on the data space, and this one is on {measure}: call evaluate(x), which returns it with "
            "its measure and the residual."
        )


def _named(kind: Kind) -> str:
    article = "an" if kind.value[0] in "aeiou" else "a"
    return f"{article} {kind.value}"
