"""`Arrays`: an immutable record of float64 arrays that can be written to a file."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from pushforward.errors import StorageError

__all__ = ["Arrays"]


class Arrays:
    """A fitted part whose whole state is named float64 arrays: the annotated attributes of the class.

    Args:
        **arrays: one for each attribute.
    """

    _names: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._names = tuple(n for n in cls.__annotations__ if not n.startswith("_") and n not in vars(cls))

    def __init__(self, **arrays: np.ndarray) -> None:
        for name in self._names:
            setattr(self, name, np.ascontiguousarray(arrays[name], dtype=np.float64))
        self.prepare()

    def prepare(self) -> None:
        """Compute what follows from the arrays, once."""

    def check(self) -> None:
        """Raise ValueError unless the arrays fit each other; they may come from an untrusted file."""

    def replace(self, **arrays: np.ndarray) -> Self:
        """A copy with other values of some arrays."""
        return type(self)(**{name: getattr(self, name) for name in self._names} | arrays)

    def pack(self, prefix: str) -> dict[str, Tensor]:
        """The arrays as tensors, for a file."""
        return {prefix + name: torch.from_numpy(getattr(self, name).copy()) for name in self._names}

    @classmethod
    def unpack(cls, tensors: dict[str, Tensor], prefix: str) -> Self:
        """Rebuild from the tensors of :meth:`pack`, which are removed from ``tensors``.

        Raises:
            StorageError: if they are absent, of another type, not finite, or do not fit each other.
        """
        arrays = {}
        for name in cls._names:
            tensor = tensors.pop(prefix + name, None)
            if tensor is None or tensor.dtype != torch.float64 or not bool(torch.isfinite(tensor).all()):
                raise StorageError(f"the file's {prefix}{name} is not an array of finite float64 numbers.")
            arrays[name] = tensor.numpy()
        try:
            part = cls(**arrays)
            part.check()
        except (ValueError, IndexError, TypeError, OverflowError) as error:
            raise StorageError(f"the file's arrays {prefix}* do not fit each other.") from error
        return part

    @staticmethod
    def require(condition: bool) -> None:
        """Raise ValueError unless the condition is true."""
        if not condition:
            raise ValueError("arrays do not fit each other")
