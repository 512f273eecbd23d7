"""What a likelihood *is*: its kind to the true value and the measure that it refers to.

Eight different numbers are called "log-likelihood" in the literature. Here the number carries its kind on two
independent axes, and operations that would be wrong raise :class:`~pushforward.errors.KindError`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

import torch
from torch import Tensor

from pushforward.errors import KindError

__all__ = [
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

    The order is that of implication: EXACT implies UNBIASED, which implies LOWER_BOUND and UPPER_BOUND in expectation.
    Contributions of a chain add, so the kind of a sum is the weakest statement that all terms imply.
    """

    EXACT = "exact"
    """v = L."""
    UNBIASED = "unbiased"
    """E v = L over the transform's own randomness; comes with a standard error."""
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
    """Kind of a sum of terms; EXACT when there is none."""
    result = Kind.EXACT
    for kind in kinds:
        result = result | kind
    return result


@dataclass(frozen=True)
class Measure:
    """The measure that a density refers to. Two log-likelihoods compare only if their measures are equal.

    Made by :func:`Lebesgue`, :func:`Counting`, :func:`Mixed`, :func:`Manifold` and :func:`Extended`.
    """

    name: str
    dim: int
    """Coordinates that carry the density."""
    ambient: int
    """Coordinates of a data point."""
    counted: int = 0
    """Coordinates under the counting measure."""
    surface: str = field(default="", compare=False, repr=False)
    """Which surface a manifold is, where that is known, as :data:`SPHERE`. Area is area on any, so it does not tell measures apart."""

    def __str__(self) -> str:
        match self.name:
            case "Mixed":
                return f"Mixed({self.dim - self.counted} continuous, {self.counted} counted)"
            case "Manifold" | "Extended":
                return f"{self.name}({self.dim}, {self.ambient})"
        return f"{self.name}({self.dim})"


def Lebesgue(dim: int) -> Measure:
    """Volume on R^D: the density of a flow on continuous data."""
    return Measure("Lebesgue", dim, dim)


def Counting(dim: int) -> Measure:
    """Counting measure on D integers: the log-probability of a discrete point, as of pixels."""
    return Measure("Counting", dim, dim, dim)


def Mixed(continuous: int, counted: int) -> Measure:
    """Product of Lebesgue and counting measure: a table with real and with integer columns."""
    if counted == 0:
        return Lebesgue(continuous)
    if continuous == 0:
        return Counting(counted)
    return Measure("Mixed", continuous + counted, continuous + counted, counted)


SPHERE = "sphere"
"""All points at one distance from 0."""


def Manifold(dim: int, ambient: int, surface: str = "") -> Measure:
    """Surface measure on a d-dimensional manifold in R^D; ``surface`` names it for transforms that were made for one alone."""
    return Measure("Manifold", dim, ambient, surface=surface)


def Extended(dim: int, ambient: int) -> Measure:
    """Volume on an extended space of D + k coordinates over data of D coordinates."""
    return Measure("Extended", dim, ambient)


@dataclass(frozen=True)
class Support:
    """Where every coordinate lies: the domain or codomain of a transform, or where a base has mass.

    A box, and possibly a named constraint between the coordinates of the last dimension, which cuts a part out of it.

    Args:
        low: lower end of every coordinate.
        high: upper end of every coordinate.
        within: name of the constraint: "" for none, or "increasing" for x_1 <= x_2 <= ... <= x_D. Another name is a set
            of which nothing is known but that it is no larger than the box; see :meth:`reordered`.
    """

    low: float = -math.inf
    high: float = math.inf
    within: str = ""

    def __str__(self) -> str:
        box = "the reals" if math.isinf(self.low) and math.isinf(self.high) else f"({self.low:g}, {self.high:g})"
        return f"{box}, {self.within}" if self.within else box

    def contains(self, x: Tensor) -> Tensor:
        """Elementwise test, with the border included; an increasing coordinate is not below the one before it."""
        inside = (x >= self.low) & (x <= self.high)
        if self.within == "increasing":
            inside = inside & (torch.diff(x, dim=-1, prepend=x[..., :1]) >= 0)
        return inside

    def covers(self, other: Support) -> bool:
        """Whether ``other`` is known to lie within this one."""
        return self.low <= other.low and other.high <= self.high and self.within in ("", other.within)

    def reordered(self, name: str) -> Support:
        """This set after coordinates were moved about by ``name``: the same box, and an unknown part of it if part it was."""
        return Support(self.low, self.high, f"{self.within} before {name}") if self.within else self


REAL = Support()
UNIT = Support(0.0, 1.0)


@dataclass(frozen=True)
class LogLik:
    """Log-likelihoods of a batch that know what they are.

    Args:
        value: nats, shape ``batch``.
        kind: how ``value`` relates to the true log-likelihood.
        measure: what the density refers to.
        stderr: standard error of ``value`` over the model's own randomness, shape ``batch``, or None.
        residual: squared distance of each row to the manifold, shape ``batch``, or None.
        terms: the contribution of each transform, of the base, and of anything else that adds up to ``value``.
    """

    value: Tensor
    kind: Kind
    measure: Measure
    stderr: Tensor | None = None
    residual: Tensor | None = None
    terms: Mapping[str, Tensor] = field(default_factory=lambda: MappingProxyType({}))

    def bits_per_dim(self) -> Tensor:
        """-log2 p per coordinate, shape ``batch``; only for the probability of discrete data.

        Raises:
            KindError: unless the measure is Counting and the kind EXACT, UNBIASED or LOWER_BOUND.
        """
        if self.measure.name != "Counting":
            raise KindError(
                f"bits/dim is defined for the probability of discrete data, and this is a density on {self.measure}: "
                "read .nats_per_dim() or .value, or put a dequantization transform first in the chain."
                if self.measure.name in ("Lebesgue", "Mixed")
                else f"bits/dim is not defined on {self.measure}: read .value together with .residual."
            )
        if self.kind not in (Kind.EXACT, Kind.UNBIASED, Kind.LOWER_BOUND):
            raise KindError(f"bits/dim of a value that is {_named(self.kind)} would promise too much: read .value.")
        return -self.value / (self.measure.dim * math.log(2.0))

    def nats_per_dim(self) -> Tensor:
        """-log p per coordinate in nats, shape ``batch``.

        Raises:
            KindError: on a manifold or an extended space, or for an unnormalized value.
        """
        if self.measure.name in ("Manifold", "Extended") or self.kind is Kind.UNNORMALIZED:
            raise KindError(f"nats/dim is not defined for {_named(self.kind)} value on {self.measure}: read .value.")
        return -self.value / self.measure.dim

    def __sub__(self, other: LogLik) -> Tensor:
        """Difference in nats of two log-likelihoods of the same rows, shape ``batch``.

        Raises:
            KindError: if the measures differ, or one value lacks an unknown constant.
        """
        if not isinstance(other, LogLik):
            return NotImplemented
        if self.measure != other.measure:
            raise KindError(
                f"a density on {self.measure} and one on {other.measure} have different units, so their difference "
                "means nothing: bring both models to the same data space, or compare ranks with a calibrated p-value."
            )
        if Kind.UNNORMALIZED in (self.kind, other.kind) and self.kind is not other.kind:
            raise KindError("an unnormalized value and a normalized one differ by an unknown constant.")
        return self.value - other.value

    def require_log_prob(self) -> Tensor:
        """``value`` if it is the exact log-density or log-probability of the data, else an error that says why."""
        require_log_prob(self.kind, self.measure)
        return self.value

    def __repr__(self) -> str:
        shape = tuple(self.value.shape)
        mean = self.value.double().mean().item() if self.value.numel() else math.nan
        return f"LogLik({_named(self.kind)} value on {self.measure}, shape {shape}, mean {mean:.4g} nats)"


def require_log_prob(kind: Kind, measure: Measure) -> None:
    """Refuse to call a number ``log_prob`` that is not one.

    Raises:
        KindError: unless the kind is EXACT and the measure Lebesgue, Counting or Mixed.
    """
    if kind is not Kind.EXACT:
        raise KindError(
            f"log_prob would hide that this model gives {_named(kind)} value: call evaluate(x), which returns the "
            "number with its kind, measure and standard error."
        )
    if measure.name in ("Manifold", "Extended"):
        raise KindError(
            f"log_prob would hide that this density lives on {measure}, not on the data space: call evaluate(x), which "
            "returns the number with its measure and the residual."
        )


def _named(kind: Kind) -> str:
    article = "an" if kind.value[0] in "aeiou" else "a"
    return f"{article} {kind.value}"
