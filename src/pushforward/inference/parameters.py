"""`Parameters`: named parameters with constraints, and the transform between them and the reals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pushforward.errors import ConfigError, InputError
from pushforward.numerics.checks import check_integer
from pushforward.transforms import (
    Affine,
    Blocks,
    Bounds,
    Gaps,
    PartialCorrelations,
    StickBreaking,
    Transform,
)

__all__ = ["Constraint", "Parameters", "correlation", "interval", "ordered", "positive", "real", "simplex"]

Size = int | tuple[int, ...]


@dataclass(frozen=True)
class Constraint:
    """The set of values of one parameter. The functions of this file make it.

    Attributes:
        name: of the set.
        shape: of a value.
        features: number of coordinates to which a density of the parameter refers.
        transform: builds the transform from these coordinates to as many real numbers.
        expand: coordinates ``(*batch, features)`` to the value ``(*batch, *shape)``.
        flatten: a value to its coordinates.

    Example:
        >>> from pushforward.inference import simplex
        >>> simplex(3).features  # a density of three proportions refers to two numbers
        2
    """

    name: str
    shape: tuple[int, ...]
    features: int
    transform: Callable[[], Transform]
    expand: Callable[[Tensor], Tensor]
    flatten: Callable[[Tensor], Tensor]


def real(shape: Size = ()) -> Constraint:
    """Any real numbers, of a shape.

    Example:
        >>> from pushforward.inference import Parameters, real
        >>> Parameters(mu=real(), effects=real(8)).features
        9
    """
    return _elementwise("real", shape, lambda count: Affine(count))


def positive(shape: Size = (), *, low: float = 0.0) -> Constraint:
    """Numbers above ``low``, through the logarithm of their distance to it.

    Raises:
        ConfigError: unless ``low`` is finite.

    Example:
        >>> import torch
        >>> from pushforward.inference import Parameters, positive
        >>> bool(Parameters(sigma=positive()).transform().decode(torch.tensor([[-3.0]])) > 0)
        True
    """
    end = _end(low)
    if not math.isfinite(end):
        raise ConfigError(f"positive needs a finite bound; got low={low!r}: use real() for numbers without one.")
    return _elementwise("positive", shape, lambda count: Bounds(count, (end,) * count, (None,) * count))


def interval(low: float, high: float, shape: Size = ()) -> Constraint:
    """Numbers between ``low`` and ``high``, through the normal quantile of their position (:class:`~pushforward.transforms.Bounds`).

    Raises:
        ConfigError: unless both are finite and low < high.

    Example:
        >>> import torch
        >>> from pushforward.inference import Parameters, interval
        >>> Parameters(rho=interval(-1.0, 1.0)).transform().decode(torch.tensor([[0.0]]))
        tensor([[0.]])
    """
    first, last = _end(low), _end(high)
    if not (-math.inf < first < last < math.inf):
        raise ConfigError(f"an interval needs finite ends with low < high; got {low!r} and {high!r}.")
    return _elementwise(
        "interval", shape, lambda count: Bounds(count, (first,) * count, (last,) * count, link="probit")
    )


def simplex(size: int) -> Constraint:
    """Positive numbers with sum 1. A density of them refers to all but the last number.

    Example:
        >>> import torch
        >>> from pushforward.inference import Parameters, simplex
        >>> parameters = Parameters(p=simplex(3))
        >>> parameters.unflatten(parameters.transform().decode(torch.zeros(1, 2)))["p"]
        tensor([[0.3333, 0.3333, 0.3333]])
    """
    free = check_integer("size", size, 2) - 1
    return Constraint(
        "simplex", (size,), free, lambda: StickBreaking(free), StickBreaking.complete, lambda x: x[..., :-1]
    )


def ordered(size: int) -> Constraint:
    """Increasing numbers, through the logarithms of their gaps (more precisely, inverse softplus).

    Example:
        >>> import torch
        >>> from pushforward.inference import Parameters, ordered
        >>> cuts = Parameters(cuts=ordered(3)).transform().decode(torch.randn(1, 3))
        >>> bool((cuts.diff() > 0).all())
        True
    """
    size = check_integer("size", size, 1)
    return Constraint("ordered", (size,), size, lambda: Gaps(size), lambda x: x, lambda x: x)


def correlation(size: int) -> Constraint:
    """Correlation matrices of ``size`` rows. A density of them refers to the entries below the diagonal.

    Example:
        >>> import torch
        >>> from pushforward.inference import Parameters, correlation
        >>> parameters = Parameters(r=correlation(2))
        >>> parameters.unflatten(parameters.transform().decode(torch.zeros(1, 1)))["r"]
        tensor([[[1., 0.],
                 [0., 1.]]])
    """
    size = check_integer("size", size, 2)
    free = size * (size - 1) // 2
    transform = PartialCorrelations(free)
    rows, columns = torch.tril_indices(size, size, -1)
    return Constraint(
        "correlation", (size, size), free, lambda: PartialCorrelations(free), transform.matrix,
        lambda x: x[..., rows, columns],
    )  # fmt: skip


class Parameters:
    """Named parameters with constraints: what a log-density reads, and how a flow on real numbers reaches it.

    Densities refer to the constrained coordinates, as in Stan without Jacobian adjustments: the log-determinants of the
    transforms are added where they are needed, never by the user.

    Args:
        constraints: a constraint for each name, such as ``mu=real(3), sigma=positive()``.

    Raises:
        ConfigError: for something that is not a constraint.

    Example:
        >>> import torch
        >>> from pushforward import inference
        >>> space = inference.Parameters(mu=inference.real(), sigma=inference.positive(), p=inference.simplex(3))
        >>> space.features, space.names
        (4, ['mu', 'sigma', 'p[0]', 'p[1]'])
        >>> space.unflatten(torch.tensor([0.0, 1.0, 0.2, 0.3]))["p"]
        tensor([0.2000, 0.3000, 0.5000])
    """

    def __init__(self, **constraints: Constraint) -> None:
        if not constraints:
            raise ConfigError("Parameters needs at least one parameter, such as mu=pf.inference.real().")
        for name, constraint in constraints.items():
            if not isinstance(constraint, Constraint):
                raise ConfigError(
                    f"the parameter {name!r} needs a constraint such as pf.inference.real() or "
                    f"pf.inference.positive(); got {constraint!r:.80}."
                )
        self.constraints = dict(constraints)
        self.features = sum(constraint.features for constraint in constraints.values())

    @property
    def names(self) -> list[str]:
        """A name for each coordinate."""
        return [
            name if constraint.features == 1 and math.prod(constraint.shape) == 1 and not constraint.shape
            else f"{name}[{index}]"
            for name, constraint in self.constraints.items() for index in range(constraint.features)
        ]  # fmt: skip

    def transform(self) -> Transform:
        """A new transform from all constrained coordinates to as many real numbers."""
        return Blocks(*(constraint.transform() for constraint in self.constraints.values()))

    def unflatten(self, x: Tensor) -> dict[str, Tensor]:
        """Coordinates ``(*batch, features)`` to the values by name, each ``(*batch, *shape)``.

        Raises:
            InputError: for another width.
        """
        if x.shape[-1:] != (self.features,):
            raise InputError(f"these parameters have {self.features} coordinates; got shape {tuple(x.shape)}.")
        pieces = x.split([constraint.features for constraint in self.constraints.values()], -1)
        return {
            name: constraint.expand(piece)
            for (name, constraint), piece in zip(self.constraints.items(), pieces, strict=True)
        }

    def flatten(self, values: Mapping[str, Any]) -> Tensor:
        """Values by name to coordinates ``(*batch, features)``.

        Raises:
            InputError: if a name is missing or a shape does not fit.
        """
        if missing := [name for name in self.constraints if name not in values]:
            raise InputError(f"the parameter {missing[0]!r} is missing.")
        pieces = []
        for name, constraint in self.constraints.items():
            value = torch.as_tensor(values[name])
            if value.shape[value.dim() - len(constraint.shape) :] != constraint.shape:
                raise InputError(f"the parameter {name!r} has the shape {constraint.shape}; got {tuple(value.shape)}.")
            pieces.append(constraint.flatten(value))
        return torch.cat(pieces, -1)

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={c.name}{list(c.shape) if c.shape else ''}" for name, c in self.constraints.items())
        return f"Parameters({inner})"


def _end(value: Any) -> float:
    """A bound as a float; NaN for what is no number, which no check lets pass."""
    try:
        return math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError, RuntimeError):
        return math.nan


def _elementwise(name: str, shape: Size, build: Callable[[int], Transform]) -> Constraint:
    shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    shape = tuple(check_integer("shape", size) for size in shape)
    count = math.prod(shape)
    return Constraint(
        name, shape, count, lambda: build(count), lambda x: x.reshape((*x.shape[:-1], *shape)),
        lambda x: x.reshape((*x.shape[: x.dim() - len(shape)], count)),
    )  # fmt: skip
