"""The base classes `Statistic` (numbers that describe each input) and `Score` (one anomaly score for each input)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, final

import torch
from torch import Tensor, nn

from pushforward.detection.batching import by_batches
from pushforward.detection.modes import evaluation
from pushforward.errors import ConfigError, InputError, KindError
from pushforward.models import Model
from pushforward.numerics.conversion import as_tensor

__all__ = ["Need", "Score", "Statistic"]

Need = Literal["forward", "backward", "second model", "ensemble", "compressor", "Jacobian"]


class Statistic(nn.Module, ABC):
    """One or several numbers (columns) that describe each input, some of them fitted on in-distribution rows.

    Row i of the result depends on row i of the input alone: not on the other rows of the batch, and not on their number. A model
    in training mode is in evaluation mode meanwhile, so dropout and batch normalization change nothing.

    Do not subclass a concrete subclass. A subclass stores its constructor's arguments under the arguments' names, declares
    the fitted tensors with :meth:`declare`, and implements :meth:`_values` and, if it is fitted, :meth:`_learn`.

    Example:
        >>> import torch
        >>> from pushforward.detection.scores import Statistic, TwoSided
        >>> class Range(Statistic):
        ...     # Largest minus smallest value of a row.
        ...     names = ("range",)
        ...     def _values(self, x):
        ...         return (x.amax(1) - x.amin(1))[:, None]
        >>> rows = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
        >>> score = TwoSided(Range()).fit(rows)
        >>> bool(score(100 * rows[:1]) > score(rows[:1]))
        True
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"forward"})
    """What one evaluation requires, apart from memory for the fitted tensors."""
    batch_size: ClassVar[int] = 256
    """Number of rows in one evaluation; fixed, so that rounding does not depend on the number of rows passed."""
    _declared: tuple[str, ...] = ()
    _fitted_shape: tuple[int, ...] | None = None
    """Shape of the rows of the last fit, for tensors that only rows of this shape fit."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("fitted", torch.tensor(False))

    fitted: Tensor

    @final
    def declare(self, **dims: int) -> None:
        """Declare the fitted tensors by name and number of dimensions, as float64 buffers: ``declare(mean=1, factor=2)``."""
        for name, count in dims.items():
            self.register_buffer(name, torch.zeros((0,) * count, dtype=torch.float64))
        self._declared = (*self._declared, *dims)

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The name of each column."""

    @abstractmethod
    def _values(self, x: Tensor) -> Tensor:
        """The columns of at most ``batch_size`` rows, ``(n, columns)``; grad mode is off."""

    def _learn(self, reference: Tensor) -> None:
        """Compute the declared tensors from in-distribution rows; grad mode is off. The default does nothing."""

    @final
    def fit(self, reference: Tensor) -> Self:
        """Fit on in-distribution rows that were **not** used to train the model and will not be used for calibration.

        A fit that fails leaves what was fitted before as it was.

        Args:
            reference: in-distribution rows, ``(n, *shape)``.

        Raises:
            InputError: for a wrong shape, NaN, or no rows.
        """
        reference = self._check(reference)
        if len(reference) == 0:
            raise InputError(f"{type(self).__name__}.fit needs at least one in-distribution row; got none.")
        before = [(module, dict(module._buffers)) for module in self.modules()]
        try:
            with torch.no_grad(), evaluation(self):
                self._learn(reference)
        except BaseException:
            for module, buffers in before:
                module._buffers.update(buffers)
            raise
        self.fitted = torch.ones_like(self.fitted)
        # A network or another score in it checks its own rows, and a network may take images of several sizes.
        own = bool(self._declared) and next(self.children(), None) is None
        self._fitted_shape = tuple(reference.shape[1:]) if own else None
        return self

    @final
    def values(self, x: Tensor) -> Tensor:
        """The columns of each row, float64, ``(n, len(names))``.

        Args:
            x: input rows, ``(n, *shape)``.

        Raises:
            InputError: for a wrong shape, NaN, or a statistic that must be fitted and was not.
        """
        if self._declared and not self.fitted:
            raise InputError(
                f"{type(self).__name__} must be fitted on in-distribution rows first: call .fit(reference)."
            )
        x = self._check(x)
        if self._fitted_shape is not None and tuple(x.shape[1:]) != self._fitted_shape:
            fitted, got = self._fitted_shape, tuple(x.shape[1:])
            vectors = len(fitted) == len(got) == 1
            raise InputError(
                f"{type(self).__name__} was fitted on rows of {f'{fitted[0]} values' if vectors else f'shape {fitted}'}; got rows "
                f"of {got[0] if vectors else f'shape {got}'}."
            )
        if len(x) == 0:
            return torch.zeros(0, len(self.names), dtype=torch.float64)
        with evaluation(self):
            return by_batches(lambda part: self._values(part).double(), x, self.batch_size)

    def forward(self, x: Tensor) -> Tensor:
        """Refused: a statistic has several numbers for a row, which :meth:`values` gives.

        Raises:
            KindError: always.
        """
        name = type(self).__name__
        raise KindError(
            f"{name} describes a row by numbers that are no score: call values(x) for them, or make one score of them with "
            f"pushforward.detection.scores.TwoSided({name}(...))."
        )

    def _check(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor):
            try:
                x = as_tensor(x)
            except (TypeError, ValueError, RuntimeError) as error:
                raise InputError(
                    f"{type(self).__name__} needs an array of numbers with one row per input: {error}"
                ) from error
        if x.dim() < 2 or x.is_complex():
            raise InputError(
                f"{type(self).__name__} needs real numbers of shape (n, ...), one row per input; got {tuple(x.shape)}, {x.dtype}."
            )
        model = getattr(self, "model", None)
        if isinstance(model, Model) and tuple(x.shape[1:]) != model.shape:
            raise InputError(f"{type(self).__name__} needs rows of shape {model.shape}; got {tuple(x.shape[1:])}.")
        if x.is_floating_point() and torch.isnan(x).any():
            row = torch.isnan(x).flatten(1).any(1).nonzero()[0].item()
            raise InputError(f"{type(self).__name__} found NaN in row {row}: fill or drop missing values.")
        return x

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        for name in self._declared:  # their sizes are known only after fitting
            stored = state_dict.get(prefix + name)
            if isinstance(stored, Tensor) and stored.dim() == getattr(self, name).dim():
                setattr(self, name, torch.empty_like(stored))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class Score(Statistic):
    """An anomaly score: one number for each row, **higher is more anomalous**.

    Call ``score.fit(reference)`` with in-distribution rows, then ``score(x)``.

    Example:
        >>> import torch
        >>> from pushforward.detection.scores import Score
        >>> class DistanceToMean(Score):
        ...     # Distance to the mean of the in-distribution rows.
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.declare(mean=1)
        ...     def _learn(self, reference):
        ...         self.mean = reference.double().mean(0)
        ...     def _score(self, x):
        ...         return (x.double() - self.mean).norm(dim=1)
        >>> DistanceToMean().fit(torch.zeros(3, 2))(torch.tensor([[3.0, 4.0]]))
        tensor([5.], dtype=torch.float64)
    """

    @property
    @final
    def names(self) -> tuple[str, ...]:
        """The name of the class."""
        return (type(self).__name__,)

    @abstractmethod
    def _score(self, x: Tensor) -> Tensor:
        """The score of at most ``batch_size`` rows, ``(n,)``; grad mode is off."""

    @final
    def _values(self, x: Tensor) -> Tensor:
        found = self._score(x)
        if found.shape != x.shape[:1]:
            raise ConfigError(
                f"{type(self).__name__}._score must give one number for each row, shape ({len(x)},); got {tuple(found.shape)}."
            )
        return found[:, None]

    @final
    def forward(self, x: Tensor) -> Tensor:
        """The score of each row, float64, ``(n,)``; +inf for a row that is infinitely far.

        Args:
            x: input rows, ``(n, *shape)``.

        Raises:
            InputError: for a wrong shape, NaN, or a score that must be fitted and was not.
        """
        return self.values(x)[:, 0]
