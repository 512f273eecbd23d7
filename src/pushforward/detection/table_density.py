"""The default density of tables: an ensemble of small flows over the preprocessed feature matrix."""

from __future__ import annotations

import json
import os

import numpy as np
import torch

from pushforward.detection.table_features import TableFeatures
from pushforward.models import MAF, NICE, NSF, Ensemble, Flow, Model, RealNVP
from pushforward.numerics import seeded
from pushforward.numerics.checks import check_choice
from pushforward.registry import describe
from pushforward.training import TrainingConfig, fit_members
from pushforward.training.budget import seconds
from pushforward.transforms import Chain

__all__ = ["KINDS", "explainer", "fit_table_density", "small_flow"]

KINDS = ("auto", "nice", "realnvp", "maf", "nsf")


def small_flow(kind: str, index: int, features: int, rows: int) -> Model:
    """Build one small flow of the ensemble; it is smaller where there are fewer rows.

    Args:
        kind: one of :data:`KINDS`. For "auto", flow 0 is an autoregressive spline flow in the order of the columns, whose
            chain rule explains a row; the others alternate affine couplings with a soft clamp and additive couplings.
        index: of the flow in the ensemble.
        features: width of the matrix.
        rows: number of training rows.

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
    features: TableFeatures,
    *,
    kind: str,
    n_estimators: int,
    jitter: float,
    config: TrainingConfig,
) -> Flow:
    """Fit the preprocessing once, and then the flows; those of one architecture are trained together.

    Args:
        train: feature matrix of the training rows, float64.
        validation: feature matrix of the rows for early stopping; it may have no rows.
        features: of the table.
        kind: see :func:`small_flow`.
        n_estimators: number of flows in the ensemble.
        jitter: standard deviation of the training noise, in robust deviations.
        config: options of training. Flow k is built and trained from ``config.seed + k``, ``max_time`` is for all
            flows together, and ``checkpoint`` is a folder.

    Returns:
        A model of the feature matrix: preprocessing transforms over an :class:`~pushforward.models.Ensemble`.
    """
    transforms = features.preprocessing(jitter)
    rows = torch.from_numpy(train)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(config.seed)
        Chain(*transforms).initialize(rows, noise=generator)
    held_out = torch.from_numpy(validation) if len(validation) else None
    flows: list[Model] = []
    alike: dict[str, list[int]] = {}
    for k in range(n_estimators):
        with seeded(config.seed + k):
            flows.append(small_flow(kind, k, features.n_features, len(train)))
        alike.setdefault(json.dumps(describe(flows[k]), sort_keys=True), []).append(k)
    for number, group in enumerate(alike.values()):
        path = None if config.checkpoint is None else os.path.join(config.checkpoint, f"flows-{number}.safetensors")
        with_preprocessing = [Flow(Chain(*transforms, flows[k].chain), flows[k].base) for k in group]
        time = None if config.max_time is None else seconds(config.max_time) * len(group) / n_estimators
        seeds = [config.seed + k for k in group]
        fit_members(
            with_preprocessing, rows, validation=held_out, seeds=seeds, config=config, max_time=time, checkpoint=path
        )
    return Flow(Chain(*transforms), Ensemble(*(flow.eval() for flow in flows))).eval()


def explainer(density: Flow) -> Flow | None:
    """The flow of the ensemble that factorizes in the order of the columns, with its preprocessing; None without one.

    Args:
        density: of :func:`fit_table_density`.
    """
    if not isinstance(density.base, Ensemble):
        return None
    for flow in density.base.models:
        if not isinstance(flow, Model):
            continue
        orders = {part.autoregressive_order for part in flow.chain} - {"any"}
        if "mixed" not in orders and len(orders) <= 1:
            return Flow(Chain(density.chain, flow.chain), flow.base)
    return None
