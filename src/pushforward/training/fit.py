"""`fit`: train any model on any data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Unpack

import torch

from pushforward.errors import ConfigError, StorageError, warn_caller
from pushforward.models.base import Model
from pushforward.training.border_warning import warn_of_border
from pushforward.training.budget import Budget, seconds
from pushforward.training.checkpoint import Checkpoint, model_digest
from pushforward.training.config import TrainingConfig, TrainingOptions, make_config, with_options
from pushforward.training.dependent_columns import warn_of_dependent_columns
from pushforward.training.distributed import Processes, join
from pushforward.training.input_spec import InputSpec
from pushforward.training.lattice_warning import warn_of_lattice
from pushforward.training.open_sources import open_sources
from pushforward.training.optim import pack_optimizer
from pushforward.training.progress import make_reporter
from pushforward.training.result import FitResult
from pushforward.training.run import Plan, Run, make_plan
from pushforward.training.sources import ArrayRows, LoaderRows, Rows, Source
from pushforward.training.strategies import SingleModel, Strategy
from pushforward.training.trainer import Trainer

__all__ = ["fit", "move_to_device", "open_checkpoint", "run_settings", "train_run"]

_EXAMINED_ROWS = 10_000
"""Number of rows that are searched for columns on a lattice, and for values on a bound."""


@with_options
def fit(
    model: Model,
    data: Any,
    *,
    context: Any = None,
    weights: Any = None,
    validation: Any = 0.1,
    validation_weights: Any = None,
    config: TrainingConfig | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Train a model by maximum likelihood (or by its own ``model.loss``), in place.

    Held-out rows decide which weights are kept. Each evaluation measures their mean log-likelihood, and at the end the
    model has the weights with the best one, in evaluation mode. Without held-out rows it has the last weights. The
    first evaluation measures the untrained model, so training never makes a model worse. Everything random follows from
    ``seed``, and the caller's random state does not change, except that of a generator which a ``DataLoader`` has of its own.

    A density of a column of integers, or of other values on a lattice, is a spike at each value. Where an array has such a
    column and the chain has no dequantization, ``fit`` warns and says what to do; so it does if one value fills a twentieth of
    a column, as in a constant one or one with many zeros, or if columns are equal or linearly dependent. It also warns of values
    on a bound of :class:`~pushforward.transforms.Bounds` and its like.

    Args:
        model: any :class:`~pushforward.models.base.Model`.
        data: training rows ``(n, *shape)``: an array, tensor, data frame or list of numbers, or a tuple (x, context) of
            them if the model takes a context; a map-style ``Dataset`` with items x or (x, context); or a ``DataLoader``
            or ``IterableDataset`` of them, for data larger than memory. If the model takes no context, the second part
            of a tuple or an item is ignored. All batches have the same size: the last batch of a pass takes rows from the next
            pass.
        context: context of array data, ``(n, width)``, or one context for all rows.
        weights: of the rows of array data, ``(n,)``, numbers of at least 0, such as importance weights or those of a survey; None
            for equal ones. The density is then that of the weighted rows, which maximizes sum(w_i log p(x_i)) / sum(w_i): a pass draws
            row i as often as its weight says, and the mean of held-out rows is weighted too. Only ratios of weights count. A row of
            weight 0 is not used, and has to be a row that the model can read all the same.
        validation: fraction of the rows to hold out (0.1 of fewer than 5 rows is none); or held-out data of any kind
            above, or a tuple (x, context) of arrays; or None for no held-out rows and no early stopping. A
            ``DataLoader`` cannot be split, so it needs held-out data or None.
        validation_weights: of held-out arrays that are given; None for equal ones, which warns if ``weights`` are given.
        config: options of the run; the options below replace its values.
        options: fields of :class:`TrainingConfig`.

    Returns:
        :class:`~pushforward.training.FitResult` with the best step, its held-out log-likelihood, why training stopped,
        and the history.

    Raises:
        ConfigError: for a value that an option does not take.
        InputError: for data that the model cannot read.
        TrainingError: if the loss or its gradient is not finite (the message has the step, the batch and the largest
            input; the model gets its best weights again), or if the checkpoint belongs to another run.
        StorageError: if the checkpoint or the log cannot be read or written.
        TypeError: for an option that does not exist.
        KeyboardInterrupt: after Ctrl-C, between two steps. The checkpoint is written and the model has its best
            weights.

    Example:
        >>> import torch, pushforward as pf
        >>> x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)) * 3 + 1
        >>> model = pf.models.NICE(features=2)
        >>> result = pf.fit(model, x, max_steps=50, progress="silent")
        >>> result.steps, result.stopped
        (50, 'max_steps')

        Rows of which the left half counts three times as much:

        >>> weighted = pf.models.NICE(features=2)
        >>> _ = pf.fit(weighted, x, weights=(x[:, 0] < 1) * 2.0 + 1, max_steps=50, progress="silent")
        >>> bool(weighted.sample(2000, seed=0)[:, 0].mean() < model.sample(2000, seed=0)[:, 0].mean())
        True
    """
    if not isinstance(model, Model):
        raise ConfigError(f"fit trains a pushforward model, such as pf.models.NSF(features=2); got {model!r:.80}.")
    config = make_config(config, options)
    move_to_device(model, config.device)
    spec = InputSpec.of(model)
    train, held_out = open_sources(
        spec, data, context, validation, config.batch_size, config.seed, weights, validation_weights
    )
    if isinstance(train, ArrayRows):
        sample = train.read(train.spread(_EXAMINED_ROWS))[0]
        warn_of_lattice(model, sample)
        warn_of_dependent_columns(model, sample)
        warn_of_border(model, sample)
    plan = make_plan(config, train.steps)
    if not config.distributed:
        strategy = SingleModel(model, config)
        return train_run(
            Run(model, train, held_out, config, _plan(plan, strategy), make_reporter(config.progress)), strategy
        )
    if isinstance(data, Source):
        raise ConfigError("distributed=True is for data that are given to fit; here another method makes the batches.")
    if model.needs_refresh:
        raise ConfigError(
            f"this {type(model).__name__} has batch normalization, whose statistics are those of a whole batch: train it "
            "without distributed=True."
        )
    return _train_together(join(train.spec.device), model, train, held_out, config, plan)


def _train_together(
    processes: Processes, model: Model, train: Source, held_out: Source | None, config: TrainingConfig, plan: Plan
) -> FitResult:
    """Train a model with several processes."""
    share = processes.share
    if isinstance(train, Rows) and train.batch_size < share.size:
        raise ConfigError(f"{share.size} processes share batches of {train.batch_size} rows: use a larger batch_size.")
    if not processes.first:
        config = replace(config, progress="silent", checkpoint=None, log=None, callback=None)
    strategy = SingleModel(model, config)
    held_out = None if held_out is None else held_out.shared(share)
    run = Run(model, train.shared(share), held_out, config, _plan(plan, strategy), make_reporter(config.progress))
    strategy.processes = run.processes = processes
    return train_run(run, strategy, processes=processes)


def _plan(plan: Plan, strategy: Strategy) -> Plan:
    """The plan, or one without steps if there is nothing to train."""
    if strategy.optimizer is not None:
        return plan
    return Plan(Budget(0, None, "nothing to train"), plan.schedule, plan.evaluate_every)


def train_run(
    run: Run, strategy: Strategy, settings: dict[str, Any] | None = None, processes: Processes | None = None
) -> FitResult:
    """Train the model of a run, with the checkpoint that its options ask for.

    Args:
        run: model, data and options.
        strategy: how one step changes the weights.
        settings: JSON values that must be the same for a checkpoint to continue, besides those of the options and data.
        processes: those that train together, of which the first one has the checkpoint.

    Raises:
        ConfigError: with ``distributed=True`` if another method than ``fit`` trains.
        StorageError: with ``resume=True`` if there is no checkpoint.
    """
    config, plan = run.config, run.plan
    if config.distributed and processes is None:
        raise ConfigError("distributed=True is for pf.fit, and this method trains in another way.")
    if config.checkpoint is not None and isinstance(run.train, LoaderRows) and run.train.loader.persistent_workers:
        warn_caller(
            "the DataLoader has persistent workers, which keep their random state from pass to pass, so a resumed run reads other rows "
            "than one without interruption: use persistent_workers=False if they have to be the same."
        )
    checkpoint, resume = open_checkpoint(
        config,
        lambda: run_settings(config, run.model, run.train, run.held_out, plan, strategy.optimizer) | (settings or {}),
        processes,
    )
    trainer = Trainer(
        [run],
        strategy,
        plan,
        initialize=config.initialize,
        checkpoint=checkpoint,
        resume=resume,
        processes=processes,
    )
    return trainer.train()[0]


def open_checkpoint(
    config: TrainingConfig, settings: Callable[[], dict[str, Any]], processes: Processes | None = None
) -> tuple[Checkpoint | None, bool]:
    """The checkpoint that the options ask for, and whether to continue the run in it.

    Args:
        config: options of the run.
        settings: gives JSON values that must be the same for the checkpoint to continue.
        processes: those that train together: all of them do what the first one finds.

    Raises:
        StorageError: with ``resume=True`` if there is no checkpoint.
    """
    if config.checkpoint is None:
        checkpoint = None
    else:
        every = config.checkpoint_every
        checkpoint = Checkpoint(config.checkpoint, seconds(every) if isinstance(every, str) else every, settings())
    resume = checkpoint is not None and config.resume is not False and checkpoint.exists()
    if processes is not None:
        resume = processes.same(resume)
    if config.resume is True and checkpoint is None:
        raise StorageError("resume=True needs checkpoint=, the file of the run that goes on.")
    if config.resume is True and not resume:
        raise StorageError(
            f"resume=True, but there is no checkpoint {config.checkpoint}: resume='auto' starts a new run."
        )
    return checkpoint, resume


def move_to_device(model: Model, device: str | torch.device | None) -> None:
    """Move a model to a device, if one is given.

    Raises:
        ConfigError: for a device that is not here, or that holds no numbers ("meta").
    """
    if device is None:
        return
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device={device!r}, but torch finds no CUDA device here: use device='cpu'.")
    if torch.device(device).type == "meta":
        raise ConfigError("device='meta' holds no numbers, so nothing can be trained there: use device='cpu'.")
    try:
        model.to(device)
    except (RuntimeError, NotImplementedError) as error:
        raise ConfigError(f"the model cannot be moved to device={device!r}: {error}") from error


def run_settings(
    config: TrainingConfig,
    model: Model,
    train: Source,
    held_out: Source | None,
    plan: Plan,
    optimizer: torch.optim.Optimizer | None,
) -> dict[str, Any]:
    """What must be the same for a run to be resumed, as JSON values."""
    name: Any = config.optimizer
    if not isinstance(name, str):
        name = None if optimizer is None else [type(optimizer).__name__, pack_optimizer(optimizer)[0]["groups"]]
    schedule = config.schedule
    if callable(schedule):
        schedule = getattr(schedule, "__qualname__", "function")
    settings: dict[str, Any] = {"model": model_digest(model)}
    for role, source in (("data", train), ("validation", held_out)):
        settings[role] = None if source is None else source.description
        settings[f"content of {role}"] = None if source is None else source.digest()
    return settings | {
        "optimizer": name,
        "learning_rate": config.learning_rate,
        "weight_decay": config.weight_decay,
        "schedule": schedule,
        "batch_size": config.batch_size,
        "max_steps" if plan.budget.name == "max_steps" else "steps of all epochs": plan.budget.steps,
        "max_time": plan.budget.seconds,
        "gradient_clip": config.gradient_clip,
        "ema": config.ema,
        "patience": config.patience,
        "evaluate_every": plan.evaluate_every,
        "seed": config.seed,
        "amp": config.amp,
        "microbatches": config.microbatches,
        "compile": config.compile,
        "initialize": config.initialize,
    }
