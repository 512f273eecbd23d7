"""The kinds of cases, draws of legal data, small settings and short constructors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

from pushforward import models, transforms
from pushforward.errors import KindWarning
from pushforward.likelihood import Kind, Measure
from pushforward.models.base import Model

Draw = Callable[[tuple[int, ...], Generator], Tensor]


def normal(shape: tuple[int, ...], generator: Generator) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def unit(shape: tuple[int, ...], generator: Generator) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=generator)


def signed_unit(shape: tuple[int, ...], generator: Generator) -> Tensor:
    return 2 * unit(shape, generator) - 1


def positive(shape: tuple[int, ...], generator: Generator) -> Tensor:
    return normal(shape, generator).exp()


def bounded(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Four columns: in (-1, 2.5), above 0.5, below 4, and real."""
    x = normal(shape, generator)
    ends = (3.5 * torch.sigmoid(x[..., 0]) - 1, 0.5 + x[..., 1].exp(), 4 - x[..., 2].exp(), x[..., 3])
    return torch.stack(ends, -1)


def proportions(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """The first D of D + 1 positive numbers with sum 1."""
    parts = positive((*shape[:-1], shape[-1] + 1), generator)
    return (parts / parts.sum(-1, keepdim=True))[..., :-1]


def correlations(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Entries below the diagonal of the correlation matrices of a few random vectors."""
    size = round((1 + math.sqrt(1 + 8 * shape[-1])) / 2)
    rows = normal((*shape[:-1], size, size + 2), generator)
    rows = rows / rows.norm(dim=-1, keepdim=True)
    i, j = torch.tril_indices(size, size, -1)
    return (rows @ rows.mT)[..., i, j]


def real_positive_proportions(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """One real number, one positive, and proportions."""
    assert shape[-1] > 2
    rest = (*shape[:-1], shape[-1] - 2)
    one = (*shape[:-1], 1)
    return torch.cat((normal(one, generator), positive(one, generator), proportions(rest, generator)), -1)


def angles(shape: tuple[int, ...], generator: Generator) -> Tensor:
    return math.pi * signed_unit(shape, generator)


def integers(levels: int) -> Draw:
    return lambda shape, generator: torch.randint(levels, shape, generator=generator).double()


def shifted(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Data that are not standardized."""
    return 2 * normal(shape, generator) + 3


def lattice(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """First column real, the others on the lattice 0.5 + 0.25 k."""
    x = normal(shape, generator)
    x[..., 1:] = 0.5 + 0.25 * torch.floor(4 * x[..., 1:])
    return x


def with_missing(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Value, indicator of a missing value (the value is then 0), and a plain column."""
    x = normal(shape, generator)
    x[..., 1] = (x[..., 1] > 0).double()
    x[..., 0] = torch.where(x[..., 1] > 0.5, 0.0, x[..., 0])
    return x


@dataclass(frozen=True, eq=False)
class Case:
    """One way to build a registered class.

    Attributes:
        name: registered name.
        label: what is special about it.
        make: builds it.
        data: legal data of unit spread, float64, in a given shape.
    """

    name: str
    label: str
    make: Callable[[], Any]
    data: Draw = normal

    def __str__(self) -> str:
        return f"{self.name.split('.')[1]}[{self.label}]"


@dataclass(frozen=True, eq=False)
class TransformCase(Case):
    """A transform.

    Attributes:
        kind: of its contribution.
        latent_measure: what the rest of a chain refers to; None for Lebesgue(D).
        data_measure: of the data, given the latent one; None for the same.
        reach: largest coordinate that survives a round trip, by type.
        bijective: whether encode has an inverse and a Jacobian.
        casts: whether it changes the floating type.
        noisy: whether a contribution that is not exact comes with noise of its own.
    """

    kind: Kind = Kind.EXACT
    latent_measure: Measure | None = None
    data_measure: Measure | None = None
    reach: dict[torch.dtype, float] = field(default_factory=dict)
    bijective: bool = True
    casts: bool = False
    noisy: bool = True


@dataclass(frozen=True, eq=False)
class DistributionCase(Case):
    """A base.

    Attributes:
        bounded: whether the log-density is finite and the same everywhere inside, so that it has no gradient.
        measure: None for Lebesgue(D).
    """

    bounded: bool = False
    measure: Measure | None = None


@dataclass(frozen=True, eq=False)
class ModelCase(Case):
    """A model.

    Attributes:
        kind: of its likelihood.
        measure: None for Lebesgue(D).
        fast: the direction that takes one pass.
        invertible: whether decode(encode(x)) is x.
        draws: whether decoding draws from p(x | z), so that it does not repeat a sample.
        noisy: whether a likelihood that is not exact comes with noise of its own.
        exports: whether torch can export it: forward-mode derivatives have no rules yet for batches of any size.
    """

    kind: Kind = Kind.EXACT
    measure: Measure | None = None
    fast: str = "both"
    invertible: bool = True
    draws: bool = False
    noisy: bool = True
    exports: bool = True

    @property
    def surface(self) -> bool:
        """Whether the density is on a manifold, so that the value of a row is that of its projection."""
        return self.measure is not None and self.measure.name == "Manifold"

    @property
    def has_log_prob(self) -> bool:
        """Whether the number is an exact density or probability of the data themselves."""
        return self.kind is Kind.EXACT and not self.surface


@dataclass(frozen=True, eq=False)
class ScoreCase(Case):
    """A score or statistic.

    Attributes:
        shape: of one row.
        reach: largest coordinate at which the score must be finite.
        infinite: whether a row that is infinitely far scores +inf (else it must be finite or +inf, never NaN).
    """

    shape: tuple[int, ...] = (2,)
    reach: float = 1e6
    infinite: bool = True


def silently(make: Callable[[], Any]) -> Callable[[], Any]:
    """A constructor without its warning that the likelihood is a bound."""

    def build() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", KindWarning)
            return make()

    return build


H = {"hidden": (16, 16)}
SPLINE = transforms.SplineTransformer(bins=5, bound=3.0)
CIRCLE = transforms.CircularSplineTransformer(bins=5)
# exp leaves the range of the type beyond these.
EXP_REACH = {torch.float32: 80.0, torch.float64: 600.0}
# SoftTail decodes by sinh, which it bounds at asinh(1e30) = 69 widths of 3.
SINH_REACH = {torch.float32: 50.0, torch.float64: 50.0}
SMALL: dict[str, Any] = {"hidden": (16,)}
NSF: dict[str, Any] = {"layers": 2, "bins": 5, "hidden": (16,)}


def m(name: str, label: str, make: Callable[[], Any], data: Draw = normal, **more: Any) -> TransformCase:
    return TransformCase(f"transforms.{name}", label, make, data, **more)


def b(name: str, label: str, make: Callable[[], Any], data: Draw = normal, **more: Any) -> DistributionCase:
    return DistributionCase(name if "." in name else f"distributions.{name}", label, make, data, **more)


def f(name: str, label: str, make: Callable[[], Any], data: Draw = shifted, **more: Any) -> ModelCase:
    return ModelCase(f"models.{name}", label, make, data, **more)


def s(name: str, label: str, make: Callable[[], Any], data: Draw = normal, **more: Any) -> ScoreCase:
    return ScoreCase(f"scores.{name}", label, make, data, **more)


def flow(*parts: Any) -> Callable[[], Model]:
    """A Flow of constructors, the base last."""

    def build() -> Model:
        made = [part() for part in parts]
        return models.Flow(transforms.Chain(*made[:-1]), made[-1])

    return build


def pair(*, context: int = 0) -> tuple[Model, Model]:
    return (
        models.NICE(2, context=context, layers=2, hidden=(16,)),
        models.NSF(2, context=context, layers=2, bins=4, hidden=(16,)),
    )
