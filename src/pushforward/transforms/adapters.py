"""Bijections from and to ``torch.distributions``."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor
from torch import distributions as td
from torch.distributions import biject_to, constraints, transform_to
from torch.distributions.constraints import Constraint

from pushforward.errors import ConfigError, KindError
from pushforward.likelihood import REAL, Support
from pushforward.numerics import Noise, sum_event
from pushforward.transforms.base import Shape, Step, Transform, as_shape, check_context

__all__ = ["AsTorchTransform", "LessOrEqual", "TorchTransform", "from_torch", "to_torch"]


class LessOrEqual(constraints.less_than):
    """Numbers up to an end, which is one of them; torch has :data:`~torch.distributions.constraints.less_than` alone."""

    def check(self, value: Tensor) -> Tensor:
        """Whether each number meets it."""
        return value <= self.upper_bound


@biject_to.register(LessOrEqual)
@transform_to.register(LessOrEqual)
def _reach_at_most(constraint: LessOrEqual) -> td.Transform:
    return transform_to(constraints.less_than(constraint.upper_bound))


_INVERSE = type(td.ExpTransform().inv)
_SEVERAL = (td.CatTransform, td.StackTransform)


def from_torch(transform: td.Transform, features: int | Shape) -> TorchTransform:
    """A transform of this package from one of ``torch.distributions``, whose call is ``decode``, noise to data.

    It may hold any tensors, so it cannot be saved to a model file.

    Args:
        transform: of ``torch.distributions``; bijective, between spaces of equally many coordinates.
        features: event shape of the data.

    Raises:
        ConfigError: if it is not an object of ``torch.distributions``.
        KindError: if it is not such a bijection.

    Example:
        >>> import torch
        >>> from torch.distributions import ExpTransform
        >>> from pushforward.transforms import from_torch
        >>> log = from_torch(ExpTransform(), features=2)           # positive data to the reals
        >>> log.encode(torch.ones(1, 2))[:2]
        (tensor([[0., 0.]]), tensor([-0.]))
    """
    return TorchTransform(transform, features)


def to_torch(transform: Transform, context: Tensor | None = None) -> AsTorchTransform:
    """A ``torch.distributions`` transform, noise to data, for ``TransformedDistribution``, Pyro and other libraries.

    Args:
        transform: a bijection of this package.
        context: ``(*batch, context)`` for a transform that reads one; the result keeps it.

    Raises:
        ConfigError: for anything but a transform of this package.
        KindError: if the transform is not a bijection.
        InputError: if the transform needs a context and got none.

    Example:
        >>> import torch
        >>> from torch.distributions import Normal, TransformedDistribution
        >>> from pushforward.transforms import Exp, Inverse, to_torch
        >>> lognormal = TransformedDistribution(Normal(torch.zeros(2), 1.0), to_torch(Inverse(Exp(2))))
        >>> lognormal.log_prob(torch.ones(2))
        tensor(-1.8379)
    """
    return AsTorchTransform(transform, context)


class TorchTransform(Transform):
    """See :func:`from_torch`. Rows outside the codomain of the inner transform have the contribution -inf.

    Example:
        >>> import torch, pushforward as pf
        >>> cube = pf.transforms.from_torch(torch.distributions.SigmoidTransform(), 2)
        >>> type(cube).__name__, cube.decode(cube.encode(torch.full((1, 2), 0.25)).z)
        ('TorchTransform', tensor([[0.2500, 0.2500]]))
    """

    def __init__(self, transform: td.Transform, features: int | Shape) -> None:
        shape = as_shape(features)
        if not isinstance(transform, td.Transform):
            raise ConfigError(
                f"from_torch takes an object of torch.distributions such as ExpTransform(); got {_named(transform)}."
            )
        if not transform.bijective:
            raise KindError(f"{type(transform).__name__} is not bijective, so it has no exact likelihood.")
        try:
            out_shape = tuple(transform.inverse_shape(shape))
        except ValueError as error:
            raise KindError(f"{type(transform).__name__} has no data of the shape {shape}: {error}.") from error
        if math.prod(out_shape) != math.prod(shape):
            raise KindError(
                f"{type(transform).__name__} maps the shape {out_shape} to {shape}, which have different numbers of "
                "coordinates, so it is not a bijection with a log-determinant."
            )
        super().__init__(shape, out_shape)
        self.features = features
        # torch's inverse of a transform keeps nothing when it is copied, so the other one is stored.
        self._backward = isinstance(transform, _INVERSE)
        self._stored = transform.inv if self._backward else transform
        self.domain, self.codomain = _box(transform.codomain), _noise_box(transform, self.out_shape)

    @property
    def transform(self) -> td.Transform:
        """The inner transform, from noise to data."""
        return self._stored.inv if self._backward else self._stored

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """The inverse of the inner transform."""
        legal = _reached(self.transform, x, x.dim() - len(self.in_shape))
        x = _replace(x, legal, _apply(self.transform, self._legal_noise(x)))
        z = _apply(self.transform.inv, x)
        return Step(z, torch.where(legal, self._contribution(z, x), -math.inf))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """The inner transform."""
        return self.decode_with_contribution(z)[0]

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """The inner transform, with the negated log-determinant."""
        z = _replace(z, _legal(self.transform.domain, z, len(self.out_shape)), self._legal_noise(z))
        x = _apply(self.transform, z)
        return x, self._contribution(z, x)

    def _legal_noise(self, like: Tensor) -> Tensor:
        return transform_to(self.transform.domain)(like.new_zeros(self.out_shape))

    def _contribution(self, z: Tensor, x: Tensor) -> Tensor:
        log_det = self.transform.log_abs_det_jacobian(z, x)
        # of its shape, not of `domain.event_dim`: a StackTransform leaves the dimension along which it stacks
        return -sum_event(log_det, log_det.dim() - (x.dim() - len(self.in_shape)))


class AsTorchTransform(td.Transform):
    """See :func:`to_torch`.

    Example:
        >>> import torch, pushforward as pf
        >>> to_data = pf.transforms.to_torch(pf.transforms.Exp(2))  # from noise to data
        >>> to_data(torch.ones(1, 2))
        tensor([[0., 0.]])
    """

    bijective = True

    def __init__(self, transform: Transform, context: Tensor | None = None) -> None:
        if not isinstance(transform, Transform):
            raise ConfigError(
                "to_torch takes a transform such as model.chain; got "
                f"{_named(transform)}: model.distribution() makes a distribution of a whole model."
            )
        if not transform.bijective:
            raise KindError(
                f"{type(transform).__name__} is not a bijection, so it cannot be a torch.distributions transform."
            )
        check_context(context, transform.context, type(transform).__name__)
        super().__init__()
        self.transform, self.context = transform, context

    @constraints.dependent_property(is_discrete=False)
    def domain(self) -> Constraint:
        """The set of possible noise."""
        return _constraint(self.transform.codomain, len(self.transform.out_shape))

    @constraints.dependent_property(is_discrete=False)
    def codomain(self) -> Constraint:
        """The set of possible data."""
        return _constraint(self.transform.domain, len(self.transform.in_shape))

    def with_cache(self, cache_size: int = 1) -> AsTorchTransform:
        """The same transform that keeps its last input and output (``cache_size`` 1), or none (0)."""
        if cache_size == self._cache_size:
            return self
        made = type(self)(self.transform, self.context)
        td.Transform.__init__(made, cache_size=cache_size)
        return made

    def forward_shape(self, shape: Size) -> Size:
        """Shape of the data for noise of this shape."""
        return Size((*shape[: len(shape) - len(self.transform.out_shape)], *self.transform.in_shape))

    def inverse_shape(self, shape: Size) -> Size:
        """Shape of the noise for data of this shape."""
        return Size((*shape[: len(shape) - len(self.transform.in_shape)], *self.transform.out_shape))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log abs det dy/dx; here x is the noise and y the data, so it is minus the contribution."""
        return -self.transform.encode(y, self._context(y, self.transform.in_shape)).contribution

    def _call(self, x: Tensor) -> Tensor:
        return self.transform.decode(x, self._context(x, self.transform.out_shape))

    def _inverse(self, y: Tensor) -> Tensor:
        return self.transform.encode(y, self._context(y, self.transform.in_shape)).z

    def _context(self, value: Tensor, shape: Shape) -> Tensor | None:
        if self.context is None:
            return None
        return self.context.expand(*value.shape[: value.dim() - len(shape)], self.context.shape[-1])


def _box(constraint: Constraint) -> Support:
    """The box of a constraint; all reals if it has no bounds."""
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    low = torch.as_tensor(getattr(constraint, "lower_bound", -math.inf))
    high = torch.as_tensor(getattr(constraint, "upper_bound", math.inf))
    return Support(float(low.min()), float(high.max()))


@torch.no_grad()
def _noise_box(transform: td.Transform, shape: Shape) -> Support:
    """The noise that a transform maps to all of its data; of a composition it may be less than the domain of its first part."""
    box = REAL
    for part in reversed(_parts(transform)):
        domain, image = _box(part.domain), _box(part.codomain)
        if box.covers(image):
            box = domain
        elif isinstance(part, td.ReshapeTransform) and not box.ends:
            continue
        elif part.domain.event_dim or part.codomain.event_dim or box.within or box.ends or isinstance(part, _SEVERAL):
            box = Support(domain.low, domain.high, "of a composition")
        else:
            low, high = (_end(part, end, image, domain) for end in (box.low, box.high))
            lows, highs = torch.minimum(low, high).double(), torch.maximum(low, high).double()
            lows, highs = lows.clamp(min=domain.low), highs.clamp(max=domain.high)
            if lows.numel() == 1:
                box = Support(float(lows), float(highs))
            elif len(shape) == 1 and lows.shape == shape:
                box = Support.joined([(Support(a, b), 1) for a, b in zip(lows.tolist(), highs.tolist(), strict=True)])
            else:
                box = Support(float(lows.min()), float(highs.max()), "of a composition")
    return box


def _end(part: td.Transform, end: float, image: Support, domain: Support) -> Tensor:
    """The noise of a monotone function at an end of a box of its data, which may be beyond its image."""
    if image.low < end < image.high:
        return _apply(part.inv, torch.tensor(end, dtype=torch.float64))
    rising = torch.as_tensor(part.sign) > 0
    return torch.where(rising == (end >= image.high), domain.high, domain.low)


def _parts(transform: td.Transform) -> list[td.Transform]:
    """The parts of a composition, from noise to data; a transform of independent coordinates as that of one."""
    if isinstance(transform, td.IndependentTransform):
        return _parts(transform.base_transform)
    if isinstance(transform, td.ComposeTransform):
        return [part for outer in transform.parts for part in _parts(outer)]
    if isinstance(transform, _INVERSE) and transform.inv is not None:
        forward = _parts(transform.inv)
        if len(forward) > 1:
            return [inverse for part in reversed(forward) if (inverse := part.inv) is not None]
    return [transform]


def _constraint(box: Support | None, dims: int) -> Constraint:
    """The constraint of a box, for events of ``dims`` dimensions."""
    if box is None or box == REAL:
        one = constraints.real
    elif box.ends and dims == 1:
        one = constraints.cat([_constraint(Support(low, high), 0) for low, high in box.ends], -1, [1] * len(box.ends))
    elif math.isinf(box.low) and math.isinf(box.high):
        one = constraints.real
    elif math.isinf(box.high):
        one = constraints.greater_than_eq(box.low)
    elif math.isinf(box.low):
        one = LessOrEqual(box.high)
    else:
        one = constraints.interval(box.low, box.high)
    return constraints.independent(one, dims)


def _named(value: object) -> str:
    return (
        f"the class {value.__name__}" if isinstance(value, type) else f"{type(value).__module__}.{type(value).__name__}"
    )


def _apply(transform: td.Transform | None, value: Tensor) -> Tensor:
    assert transform is not None
    return transform(value)  # pyright: ignore[reportReturnType]


def _legal(constraint: Constraint, value: Tensor, dims: int) -> Tensor:
    """Whether each row meets the constraint in all its coordinates, shape ``batch``."""
    found, batch = constraint.check(value), value.dim() - dims
    return found.flatten(batch).all(-1) if found.dim() > batch else found


@torch.no_grad()
def _reached(transform: td.Transform, value: Tensor, batch: int) -> Tensor:
    """Whether each row is in the codomain of a transform; in a composition, whose own says less, in those of all its parts."""
    legal = _legal(transform.codomain, value, value.dim() - batch)
    if isinstance(transform, td.ComposeTransform):
        for part in reversed(transform.parts):
            legal = legal & _reached(part, value, batch)
            value = _apply(part.inv, value)
    return legal


def _replace(value: Tensor, legal: Tensor, stand_in: Tensor) -> Tensor:
    """Replace illegal rows by legal ones, so that they do not make gradients NaN."""
    return torch.where(legal.reshape(*legal.shape, *(1 for _ in stand_in.shape)), value, stand_in)
