"""Deep ensembles (Lakshminarayanan, Pritzel, Blundell 2017, arXiv 1612.01474)."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any, Unpack

import torch

from pushforward import registry
from pushforward.errors import ConfigError
from pushforward.models.base import Model
from pushforward.numerics import check_integer, seeded
from pushforward.training.bayes.common import open_data
from pushforward.training.bayes.posterior import Posterior, tensors_of
from pushforward.training.config import TrainingConfig, TrainingOptions, make_config, with_options
from pushforward.training.fit import fit
from pushforward.training.seeds import mix, preserved

__all__ = ["deep_ensemble"]


@with_options
def deep_ensemble(
    make: Callable[[], Model],
    data: Any,
    n_members: int = 5,
    *,
    context: Any = None,
    validation: Any = 0.1,
    config: TrainingConfig | None = None,
    **options: Unpack[TrainingOptions],
) -> Posterior:
    """Train one architecture from several random initializations (sec. 2.4), each with its own order of batches.

    All members hold out the same rows, so that they have the same preprocessing. The members are not samples of a
    posterior, but the baseline that such samples must beat.

    Args:
        make: function that makes an untrained model. It is called once for each member, with torch's global seed set.
        data: training rows, as for :func:`pushforward.fit`.
        n_members: number of models M.
        context: context of array data, as for ``fit``.
        validation: held-out rows, as for ``fit``, by which each member keeps its best weights.
        config: options of each training; the options below replace its values. The number of the member is appended to
            the names of the ``checkpoint`` and ``log`` files ("run.jsonl.0"), and a run that was killed resumes from the checkpoints.
        options: fields of :class:`TrainingConfig`.

    Raises:
        ConfigError: if ``make`` is no function, or makes models that differ in more than the values of their tensors, and as for ``fit``.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.training import bayes
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> make = lambda: pf.models.NICE(2, layers=2, hidden=(8,))
        >>> posterior = bayes.deep_ensemble(make, x, n_members=2, max_steps=20, progress="silent")
        >>> posterior.log_likelihoods(x).shape
        torch.Size([2, 200])
    """
    config = make_config(config, options)
    check_integer("n_members", n_members)
    if isinstance(make, Model) or not callable(make):
        raise ConfigError(
            f"make must be a function that makes a model, such as lambda: NICE(2); got {type(make).__name__}."
        )
    posterior: Posterior | None = None
    train = held_out = None
    for k in range(n_members):
        seed = mix(config.seed, k)
        with preserved(torch.device("cpu")), seeded(seed):
            model = make()
        if train is None:
            train, held_out = open_data(model, data, context, validation, config)
        checkpoint, log = (
            None if file is None else f"{os.fspath(file)}.{k}" for file in (config.checkpoint, config.log)
        )
        resume = "auto" if k and config.resume is True else config.resume  # a killed run has not begun all members
        member_config = dataclasses.replace(config, seed=seed, checkpoint=checkpoint, log=log, resume=resume)
        fit(model, train.reseeded(seed), validation=held_out, config=member_config)
        if posterior is None:
            posterior = Posterior(model, n_members, tuple(tensors_of(model)))
        _require_same_architecture(posterior.model, model)
        posterior.record(k, model)
    assert posterior is not None
    return posterior.trimmed(n_members)


def _require_same_architecture(first: Model, other: Model) -> None:
    def architecture(model: Model) -> Any:
        tensors = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors_of(model).items()}
        try:
            return tensors, registry.describe(model)
        except ConfigError:  # not registered, so only its tensors describe it
            return tensors, type(model)

    if architecture(first) != architecture(other):
        raise ConfigError(
            "the members of an ensemble must have one architecture: the same class with the same arguments."
        )
