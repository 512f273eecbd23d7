"""The default density for tables: careful columns under a small ensemble of flows."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from pushforward.detection.table_features import TableFeatures
from pushforward.models import MAF, NICE, NSF, Ensemble, Flow, Model, RealNVP
from pushforward.numerics.checks import check_choice
from pushforward.registry import describe
from pushforward.training import fit_members
from pushforward.transforms import (
    AugmentMissing,
    Cast,
    Chain,
    Jitter,
    LatticeDequantize,
    SoftTail,
    Standardize,
    Transform,
)

__all__ = ["KINDS", "explainer", "fit_table_density", "member", "preprocessing"]

KINDS = ("auto", "nice", "realnvp", "maf", "nsf")


def preprocessing(layout: TableFeatures, jitter: float = 0.05) -> list[Transform]:
    """The transforms that make a table's matrix fit for a flow, in float64, ending in float32.

    Missing values augmented, lattice columns dequantized, robust scaling (median and quartiles), a soft tail beyond
    three robust deviations, Gaussian noise while training.
    """
    width = layout.features
    transforms: list[Transform] = []
    if layout.indicators:
        flags = tuple(len(layout.kept) + k for k in range(len(layout.indicators)))
        transforms.append(AugmentMissing(width, columns=layout.indicators, indicators=flags))
    if layout.lattices:
        columns, origins, steps = zip(*layout.lattices, strict=True)
        transforms.append(LatticeDequantize(width, columns=columns, steps=steps, origins=origins))
    transforms += [Standardize(width, robust=True), SoftTail(width, width=3.0)]
    transforms = [part.double() for part in transforms]
    return [*transforms, Cast(width), Jitter(width, std=jitter)]


def member(kind: str, index: int, features: int, rows: int) -> Model:
    """One small flow of the ensemble.

    "auto" takes additive and soft-clamped affine couplings in turn, and an autoregressive spline flow in the order of
    the columns as the first, whose chain rule explains a row. Sizes shrink with the number of rows.

    Raises:
        ConfigError: for an unknown kind.
    """
    check_choice("model", kind, KINDS)
    width = 32 if rows < 200 else 64 if rows < 2000 else 128
    couplings = 4 if rows < 200 else 8
    if kind == "auto":
        kind = "ordered" if index == 0 else ("nice", "realnvp")[index % 2]
    if kind == "nice":
        return NICE(features, layers=couplings, hidden=(width, width), prior="normal")
    if kind == "realnvp":
        return RealNVP(features, layers=couplings, hidden=(width, width), max_log_scale=2.0)
    if kind == "maf":
        return MAF(features, layers=5, hidden=(width, width), max_log_scale=2.0)
    bins = 8 if features <= 64 else 4
    if kind == "nsf":
        return NSF(features, layers=4, hidden=(width, width), bins=bins)
    return NSF(
        features,
        layer="autoregressive",
        linear="none",
        layers=2,
        hidden=(width,),
        bins=bins,
    )


def fit_table_density(
    train: np.ndarray,
    validation: np.ndarray,
    layout: TableFeatures,
    *,
    kind: str = "auto",
    members: int = 5,
    jitter: float = 0.05,
    seed: int = 0,
    max_time: float | None = None,
    on_member: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Flow:
    """Fit the preprocessing once and the members, those of one architecture together.

    Args:
        train: matrix of ``layout.matrix``, float64.
        validation: held-out rows of the same, for early stopping.
        layout: of the table.
        kind: see :func:`member`.
        members: flows in the ensemble.
        jitter: standard deviation of the training noise, in robust deviations.
        seed: member k is built and trained from ``seed + k``.
        max_time: seconds for all members together.
        on_member: called with (index, members) before each group of equal members is trained, with the first one's index.
        **options: passed on to ``pf.fit``.

    Returns:
        A model of the table's matrix: preprocessing transforms over an :class:`~pushforward.models.Ensemble`.
    """
    transforms = preprocessing(layout, jitter)
    rows = torch.from_numpy(train)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        Chain(*transforms).initialize(rows, noise=generator)
    held_out = torch.from_numpy(validation) if len(validation) else None
    flows: list[Model] = []
    alike: dict[str, list[int]] = {}
    for k in range(members):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + k)
            flows.append(member(kind, k, layout.features, len(train)))
        alike.setdefault(json.dumps(describe(flows[k]), sort_keys=True), []).append(k)
    for group in alike.values():
        if on_member is not None:
            on_member(group[0], members)
        wholes = [Flow(Chain(*transforms, flows[k].chain), flows[k].base) for k in group]
        share = None if max_time is None else max_time * len(group) / members
        seeds = [seed + k for k in group]
        fit_members(wholes, rows, validation=held_out, seeds=seeds, max_time=share, **options)
    return Flow(Chain(*transforms), Ensemble(*(flow.eval() for flow in flows))).eval()


def explainer(density: Flow) -> Flow | None:
    """The member that factorizes in the order of the columns, under the same preprocessing; None if there is none."""
    base = density.base
    assert isinstance(base, Ensemble)
    for flow in base.models:
        assert isinstance(flow, Model)
        orders = {part.autoregressive_order for part in flow.chain} - {"any"}
        if "mixed" not in orders and len(orders) <= 1:
            return Flow(Chain(density.chain, flow.chain), flow.base)
    return None
