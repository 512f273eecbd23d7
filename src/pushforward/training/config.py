"""`TrainingConfig`: the options of a training run, with their defaults and checks."""

from __future__ import annotations

import inspect
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypedDict, TypeVar

import numpy as np
import torch

from pushforward.errors import ConfigError
from pushforward.training.budget import Schedule, is_duration
from pushforward.training.optim import OPTIMIZERS, MakeOptimizer
from pushforward.training.progress import STYLES, Style
from pushforward.training.result import TrainingEvent

__all__ = ["TrainingConfig", "TrainingOptions", "changed_fields", "make_config", "with_options"]

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """All options of a training run, for :func:`~pushforward.fit` and everything that trains with it.

    A config does not change. ``fit(..., config=config, max_steps=100)`` uses a copy with another value, and so does
    ``dataclasses.replace(config, max_steps=100)``.

    Args:
        batch_size: rows in each step, or all rows if there are fewer. None is 512; if one pass would then have fewer
            than 32 steps, it is a 32nd of the training rows but at least 64. A ``DataLoader`` makes its own batches.
        epochs: budget in passes over the training rows.
        max_steps: budget in optimizer steps.
        max_time: budget in seconds, or text such as "90s", "5m" or "1h30m". Evaluations and the earlier parts of a
            resumed run count. It is checked between steps. Without ``epochs``, ``max_steps`` and ``max_time`` the
            budget is 200 passes, but at least 1,000 and at most 20,000 steps.
        optimizer: "adamw", "adam", "sgd" (Nesterov momentum 0.9), or a function from the parameters to a torch
            optimizer, such as ``functools.partial(torch.optim.RMSprop, lr=1e-3)``.
        learning_rate: learning rate at the start. Not used with an optimizer function.
        weight_decay: weight decay of parameters with two or more dimensions. Not used with an optimizer function.
        schedule: how the learning rate changes: "cosine" (it falls to 0 at the end of the budget), None (constant), or
            a function from the used fraction u of the budget, in [0, 1], to a factor of at least 0.
        gradient_clip: largest norm of the gradient. None does not clip.
        ema: decay of the exponential moving average of the weights. The average is what is evaluated and kept; it
            covers about the last 1 / (1 - ema) steps. It generalizes better than the last weights, most of all with few
            data and while the learning rate is high. None evaluates and keeps the weights themselves.
        patience: number of evaluations without improvement after which training stops. None uses the whole budget.
        evaluate_every: steps between two evaluations. None is one pass, but at least 25 and at most 1,000 steps.
        seed: seed of the split, the shuffling, dropout, the noise of transforms, and random transforms of data sets.
        device: "cpu", "cuda", ...; the model is moved there. None trains where the model is.
        amp: train in bfloat16 where ``torch.autocast`` considers it safe. Evaluation does not use it.
        microbatches: number of parts that each batch is split into. They are computed one after the other and their
            gradients are added, so a step needs the memory of one part. Batch normalization sees one part at a time.
            None splits only batches of 8,192 rows or more, on a CPU, for wide networks, which is faster there.
        compile: compile the training loss with ``torch.compile``. It takes about two seconds for each transform of the
            chain and needs a C++ compiler. A step of a narrow flow of vectors then takes 0.6 to 0.85 times as long,
            with the largest gain for small batches; wide flows and flows of images gain nothing. The rounding differs
            from that of ``compile=False``.
        initialize: set data-dependent state (standardization, actnorm) that is not set yet, from up to 100,000 training
            rows.
        checkpoint: file to write the run to. If the process is killed at any moment, the same call resumes the run from
            this file and ends with the same weights as a run without interruption: bit by bit on the same machine, with
            a budget of steps or passes, and with a ``DataLoader`` unless its workers are persistent.
        checkpoint_every: steps (an integer) or time (text such as "60s") between two writes. The file is also written
            at the start and at the end.
        resume: "auto" resumes if the checkpoint file exists, True raises if it does not, False starts a new run.
        progress: "auto" (a bar on a terminal or in a notebook, plain lines elsewhere), "rich", "plain" or "silent". Output goes to
            stderr.
        callback: function called with a :class:`~pushforward.training.TrainingEvent` at each evaluation. Training stops
            if it returns True.
        log: file for the events, one JSON object per line. A resumed run repeats no line.
        distributed: train with all processes that ``torchrun`` started: each takes its part of every batch, and the gradients
            are added. Without noise in the loss, the weights are those of a single process up to rounding. All processes end
            with the same model; the first one writes the checkpoint and the log, shows progress and calls ``callback``.

    Raises:
        ConfigError: for a value that an option does not take.

    Example:
        >>> import dataclasses
        >>> from pushforward.training import TrainingConfig
        >>> config = TrainingConfig(max_steps=100, learning_rate=3e-4)
        >>> config.batch_size, dataclasses.replace(config, batch_size=64).batch_size
        (None, 64)
    """

    batch_size: int | None = None
    epochs: float | None = None
    max_steps: int | None = None
    max_time: float | str | None = None
    optimizer: str | MakeOptimizer = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    schedule: str | Schedule | None = "cosine"
    gradient_clip: float | None = 5.0
    ema: float | None = 0.99
    patience: int | None = 20
    evaluate_every: int | None = None
    seed: int = 0
    device: str | torch.device | None = None
    amp: bool = False
    microbatches: int | None = None
    compile: bool = False
    initialize: bool = True
    checkpoint: str | os.PathLike[str] | None = None
    checkpoint_every: int | str = "60s"
    resume: bool | Literal["auto"] = "auto"
    progress: Style = "auto"
    callback: Callable[[TrainingEvent], object] | None = None
    log: str | os.PathLike[str] | None = None
    distributed: bool = False

    def __post_init__(self) -> None:
        for name, (is_valid, wanted) in _RULES.items():
            value = getattr(self, name)
            if isinstance(value, np.generic):  # a number of numpy is the number of Python
                value = value.item()
                object.__setattr__(self, name, value)
            if not is_valid(value):
                raise ConfigError(f"{name} must be {wanted}; got {value!r}.")


class TrainingOptions(TypedDict, total=False):
    """The fields of :class:`TrainingConfig` as keywords, so that editors and type checkers see them.

    Example:
        >>> from pushforward.training import TrainingOptions
        >>> "learning_rate" in TrainingOptions.__annotations__
        True
    """

    batch_size: int | None
    epochs: float | None
    max_steps: int | None
    max_time: float | str | None
    optimizer: str | MakeOptimizer
    learning_rate: float
    weight_decay: float
    schedule: str | Schedule | None
    gradient_clip: float | None
    ema: float | None
    patience: int | None
    evaluate_every: int | None
    seed: int
    device: str | torch.device | None
    amp: bool
    microbatches: int | None
    compile: bool
    initialize: bool
    checkpoint: str | os.PathLike[str] | None
    checkpoint_every: int | str
    resume: bool | Literal["auto"]
    progress: Style
    callback: Callable[[TrainingEvent], object] | None
    log: str | os.PathLike[str] | None
    distributed: bool


def make_config(config: TrainingConfig | None, options: TrainingOptions) -> TrainingConfig:
    """The config (the defaults for None) with the given options in place of its own.

    Raises:
        ConfigError: for something that is not a config, or a value that an option does not take.
        TypeError: for an option that does not exist.
    """
    config = TrainingConfig() if config is None else config
    if not isinstance(config, TrainingConfig):
        raise ConfigError(f"config must be a TrainingConfig or None; got {config!r:.80}.")
    if unknown := sorted(set(options) - {field.name for field in fields(config)}):
        known = ", ".join(field.name for field in fields(config))
        raise TypeError(f"there is no training option {unknown[0]!r}; the options are {known}.")
    return replace(config, **options)


def changed_fields(config: TrainingConfig) -> set[str]:
    """Names of the options that differ from their defaults."""
    return {field.name for field in fields(config) if getattr(config, field.name) != field.default}


def with_options(function: Function) -> Function:
    """Show every option of :class:`TrainingConfig` in the signature and the docstring of a function with ``**options``.

    The docstring of the function has an argument ``options``, which the options' own descriptions replace.
    """
    signature = inspect.signature(function)
    own = [parameter for name, parameter in signature.parameters.items() if name != "options"]
    keyword = inspect.Parameter.KEYWORD_ONLY
    options = [
        inspect.Parameter(field.name, keyword, default=field.default, annotation=field.type)
        for field in fields(TrainingConfig)
    ]
    function.__signature__ = signature.replace(parameters=[*own, *options])  # pyright: ignore[reportFunctionMemberAccess]
    text, described = inspect.getdoc(function), inspect.getdoc(TrainingConfig)
    if text and described:  # `python -OO` removes docstrings
        arguments = described.partition("Args:\n")[2].partition("\n\n")[0]
        function.__doc__ = re.sub(r"    options: .*(\n {5,}.*)*", lambda _: arguments, text)
    return function


def _is_integer(value: Any, least: float = -math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_device(device: Any) -> bool:
    try:
        torch.device(device)
    except (RuntimeError, TypeError):
        return False
    return True


_COUNT = (lambda value: value is None or _is_integer(value, 1), "an integer of at least 1 or None")
_SWITCH = (lambda value: isinstance(value, bool), "True or False")
_PATH = (lambda value: value is None or isinstance(value, str | os.PathLike), "a path or None")
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "batch_size": _COUNT,
    "epochs": (lambda value: value is None or (_is_number(value) and value >= 0), "a number of at least 0 or None"),
    "max_steps": (lambda value: value is None or _is_integer(value, 0), "an integer of at least 0 or None"),
    "max_time": (
        lambda value: value is None or is_duration(value),
        "a number of seconds, text such as '90s', '5m' or '1h30m', or None",
    ),
    "optimizer": (
        lambda value: value in OPTIMIZERS if isinstance(value, str) else callable(value),
        f"{', '.join(map(repr, OPTIMIZERS))} or a function of the parameters",
    ),
    "learning_rate": (lambda value: _is_number(value) and value > 0, "a positive number"),
    "weight_decay": (lambda value: _is_number(value) and value >= 0, "a number of at least 0"),
    "schedule": (
        lambda value: value is None or value == "cosine" or callable(value),
        "'cosine', None (constant) or a function of the used fraction of the budget",
    ),
    "gradient_clip": (lambda value: value is None or (_is_number(value) and value > 0), "a positive number or None"),
    "ema": (lambda value: value is None or (_is_number(value) and 0 < value < 1), "a decay in (0, 1) or None"),
    "patience": _COUNT,
    "evaluate_every": _COUNT,
    "seed": (lambda value: _is_integer(value), "an integer"),
    "device": (lambda value: value is None or _is_device(value), "a torch device such as 'cpu' or 'cuda', or None"),
    "amp": _SWITCH,
    "microbatches": _COUNT,
    "compile": _SWITCH,
    "initialize": _SWITCH,
    "checkpoint": _PATH,
    "checkpoint_every": (
        lambda value: is_duration(value) if isinstance(value, str) else _is_integer(value, 1),
        "a number of steps (an integer of at least 1) or a time such as '60s'",
    ),
    "resume": (lambda value: isinstance(value, bool) or value == "auto", "True, False or 'auto'"),
    "progress": (lambda value: value in STYLES, f"one of {', '.join(map(repr, STYLES))}"),
    "callback": (lambda value: value is None or callable(value), "a function of a TrainingEvent, or None"),
    "log": _PATH,
    "distributed": _SWITCH,
}
"""For each option a check, and what the error message asks for."""
