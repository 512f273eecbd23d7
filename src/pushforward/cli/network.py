"""Scoring with a guard around a network, which the user names as ``package.module:function``."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pushforward.errors import ConfigError, InputError

__all__ = ["example_inputs", "load_guard", "load_network", "scored_parts", "summary"]


def load_network(name: str) -> Any:
    """Call ``function`` of ``package.module``, which returns the network.

    Only a name that the user passes on the command line comes here, never one from a file: importing a module runs its code.

    Raises:
        ConfigError: for a name of another form, a module or function that does not exist, or a result that is no module.
    """
    from torch import nn

    module, _, function = name.partition(":")
    if not module or not function.isidentifier():
        raise ConfigError(f"--network must be package.module:function; got {name!r}.")
    try:
        make = getattr(importlib.import_module(module), function)
    except ImportError as error:
        raise ConfigError(f"--network {name}: cannot import {module}: {error}. Is its folder in PYTHONPATH?") from error
    except AttributeError:
        raise ConfigError(f"--network {name}: the module {module} has no function {function}.") from None
    net = make()
    if not isinstance(net, nn.Module):
        raise ConfigError(
            f"--network {name}: {function}() returned {type(net).__name__}; it must return a torch.nn.Module."
        )
    return net.eval()


def load_guard(path: Path, network: str | None, public_key: Path | None) -> Any:
    """The guard of a file: a `Guard`, or with the name of a network a `NetworkGuard`.

    Raises:
        ConfigError: if ``network`` is missing, or is given for another guard.
        StorageError: for a file that does not contain a guard.
    """
    from pushforward.estimators import Guard, NetworkGuard
    from pushforward.io import read

    if network is None and read(path)[0]["kind"] != "network guard":
        return Guard.load(path, public_key=public_key)
    if network is None:
        raise ConfigError(
            f"{path} guards a network: name the function that returns it, --network package.module:function."
        )
    if read(path)[0]["kind"] != "network guard":
        raise ConfigError(f"--network is for the guard of a network, and {path} is none.")
    if public_key is not None:
        from pushforward.io import verify

        verify(path, public_key)
    return NetworkGuard.load(path, load_network(network))


def scored_parts(guard: Any, source: str, rows: int, options: dict[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Parts of a file with their results: a table to write, and its new columns.

    Images are given to the network as float32 in [0, 1], ``(n, channels, height, width)``, and tables as float32 matrices.

    Raises:
        InputError: for a table with columns that are not numbers.
    """
    import pyarrow as pa
    import torch

    from pushforward.io import holds_images, read_images, stream_table

    if holds_images(Path(source)):
        images = read_images(source)
        top = 255 if images.dtype == torch.uint8 else torch.iinfo(images.dtype).max
        parts = ((pa.table({"image": range(k, k + len(x))}), x.float() / top) for k, x in _parts(images, rows))
    else:
        parts = ((chunk, _matrix(chunk, source)) for chunk in stream_table(source, rows=rows, **options))
    for chunk, inputs in parts:
        out = guard(inputs)
        result = {"anomaly_score": out.score.numpy(), "p_value": out.p_value.numpy(), "alarm": out.alarm.numpy()}
        if guard.classes_ > 1:
            result = {"prediction": out.prediction.numpy()} | result
        yield chunk, result | {"reason": list(out.reason)}


def example_inputs(source: str, options: dict[str, Any]) -> Any:
    """Two inputs of a network from a file of images or of a table, as :func:`scored_parts` gives them.

    Raises:
        InputError: for an empty file, or a table with columns that are not numbers.
    """
    import torch

    from pushforward.io import holds_images, read_images, stream_table

    if holds_images(Path(source)):
        images = read_images(source)[:2]
        return images.float() / (255 if images.dtype == torch.uint8 else torch.iinfo(images.dtype).max)
    for chunk in stream_table(source, rows=2, **options):
        if chunk.num_rows:
            return _matrix(chunk, source)
    raise InputError(f"{source} has no rows.")


def _parts(images: Any, rows: int) -> Iterator[tuple[int, Any]]:
    return ((k, images[k : k + rows]) for k in range(0, len(images), rows))


def _matrix(chunk: Any, source: str) -> Any:
    import numpy as np
    import torch

    try:
        columns = [np.asarray(column.to_numpy(), dtype=np.float32) for column in chunk.columns]
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{source} has a column that is not of numbers, which a network cannot take: {error}"
        ) from error
    return torch.from_numpy(np.stack(columns, 1))


def summary(header: dict[str, Any]) -> dict[str, Any]:
    """The facts about the guard of a network that its file tells without the network."""
    options = header["options"]
    promise = f"at most {options['alpha']:.2%} ({options['guarantee']}{', each class' if options['per_class'] else ''})"
    return {
        "network": f"digest {header['digest'][:12]}..., {header['classes']} classes",
        "statistics": ", ".join(part["class"] for part in header["score"]),
        "inner layers": ", ".join(options["layers"]) or "none",
        "false alarms": promise if header["promised"] else "no promise: it was calibrated on training rows",
    }
