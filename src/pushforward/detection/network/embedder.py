"""`Embedder`: rows of features of a pretrained network from photographs, texts, or whatever the network takes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from pushforward.data.images import is_picture
from pushforward.detection.network.digest import digest
from pushforward.detection.network.reader import NetworkReader
from pushforward.detection.network.reading import length, plain_tensor
from pushforward.detection.network.streaming import batches
from pushforward.errors import ConfigError, InputError, warn_caller
from pushforward.numerics.checks import check_integer

__all__ = ["Embedder"]


class Embedder:
    """Inputs to rows of features by one forward pass of a network in evaluation mode.

    The features are the input of the linear layer with which the network ends, as most classifiers do, and else its output.
    Values on positions, ``(n, channels, height, width)`` or ``(n, length, D)``, are averaged over the positions, without those
    that an ``attention_mask`` leaves out.

    The last digits of features depend on the batch, because PyTorch rounds batches of other sizes in other ways. So an input may
    have another score, and seldom another p-value, alone than among others, by about 1e-7 of its features.

    Args:
        net: a module; or a function from a batch of inputs to features, for networks that are not modules of PyTorch. Without
            ``prepare`` the function gets parts of what is given: of an array of NumPy an array, of a tensor a tensor, of a list a list.
        prepare: a function from a list of inputs to what the network takes, such as :class:`~pushforward.data.Photographs` or a
            tokenizer; None for arrays and tensors, which the network takes as they are.
        features: name of the module whose output is the features; None for the rule above.
        output: name or index of the part of the network's output, where it is not clear.
        normalize: whether to give the direction ``z / ||z||`` and, as one more column, ``log ||z||``, in place of z. Networks that
            were trained with cosines or a softmax compare directions.
        batch_size: where the data have no batches of their own.

    Example:
        >>> import torch, pushforward as pf
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 5))
        >>> embed = pf.detection.network.Embedder(net, pf.data.Photographs(32))
        >>> embed([torch.zeros(3, 50, 40, dtype=torch.uint8)] * 2).shape
        (2, 9)
    """

    def __init__(
        self,
        net: nn.Module | Callable[[Any], Any],
        prepare: Callable[[list[Any]], Any] | None = None,
        *,
        features: str | None = None,
        output: str | int | None = None,
        normalize: bool = True,
        batch_size: int = 64,
    ) -> None:
        if not callable(net):
            raise ConfigError(f"embed must be a network or a function; got {type(net).__name__}.")
        self.net, self.prepare, self.features, self.output = net, prepare, features, output
        self.normalize = bool(normalize)
        self.batch_size = check_integer("batch_size", batch_size)
        self._reader = (
            NetworkReader(net, logits=output, layers=[], features=features) if isinstance(net, nn.Module) else None
        )

    def __repr__(self) -> str:
        prepare = "" if self.prepare is None else f", {self.prepare!r}"
        return f"Embedder({type(self.net).__name__}{prepare})"

    @property
    def digest(self) -> str:
        """SHA-256 of the network's weights and of how inputs are prepared, hexadecimal; "" for a function, which has none."""
        if not isinstance(self.net, nn.Module):
            return ""
        how = "" if self.prepare is None or " at 0x" in repr(self.prepare) else repr(self.prepare)
        return hashlib.sha256(
            f"{digest(self.net)} {self.features} {self.output} {self.normalize} {how}".encode()
        ).hexdigest()

    @property
    def _dtype(self) -> torch.dtype | None:
        """The type of the network's weights, which arrays of fractions get."""
        return None if self._reader is None else self._reader.dtype

    def __call__(self, data: Any) -> np.ndarray:
        """The features of all inputs, float64, ``(n, D + 1)``, or ``(n, D)`` if not ``normalize``.

        Args:
            data: a list of inputs; an array or a tensor of them; a dictionary of tensors; a ``Dataset``; or a ``DataLoader``.
                Labels of data sets and loaders are ignored. With ``prepare`` also a column of a data frame, an array of texts, a
                generator, or anything else that gives inputs one by one and in an order.

        Raises:
            InputError: for no inputs, one that is not in a list, a set, or features that are not numbers.
        """
        parts = [self._features(part, count) for part, count in self._batches(self.listed(data))]
        if not parts:
            raise InputError("there are no inputs to embed: give at least one.")
        if len({part.shape[1] for part in parts}) > 1:
            raise InputError(
                "the network returned different numbers of features for different batches: give inputs of one size, or a prepare= that makes them so."
            )
        rows = np.concatenate(parts)
        bad = ~np.isfinite(rows).all(1)
        if bad.any():
            raise InputError(
                f"the features of input {int(bad.argmax())} (counted from 0) are NaN or infinite: check this input, and leave it out."
            )
        return self._directions(rows)

    def _directions(self, rows: np.ndarray) -> np.ndarray:
        if not self.normalize:
            return rows
        norm = np.linalg.norm(rows, axis=1, keepdims=True).clip(min=1e-30)
        return np.concatenate([rows / norm, np.log(norm)], axis=1)

    def warn_if_random(self, data: Any, features: np.ndarray) -> None:
        """Embed the first inputs again, and warn if they get other features, as after random changes of images in ``prepare``.

        Loaders and streams may give other inputs first, and are left out.

        Args:
            data: what was embedded.
            features: what :meth:`__call__` returned for it.
        """
        if isinstance(data, (DataLoader, IterableDataset)) or hasattr(data, "batch_size"):
            return
        inputs, count = next(self._batches(self.listed(data)))
        again = self._directions(self._features(inputs, count))
        change, spread = np.square(again - features[:count]).mean(), features.var(0).mean()
        if change > 1e-6 * spread + 1e-18:
            warn_caller(
                "embed gives other features for the same inputs when it is asked again, so scores and p-values change from call to call: "
                "leave random changes of the inputs, such as augmentation, out of prepare=, and call .eval() on a network inside a function."
            )

    def listed(self, data: Any) -> Any:
        """Data that give inputs one by one as a list, since a generator can be read only once; other data as they are.

        Without ``prepare`` all data stay as they are.

        Raises:
            InputError: for one input that is not in a list, a set, or a table of texts.
        """
        alone = isinstance(data, np.ndarray) and not data.ndim
        if alone or isinstance(data, (str, bytes, bytearray, os.PathLike)) or is_picture(data):
            raise InputError(f"this is one input, of type {type(data).__name__}: give a list of inputs, also of one.")
        if isinstance(data, (set, frozenset)):
            raise InputError(
                "the order of a set is not defined, and each row has a place: give a list, such as sorted(paths)."
            )
        if self.prepare is None or isinstance(data, (Sequence, Mapping, Tensor, Dataset, DataLoader)):
            return data
        if hasattr(data, "batch_size"):  # another loader
            return data
        if hasattr(data, "__array__") and hasattr(data, "shape"):
            array = np.asarray(data)
            if array.ndim > 1 and array.size and isinstance(array.flat[0], (str, os.PathLike)):
                raise InputError(
                    f"a table of texts, of shape {array.shape}, is no list of inputs: give one column of it."
                )
            if array.ndim > 1 or (isinstance(data, np.ndarray) and array.dtype.kind not in "OUST"):
                return data
        plain = getattr(data, "to_pylist", None)  # of pyarrow, whose scalars are no texts
        if plain is not None:
            return plain()
        return list(data) if hasattr(data, "__iter__") else data

    def _batches(self, data: Any) -> Iterator[tuple[Any, int]]:
        """What the network takes, and the number of inputs in it."""
        if isinstance(data, Sequence) and not isinstance(data, (Dataset, DataLoader)):
            if not data:
                raise InputError("there are no inputs to embed.")
            for start in range(0, len(data), self.batch_size):
                some = [data[k] for k in range(start, min(start + self.batch_size, len(data)))]
                yield self._prepared(some), len(some)
        elif isinstance(data, np.ndarray) and self.prepare is None and not isinstance(self.net, nn.Module):
            if not data.ndim or not len(data):
                raise InputError("there are no inputs to embed: give at least one.")
            for start in range(0, len(data), self.batch_size):
                yield (some := data[start : start + self.batch_size]), len(some)
        elif isinstance(data, Dataset) and self.prepare is not None:
            whole: Any = data
            kept: list[Any] = []
            for item in whole if isinstance(data, IterableDataset) else (whole[k] for k in range(len(whole))):
                kept.append(item[0] if isinstance(item, tuple) else item)
                if len(kept) == self.batch_size:
                    yield self._prepared(kept), len(kept)
                    kept = []
            if kept:
                yield self._prepared(kept), len(kept)
        else:
            for inputs, _ in batches(data, self.batch_size, "the data to embed", self._dtype, self.net):
                ready = self.prepare is None or isinstance(inputs, Mapping)
                yield inputs if ready else self._prepared(list(inputs)), length(inputs)

    def _prepared(self, inputs: list[Any]) -> Any:
        if self.prepare is not None:
            return self.prepare(inputs)
        if not isinstance(self.net, nn.Module):
            return inputs
        try:
            return torch.stack([plain_tensor(value, self._dtype) for value in inputs])
        except (InputError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"the inputs do not form one tensor ({error}): give prepare=, a function from a list of inputs to what the network takes."
            ) from error

    def _features(self, inputs: Any, count: int) -> np.ndarray:
        if self._reader is not None:
            found: Any = self._reader.read(inputs).features
        else:
            with torch.no_grad():
                found = self.net(inputs)
        found = found.detach().cpu() if isinstance(found, Tensor) else _tensor(found)
        if found.is_complex():
            raise InputError(
                "embed returned complex numbers: return real ones, such as their real and imaginary parts as columns."
            )
        if found.dim() != 2:
            raise InputError(f"embed must return one row of features for each input, (n, D); got {tuple(found.shape)}.")
        if len(found) != count:
            raise InputError(
                f"embed returned {len(found)} rows of features for {count} inputs: let it return one row for each input."
            )
        return found.double().numpy()


def _tensor(found: Any) -> Tensor:
    """What a function returned that is no tensor.

    Raises:
        InputError: if it is not an array of real numbers.
    """
    try:
        array = np.asarray(found)
        return torch.from_numpy(array if array.dtype.kind == "c" else np.array(array, dtype=np.float64))
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"embed must return an array of numbers with one row of features for each input; got {type(found).__name__}."
        ) from None
