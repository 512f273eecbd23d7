"""`Embedder`: rows of features of a pretrained network from photographs, texts, or whatever the network takes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pushforward.detection.network.digest import digest
from pushforward.detection.network.reader import NetworkReader
from pushforward.detection.network.reading import length, plain_tensor
from pushforward.detection.network.streaming import batches
from pushforward.errors import ConfigError, InputError
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
                Labels of data sets and loaders are ignored.

        Raises:
            InputError: for no inputs, or features that are not numbers.
        """
        parts = [self._features(part, count) for part, count in self._batches(data)]
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
        if not self.normalize:
            return rows
        norm = np.linalg.norm(rows, axis=1, keepdims=True).clip(min=1e-30)
        return np.concatenate([rows / norm, np.log(norm)], axis=1)

    def _batches(self, data: Any) -> Iterator[tuple[Any, int]]:
        """What the network takes, and the number of inputs in it."""
        if isinstance(data, (str, bytes)):
            raise InputError("give a list of inputs; this is one.")
        if isinstance(data, Sequence) and not isinstance(data, (Dataset, DataLoader)):
            if not data:
                raise InputError("there are no inputs to embed.")
            for start in range(0, len(data), self.batch_size):
                some = list(data[start : start + self.batch_size])
                yield self._prepared(some), len(some)
        elif isinstance(data, np.ndarray) and self.prepare is None and not isinstance(self.net, nn.Module):
            if not data.ndim or not len(data):
                raise InputError("there are no inputs to embed: give at least one.")
            for start in range(0, len(data), self.batch_size):
                yield (some := data[start : start + self.batch_size]), len(some)
        elif isinstance(data, Dataset) and self.prepare is not None:
            kept: list[Any] = []
            for k in range(len(data)):  # pyright: ignore[reportArgumentType]
                item: Any = data[k]
                kept.append(item[0] if isinstance(item, tuple) else item)
                if len(kept) == self.batch_size or k + 1 == len(data):  # pyright: ignore[reportArgumentType]
                    yield self._prepared(kept), len(kept)
                    kept = []
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
        found = (
            found.detach().cpu() if isinstance(found, Tensor) else torch.from_numpy(np.array(found, dtype=np.float64))
        )
        if found.dim() != 2:
            raise InputError(f"embed must return one row of features for each input, (n, D); got {tuple(found.shape)}.")
        if len(found) != count:
            raise InputError(
                f"embed returned {len(found)} rows of features for {count} inputs: let it return one row for each input."
            )
        return found.double().numpy()
