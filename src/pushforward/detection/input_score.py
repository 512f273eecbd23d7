"""`InputScore`: the interface of the fitted anomaly scores that a guard calibrates, of tables and of images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, Self

import numpy as np
from torch import Tensor

from pushforward.detection.explanation import Explanation
from pushforward.errors import ConfigError

__all__ = ["Explanation", "InputScore"]


class InputScore(ABC):
    """A fitted anomaly score of raw inputs: the rows of a table, or images.

    Functions such as :func:`~pushforward.detection.table_score.fit_table_score` and
    :func:`~pushforward.detection.image_score.fit_image_score` fit one. ``score`` and the two methods for files are
    required; a subclass implements the other methods if it can.
    """

    reads: ClassVar[Literal["tables", "images"]]
    """The inputs that :meth:`score` takes."""

    @property
    def has_density(self) -> bool:
        """Whether :meth:`log_prob` and :meth:`sample` have a density to use."""
        return False

    @abstractmethod
    def score(self, inputs: Any) -> np.ndarray:
        """Score each input; **higher is more anomalous**, +inf is infinitely far.

        Args:
            inputs: for "tables", anything that :class:`~pushforward.data.Schema` encodes; for "images", a tensor of
                integers ``(n, channels, height, width)``.

        Returns:
            Float64 ``(n,)``. The score of an input does not depend on the other inputs.

        Raises:
            InputError: for other inputs than those of ``fit``.
        """

    @abstractmethod
    def pack(self, prefix: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Description (plain JSON types) and tensors for a file; the tensors' names begin with ``prefix``."""

    @classmethod
    @abstractmethod
    def unpack(cls, description: Any, tensors: dict[str, Tensor], prefix: str) -> Self:
        """Rebuild a score from what :meth:`pack` returned; both may come from an untrusted file.

        Raises:
            StorageError: for parts that do not fit each other.
        """

    def log_prob(self, inputs: Any) -> np.ndarray:
        """Log-density of each input, nats, float64 ``(n,)``.

        Raises:
            ConfigError: if this score cannot.
        """
        raise self._unsupported("log_prob")

    def explain(self, inputs: Any) -> Explanation:
        """Say which columns made each input unlikely.

        Raises:
            ConfigError: if this score cannot.
        """
        raise self._unsupported("explain")

    def sample(self, count: int, seed: int) -> Any:
        """Draw inputs from the fitted density.

        Raises:
            ConfigError: if this score cannot.
        """
        raise self._unsupported("sample")

    def uncompiled(self) -> Self:
        """This score as it was before :meth:`compile_scorer`."""
        return self

    def compile_scorer(self, calibration: np.ndarray) -> None:
        """Make :meth:`score` fast for few inputs, in place.

        Args:
            calibration: ascending scores. The order of a new score among them stays what it was.

        Raises:
            ConfigError: if this score cannot.
        """
        raise self._unsupported("compile")

    def _unsupported(self, method: str) -> ConfigError:
        return ConfigError(f"{method} is for guards of tables, and this guard reads {self.reads}.")
