"""The smoothed score of a guard: of images or numeric tables, with bounds for every small change of an input."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pushforward.data import Schema
from pushforward.detection.input_score import InputScore
from pushforward.detection.noisy_images import NoisyImages
from pushforward.detection.projected_mixture import ProjectedMixture
from pushforward.detection.smoothing import Smoothing
from pushforward.errors import (
    ConfigError,
    InputError,
    PushforwardError,
    SchemaError,
    StorageError,
    in_words,
    warn_caller,
)
from pushforward.numerics.checks import check_integer, check_positive

__all__ = ["SmoothedScore", "fit_smoothed_score", "smoothing_options"]

_OPTIONS = ("sigma", "draws", "quantile", "scale", "directions", "components", "steps", "seed")
_FEWEST = 100
"""Images without which the score has no network."""
_FARTHEST = 1e30
"""Spreads from the mean beyond which a cell counts as this far."""
_SMALLEST = 8
"""Side of an image, in pixels, without which there is no network."""

Array = NDArray[np.float64]


class SmoothedScore(InputScore):
    """An order statistic of a score under Gaussian noise, for images or numeric tables.

    Rows enter as real numbers in the units of the noise: pixels from 0 to 1, or columns divided by a scale. An attack within
    the radius r changes an image by an L2 norm of at most r in these pixels, or a row by at most r in these columns.

    Args:
        base: the score under noise.
        smoothing: noise, number of draws, order statistic.
        shape: (channels, height, width) of the images; None for a table.
        top: largest value of a pixel: 255 for 8 bits, 1 for images of 0 and 1.
        schema: of the table; None for images.
        scale: unit of each column of the table, ``(d,)``.
    """

    def __init__(
        self,
        base: ProjectedMixture | NoisyImages,
        smoothing: Smoothing,
        *,
        shape: Sequence[int] | None = None,
        top: int = 255,
        schema: Schema | None = None,
        scale: Array | None = None,
    ) -> None:
        self.base, self.smoothing, self.schema = base, smoothing, schema
        self.shape = None if shape is None else tuple(shape)
        self.top, self.scale = top, np.ones(base.width) if scale is None else scale
        self.reads = "tables" if shape is None else "images"  # pyright: ignore[reportAttributeAccessIssue]

    def __repr__(self) -> str:
        return f"SmoothedScore({self.reads}, {self.smoothing!r})"

    def score(self, inputs: Any) -> Array:
        """The smoothed score of each input, ``(n,)``; it depends on the input alone.

        Raises:
            InputError: for other inputs than those of ``fit``; a SchemaError names a column with a missing or infinite cell.
        """
        return self.smoothing.score(self.base, self.rows(inputs))

    def lower_bound(self, inputs: Any, radius: float, **options: Any) -> Array:
        """Lower bound of the smoothed score within a radius; options as of :meth:`Smoothing.lower_bound`.

        Raises:
            InputError: see :meth:`score`.
            ConfigError: for a number out of range.
        """
        return self.smoothing.lower_bound(self.base, self.rows(inputs), radius, **options)

    def rows(self, inputs: Any) -> Array:
        """Inputs as rows ``(n, d)`` in the units of the noise.

        Raises:
            InputError: see :meth:`score`.
        """
        if self.shape is not None:
            return _image_rows(inputs, self.shape, self.top)
        if self.schema is None:
            raise InputError("this smoothed score has neither a shape of images nor a schema of a table.")
        encoded, problems = self.schema.encode(inputs, owner="Guard", warn=False)
        _require_numbers(encoded, self.schema)
        for problem in problems:
            warn_caller(problem.as_warning())
        with np.errstate(over="ignore"):
            scaled = encoded / self.scale
        if not isinstance(self.base, ProjectedMixture):
            return scaled
        # Squares of larger numbers overflow. Two rows are not farther apart after the cut, so certificates stay valid.
        mean, farthest = self.base.parts["mean"], _FARTHEST * self.base.parts["rows_spread"].max()
        return np.clip(scaled, mean - farthest, mean + farthest)

    def pack(self, prefix: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Description and tensors for a file."""
        base, tensors = self.base.pack(f"{prefix}base.")
        description = {
            "base": base,
            "smoothing": asdict(self.smoothing),
            "shape": self.shape,
            "top": self.top,
            "schema": None if self.schema is None else self.schema.to_json(),
        }
        return description, tensors | {f"{prefix}scale": torch.from_numpy(self.scale.copy())}

    @classmethod
    def unpack(cls, description: Any, tensors: dict[str, Tensor], prefix: str) -> Self:
        """Rebuild a score from what :meth:`pack` returned.

        Raises:
            StorageError: for parts that do not fit each other.
        """
        try:
            names = ("base", "smoothing", "shape", "top", "schema")
            base, smoothing, shape, top, schema = (description[name] for name in names)
            scale = tensors[f"{prefix}scale"].numpy()
            kind = NoisyImages if "network" in base else ProjectedMixture
            base = kind.unpack(base, tensors, f"{prefix}base.")
            shape = None if shape is None else tuple(check_integer("shape", size) for size in shape)
            schema = None if schema is None else Schema.from_json(schema)
            if (shape is None) == (schema is None):
                raise InputError("it must read either images or a table")
            width = math.prod(shape) if shape is not None else len(schema or ())
            if width != base.width or scale.shape != (width,) or not (np.isfinite(scale) & (scale > 0)).all():
                raise InputError("its parts do not fit each other")
            return cls(
                base, Smoothing(**smoothing), shape=shape, top=check_integer("top", top), schema=schema, scale=scale
            )
        except StorageError:
            raise
        except (TypeError, KeyError, PushforwardError) as error:
            raise StorageError(f"its smoothed score is not one that pushforward writes: {in_words(error)}") from error

    def _unsupported(self, method: str) -> ConfigError:
        return ConfigError(f"{method} is not for guards with smoothing.")


def smoothing_options(value: Any) -> dict[str, Any]:
    """The options of :func:`fit_smoothed_score` that a number (sigma) or a dictionary gives.

    Raises:
        ConfigError: for anything else, a dictionary without "sigma", or a name that is no option.
    """
    options = value if isinstance(value, dict) else {"sigma": value}
    unknown = [name for name in options if name not in _OPTIONS]
    if unknown or "sigma" not in options:
        raise ConfigError(
            f"smoothing must be a number, or a dictionary with 'sigma' and some of {', '.join(_OPTIONS[1:])}; got {value!r}."
        )
    if isinstance(options.get("scale"), np.ndarray):
        raise ConfigError("the scale of smoothing must be a list of numbers, not an array, so that a file can hold it.")
    check_positive("smoothing", options["sigma"])
    return dict(options)


def fit_smoothed_score(
    train: Any,
    sigma: float,
    *,
    draws: int | None = None,
    quantile: float | None = None,
    scale: str | Sequence[float] | Mapping[str, float] = "standard",
    directions: int = 32,
    components: int = 16,
    steps: int = 3000,
    seed: int = 0,
) -> SmoothedScore:
    """Fit a smoothed score of images or of a numeric table.

    The score of a table is a :class:`~pushforward.detection.projected_mixture.ProjectedMixture`. That of images is the sum of one and of a
    network that was trained under the noise (:class:`~pushforward.detection.noisy_images.NoisyImages`).

    Args:
        train: a tensor of integer images ``(n, channels, height, width)``, or anything that
            :func:`~pushforward.data.as_table` takes, with numbers in every cell. White is 1 where the largest number of all
            images is 1, as of booleans, and else 255 or the largest number of as many bits as the images need.
        sigma: standard deviation of the noise: of pixels from 0 to 1, or in units of the columns' scale. Radii up to about
            1.5 sigma can be certified; more noise makes anomalies harder to see.
        draws: number of draws at each input; None for 64 of images and 256 of tables.
        quantile: of the draws that is the score, 0.5 is the median; None for 0.9 of images and 0.5 of tables. A larger
            quantile of fewer draws certifies as much, where the score of an anomaly is large at nearly all draws.
        scale: unit of the columns of a table: "standard" (standard deviation of the training rows), "input" (the columns as
            they are), or a positive number for each column, in order or by name.
        directions: of :class:`~pushforward.detection.projected_mixture.ProjectedMixture`.
        components: of its mixtures.
        steps: of the training of the network of images, about 12 ms each for images of 28 x 28 pixels. There is no network for 0, for
            fewer than 100 images, or for sides below 8 pixels.
        seed: of the fit, and key of the noise's hash.

    Raises:
        InputError: for too few rows, or images that are not integers.
        SchemaError: for a column without a number in every cell; it is named.
        ConfigError: for impossible options.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(400, 3))
        >>> score = fit_smoothed_score(rows, sigma=0.5)
        >>> lower = score.lower_bound([[9.0, 9.0, 9.0]], radius=0.5)
        >>> bool(score.score(rows).max() < lower[0] < score.score([[9.0, 9.0, 9.0]])[0])
        True
    """
    check_integer("steps", steps, 0)
    options: dict[str, Any] = {"directions": directions, "components": components, "seed": seed}
    if isinstance(train, Tensor):
        shape, top = tuple(train.shape[1:]), 255
        if train.numel() and not train.is_floating_point():
            largest = int(train.max())
            top = 1 if largest == 1 else (1 << max(8, largest.bit_length())) - 1
        rows = _image_rows(train, shape, top)
        if steps and len(train) >= _FEWEST and len(shape) == 3 and min(shape[1:]) >= _SMALLEST:
            smoothing = Smoothing(sigma, 64 if draws is None else draws, 0.9 if quantile is None else quantile, seed)
            base = NoisyImages.fit(train, sigma, top=top, steps=steps, **options)
        else:
            smoothing = Smoothing(sigma, 256 if draws is None else draws, 0.5 if quantile is None else quantile, seed)
            base = ProjectedMixture.fit(rows, sigma, **options)
        return SmoothedScore(base, smoothing, shape=shape, top=top)
    smoothing = Smoothing(sigma, 256 if draws is None else draws, 0.5 if quantile is None else quantile, seed)
    schema, encoded = Schema.infer_encode(train)
    for column in schema.columns:
        if column.kind not in ("numeric", "integer"):
            raise SchemaError(f"column {column.name!r}: smoothing needs a number in every cell; it is {column.kind}.")
    _require_numbers(encoded, schema)
    units = _units(scale, encoded, schema)
    base = ProjectedMixture.fit(encoded / units, sigma, **options)
    return SmoothedScore(base, smoothing, schema=schema, scale=units)


def _units(scale: Any, rows: Array, schema: Schema) -> Array:
    """The unit of each column."""
    if isinstance(scale, str):
        if scale == "input":
            return np.ones(len(schema))
        if scale != "standard":
            raise ConfigError(f"scale must be 'standard', 'input' or a number for each column; got {scale!r}.")
        spread = rows.std(0)
        return np.where(spread > 0, spread, 1.0)
    if isinstance(scale, Mapping):
        absent = [name for name in schema.names if name not in scale]
        if absent:
            raise ConfigError(f"scale has no number for the column {absent[0]!r}.")
        scale = [scale[name] for name in schema.names]
    try:
        units = np.asarray(scale, dtype=np.float64)
    except (TypeError, ValueError):
        units = np.empty(0)
    if units.shape != (len(schema),) or not (np.isfinite(units) & (units > 0)).all():
        raise ConfigError(f"scale must be 'standard', 'input' or a positive number for each of {len(schema)} columns.")
    return units


def _require_numbers(encoded: Array, schema: Schema) -> None:
    wrong = ~np.isfinite(encoded)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        what = "a missing cell" if np.isnan(encoded[row, column]) else "an infinite value"
        raise SchemaError(f"column {schema.names[column]!r}: smoothing needs a number in every cell; there is {what}.")


def _image_rows(images: Any, shape: tuple[int, ...], top: int) -> Array:
    """Integer images as rows of pixels from 0 to 1."""
    if not isinstance(images, Tensor) or tuple(images.shape[1:]) != shape:
        raise InputError(f"this guard reads images of shape {shape}; got {tuple(getattr(images, 'shape', ()))[1:]}.")
    values = images.flatten(1).double()
    wrong = ~((values >= 0) & (values == values.round())).all(1)
    if wrong.any():
        raise InputError(
            f"this guard reads images of integers 0 to {top}; image {int(wrong.nonzero()[0])} has other values."
        )
    # Larger numbers count as the largest: two images are not farther apart after that, so certificates stay valid.
    return (values.clamp(max=top) / top).numpy()
