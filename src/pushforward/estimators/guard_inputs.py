"""The rows of a `Guard`: what a user gives, as the guard's score reads it."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pushforward.data import as_images, as_table, is_frame
from pushforward.data.images import CHANNELS, is_picture, pixels_of
from pushforward.detection.network import Embedder
from pushforward.errors import ConfigError, InputError, warn_caller
from pushforward.estimators.feature_names import in_order, names_of
from pushforward.estimators.ignored_columns import columns_to_ignore, without
from pushforward.estimators.validation import check_array

if TYPE_CHECKING:
    from pushforward.estimators.conformal_detector import ConformalDetector
    from pushforward.estimators.guard import Guard

__all__ = ["channels_of", "listed", "read_rows", "with_its_channels"]


def read_rows(guard: Guard, X: Any, reset: bool, apart: tuple[str, ...] = ()) -> Any:
    """X as the score of a guard reads it: a tensor of images, a pyarrow table, or a float64 matrix.

    Args:
        guard: whose rows they are.
        X: what the user gave.
        reset: whether this is ``fit``, which sets ``n_features_in_``, ``feature_names_in_``, ``ignored_``, ``embedder_`` and
            ``embedded_columns_``.
        apart: columns that ``fit`` sets aside besides those of ``ignore``.

    Raises:
        InputError: for data that cannot be read.
    """
    if reset:
        guard.embedded_columns_ = None
    if guard.embed is not None:
        if reset:
            guard.embedder_ = guard.embed if isinstance(guard.embed, Embedder) else Embedder(guard.embed)
            if (names := names_of(X)) is not None:
                guard.embedded_columns_ = [name for name in names if name not in apart]
        inputs = in_order(guard.embedded_columns_, X)
        X = guard.embedder_(inputs)
        if reset:
            guard.embedder_.warn_if_random(inputs, X)
    elif _is_path(X):
        raise InputError(
            "a path is no data: read images with pf.io.read_images(path) and tables with pf.io.read_table(path), or use embed= with "
            "pf.data.Photographs, which reads paths."
        )
    elif is_picture(X):
        raise InputError(f"this is one picture, of type {type(X).__name__}: give a list of pictures, also of one.")
    if _is_stack(X) if reset else guard.reads_images:
        if reset:
            _check_many(tuple(getattr(X, "shape", ())))
            images = _images(X)
            _set_features(guard, math.prod(images.shape[1:]), None)
        else:
            images = with_its_channels(guard, _images(X), X)
            _warn_of_scale(guard, images)
        return images
    if is_frame(X):
        named = (guard.ignore or ()) if reset else (*getattr(guard, "feature_names_in_", ()), *guard.ignored_)
        table = as_table(X, index=() if isinstance(named, str) else named)
        if reset:
            others = guard.ignore if guard.ignore in (None, "auto") else [n for n in guard.ignore if n not in apart]
            guard.ignored_ = apart + columns_to_ignore(without(table, apart), others)
        table = without(table, guard.ignored_)
        if reset:
            _set_features(guard, table.num_columns, table.column_names)
        return table
    if reset:
        guard.ignored_ = ()
        if guard.ignore not in (None, "auto") and len(guard.ignore):
            raise ConfigError("ignore names columns, and an array has no names: leave these columns out of it.")
    matrix = check_array(guard, X, reset=reset, finite="allow-nan" if reset else False, names=False)
    if reset:
        _set_features(guard, matrix.shape[1], None)
    return matrix


def listed(guard: ConformalDetector, X: Any) -> Any:
    """X as it can be read more than once: a list of what the embedder of a guard takes one by one, such as from a generator.

    Raises:
        InputError: for one input that is not in a list, or a set.
    """
    embed = getattr(guard, "embed", None)
    return embed.listed(X) if isinstance(embed, Embedder) else X


def _is_stack(X: Any) -> bool:
    """Whether X is a stack of images: an array of three or four dimensions, or a list of pictures or arrays of two or three."""
    if isinstance(X, (list, tuple)):
        first = X[0] if X else None
        return is_picture(first) or (not is_frame(first) and len(getattr(first, "shape", ())) in (2, 3))
    return not is_frame(X) and len(getattr(X, "shape", ())) in (3, 4)


def _images(X: Any) -> Tensor:
    """X by `as_images`; of a list of images of different sizes, an error names the first that differs."""
    try:
        return as_images(X)
    except InputError:
        if isinstance(X, (list, tuple)):
            _check_one_size(X)
        raise


def _check_one_size(images: Sequence[Any]) -> None:
    """Refuse images of different sizes or shapes.

    Raises:
        InputError: naming the first that differs.
    """
    try:
        shapes = [
            pixels_of(x, f"image {k}").shape if is_picture(x) else tuple(np.shape(x)) for k, x in enumerate(images)
        ]
    except ValueError:  # a list whose rows have different lengths
        return
    if any(len(shape) not in (2, 3) for shape in shapes):
        return
    sizes = [shape[:2] if len(shape) == 2 or shape[2] in CHANNELS else shape[1:] for shape in shapes]
    if other := next((k for k, size in enumerate(sizes) if size != sizes[0]), 0):
        raise InputError(
            f"images must have one size: image {other} is {sizes[other][1]} wide and {sizes[other][0]} high, and image 0 is "
            f"{sizes[0][1]} wide and {sizes[0][0]} high: resize them to one size."
        ) from None
    other = next((k for k, shape in enumerate(shapes) if shape != shapes[0]), 0)
    if other and not all(map(is_picture, images)):
        raise InputError(
            f"images must have one shape: image {other} has {shapes[other]}, and image 0 has {shapes[0]}: give all of them gray, or all "
            "in color with the channels at the same place."
        ) from None


def _check_many(shape: tuple[int, ...]) -> None:
    """Refuse an array that looks like one color image, and would be read as gray images three or four pixels wide.

    Raises:
        InputError: for a shape ``(height, width, channels)``.
    """
    if len(shape) == 3 and shape[2] in (3, 4) and shape[1] > 4:
        raise InputError(
            f"an array of shape {shape} looks like one color image, and a guard is fitted on many: give (n, height, width, channels). "
            f"Gray images of {shape[1]} x {shape[2]} pixels are given as {(*shape, 1)}."
        )


def _warn_of_scale(guard: Guard, images: Tensor) -> None:
    """Warn of images of 0 and 1 only, such as masks and pixels that were divided by 255 and rounded, where no training image is so dark,
    and of images of 8 bits where those of training had more, so that white is a dark gray."""
    top = getattr(guard.score_, "top", 255)
    if images.dtype == torch.uint8 and top > 255:
        warn_caller(
            f"these images have 8 bits, and the training images have more, up to {top}: white is 255 in these and a dark gray there, "
            "so most are alarms. Give images of the same depth, or multiply the pixels."
        )
    training = getattr(guard, "training_", None)
    columns = () if training is None else training.columns
    darkest = float(columns[0].edges[0]) if columns else 0.0  # the smallest brightness, the mean of the pixels
    if darkest > 1 and int(images.max()) == 1:
        warn_caller(
            f"all pixels of these images are 0 or 1, and the mean pixel of every training image is at least {darkest:.3g}: give the raw pixels, "
            "or 255 * x for black and white."
        )


def channels_of(guard: Guard) -> int | None:
    """Channels of the training images; every score of images has their shape."""
    shape = _shape(guard)
    return None if shape is None else shape[0]


def with_its_channels(guard: Guard, images: Tensor, given: Any) -> Tensor:
    """Images ``(n, c, h, w)`` with as many channels as a guard's training images, as in a folder of gray and colored pictures:
    a gray one has three equal channels, and one whose three channels are equal is gray.

    Args:
        guard: fitted on images.
        images: from `as_images`.
        given: what the user gave.

    Raises:
        InputError: for colors where the guard reads gray images, and for an array that is one image, or may be one.
    """
    channels, shape = channels_of(guard), tuple(getattr(given, "shape", ()))
    if _is_one_image(shape, _shape(guard)):
        raise InputError(f"an array of shape {shape} is one image: give {(1, *shape)}, or put the image in a list.")
    if images.shape[1] == 1 and channels == 3:
        if shape == _shape(guard):
            raise InputError(
                f"an array of shape {shape} is one color image or three gray ones: give {(1, *shape)} for one color image, "
                f"or {(3, 1, *shape[1:])} for three gray ones."
            )
        return images.expand(-1, 3, -1, -1)
    if images.shape[1] == 3 and channels == 1:
        if (images == images[:, :1]).all():
            return images[:, :1]
        raise InputError(
            f"this guard reads gray images of shape {_shape(guard)}; got {tuple(images.shape[1:])}, with colors: convert them to gray; "
            "pf.io.read_images(path, gray=True) names a file that has colors."
        )
    return images


def _is_one_image(shape: tuple[int, ...], trained: tuple[int, ...] | None) -> bool:
    """Whether an array of this shape is one image with channels last, and not ``(n, height, width)`` like the training images."""
    if trained is None or len(shape) != 3 or shape[2] not in CHANNELS or shape[1:] == trained[1:]:
        return False
    return shape[2] != trained[2] or shape[:2] == trained[1:]


def _shape(guard: Guard) -> tuple[int, ...] | None:
    return getattr(guard.score_, "shape", None)


def _is_path(X: Any) -> bool:
    """Whether X is a path or a list of paths of pictures, which would be read as text."""
    if isinstance(X, (str, os.PathLike)):
        return True
    return isinstance(X, (list, tuple)) and bool(X) and isinstance(X[0], (str, os.PathLike))


def _set_features(guard: Guard, count: int, names: list[str] | None) -> None:
    guard.n_features_in_ = count
    vars(guard).pop("feature_names_in_", None)
    if names is not None:
        guard.feature_names_in_ = np.asarray(names, dtype=object)
