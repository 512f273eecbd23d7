"""From what a user passes as data to sources of training rows and of held-out rows."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from pushforward.errors import ConfigError, InputError
from pushforward.training.input_spec import InputSpec
from pushforward.training.seeds import Purpose, generator
from pushforward.training.sources import BATCH, ArrayRows, DatasetRows, LoaderRows, Rows, Source

__all__ = ["open_sources"]

_DEVICE_SHARE = 0.25
"""Part of a device's free memory that a data set may take to be kept there."""
_LOOKED_AT = 10_000
"""Rows that a column's mean and spread are estimated from, to see whether the model's type can hold it."""


def open_sources(
    form: InputSpec, data: Any, context: Any, validation: Any, batch_size: int | None, seed: int
) -> tuple[Source, Source | None]:
    """Training rows, and held-out rows if there are any.

    Args:
        form: what the model reads.
        data: array, tensor, frame or list, or a pair (x, context) of them; map-style or iterable ``Dataset``; ``DataLoader``;
            or a source that is open already.
        context: of array data.
        validation: fraction to split off, or rows of the same kinds, or a pair (x, context) of arrays, or None.
        batch_size: rows in a batch of training; None for the usual number.
        seed: of split and shuffling.

    Raises:
        ConfigError: for a fraction outside [0, 1), or of data that cannot be split.
        InputError: for data that the model cannot read.
    """
    if isinstance(data, tuple) and len(data) == 2 and form.context and context is None:
        data, context = data
    train = _open(form, data, context, batch_size, seed, "training data")
    if validation is None:
        return train, None
    if isinstance(validation, Real):
        if isinstance(validation, bool) or not 0 <= float(validation) < 1:
            raise ConfigError(
                f"validation must be a fraction in [0, 1), held-out data, or None for none; got {validation!r}."
            )
        return _split(train, float(validation), batch_size, seed)
    x, held_context = validation if isinstance(validation, tuple) and len(validation) == 2 else (validation, None)
    return train, _open(form, x, held_context, batch_size or BATCH, seed, "validation data")


def _open(form: InputSpec, data: Any, context: Any, batch_size: int | None, seed: int, what: str) -> Source:
    if isinstance(data, Source):
        return data
    if isinstance(data, DataLoader | Dataset):
        if context is not None:
            raise ConfigError(
                f"context= goes with arrays; a {type(data).__name__} yields (x, context) for each row or batch."
            )
        if isinstance(data, DataLoader):
            return LoaderRows(form, data, seed)
        if isinstance(data, IterableDataset):
            return LoaderRows(form, DataLoader(data, batch_size=batch_size or BATCH), seed)
        if not isinstance(data, TensorDataset) or len(data.tensors) > 2:
            return _open_dataset(form, data, batch_size, seed, what)
        tensors = list(data.tensors)
        data, context = tensors[0], tensors[1] if len(tensors) == 2 and form.context else None
    if data is None or isinstance(data, Real | str | bytes) or callable(data):
        raise InputError(
            f"the {what} must be an array, tensor, frame, torch Dataset or DataLoader; got {type(data).__name__}."
        )
    x, context = _tensor(data), None if context is None else _tensor(context)
    if context is not None and not form.context:
        raise ConfigError(f"{form.owner} takes no context: build it with context={context.shape[-1]}, or leave it out.")
    _require_rows(len(x) if x.dim() else 0, what)
    if context is not None:
        context = form.match(context, len(x))
        form.require_finite(context, f"context of the {what}")
    form.cast(x[:1], None if context is None else context[:1])
    form.require_finite(x, what)
    whole = torch.arange(len(x))
    if what == "training data":
        form.warn_if_lost(ArrayRows(form, x, context, whole, batch_size, seed).raw_sample(_LOOKED_AT)[0])
    if form.device.type != x.device.type and _fits(form, x):
        x, context = form.cast(x, context)
    return ArrayRows(form, x, context, whole, batch_size, seed)


def _open_dataset(form: InputSpec, data: Any, batch_size: int | None, seed: int, what: str) -> Source:
    try:
        count = len(data)
    except TypeError:
        raise InputError(f"the {what} are a {type(data).__name__} without a length: wrap it in a DataLoader.") from None
    _require_rows(count, what)
    return DatasetRows(form, data, torch.arange(count), batch_size, seed)


def _tensor(data: Any) -> Tensor:
    if isinstance(data, Tensor):
        return data.detach()
    from pushforward.data import as_tensor_data

    return as_tensor_data(data)[0]


def _split(train: Source, fraction: float, batch_size: int | None, seed: int) -> tuple[Source, Source | None]:
    if fraction == 0:
        return train, None
    if not isinstance(train, Rows):
        raise ConfigError(
            "a DataLoader cannot be split: pass validation= another loader, a data set or arrays, or validation=None "
            "to train without early stopping."
        )
    count = len(train.rows)
    held = int(fraction * count + 0.5)
    if held == count:
        raise ConfigError(f"validation={fraction} of {count} rows leaves none to train on: use a smaller fraction.")
    if held == 0:
        return train, None
    shuffled = torch.randperm(count, generator=generator(seed, Purpose.SPLIT))
    # Sorted, so that reading either part in order walks through memory or files in order.
    held_out = train.part(shuffled[:held].sort().values, batch_size or BATCH)
    return train.part(shuffled[held:].sort().values, batch_size), held_out


def _require_rows(count: int, what: str) -> None:
    if count == 0:
        raise InputError(f"the {what} have no rows.")


def _fits(form: InputSpec, x: Tensor) -> bool:
    if form.device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(form.device)
    return x.numel() * torch.finfo(form.dtype).bits / 8 < _DEVICE_SHARE * free
