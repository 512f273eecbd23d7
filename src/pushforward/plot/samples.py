"""Pictures of samples: dots or histograms of rows, and sheets of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pushforward.errors import InputError
from pushforward.numerics.checks import check_integer, check_positive
from pushforward.plot.axes import MARKERS, array, bars, check_names, edges_of, groups_of, legend, new_axes, tidy, turns
from pushforward.plot.names import label_of, plain

__all__ = ["images", "samples"]


def samples(x: Any, *, ax: Any = None, names: Sequence[str] | None = None, size: float = 4.0) -> Any:
    """Draw rows of two columns as dots, of one as a histogram; several sets of rows have a color each.

    More than six sets have a marker or a hatch too.

    Args:
        x: rows ``(n, 2)``, ``(n, 1)`` or ``(n,)``, or such rows by name: ``{"data": x, "model": y}``.
        ax: matplotlib axes; new ones by default.
        names: of the columns, with their units.
        size: of a dot, points.

    Returns:
        The axes.

    Raises:
        InputError: for rows of other widths, NaN or infinite numbers, or another number of names than columns.
        ConfigError: without matplotlib, or for a size that is not positive.

    Example:
        >>> import torch, pushforward as pf
        >>> ax = pf.plot.samples({"data": torch.randn(50, 2), "model": torch.randn(50, 2)})
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['data', 'model']
    """
    groups = {key: v[:, None] if v.ndim == 1 else v for key, v in groups_of(x, "rows", "", finite=True).items()}
    widths = {v.shape[1] if v.ndim == 2 else v.shape[1:] for v in groups.values()}
    if widths not in ({1}, {2}):
        raise InputError("samples are drawn in one or two columns: choose two of them, such as x[:, :2].")
    check_names(names, 2 if widths == {2} else 1)
    check_positive("size", size)
    ax = tidy(new_axes(ax, (5.0, 4.0)))
    if widths == {1}:
        low, high = min(v.min() for v in groups.values()), max(v.max() for v in groups.values())
        bins = edges_of(low, high, 50)
        for (color, turn), (key, v) in zip(turns(ax, len(groups)), groups.items(), strict=True):
            ax.hist(v[:, 0], bins, density=True, label=label_of(key), **bars(color, turn))
        ax.set(xlabel=plain(names[0] if names else "x"), ylabel="density")
    else:
        for (color, turn), (key, v) in zip(turns(ax, len(groups)), groups.items(), strict=True):
            style = {"color": color, "marker": MARKERS[turn], "markersize": size, "alpha": 0.6}
            ax.plot(v[:, 0], v[:, 1], linestyle="", markeredgewidth=0, label=label_of(key), **style)
        ax.set(xlabel=plain(names[0] if names else "x1"), ylabel=plain(names[1] if names else "x2"))
    legend(ax)
    return ax


def images(x: Any, *, ax: Any = None, columns: int | None = None, gap: int = 1, cmap: str = "gray") -> Any:
    """Draw a stack of images as one sheet, row by row.

    Args:
        x: ``(n, h, w)``, ``(n, c, h, w)`` or ``(n, h, w, c)`` with one or three channels. Integers are from 0 to 255; other
            numbers are scaled so that the smallest is black and the largest white.
        ax: matplotlib axes; new ones by default.
        columns: number of images in a row; by default the sheet is about as wide as high.
        gap: width of the lines between the images, pixels.
        cmap: matplotlib's name of the colors of images with one channel.

    Returns:
        The axes.

    Raises:
        InputError: for another shape, NaN or infinite numbers, or integers outside 0 to 255.
        ConfigError: without matplotlib.

    Example:
        >>> import pushforward as pf
        >>> ax = pf.plot.images(pf.data.load_image_sample("fashion-mnist")[:12], columns=4)
        >>> ax.images[0].get_array().shape
        (86, 115)
    """
    integers = "int" in str(getattr(x, "dtype", ""))
    stack = array(x, "images", finite=True)
    if stack.ndim == 4 and stack.shape[1] in (1, 3):
        stack = np.moveaxis(stack, 1, -1)
    if stack.ndim == 3:
        stack = stack[..., None]
    if stack.ndim != 4 or stack.shape[-1] not in (1, 3):
        raise InputError(f"images have shape (n, h, w), (n, c, h, w) or (n, h, w, c); got {stack.shape}.")
    if integers and (stack.min() < 0 or stack.max() > 255):
        raise InputError(
            f"images of integers are from 0 to 255, and these are from {stack.min():g} to {stack.max():g}: convert them to floating point to scale them."
        )
    low, high = (0.0, 255.0) if integers else (stack.min(), stack.max())
    stack = np.clip((stack - low) / (high - low if high > low else 1.0), 0, 1)
    count, height, width, channels = stack.shape
    check_integer("gap", gap, 0)
    wide = _columns(count, height + gap, width + gap) if columns is None else columns
    check_integer("columns", wide)
    rows = -(-count // wide)
    sheet = np.concatenate([stack, np.full((rows * wide - count, height, width, channels), np.nan)])
    sheet = np.pad(sheet, ((0, 0), (0, gap), (0, gap), (0, 0)), constant_values=np.nan)
    height, width = height + gap, width + gap
    sheet = sheet.reshape(rows, wide, height, width, channels).swapaxes(1, 2)
    sheet = sheet.reshape(rows * height, wide * width, channels)[: rows * height - gap, : wide * width - gap]
    sheet = np.ma.masked_invalid(sheet[..., 0]) if channels == 1 else np.nan_to_num(sheet, nan=1.0)
    stretch = (width / height) ** 0.5
    ax = new_axes(ax, (0.6 * wide * stretch + 0.4, 0.6 * rows / stretch + 0.4))
    ax.imshow(sheet, cmap=cmap, vmin=0, vmax=1, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    return ax


def _columns(count: int, height: int, width: int) -> int:
    """Number of images of a size in a row, for the sheet that is nearest to a square; of two such, the wider one."""

    def ratio(columns: int) -> float:
        sides = columns * width, -(-count // columns) * height
        return max(sides) / min(sides)

    return min(range(count, 0, -1), key=ratio)
