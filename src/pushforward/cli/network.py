"""Scoring with a guard around a network, which the user names as ``package.module:function``."""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pushforward.errors import ConfigError, InputError

__all__ = [
    "check_label",
    "example_inputs",
    "labeled_batches",
    "load_guard",
    "load_network",
    "network_parts",
    "network_scores",
    "summary",
]


def load_network(name: str) -> Any:
    """Call ``function`` of ``package.module``, which returns the network.

    Only a name that the user passes on the command line comes here, never one from a file: importing a module runs its code.
    Modules in the current folder are found too, after all others.

    Raises:
        ConfigError: for a name of another form, a module or function that does not exist or raises an error, or a result that is no
            module.
    """
    from torch import nn

    module, _, function = name.partition(":")
    if not module or not function.isidentifier():
        raise ConfigError(f"--network must be package.module:function; got {name!r}.")
    with _current_folder():
        try:
            found = importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(
                f"--network {name}: cannot import {module}: {error}. Is it in the current folder, or its folder in PYTHONPATH?"
            ) from error
        except (Exception, SystemExit) as error:  # the code of the user's module
            raise ConfigError(f"--network {name}: {module} raised {type(error).__name__}: {error}") from error
        if not hasattr(found, function):
            raise ConfigError(f"--network {name}: the module {module} has no function {function}.")
        make = getattr(found, function)
        if not callable(make):
            raise ConfigError(f"--network {name}: {function} is no function; write one that returns the network.")
        try:
            net = make()
        except (Exception, SystemExit) as error:  # the code of the user's function
            raise ConfigError(f"--network {name}: {function}() raised {type(error).__name__}: {error}") from error
    if not isinstance(net, nn.Module):
        raise ConfigError(
            f"--network {name}: {function}() returned {type(net).__name__}; it must return a torch.nn.Module."
        )
    return net.eval()


@contextmanager
def _current_folder() -> Iterator[None]:
    """Find modules in the current folder too, as ``python -m`` does; last, so that none of them hides an installed module."""
    here, before = str(Path.cwd()), list(sys.path)
    if here not in before:
        sys.path.append(here)
    try:
        yield
    finally:
        sys.path[:] = before


def load_guard(path: Path, network: str | None, public_key: Path | None) -> Any:
    """The guard of a file: a `Guard`, or with the name of a network a `NetworkGuard`.

    Raises:
        ConfigError: if ``network`` is missing, or is given for another guard.
        StorageError: for a file that does not contain a guard.
    """
    from pushforward.estimators import Guard, NetworkGuard
    from pushforward.io import read

    kind = read(path, public_key=public_key)[0]["kind"]
    if network is None and kind != "network guard":
        return Guard.load(path, public_key=public_key)
    if network is None:
        raise ConfigError(
            f"{path} guards a network: name the function that returns it, --network package.module:function."
        )
    if kind != "network guard":
        raise ConfigError(f"--network is for the guard of a network, and {path} is none.")
    return NetworkGuard.load(path, load_network(network), public_key=public_key)


def refuse_network_guard(path: str | Path, public_key: str | Path | None, command: str, instead: str) -> None:
    """Refuse the file of a network's guard, for a command that has no network.

    Raises:
        ConfigError: saying what to do instead.
    """
    from pushforward.io import read

    if read(path, public_key=public_key)[0]["kind"] == "network guard":
        raise ConfigError(
            f"{path} is the guard of a network, and {command} is for guards of tables and images: {instead}."
        )


def network_parts(source: str, rows: int, options: dict[str, Any], guard: Any) -> Iterator[tuple[Any, Any]]:
    """Parts of a file: a table to write, and the inputs of the network.

    Images are given to the network in [0, 1], ``(n, channels, height, width)``, and tables as matrices, of the type of its weights. Columns
    are found by name if the guard was fitted on a table with names. Gray images get three equal channels, and images whose three
    channels are equal get one, if the network cannot read them as they are.

    Args:
        source: the file.
        rows: of a part.
        options: of :func:`~pushforward.io.stream_table`.
        guard: of the network.

    Raises:
        InputError: for a table with columns that are not numbers, images that are not of 8 bits, or colors for a network of gray images.
    """
    from pushforward.cli.parts import column_types, numbered
    from pushforward.io import holds_images, stream_table

    if holds_images(Path(source)):
        yield from numbered(_named_batches(source, rows, guard))
    else:
        for chunk in stream_table(source, rows=rows, types=column_types(guard), empty=True, integers=True, **options):
            yield chunk, matrix_of(chunk, source, guard, options)


def network_scores(guard: Any, inputs: Any) -> dict[str, Any]:
    """The new columns of a batch of the network's inputs."""
    out = guard(inputs)
    result = {"anomaly_score": out.score.numpy(), "p_value": out.p_value.numpy(), "alarm": out.alarm.numpy()}
    if guard.classes_ > 1:
        result = {"prediction": out.prediction.numpy()} | result
    return result | {"reason": list(out.reason)}


def example_inputs(source: str, options: dict[str, Any], guard: Any) -> Any:
    """Two inputs of a network from a file of images or of a table, as :func:`network_parts` gives them.

    Raises:
        InputError: for an empty file, a table with columns that are not numbers, or images that are not of 8 bits.
    """
    from pushforward.cli.parts import column_types
    from pushforward.io import holds_images, stream_table

    if holds_images(Path(source)):
        return next(_image_batches(source, 2, guard))
    for chunk in stream_table(source, rows=2, types=column_types(guard), **options):
        if chunk.num_rows:
            return matrix_of(chunk, source, guard, options)
    raise InputError(f"{source} has no rows.")


def labeled_batches(
    source: str, rows: int, options: dict[str, Any], label: str | None, guard: Any, *, classes: bool = True
) -> Iterator[tuple[Any, Any]]:
    """Batches of a file for a network, as :func:`network_parts` makes them, each with its labels or None.

    Args:
        source: the file.
        rows: of a batch.
        options: of :func:`~pushforward.io.stream_table`.
        label: the column with the labels; for images, of a Parquet file.
        guard: of the network.
        classes: whether labels are the classes of the network, integers, or a list of any values, None where one is missing.

    Raises:
        InputError: for classes that are missing or not integers, a table with columns that are not numbers, or images that are not of 8 bits.
        SchemaError: if there is no such column.
        ConfigError: for a column that the guard reads.
    """
    from pushforward.cli.parts import column_types
    from pushforward.data.schema import present_columns
    from pushforward.errors import SchemaError
    from pushforward.io import holds_images, read_table, stream_table

    def values(column: Any) -> Any:
        return _classes(column, str(label)) if classes else column.to_pylist()

    if holds_images(Path(source)):
        labels = None
        if label is not None:
            if not source.lower().endswith(".parquet"):
                raise InputError(f"--label {label}: only a Parquet file of images has columns, and {source} is none.")
            labels = values(read_table(source, [label]).column(0))
        first = 0
        for x in _image_batches(source, rows, guard):
            yield x, None if labels is None else labels[first : first + len(x)]
            first += len(x)
        return
    if label is not None:
        check_label(guard, label)
    for chunk in stream_table(source, rows=rows, types=column_types(guard), **options):
        labels = None
        if label is not None:
            if label not in chunk.column_names:
                raise SchemaError(
                    f"{source} has no column {label!r}; it has {present_columns(label, chunk.column_names)}."
                )
            labels, chunk = values(chunk.column(label)), chunk.drop_columns([label])
        yield matrix_of(chunk, source, guard, options), labels


def check_label(guard: Any, label: str) -> None:
    """Refuse a column of labels that the guard of a table reads.

    Raises:
        ConfigError: for such a column.
    """
    if label in getattr(guard, "feature_names_in_", ()):
        raise ConfigError(
            f"--label {label}: the guard was fitted on this column, and labels are set aside before rows are scored: fit a guard "
            "without it, or name another column."
        )


def _classes(column: Any, name: str) -> Any:
    import pyarrow as pa
    import torch

    if column.null_count:
        raise InputError(f"column {name!r} lacks the number of the class in {column.null_count} rows: leave them out.")
    try:
        return torch.from_numpy(column.cast(pa.int64()).combine_chunks().to_numpy(zero_copy_only=False).astype("int64"))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise InputError(f"column {name!r} must have the number of each row's class: {error}") from None


def _image_batches(source: str, rows: int, guard: Any) -> Iterator[Any]:
    """Images in [0, 1], of the type of the network's weights, with as many channels as it reads.

    Raises:
        InputError: for images of other integers than 8 bits, whose largest value is not known from their numbers, or for colors if the
            network reads gray images.
    """
    return (x for _, x in _named_batches(source, rows, guard))


def _named_batches(source: str, rows: int, guard: Any) -> Iterator[tuple[list[str] | None, Any]]:
    """The batches of :func:`_image_batches`, each with the names of its files, or None without image files."""
    import torch

    from pushforward.io.images import named_images

    channels, first = None, 0
    for names, part in named_images(source, rows):
        if part.dtype != torch.uint8:
            raise InputError(
                f"{source} has images that are not of 8 bits, and a network is given pixels from 0 to 1: store them as integers from 0 to 255 "
                "(uint8)."
            )
        x = (part.float() / 255).to(guard.reader_.dtype or torch.float32)
        channels = _channels_read(guard, x[:2]) if channels is None else channels
        if channels < x.shape[1] and (colored := (part != part[:, :1]).flatten(1).any(1)).any():
            k = colored.tolist().index(True)
            name = f"image {first + k} (counted from 0)" if names is None else names[k]
            raise InputError(
                f"{name} of {source} has colors, and the network reads gray images: convert it to gray, or leave it out."
            )
        yield names, _with_channels(x, channels)
        first += len(part)


def _channels_read(guard: Any, x: Any) -> int:
    """The number of channels with which a network reads images: their own, else three of gray images and one of others.

    The guard of a network does not know it, so the network is called. If it reads neither, the guard says why.
    """
    own: int = x.shape[1]
    reader = copy.copy(guard.reader_)  # these few images must not show a new reader what the network is
    for channels in (own, {1: 3, 3: 1}.get(own, own)):
        try:
            reader.read(_with_channels(x, channels))
        except (InputError, AssertionError):  # an assertion is one of the user's network
            continue
        return channels
    return own


def _with_channels(x: Any, channels: int) -> Any:
    """Images with three equal channels of gray ones, or with the first channel of others."""
    if x.shape[1] == channels:
        return x
    return x.repeat(1, channels, 1, 1) if channels > 1 else x[:, :1].contiguous()


def matrix_of(chunk: Any, source: str, guard: Any, options: Mapping[str, Any] | None = None) -> Any:
    """A table as the network of a guard takes it, of the type of its weights, or float32.

    Args:
        chunk: the table.
        source: the file.
        guard: of the network.
        options: of reading, with the decimal point of numbers that are text.

    Raises:
        InputError: for a table with columns that are not numbers.
        SchemaError: if it lacks columns that the guard was fitted on.
    """
    import numpy as np
    import torch

    from pushforward.estimators.feature_names import in_order

    table = numbers_of(in_order(getattr(guard, "feature_names_in_", None), chunk), source, options)
    return torch.from_numpy(np.stack([column.to_numpy() for column in table.columns], 1)).to(
        guard.reader_.dtype or torch.float32
    )


def numbers_of(chunk: Any, source: str, options: Mapping[str, Any] | None = None) -> Any:
    """A table of float64, of one whose numbers may be text, as those of a CSV file are; NA and its like are missing.

    Raises:
        InputError: for a table with columns that are not numbers.
    """
    import numpy as np
    import pyarrow as pa

    from pushforward.data.arrow import is_text
    from pushforward.data.text import parse_numbers

    def numbers(name: str, column: Any) -> Any:
        if pa.types.is_temporal(column.type):  # a count of a unit that nothing states
            raise ValueError(f"column {name!r} has the type {column.type}")
        if not is_text(column.type):
            return np.asarray(column.to_numpy(), dtype=np.float64)
        found, bad = parse_numbers(with_points(column, (options or {}).get("decimal", ".")))
        if bad.any():
            raise ValueError(f"column {name!r} has the cell {column[int(bad.argmax())].as_py()!r:.80}")
        return found

    if not chunk.num_columns:
        raise InputError(f"{source} has no column for the network.")
    try:
        columns = [numbers(name, column) for name, column in zip(chunk.column_names, chunk.columns, strict=True)]
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{source} has a column that is not of numbers, which a network cannot take: {error}"
        ) from error
    return pa.table(columns, names=chunk.column_names)


def with_points(column: Any, decimal: str) -> Any:
    """Numbers that are text, with a point where they have another mark; a point that they already have makes them no numbers."""
    from pushforward.data.arrow import compute

    pc = compute()
    if decimal == ".":
        return column
    return pc.replace_substring(pc.replace_substring(column, ".", "?"), decimal, ".")


def summary(header: dict[str, Any]) -> dict[str, Any]:
    """The facts about the guard of a network that its file tells without the network."""
    options = header["options"]
    promise = f"at most {options['alpha']:.2%} ({options['guarantee']}{', each class' if options['per_class'] else ''})"
    columns = {} if header.get("columns") is None else {"columns": ", ".join(header["columns"])}
    return {
        "network": f"digest {header['digest'][:12]}..., {header['classes']} classes",
        **columns,
        "statistics": ", ".join(part["class"] for part in header["score"]),
        "inner layers": ", ".join(options["layers"]) or "none",
        "false alarms": promise if header["promised"] else "no promise: it was calibrated on training rows",
    }
