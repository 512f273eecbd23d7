"""Surjections, stochastic maps, funnels, and autoencoders within flows."""

from __future__ import annotations

from typing import Any

from torch import Generator, Tensor

from pushforward import bases, maps
from pushforward.measure import Lebesgue, Relation

from .kinds import SPLINE, BaseCase, MapCase, ModelCase, b, f, flow, m, normal, positive

S = (8,)
SURJECTIVE: dict[str, Any] = {"invertible": False, "draws": True}


def increasing(shape: tuple[int, ...], generator: Generator) -> Tensor:
    return normal(shape, generator).sort(-1).values


def onto(dim: int, data: int, **more: Any) -> dict[str, Any]:
    """A map that is no bijection, from Lebesgue(data) to Lebesgue(dim)."""
    return {"latent_measure": Lebesgue(dim), "data_measure": Lebesgue(data), "bijective": False, **more}


MAPS: list[MapCase] = [
    m(
        "Slice",
        "indices, spline",
        lambda: maps.Slice(3, (2,), maps.Monotone(2, SPLINE, context=1, hidden=S)),
        **onto(1, 3),
    ),
    m("Slice", "normal", lambda: maps.Slice(4, 2, hidden=S), **onto(2, 4)),
    m("Augment", "normal", lambda: maps.Augment(2, 1, hidden=S), **onto(3, 2, relation=Relation.LOWER)),
    m("Abs", "fixed", lambda: maps.Abs((1, 2, 2), probability=0.3), bijective=False),
    m("Abs", "learned", lambda: maps.Abs(2, hidden=S), bijective=False),
    m("Sort", "uniform", lambda: maps.Sort(3), bijective=False),
    m("Sort", "learned", lambda: maps.Sort(3, hidden=S), bijective=False),
    m("Gaps", "D=3", lambda: maps.Gaps(3), increasing),
    m("StochasticPermutation", "D=5", lambda: maps.StochasticPermutation(5), relation=Relation.LOWER, bijective=False),
    m("Max", "K=3", lambda: maps.Max(3, hidden=S), **onto(1, 3)),
    m("MaxPool", "two channels", lambda: maps.MaxPool((2, 4, 2), hidden=S), **onto(4, 16)),
]

# Their quadrature is in tests/bases: they live on half of space, and on a cone.
BASES: list[BaseCase] = [
    b("HalfNormal", "D=2", lambda: bases.HalfNormal(2), positive, measure=Lebesgue(2)),
    b("SortedNormal", "D=3", lambda: bases.SortedNormal(3), increasing, measure=Lebesgue(3)),
]

MODELS: list[ModelCase] = [
    f("Flow", "abs, half-normal", flow(lambda: maps.Abs(2, hidden=S), lambda: bases.HalfNormal(2)), **SURJECTIVE),
    f("Flow", "sort, gaps",
      flow(lambda: maps.Sort(2, hidden=S), lambda: maps.Gaps(2), lambda: maps.Coupling(2, hidden=S), lambda: bases.Normal(2)),
      **SURJECTIVE),
    f("Flow", "slice, D=2", flow(lambda: maps.Coupling(2, hidden=S), lambda: maps.Slice(2, hidden=S), lambda: bases.Normal(1)),
      **SURJECTIVE),
    f("Flow", "max, K=2", flow(lambda: maps.Max(2, hidden=S), lambda: bases.Normal(1)), **SURJECTIVE),
    f("Flow", "max pool", flow(lambda: maps.MaxPool((1, 2, 2), SPLINE, hidden=S), lambda: bases.Normal((1, 1, 1))),
      **SURJECTIVE),
    f("Flow", "augment", flow(lambda: maps.Augment(1, hidden=S), lambda: maps.Coupling(2, hidden=S), lambda: bases.Normal(2)),
      relation=Relation.LOWER, **SURJECTIVE),
]  # fmt: skip
