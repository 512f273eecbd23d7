"""Deep ensembles (Lakshminarayanan, Pritzel, Blundell 2017, arXiv 1612.01474)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from pushforward import registry
from pushforward.errors import ConfigError
from pushforward.models.base import Model
from pushforward.numerics.checks import check_integer
from pushforward.training.bayes.common import opened
from pushforward.training.bayes.posterior import Posterior, tensors_of
from pushforward.training.fit import fit
from pushforward.training.seeds import mix, preserved

__all__ = ["deep_ensemble"]


def deep_ensemble(
    make: Callable[[], Model],
    data: Any,
    members: int = 5,
    seed: int = 0,
    *,
    context: Any = None,
    validation: Any = 0.1,
    batch_size: int | None = None,
    device: Any = None,
    checkpoint: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Posterior:
    """Train the same model from several random starts (sec. 2.4): each member has its own weights and batch order.

    All members hold out the same rows, so that their preprocessing is the same too. No samples of a posterior, but the
    control that those must beat.

    Args:
        make: makes an untrained model; called once a member, with torch's global seed set.
        data: as for :func:`pushforward.fit`.
        members: M.
        seed: of everything random.
        context: as for ``fit``, like those below.
        validation: held-out rows, by which each member keeps its best weights.
        batch_size: rows of a step; None as ``fit``.
        device: where the models are trained.
        checkpoint: file of each member's run, with the member's number appended: a run that was killed goes on.
        options: further options of ``fit``; ``max_time`` and ``max_steps`` are each member's.

    Raises:
        ConfigError: if ``make`` makes models that differ in more than their tensors, and as ``fit``.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.training import bayes
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> make = lambda: pf.models.NICE(2, couplings=2, hidden=(8,))
        >>> posterior = bayes.deep_ensemble(make, x, members=2, max_steps=20, progress="silent")
        >>> posterior.log_likelihoods(x).shape
        torch.Size([2, 200])
    """
    check_integer("members", members)
    posterior: Posterior | None = None
    train = held_out = None
    for k in range(members):
        own = mix(seed, k)
        with preserved(torch.device("cpu")):
            torch.manual_seed(own)
            model = make()
        if train is None:
            train, held_out = opened(model, data, context, validation, batch_size, seed, device)
        fit(
            model, train.reseeded(own), validation=held_out, batch_size=batch_size, device=device, seed=own,
            checkpoint=None if checkpoint is None else f"{os.fspath(checkpoint)}.{k}", **options,
        )  # fmt: skip
        if posterior is None:
            posterior = Posterior(model, members, tuple(tensors_of(model)))
        _check_same(posterior.model, model)
        posterior.record(k, model)
    assert posterior is not None
    return posterior.trimmed(members)


def _check_same(first: Model, other: Model) -> None:
    def form(model: Model) -> Any:
        tensors = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors_of(model).items()}
        try:
            return tensors, registry.describe(model)
        except ConfigError:  # not registered: its tensors must do
            return tensors, type(model)

    if form(first) != form(other):
        raise ConfigError("the members of an ensemble must be made by one recipe: same class, same arguments.")
