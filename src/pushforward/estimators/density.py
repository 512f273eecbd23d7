"""`FlowDensity`: a normalizing flow as a scikit-learn density estimator."""

from __future__ import annotations

import copy
import os
from numbers import Real
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, DensityMixin

from pushforward.detection.batching import by_batches
from pushforward.errors import ConfigError, InputError, StorageError, in_words
from pushforward.estimators.column_bounds import bounds_of, check_angles_free, check_inside, check_radians, plain_bounds
from pushforward.estimators.validation import check_array, require_fitted, seed_from
from pushforward.io import pack, read, unpack, write
from pushforward.likelihood import REAL
from pushforward.models import IAF, MAF, NICE, NSF, Flow, Model, RealNVP
from pushforward.models.vector.angles import by_kind, check_angles, identity
from pushforward.numerics import seeded
from pushforward.numerics.checks import check_choice, check_integer, check_positive
from pushforward.training import fit
from pushforward.training.budget import seconds
from pushforward.transforms import Cast, Chain, Standardize, Transform

__all__ = ["FlowDensity"]

_MODELS: dict[str, type[Model]] = {"nsf": NSF, "maf": MAF, "realnvp": RealNVP, "nice": NICE, "iaf": IAF}


class FlowDensity(DensityMixin, BaseEstimator):
    """Density of a table of numbers by a normalizing flow, with the interface of scikit-learn's ``KernelDensity``.

    ``score_samples`` is the exact log-density in the units of X: the model standardizes its data in float64, and its
    log-density includes that change of variables.

    Args:
        model: "nsf", "maf", "realnvp", "nice" or "iaf".
        model_options: arguments of that class, such as ``{"bins": 16}``; ``{"circular": True}`` for columns that are all angles
            in [-pi, pi], or ``{"circular": (0, 2)}`` for some of them.
        bounds: None, or for each column a pair (low, high), with None for an open end, or None for a column without bounds;
            or a dictionary of such pairs by column name; an angle has none. Logarithms of the distances to the bounds come before the flow
            (:class:`~pushforward.transforms.Bounds`), so no mass is outside: there the log-density is -inf, and samples
            are inside.
        validation: fraction of rows for early stopping, in [0, 1); 0, or fewer than 20 rows, for none.
        max_steps: of training; None for ``pf.fit``'s default.
        max_time: seconds (or "90s", "5m") of training; None for no limit.
        batch_size: of training.
        learning_rate: of training.
        random_state: seed; an integer makes the result reproducible.
        verbose: whether to show progress.

    Attributes:
        model_: the fitted :class:`~pushforward.models.Flow`.
        n_features_in_: number of columns.
        feature_names_in_: names of the columns, if X had names.

    Example:
        >>> import numpy as np, pushforward as pf
        >>> x = np.random.default_rng(0).normal(size=(300, 2))
        >>> density = pf.FlowDensity(max_steps=50, random_state=0).fit(x)
        >>> density.score_samples(x[:5]).shape
        (5,)
        >>> positive = pf.FlowDensity(bounds=[(0, None), (0, None)], max_steps=50, random_state=0).fit(np.exp(x))
        >>> positive.score_samples([[1.0, -1.0]])
        array([-inf])
    """

    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        model: str = "nsf",
        *,
        model_options: dict[str, Any] | None = None,
        bounds: Any = None,
        validation: float = 0.1,
        max_steps: int | None = None,
        max_time: float | str | None = None,
        batch_size: int = 256,
        learning_rate: float = 1e-3,
        random_state: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.model_options = model_options
        self.bounds = bounds
        self.validation = validation
        self.max_steps = max_steps
        self.max_time = max_time
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit the flow by maximum likelihood. A fit that fails leaves the estimator as it was.

        Args:
            X: ``(rows, columns)`` of finite numbers.
            y: ignored; scikit-learn passes it.
            sample_weight: weights of the rows, ``(rows,)``, of at least 0, as for :func:`~pushforward.fit`; None or one positive number
                for equal ones.

        Raises:
            InputError: for data that are not a table of finite numbers with at least 2 rows, or a row that is not inside
                ``bounds``, or has an angle outside [-pi, pi]; the message has its position.
            ConfigError: for an unknown model or impossible options.
        """
        fitted = copy.copy(self)
        vars(fitted).pop("model_", None)
        try:
            fitted._fit(X, sample_weight)
        except KeyboardInterrupt:  # the message of pf.fit says which weights the model has: keep them
            if "model_" in vars(fitted):
                self._become(fitted)
            raise
        return self._become(fitted)

    def _become(self, fitted: Self) -> Self:
        fitted.model_.eval()
        object.__setattr__(self, "__dict__", vars(fitted))  # in one step: another thread may score with this object
        return self

    def _fit(self, X: Any, sample_weight: Any) -> None:
        check_choice("model", self.model, _MODELS)
        check_integer("max_steps", self.max_steps, optional=True)
        weights = sample_weight
        if isinstance(sample_weight, Real):
            check_positive("sample_weight", sample_weight)
            weights = None
        array = check_array(self, X, reset=True, finite=True)
        if len(array) < 2:
            raise InputError(f"a density needs at least 2 rows; got n_samples = {len(array)}.")
        seed = seed_from(self.random_state)
        features = array.shape[1]
        with seeded(seed):
            try:
                flow = _MODELS[self.model](features, **(self.model_options or {}))  # pyright: ignore[reportCallIssue]
            except TypeError as error:
                raise ConfigError(f"model_options do not fit {_MODELS[self.model].__name__}: {error}") from error
        first = bounds_of(self.bounds, features, getattr(self, "feature_names_in_", None))
        angles = check_angles(features, flow.circular) if isinstance(flow, NSF) else ()
        if first is not None:
            check_angles_free(first, angles)
            check_inside(first, array)
        check_radians(array, angles)
        scaling: list[Transform] = [] if first is None else [first]
        if (flow.base.support if flow.chain.domain is None else flow.chain.domain) == REAL:  # and not angles
            scaling.append(Standardize(features).double())
        elif 0 < len(angles) < features:
            scaling.append(by_kind(features, angles, lambda width: Standardize(width).double(), identity))
        scaling.append(Cast(features))
        self.seed_ = seed
        self.model_ = Flow(Chain(*scaling, flow.chain), flow.base)
        fit(
            self.model_, array, weights=weights, validation=self.validation if len(array) >= 20 else None, seed=seed,
            max_steps=self.max_steps, max_time=None if self.max_time is None else seconds(self.max_time, "max_time"),
            batch_size=self.batch_size, learning_rate=self.learning_rate, progress="auto" if self.verbose else "silent",
        )  # fmt: skip

    def score_samples(self, X: Any) -> np.ndarray:
        """Log-density of each row, nats, ``(rows,)``."""
        require_fitted(self)
        array = check_array(self, X, reset=False, finite=True)
        rows = torch.from_numpy(np.require(array, requirements="W"))  # torch warns of read-only memory
        return by_batches(lambda part: self.model_.log_prob(part).double(), rows).numpy()

    def score(self, X: Any, y: Any = None) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Total log-likelihood of X, nats, like ``KernelDensity.score``."""
        return float(self.score_samples(X).sum())

    def sample(self, n_samples: int = 1, random_state: int | None = None) -> np.ndarray:
        """Draw rows from the density, ``(n_samples, columns)``."""
        require_fitted(self)
        return self.model_.sample(n_samples, seed=seed_from(random_state)).double().numpy()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the estimator to one safetensors file, without pickle.

        In place of a random generator in ``random_state`` the file has the seed that it gave.
        """
        require_fitted(self)
        description, tensors = pack(self.model_, "model.")
        names = getattr(self, "feature_names_in_", None)
        options = self.get_params() | {"bounds": plain_bounds(self.bounds)}
        if not isinstance(options["random_state"], (int, np.integer, type(None))):
            options["random_state"] = getattr(self, "seed_", None)  # a file has none
        header = {
            "kind": "density",
            "options": options,
            "names": None if names is None else [str(name) for name in names],
            "model": description,
        }
        write(path, header, tensors)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, public_key: Any = None) -> FlowDensity:
        """Read an estimator from a file; a file that was changed on purpose can make this fail and do nothing else.

        Args:
            path: the file.
            public_key: file of the key with which the file must be signed, see :func:`~pushforward.io.sign`; None accepts any.

        Raises:
            SignatureError: if a key is given, and the file is not signed with it or was changed since.
            StorageError: if the file is damaged, was not written by pushforward, or has a newer format.
        """
        header, tensors = read(path, kind="density", public_key=public_key)
        try:
            estimator = cls(**header["options"])
            names, description = header["names"], header["model"]
        except Exception as error:  # the content is not trusted; every failure means the same to the caller
            raise StorageError(
                f"{path} does not contain a density that pushforward wrote: {in_words(error)}"
            ) from error
        model = unpack(description, tensors, "model.")
        if not isinstance(model, Flow) or len(model.shape) != 1:
            raise StorageError(f"{path} does not contain a density of a table.")
        estimator.model_ = model.eval()
        estimator.n_features_in_ = model.shape[0]
        if names is not None:
            if (
                not isinstance(names, list)
                or len(names) != model.shape[0]
                or not all(isinstance(n, str) for n in names)
            ):
                raise StorageError(f"the column names in {path} do not fit its model.")
            estimator.feature_names_in_ = np.asarray(names, dtype=object)
        return estimator
