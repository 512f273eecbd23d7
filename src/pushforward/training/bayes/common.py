"""Parts that the methods for weight samples share: options, data, chosen parameters, and statistics of each sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from pushforward.errors import ConfigError, TrainingError
from pushforward.models.base import Model
from pushforward.numerics.checks import check_integer
from pushforward.training.bayes.posterior import Posterior
from pushforward.training.config import TrainingConfig, TrainingOptions, changed_fields, make_config
from pushforward.training.fit import move_to_device
from pushforward.training.input_spec import InputSpec
from pushforward.training.open_sources import open_sources
from pushforward.training.result import TrainingEvent
from pushforward.training.run import sample_rows
from pushforward.training.seeds import Purpose, generator, preserved
from pushforward.training.sources import BATCH_SIZE, LoaderRows, Rows, Source

__all__ = [
    "choose_parameters",
    "count_rows",
    "open_data",
    "recorded_names",
    "refresh",
    "require_samples",
    "sampling_callback",
    "sampling_config",
    "train_only",
]  # fmt: skip

_NOT_RESUMABLE = ("checkpoint", "checkpoint_every", "resume")


def sampling_config(
    method: str, config: TrainingConfig | None, options: TrainingOptions, fixed: Sequence[str]
) -> TrainingConfig:
    """The options of ``fit`` for a method that takes weight samples. The default ``batch_size`` is 512.

    Args:
        method: name of the method.
        config: options of the run, or None.
        options: options that replace those of the config.
        fixed: options that the method sets itself.

    Raises:
        ConfigError: for an option that the method sets itself, and for checkpoints, which do not contain the samples.
    """
    config = make_config(config, options)
    changed = changed_fields(config)
    if refused := [name for name in _NOT_RESUMABLE if name in changed]:
        raise ConfigError(f"{refused[0]} is not available in {method}: only deep_ensemble can resume a run.")
    if refused := [name for name in fixed if name in changed]:
        raise ConfigError(f"{refused[0]} is not available in {method}, which sets it itself.")
    return dataclasses.replace(config, batch_size=config.batch_size or BATCH_SIZE)


def choose_parameters(model: Model, names: Sequence[str] | None) -> dict[str, nn.Parameter]:
    """The trainable parameters that the names choose, or all for None.

    Args:
        model: any model.
        names: consecutive parts of the dotted names of sub-modules or parameters: "decoder" and "decoder.last" both
            choose ``chain.transforms.0.decoder.last.weight``.

    Raises:
        ConfigError: if a name chooses nothing, or if nothing is trainable.
    """
    known = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if isinstance(names, str):
        names = [names]
    for wanted in names or ():
        if not any(_contains(name, wanted) for name in known):
            raise ConfigError(
                f"{type(model).__name__} has no trainable parameter under {wanted!r}; it has {', '.join(known)[:400]}."
            )
    chosen = {name: p for name, p in known.items() if names is None or any(_contains(name, w) for w in names)}
    if not chosen:
        raise ConfigError(
            f"{type(model).__name__} has no trainable parameter, so there is no posterior of its weights."
        )
    return chosen


def _contains(name: str, wanted: str) -> bool:
    return f".{wanted}." in f".{name}."


def recorded_names(model: Model, chosen: dict[str, nn.Parameter]) -> tuple[str, ...]:
    """Names of the tensors to record for each sample: the chosen weights, and the statistics that depend on them."""
    return (*chosen, *(dict(model.named_buffers()) if model.needs_refresh else ()))


@contextmanager
def train_only(model: nn.Module, chosen: dict[str, nn.Parameter]) -> Iterator[None]:
    """Inside the ``with`` block only the chosen parameters are trainable."""
    chosen_ids = {id(p) for p in chosen.values()}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen_ids]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


def open_data(
    model: Model, data: Any, context: Any, validation: Any, config: TrainingConfig
) -> tuple[Source, Source | None]:
    """The sources of training and held-out rows that ``pf.fit`` would open. The model is moved to its device."""
    if not isinstance(model, Model):
        raise ConfigError(f"weight samples need a pushforward model; got {model!r:.80}.")
    move_to_device(model, config.device)
    return open_sources(InputSpec.of(model), data, context, validation, config.batch_size, config.seed)


def count_rows(source: Source, n_rows: int | None) -> int:
    """N, the number of training rows, by which the mean loss of a batch is multiplied.

    Raises:
        ConfigError: if it is unknown.
    """
    if n_rows is not None:
        return check_integer("n_rows", n_rows)
    if isinstance(source, Rows):
        return len(source.rows)
    assert isinstance(source, LoaderRows)
    try:
        return len(source.loader.dataset)  # pyright: ignore[reportArgumentType]
    except TypeError:
        raise ConfigError("these data have no length: pass n_rows=, the number of training rows.") from None


def refresh(model: Model, source: Source, seed: int) -> None:
    """Recompute statistics (batch normalization) for the present weights from training rows."""
    if model.needs_refresh:
        with preserved(source.spec.device):
            rows = source.spec.cast(*source.raw_sample(sample_rows(model.shape)))
        model.refresh(*rows, generator=generator(seed, Purpose.REFRESH, device=source.spec.device))


def sampling_callback(
    posterior: Posterior, start: int, every: int, callback: Callable[[TrainingEvent], object] | None
) -> tuple[Callable[[TrainingEvent], object], list[int]]:
    """A callback of ``fit`` that records the weights at every ``every``-th step after step ``start``, and these steps.

    A run that time ends has one more evaluation, which gives no sample: it may be one step after the last one.
    """
    steps: list[int] = []

    def record(event: TrainingEvent) -> object:
        if event.step > start and (event.step - start) % every == 0 and len(steps) < len(posterior):
            posterior.record(len(steps))
            steps.append(event.step)
        return None if callback is None else callback(event)

    return record, steps


def require_samples(count: int, method: str) -> None:
    """Refuse an empty posterior.

    Raises:
        TrainingError: if ``count`` is 0.
    """
    if not count:
        raise TrainingError(
            f"{method} ended before its first sample: give it more time, or fewer steps before that sample."
        )
