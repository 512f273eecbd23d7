"""`fit`: train any model on any data, from which everything about a run is decided before its first step."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal

import torch

from pushforward.errors import ConfigError, StorageError
from pushforward.models.base import Model
from pushforward.numerics.checks import check_choice, check_integer, check_number, check_positive
from pushforward.training import compiled
from pushforward.training.budget import Budget, Schedule, make_schedule, plan, seconds
from pushforward.training.checkpoint import Checkpoint, model_digest
from pushforward.training.input_spec import InputSpec
from pushforward.training.open_sources import open_sources
from pushforward.training.optim import MakeOptimizer, make_optimizer, pack_optimizer
from pushforward.training.progress import MetricsLog, Style, make_reporter
from pushforward.training.result import FitResult, TrainingEvent
from pushforward.training.sources import Rows, Source
from pushforward.training.trainer import Trainer

__all__ = ["fit"]


def fit(
    model: Model,
    data: Any,
    *,
    context: Any = None,
    validation: Any = 0.1,
    batch_size: int | None = None,
    epochs: float | None = None,
    max_steps: int | None = None,
    max_time: float | str | None = None,
    optimizer: str | MakeOptimizer = "adamw",
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    schedule: str | Schedule | None = "cosine",
    gradient_clip: float | None = 5.0,
    average: float | None = 0.99,
    patience: int | None = 20,
    evaluate_every: int | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    amp: bool = False,
    accumulate: int | None = None,
    compile: bool | Literal["auto"] = "auto",
    initialize: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int | str = "60s",
    resume: bool | Literal["auto"] = "auto",
    progress: Style = "auto",
    callback: Callable[[TrainingEvent], object] | None = None,
    log: str | os.PathLike[str] | None = None,
) -> FitResult:
    """Train a model by maximum likelihood (or whatever ``model.loss`` is), in place.

    Held-out rows decide which weights are kept: at each evaluation the mean held-out log-likelihood is measured, and at
    the end the model has the best weights, in evaluation mode. Without held-out rows it has the last ones. The first
    evaluation is of the untrained model, so training never leaves it worse than it was. Everything random follows from
    ``seed``, and the caller's random state stays as it was.

    Args:
        model: any :class:`~pushforward.models.base.Model`.
        data: training rows ``(n, *shape)``: an array, tensor, data frame or list of numbers, or a tuple
            (x, context) of them if the model takes a context; or a map-style
            ``Dataset`` with items x or (x, context); or a ``DataLoader`` or ``IterableDataset`` of such, for data
            larger than memory. A second part is not read if the model takes no context. Batches have one size: the
            last one of a pass is filled up from the next.
        context: ``(n, width)`` for array data, or one for all rows.
        validation: the fraction of rows to hold out (0.1 of fewer than 5 rows is none); or held-out data of any kind
            above, or a tuple (x, context) of arrays; or None for no held-out rows and no early stopping. A
            ``DataLoader`` cannot be split, so it needs one of the latter.
        batch_size: rows of a step; all, if there are fewer. None is 512, or where a pass would have fewer than 32 such
            steps, a 32nd of the training rows but at least 64. A loader makes its own batches. From 8,192 rows on the
            gradients of parts of a batch may be added up, which is sooner and needs less memory (``training/parts.py``).
        epochs: budget in passes over the training rows.
        max_steps: budget in optimizer steps.
        max_time: budget in seconds, or text such as "90s", "5m", "1h30m"; it counts evaluations and earlier runs that
            were resumed, and is looked at between steps. Without any of the three: 200 passes, but at least 1,000 and
            at most 20,000 steps.
        optimizer: "adamw", "adam", "sgd" (Nesterov momentum 0.9), or a function of the parameters, as
            ``functools.partial(torch.optim.RMSprop, lr=1e-3)``.
        lr: learning rate; not used with an optimizer function.
        weight_decay: of weights with two or more dimensions; not used with an optimizer function.
        schedule: of the learning rate: "cosine" (from lr to 0 as the budget is spent), None (constant), or a function
            from the part of the budget spent, in [0, 1], to a factor.
        gradient_clip: largest norm of the gradient; None for no clipping.
        average: decay of the exponential moving average of the weights that is evaluated and kept: about the last
            1 / (1 - average) steps count. It generalizes better than the last weights, above all where data are few
            and while the learning rate is still high. None for the weights themselves.
        patience: evaluations without improvement before training stops; None to use up the budget.
        evaluate_every: steps between evaluations; by default one pass, but at least 25 and at most 1,000 steps.
        seed: of split, shuffling, dropout, noise of transforms, and the transforms of data sets.
        device: "cpu", "cuda", ...; the model is moved there. None for where it is.
        amp: train in bfloat16 where ``torch.autocast`` deems it safe; evaluation is never in it.
        accumulate: parts that each batch is taken in, one after the other; their gradients add up, so a step's memory is
            that of a part. Batch normalization sees a part at a time. None for what suits: see ``batch_size``.
        compile: make machine code of the training step's loss with ``torch.compile``, which takes about two seconds for each
            transform of the chain and needs a C++ compiler. True does it or raises; "auto" does it for flows of vectors with up
            to 500,000 weights on a CPU where the budget is long enough for it to pay (50,000 steps, or about two minutes for
            each transform), and goes on without if the compiler fails. A step of such a flow takes 0.6 to 0.85 times as long, the
            least for small batches. Rounding differs from that of False.
        initialize: set data-dependent state (standardization, actnorm) that is not set yet, from up to 100,000
            training rows.
        checkpoint: file that the run is written to. Killed at any moment and called again, ``fit`` goes on from it and
            ends with the same weights, bit by bit on the same machine, as a run that nothing disturbed (with a budget
            of steps or passes).
        checkpoint_every: steps (an integer), or time as text, between writings; also at the start and the end.
        resume: "auto" goes on if the checkpoint exists; True insists that it does; False begins anew.
        progress: "auto" (a bar on a terminal, else plain lines), "rich", "plain" or "silent"; on stderr.
        callback: called with a :class:`~pushforward.training.TrainingEvent` at each evaluation; returning True stops.
        log: file for the events, a JSON object a line. A resumed run repeats none.

    Returns:
        :class:`~pushforward.training.FitResult`: the best step and its held-out log-likelihood, why training stopped,
        and the history.

    Raises:
        ConfigError: for an option that does not work.
        InputError: for data that the model cannot read.
        TrainingError: if the loss or its gradient is not finite (it names step, batch and largest input; the model
            has its best weights again), or if the checkpoint belongs to another run.
        StorageError: if checkpoint or log cannot be read or written.
        KeyboardInterrupt: after Ctrl-C, between two steps, with the checkpoint written and the best weights restored.

    Example:
        >>> import torch, pushforward as pf
        >>> x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)) * 3 + 1
        >>> model = pf.models.NICE(features=2)
        >>> result = pf.fit(model, x, max_steps=50, progress="silent")
        >>> result.steps, result.stopped
        (50, 'max_steps')
    """
    if not isinstance(model, Model):
        raise ConfigError(f"fit trains a pushforward model, such as pf.models.NSF(features=2); got {model!r:.80}.")
    _check_options(
        batch_size,
        accumulate,
        lr,
        weight_decay,
        gradient_clip,
        average,
        patience,
        evaluate_every,
        seed,
        resume,
        callback,
    )
    every = _interval(checkpoint_every)
    make_rate, reporter = make_schedule(schedule), make_reporter(progress)
    if device is not None:
        model.to(_device(device))
    form = InputSpec.of(model)
    train, held_out = open_sources(form, data, context, validation, batch_size, seed)
    budget = plan(epochs, max_steps, max_time, train.steps)
    parameters = [p for p in model.parameters() if p.requires_grad]
    made = make_optimizer(optimizer, parameters, lr, weight_decay) if parameters else None
    if made is None:
        budget = Budget(0, None, "nothing to train")
    if evaluate_every is None:
        evaluate_every = 500 if train.steps is None else min(max(round(train.steps), 25), 1000)
    compiles = _compiles(compile, model, train, budget)
    file = None
    if checkpoint is not None:
        settings = {
            "model": model_digest(model),
            **_described("data", train),
            **_described("validation", held_out),
            "optimizer": _optimizer_name(optimizer, made),
            "lr": lr,
            "weight_decay": weight_decay,
            "schedule": schedule if isinstance(schedule, str | None) else getattr(schedule, "__qualname__", "function"),
            "batch_size": batch_size,
            "max_steps" if budget.name == "max_steps" else "steps of all epochs": budget.steps,
            "max_time": budget.seconds,
            "gradient_clip": gradient_clip,
            "average": average,
            "patience": patience,
            "evaluate_every": evaluate_every,
            "seed": seed,
            "amp": amp,
            "accumulate": accumulate,
            "compile": bool(compiles),
            "initialize": initialize,
        }
        file = Checkpoint(checkpoint, every, settings)
    resumes = file is not None and resume is not False and file.exists()
    if resume is True and not resumes:
        raise StorageError(f"resume=True, but there is no checkpoint {checkpoint}: resume='auto' begins one.")
    return Trainer(
        model, train, held_out, made, budget, make_rate, gradient_clip, average, patience, evaluate_every, seed, amp,
        initialize, callback, reporter, MetricsLog(log), file, resumes, accumulate, compiles,
    ).run()  # fmt: skip


def _compiles(compile: bool | Literal["auto"], model: Model, train: Source, budget: Budget) -> bool | Literal["try"]:
    """What the trainer does about compiling."""
    check_choice("compile", compile, (True, False, "auto"))
    if compile is True and (reason := compiled.why_not(model)) is not None:
        raise ConfigError(f"compile=True, but {reason}: compile=False trains this {type(model).__name__} without.")
    if compile == "auto":
        rows = train.batch_size if isinstance(train, Rows) else None
        return "try" if compiled.pays(model, rows, budget) else False
    return compile


def _described(name: str, source: Source | None) -> dict[str, Any]:
    if source is None:
        return {name: None}
    return {name: source.kind, f"content of {name}": source.digest()}


def _optimizer_name(optimizer: str | MakeOptimizer, made: torch.optim.Optimizer | None) -> Any:
    if made is None or isinstance(optimizer, str):
        return optimizer if isinstance(optimizer, str) else None
    return [type(made).__name__, pack_optimizer(made)[0]["groups"]]


def _interval(every: int | str) -> int | float:
    """Steps as an integer, or seconds as a float."""
    if isinstance(every, str):
        return seconds(every, "checkpoint_every")
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ConfigError(f"checkpoint_every must be a number of steps, or a time such as '60s'; got {every!r}.")
    return every


def _device(device: str | torch.device) -> torch.device:
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError):
        raise ConfigError(f"device must be a torch device such as 'cpu' or 'cuda'; got {device!r}.") from None
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device={device!r}, but torch finds no CUDA device here: use device='cpu'.")
    return wanted


def _check_options(
    batch_size: Any, accumulate: Any, lr: Any, weight_decay: Any, gradient_clip: Any, average: Any, patience: Any, evaluate_every: Any,
    seed: Any, resume: Any, callback: Any,
) -> None:  # fmt: skip
    check_integer("batch_size", batch_size, optional=True)
    check_integer("accumulate", accumulate, optional=True)
    check_integer("patience", patience, optional=True)
    check_integer("evaluate_every", evaluate_every, optional=True)
    check_positive("lr", lr)
    check_positive("weight_decay", weight_decay, zero=True)
    check_positive("gradient_clip", gradient_clip, optional=True)
    check_number("average", average, 0, 1, optional=True)
    check_integer("seed", seed, None)
    check_choice("resume", resume, (True, False, "auto"))
    if callback is not None and not callable(callback):
        raise ConfigError(f"callback must be a function of a TrainingEvent; got {callback!r}.")
