"""The file of a `NetworkGuard`: the guard without its network, and how it is read without trust."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pushforward import io
from pushforward.detection.network import Reading
from pushforward.detection.network.digest import same_weights
from pushforward.detection.network.examples import Examples
from pushforward.detection.network.head import Head
from pushforward.detection.network.padding import Padding
from pushforward.detection.network.storage import pack_score, unpack_score
from pushforward.errors import ConfigError, StorageError, in_words
from pushforward.numerics.checks import check_integer

if TYPE_CHECKING:
    from pushforward.estimators.network_guard import NetworkGuard

__all__ = ["read_network_guard", "write_network_guard"]

_MOST_CLASSES = 1_000_000


def write_network_guard(guard: NetworkGuard, path: str | os.PathLike[str]) -> None:
    """Write a fitted guard; see :meth:`NetworkGuard.save`."""
    description, tensors = pack_score(guard.score_)
    scores, classes = guard._calibration
    header = {
        "kind": "network guard",
        "options": {
            "alpha": guard.alpha, "logits": guard.logits, "features": guard.features, "task": guard.task,
            "per_class": guard.per_class, "smoothing": guard.smoothing, "guarantee": guard.guarantee, "delta": guard.delta, "reservoir": guard.reservoir,
            "batch_size": guard.batch_size, "seed": guard.seed, "layers": list(guard.reader_.layers),
        },
        "read": guard.read is not None,
        "reader": {
            **({"head": None} if (head := guard.reader_.found) is None else head.to_json()),
            "transposes": guard.reader_.transposes,
            "copies": sorted(guard.reader_.copies),
            "channels_last": sorted(guard.reader_.channels_last),
            "padding": guard.reader_.padding.to_json(),
        },
        "digest": guard.digest_,
        "autocast": guard.autocast_,
        "classes": guard.classes_,
        "promised": guard.promised_,
        "training_rows": guard.training_rows_,
        "columns": None if (names := getattr(guard, "feature_names_in_", None)) is None else list(names),
        "score": description,
    }  # fmt: skip
    own = {"calibration": scores, "calibration classes": classes, **guard.examples_.pack("examples.")}
    io.write(path, header, tensors | own)


def read_network_guard(
    cls: type[NetworkGuard],
    path: str | os.PathLike[str],
    net: nn.Module | Callable[..., Any],
    read: Callable[[Any], Reading] | None,
    members: Sequence[nn.Module],
    public_key: Any = None,
) -> NetworkGuard:
    """Read a guard for its network; see :meth:`NetworkGuard.load`."""
    name = os.fspath(path)
    header, tensors = io.read(path, kind="network guard", public_key=public_key)
    if header.get("read") and read is None:
        raise ConfigError(f"{name} belongs to a guard with a reading function: pass read=.")
    if isinstance(net, nn.Module) and not same_weights(net, header.get("digest")):
        inner = getattr(net, "module", None)
        if isinstance(inner, nn.Module) and same_weights(inner, header.get("digest")):
            raise StorageError(f"{name} was fitted to the module in this {type(net).__name__}: pass net.module.")
        raise StorageError(
            f"{name} was fitted to another network: the weights of this one differ (another training, another "
            "precision, or a fine-tuned copy), so its calibration does not hold; fit a guard to this network."
        )
    try:
        guard = cls(net, read=read, **header["options"])
        guard.classes_, guard.promised_ = int(header["classes"]), bool(header["promised"])
        rows = header.get("training_rows")
        guard.training_rows_ = None if rows is None else check_integer("training_rows", rows)
        guard._set_names(_names(header.get("columns")))
        reader = header["reader"]
        guard.reader_.restore(
            Head.from_json(reader), guard.classes_ > 1, transposes=reader.get("transposes", False),
            copies=reader.get("copies", ()), channels_last=reader.get("channels_last", ()),
            padding=Padding.from_json(reader.get("padding")),
        )  # fmt: skip
        guard.digest_, guard.autocast_ = header["digest"], _autocast(header.get("autocast"))
        weights = guard.reader_.weight_and_bias()
        if not 1 <= guard.classes_ <= _MOST_CLASSES or (
            weights is not None and guard.classes_ not in (1, len(weights[1]))
        ):
            raise StorageError(f"it has {guard.classes_} classes.")
        scores, classes = tensors.pop("calibration"), tensors.pop("calibration classes")
        guard.examples_ = Examples.unpack(tensors, "examples.")
        guard.score_ = unpack_score(header["score"], tensors, members)
        if scores.dtype != torch.float64 or classes.dtype != torch.int64 or len(scores) != len(classes):
            raise StorageError("its calibration scores have the wrong type.")
        return guard._calibrate(scores, classes)
    except ConfigError as error:
        if "members" in str(error):
            raise
        raise StorageError(f"{name} does not fit this network: {error}") from error
    except StorageError as error:
        if "members=" in str(error):
            raise StorageError(f"{name}: {error}") from None
        raise StorageError(f"{name} does not contain a guard that pushforward wrote: {in_words(error)}") from error
    except Exception as error:  # the content is not trusted; every failure means the same to the caller
        raise StorageError(f"{name} does not contain a guard that pushforward wrote: {in_words(error)}") from error


def _names(columns: Any) -> list[str] | None:
    if columns is not None and not (isinstance(columns, list) and all(isinstance(name, str) for name in columns)):
        raise StorageError("the names of its columns must be text.")
    return columns


def _autocast(name: Any) -> str | None:
    if name is not None and not isinstance(name, str):
        raise StorageError("the type of its autocast must be text.")
    return name
