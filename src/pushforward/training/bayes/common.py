"""What the ways to weight samples share: which weights, how many rows, and statistics that belong to a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from pushforward.errors import ConfigError, TrainingError
from pushforward.models.base import Model
from pushforward.numerics.checks import check_integer
from pushforward.training.bayes.posterior import Posterior
from pushforward.training.input_spec import InputSpec
from pushforward.training.open_sources import open_sources
from pushforward.training.result import TrainingEvent
from pushforward.training.seeds import Purpose, generator, preserved
from pushforward.training.sources import LoaderRows, Rows, Source
from pushforward.training.trainer import sample_rows

__all__ = ["Callback", "check_options", "choose", "collector", "count_rows", "opened", "refresh",
           "require_samples", "trained_alone", "varying"]  # fmt: skip

Callback = Callable[[TrainingEvent], object] | None


def choose(model: Model, parameters: Sequence[str] | None) -> dict[str, nn.Parameter]:
    """The trainable parameters that lie under one of the names, or all.

    Args:
        model: any model.
        parameters: names of sub-modules or parameters, as they stand anywhere in the dotted names: "decoder" chooses
            ``chain.transforms.0.decoder.last.weight``, and "decoder.last" does too.

    Raises:
        ConfigError: if a name chooses nothing, or there is nothing to train.
    """
    known = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if isinstance(parameters, str):
        parameters = [parameters]
    for wanted in parameters or ():
        if not any(_lies_under(name, wanted) for name in known):
            raise ConfigError(
                f"{type(model).__name__} has no trainable parameter under {wanted!r}; there are {', '.join(known)[:400]}."
            )
    chosen = {n: p for n, p in known.items() if parameters is None or any(_lies_under(n, w) for w in parameters)}
    if not chosen:
        raise ConfigError(f"{type(model).__name__} has no parameter to have a posterior: nothing in it is trainable.")
    return chosen


def _lies_under(name: str, wanted: str) -> bool:
    return f".{wanted}." in f".{name}."


def varying(model: Model, chosen: dict[str, nn.Parameter]) -> tuple[str, ...]:
    """What to record of each sample: the chosen weights, and the statistics that must belong to them."""
    return (*chosen, *(dict(model.named_buffers()) if model.chain.needs_refresh else ()))


@contextmanager
def trained_alone(model: nn.Module, chosen: dict[str, nn.Parameter]) -> Iterator[None]:
    """Let nothing but the chosen parameters be trained."""
    kept = {id(p) for p in chosen.values()}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in kept]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


def opened(
    model: Model, data: Any, context: Any, validation: Any, batch_size: int | None, seed: int, device: Any
) -> tuple[Source, Source | None]:
    """The sources of training and held-out rows that ``pf.fit`` would open; the model goes to the device."""
    if not isinstance(model, Model):
        raise ConfigError(f"weight samples are taken of pushforward models; got {model!r:.80}.")
    if device is not None:
        model.to(device)
    return open_sources(InputSpec.of(model), data, context, validation, batch_size, seed)


def count_rows(source: Source, rows: int | None) -> int:
    """N, which the likelihood of a batch is scaled to.

    Raises:
        ConfigError: if neither the data nor the caller say.
    """
    if rows is not None:
        return check_integer("rows", rows)
    if isinstance(source, Rows):
        return len(source.rows)
    assert isinstance(source, LoaderRows)
    try:
        return len(source.loader.dataset)  # pyright: ignore[reportArgumentType]
    except TypeError:
        raise ConfigError("these data have no length: give rows=, the number of training rows.") from None


def refresh(model: Model, source: Source, seed: int) -> None:
    """Bring statistics (batch norm) to the present weights, with training rows."""
    if model.chain.needs_refresh:
        with preserved(source.form.device):
            rows = source.form.cast(*source.raw_sample(sample_rows(model.shape)))
        model.refresh(*rows, generator=generator(seed, Purpose.REFRESH, device=source.form.device))


def collector(posterior: Posterior, start: int, callback: Callback) -> tuple[Callback, list[int]]:
    """A callback of ``fit`` that records the weights at each evaluation after step ``start``, and the steps it did so."""
    taken: list[int] = []

    def collect(event: TrainingEvent) -> object:
        if event.step > start and len(taken) < len(posterior):
            posterior.record(len(taken))
            taken.append(event.step)
        return None if callback is None else callback(event)

    return collect, taken


def check_options(options: dict[str, Any]) -> None:
    """Refuse options of ``fit`` that cannot be kept: the samples so far are in no checkpoint.

    Raises:
        ConfigError: naming one.
    """
    if given := {"checkpoint", "checkpoint_every", "resume"} & set(options):
        raise ConfigError(
            f"{min(given)} is not for weight samples: only a deep ensemble can go on after it was killed."
        )


def require_samples(taken: int, what: str) -> None:
    """Refuse an empty posterior.

    Raises:
        TrainingError: if there is no sample.
    """
    if not taken:
        raise TrainingError(f"{what} ended before its first sample: give it more time, or fewer steps before that.")
