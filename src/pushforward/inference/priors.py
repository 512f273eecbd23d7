"""`Prior`: a torch distribution as the prior of simulation-based inference: density, draws, and the transform of its support."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import constraints

from pushforward.errors import ConfigError, InputError, StorageError
from pushforward.inference.network_inputs import NetworkInputs, edges
from pushforward.inference.real_numbers import as_numbers
from pushforward.numerics import seeded
from pushforward.numerics.checks import check_integer
from pushforward.transforms import Affine, Blocks, Chain, Exp, Inverse, Logit, Probit, StickBreaking, Transform

__all__ = ["Prior"]

_FAMILIES: dict[str, tuple[type[td.Distribution], tuple[str, ...]]] = {
    "Uniform": (td.Uniform, ("low", "high")),
    "Normal": (td.Normal, ("loc", "scale")),
    "LogNormal": (td.LogNormal, ("loc", "scale")),
    "Laplace": (td.Laplace, ("loc", "scale")),
    "Cauchy": (td.Cauchy, ("loc", "scale")),
    "StudentT": (td.StudentT, ("df", "loc", "scale")),
    "Gamma": (td.Gamma, ("concentration", "rate")),
    "Exponential": (td.Exponential, ("rate",)),
    "Beta": (td.Beta, ("concentration1", "concentration0")),
    "HalfNormal": (td.HalfNormal, ("scale",)),
    "HalfCauchy": (td.HalfCauchy, ("scale",)),
    "MultivariateNormal": (td.MultivariateNormal, ("loc", "scale_tril")),
    "Dirichlet": (td.Dirichlet, ("concentration",)),
}
"""The priors that a file can store."""
_SMALLEST = 1e4
"""Draws that vary by less than this many times the smallest normal number of float32 lose their digits."""
_SKEWED = 0.01
"""A bounded coordinate is skewed if a quarter of its draws are within this fraction of the width from one bound."""


class Prior:
    """A prior distribution of parameter vectors.

    A Dirichlet distribution of K proportions counts as the first K - 1 of them; the last one is 1 minus their sum. Angles
    (``VonMises``) are bounded by -pi and pi, and a posterior on both sides of that seam becomes two modes with some mass
    between them: infer cosine and sine, or choose another zero of the angle, so that the seam is far from the observation.

    Args:
        distribution: a ``torch.distributions`` object of vectors, or of independent numbers (a batch shape ``(D,)``), or a
            sequence of such objects, which are independent and are joined to one vector.

    Raises:
        ConfigError: for something else, a support that is neither a box nor a simplex, a distribution without a density, or draws
            that float32 cannot tell apart.

    Example:
        >>> import torch
        >>> from torch.distributions import Gamma, Uniform
        >>> prior = Prior([Uniform(-torch.ones(2), torch.ones(2)), Gamma(2.0, 1.0)])
        >>> prior.features, prior.sample(5, seed=0).shape
        (3, torch.Size([5, 3]))
        >>> prior.log_prob(torch.tensor([[0.0, 0.0, -1.0]]))
        tensor([-inf])
    """

    def __init__(self, distribution: Any) -> None:
        items = list(distribution) if isinstance(distribution, Sequence) else [distribution]
        if isinstance(distribution, Prior):
            items = distribution.parts
        if not items:
            raise ConfigError("a prior needs at least one distribution.")
        self.parts = [_as_vector(item) for item in items]
        self.widths = [part.event_shape[0] for part in self.parts]
        self.features = sum(self.widths)
        bounds = [_bounds(part) for part in self.parts]
        self.low, self.high = (
            torch.cat([
                torch.as_tensor(pair[end]).float().expand(width) for pair, width in zip(bounds, self.widths, strict=True)
            ])
            for end in (0, 1)
        )  # fmt: skip
        draws = self._check_resolution()
        self.skewed = self._skewed(draws)
        self.has_gaps = any(map(_has_gaps, self.parts, draws.split(self.widths, -1)))
        """Whether the density is 0 at some points between the bounds, as under a constraint on several parameters."""

    def __repr__(self) -> str:
        return f"Prior({', '.join(map(str, self.parts))})"

    def sample(self, count: int, *, seed: int) -> Tensor:
        """Draws ``(count, D)``, float32; the caller's random state does not change.

        Raises:
            ConfigError: for a negative number of draws.
        """
        check_integer("count", count, 0)
        with seeded(seed):
            return self.clamp(torch.cat([part.sample((count,)).float() for part in self.parts], -1))

    def log_prob(self, theta: Tensor) -> Tensor:
        """Log-density in nats, ``(*batch, D)`` to ``batch``; -inf outside the support.

        Raises:
            InputError: for another number of parameters, or something that is not real numbers.
        """
        theta = _floating(theta)
        if theta.dim() < 1 or theta.shape[-1] != self.features:
            raise InputError(f"theta must have the shape (*batch, {self.features}); got {tuple(theta.shape)}.")
        inside = ((theta >= self.low.to(theta)) & (theta <= self.high.to(theta))).all(-1)
        safe = torch.where(inside[..., None], theta, self.middle().to(theta))
        pieces = safe.split(self.widths, -1)
        total = sum(part.log_prob(piece) for part, piece in zip(self.parts, pieces, strict=True))
        total = torch.as_tensor(total)
        return torch.where(inside & ~torch.isnan(total), total, -math.inf)

    def contains(self, theta: Tensor) -> Tensor:
        """Whether each row lies in the support."""
        return torch.isfinite(self.log_prob(theta))

    def middle(self) -> Tensor:
        """A point inside the support, ``(D,)``."""
        low, high = self.low, self.high
        bounded = torch.isfinite(low) & torch.isfinite(high)
        inner = torch.where(torch.isfinite(low), low + 1, torch.where(torch.isfinite(high), high - 1, 0.0))
        point = torch.where(bounded, low / 2 + high / 2, inner)
        for begin, stop in self._simplices():
            point[begin:stop] = 1 / (stop - begin + 1)
        return point

    def clamp(self, theta: Tensor) -> Tensor:
        """Points that rounding put on the edge of the support, moved just inside, ``(*batch, D)``."""
        theta = _floating(theta)
        low, high = self.low.to(theta), self.high.to(theta)
        low_step, high_step = edges(low, high)
        inside = torch.minimum(torch.maximum(theta, low + low_step), high - high_step)
        eps = torch.finfo(theta.dtype).eps
        for begin, stop in self._simplices():
            piece = inside[..., begin:stop]
            scale = ((1 - 8 * eps) / piece.sum(-1, keepdim=True)).clamp(max=1.0)
            inside = torch.cat((inside[..., :begin], piece * scale, inside[..., stop:]), -1)
        return inside

    def settle(self, theta: Tensor) -> Tensor:
        """Parameters of which rounding put some on the edge of the support, or just outside: these moved inside, ``(n, D)``."""
        theta = _floating(theta)
        inside = self.clamp(theta)
        low, high = self.low.to(theta), self.high.to(theta)
        low_step, high_step = edges(low, high)
        rounding = torch.finfo(theta.dtype).eps * (high - low).nan_to_num(posinf=0.0)
        low_step = torch.where(low == 0, torch.maximum(low_step, rounding), low_step)
        near = (inside - theta).abs() <= 16 * torch.where(inside > theta, low_step, high_step)
        return torch.where(near, inside, theta)

    def _check_resolution(self) -> Tensor:
        """Refuse a prior whose draws are not finite, or differ by little more than the spacing of float32 numbers, in which networks compute.

        Returns:
            The draws, ``(256, D)``, float64.
        """
        with seeded(0):
            draws = torch.cat([part.sample((256,)).double().cpu() for part in self.parts], -1)
        quarter, middle, upper = torch.quantile(draws, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64), dim=0)
        broken = ~torch.isfinite(upper - quarter + middle)
        if bool(broken.any()):
            raise ConfigError(
                f"parameter {int(broken.nonzero()[0])} of the prior has draws that are infinite or NaN: give the distribution finite "
                "arguments, such as Uniform(0, 100) in place of one without an end."
            )
        coarse = upper - quarter < 100 * torch.finfo(torch.float32).eps * middle.abs()
        if bool(coarse.any()):
            index = int(coarse.nonzero()[0])
            raise ConfigError(
                f"parameter {index} is about {float(middle[index]):.6g} and varies by {float(upper[index] - quarter[index]):.2g}, "
                "which float32 cannot resolve: subtract a constant in the prior and add it in the simulator."
            )
        spread = draws.amax(0) - draws.amin(0)
        small = spread < _SMALLEST * torch.finfo(torch.float32).tiny
        if bool(small.any()):
            index = int(small.nonzero()[0])
            raise ConfigError(
                f"parameter {index} varies by {float(spread[index]):.2g}, which is too close to the smallest number of float32: "
                "choose another unit for it in the prior and in the simulator."
            )
        return draws

    def _skewed(self, draws: Tensor) -> Tensor:
        """Which bounded coordinates have a quarter of their draws within a hundredth of the width from one bound, ``(D,)``."""
        low, high = self.low.double(), self.high.double()
        near = torch.minimum(torch.quantile(draws - low, 0.25, dim=0), torch.quantile(high - draws, 0.25, dim=0))
        skewed = torch.isfinite(low) & torch.isfinite(high) & (near < _SKEWED * (high - low))
        for begin, stop in self._simplices():
            skewed[begin:stop] = False
        return skewed

    @property
    def has_proportions(self) -> bool:
        """Whether some parameters are proportions with a Dirichlet distribution."""
        return bool(self._simplices())

    def _simplices(self) -> list[tuple[int, int]]:
        """First and last coordinate, exclusive, of each part that is a simplex."""
        stops = list(itertools.accumulate(self.widths))
        return [
            (stop - width, stop)
            for part, width, stop in zip(self.parts, self.widths, stops, strict=True) if isinstance(part, _Proportions)
        ]  # fmt: skip

    def transform(self) -> Transform:
        """A new transform from the support to the reals.

        Bounded coordinates go through normal quantiles, after which a uniform prior is a normal distribution, and skewed ones
        through logits, which near a bound are logarithms of the distance; half-bounded ones go through logarithms.
        """
        kinds = [
            ("logit" if skewed else "probit") if math.isfinite(low) and math.isfinite(high)
            else "low" if math.isfinite(low) else "high" if math.isfinite(high) else "real"
            for low, high, skewed in zip(self.low.tolist(), self.high.tolist(), self.skewed.tolist(), strict=True)
        ]  # fmt: skip
        for number, (begin, stop) in enumerate(self._simplices()):
            kinds[begin:stop] = [f"simplex {number}"] * (stop - begin)
        blocks, start = [], 0
        for kind, group in itertools.groupby(kinds):
            stop = start + len(list(group))
            blocks.append(_block(kind, self.low[start:stop].double(), self.high[start:stop].double()))
            start = stop
        return Blocks(*blocks)

    def inputs(self, theta: Tensor) -> Tensor:
        """Parameters as networks read them, ``(n, D)``: see :class:`~pushforward.inference.network_inputs.NetworkInputs`."""
        return NetworkInputs(self.low, self.high, self.skewed)(theta)

    def describe(self) -> list[dict[str, Any]]:
        """The prior in JSON types.

        Raises:
            ConfigError: for a distribution that a file cannot store.
        """
        described = []
        for part in self.parts:
            base = part
            while isinstance(base, td.Independent | _Proportions):
                base = base.base_dist
            name = type(base).__name__
            if name not in _FAMILIES or not _is_of(base, _FAMILIES[name][0]):
                shown = f"{type(base).__module__}.{name}" if name in _FAMILIES else name
                raise ConfigError(
                    f"a file cannot store a prior of the class {shown}; it stores {', '.join(_FAMILIES)} of torch. Save with "
                    "save(path, prior=False) and give the prior when loading."
                )
            values = {key: getattr(base, key) for key in _FAMILIES[name][1]}
            entry: dict[str, Any] = {
                "family": name,
                "arguments": {key: value.double().tolist() for key, value in values.items()},
            }
            if any(value.dtype == torch.float64 for value in values.values()):
                entry["dtype"] = "float64"  # without it float32, as in files of 0.1
            described.append(entry)
        return described

    @classmethod
    def build(cls, description: Any) -> Prior:
        """The prior that :meth:`describe` described.

        Raises:
            StorageError: for anything else.
        """
        try:
            parts = []
            for item in description:
                family, names = _FAMILIES[item["family"]]
                dtype = torch.float64 if item.get("dtype") == "float64" else torch.float32
                arguments = {key: torch.tensor(item["arguments"][key], dtype=dtype) for key in names}
                parts.append(family(**arguments))  # pyright: ignore[reportArgumentType]
            return cls(parts)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise StorageError(f"the file contains no valid prior: {str(error)[:200]}") from error


def _floating(theta: Any) -> Tensor:
    """Parameters as floating-point numbers, with their gradient: bounds as integers would be others, and there is no infinite one."""
    return theta if isinstance(theta, Tensor) and theta.is_floating_point() else as_numbers(theta, "theta")


def _is_of(item: td.Distribution, family: type[td.Distribution]) -> bool:
    """Whether this is a distribution of a family of torch, or Pyro's wrapper of it, which has the same arguments."""
    own = type(item)
    return own is family or (isinstance(item, family) and own.__module__.startswith("pyro.distributions."))


def _as_vector(item: Any) -> td.Distribution:
    if not isinstance(item, td.Distribution):
        raise ConfigError(
            f"the prior must be a torch distribution, or a list of them; got {type(item).__name__}. For a box: "
            "torch.distributions.Uniform(low, high) with tensors low and high."
        )
    if len(item.batch_shape) + len(item.event_shape) > 1:
        raise ConfigError(
            f"the prior must be of one vector; this {type(item).__name__} has the batch shape {tuple(item.batch_shape)} and "
            f"the event shape {tuple(item.event_shape)}."
        )
    if isinstance(item, td.Dirichlet):
        return _Proportions(item)
    if not item.batch_shape and not item.event_shape:
        try:
            item = item.expand((1,))
        except NotImplementedError:
            raise ConfigError(
                f"the prior {type(item).__name__} has the batch shape () and no method expand: define expand, or give the "
                "distribution the batch shape (1,)."
            ) from None
    return _unchecked(item if item.event_shape else td.Independent(item, 1))


def _unchecked(item: td.Distribution) -> td.Distribution:
    """A distribution whose density is -inf or NaN outside its support, where torch's check would raise an error."""
    item = copy.copy(item)
    item._validate_args = False
    inner = {name: _unchecked(value) for name, value in vars(item).items() if isinstance(value, td.Distribution)}
    vars(item).update(inner)
    return item


class _Proportions(td.Distribution):
    """The first K - 1 of K proportions with a Dirichlet distribution."""

    arg_constraints: ClassVar[dict[str, Any]] = {}  # pyright: ignore[reportIncompatibleMethodOverride]

    def __init__(self, base_dist: td.Dirichlet) -> None:
        self.base_dist = td.Dirichlet(base_dist.concentration, validate_args=False)
        super().__init__(event_shape=torch.Size((base_dist.event_shape[0] - 1,)), validate_args=False)

    @property
    def support(self) -> Any:
        """Of each coordinate."""
        return constraints.unit_interval

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.base_dist.sample(sample_shape)[..., :-1]

    def log_prob(self, value: Tensor) -> Tensor:
        full = StickBreaking.complete(value)
        inside = (full > 0).all(-1)
        safe = torch.where(inside[..., None], full, 1 / full.shape[-1])
        return torch.where(inside, self.base_dist.log_prob(safe), -math.inf)


def _bounds(part: td.Distribution) -> tuple[Any, Any]:
    """Lower and upper bounds of the draws, numbers or tensors."""
    while isinstance(part, td.Independent):
        part = part.base_dist
    if isinstance(part, td.VonMises):  # torch states all reals as its support
        return -math.pi, math.pi
    if type(part) is td.TransformedDistribution:
        return _transformed_bounds(part)
    try:
        support = part.support
    except NotImplementedError:
        raise ConfigError(
            f"the prior {type(part).__name__} does not say where its draws lie: give it an attribute support, such as "
            "constraints.real_vector, or constraints.independent(constraints.interval(low, high), 1), of torch.distributions."
        ) from None
    return _interval(support, type(part).__name__)


def _interval(support: Any, name: str) -> tuple[Any, Any]:
    """Lower and upper bounds of a support.

    Raises:
        ConfigError: for a support that is no box.
    """
    while isinstance(support, constraints.independent) or (
        isinstance(support, constraints.MixtureSameFamilyConstraint) and not _has_tensors(support.base_constraint)
    ):
        support = support.base_constraint
    if hasattr(support, "cseq"):  # constraints.cat and constraints.stack, whose classes are not public
        return _joint_interval(support, name)
    if support in (constraints.real, constraints.real_vector):
        return -math.inf, math.inf
    if isinstance(support, (type(constraints.unit_interval), constraints.interval)):
        return support.lower_bound, support.upper_bound
    if isinstance(support, (constraints.greater_than, constraints.greater_than_eq)):
        return support.lower_bound, math.inf
    if isinstance(support, constraints.less_than):
        return -math.inf, support.upper_bound
    if getattr(support, "is_discrete", False):
        raise ConfigError(
            f"the prior {name} is discrete, and posteriors here are densities: infer a continuous parameter, or train for each "
            "value of the discrete one."
        )
    raise ConfigError(
        f"the support of the prior {name} is {support}; it must be a box, with lower and upper bounds of each parameter or "
        "none, or the simplex of a Dirichlet distribution."
    )


def _joint_interval(support: Any, name: str) -> tuple[Tensor, Tensor]:
    """Bounds of coordinates that have constraints of their own."""
    lengths = getattr(support, "lengths", [1] * len(support.cseq))
    pieces = [
        [torch.as_tensor(end).float().expand(length) for end in _interval(one, name)]
        for one, length in zip(support.cseq, lengths, strict=True)
    ]
    low, high = (torch.cat(list(ends)) for ends in zip(*pieces, strict=True))
    return low, high


def _has_tensors(support: Any) -> bool:
    """Whether bounds are tensors, which may differ from component to component."""
    return any(isinstance(getattr(support, name, None), Tensor) for name in ("lower_bound", "upper_bound"))


def _transformed_bounds(part: td.TransformedDistribution) -> tuple[Any, Any]:
    """Bounds of a transformed distribution, through its transforms; torch states the codomain of the last one alone.

    Raises:
        ConfigError: for transforms that are not functions of single coordinates.
    """
    low, high = (torch.as_tensor(end).double().reshape(-1) for end in _bounds(part.base_dist))
    pieces = [each for one in part.transforms for each in getattr(one, "parts", [one])]
    for piece in pieces:
        while isinstance(piece, td.transforms.IndependentTransform):
            piece = piece.base_transform
        whole = _interval(piece.codomain, type(part).__name__)
        if not piece.bijective or piece.domain.event_dim or piece.codomain.event_dim:
            low, high = (torch.as_tensor(end).double().reshape(-1) for end in whole)
            continue
        ends = torch.stack(torch.broadcast_tensors(low, high))
        image: Any = piece(torch.where(torch.isfinite(ends), ends, 0.5))
        mapped = torch.where(torch.isfinite(ends), image, torch.nan).double()
        rising = torch.as_tensor(piece.sign) > 0
        low = torch.where(rising, mapped[0], mapped[1]).nan_to_num(-math.inf, math.inf, -math.inf)
        high = torch.where(rising, mapped[1], mapped[0]).nan_to_num(math.inf, math.inf, -math.inf)
        low = torch.maximum(low, torch.as_tensor(whole[0]).double())
        high = torch.minimum(high, torch.as_tensor(whole[1]).double())
    return low, high


def _has_gaps(part: td.Distribution, draws: Tensor) -> bool:
    """Whether the density is 0 somewhere in the box of some draws ``(n, D)``, by as many random points of it.

    Raises:
        ConfigError: if the distribution has no density.
    """
    if isinstance(part, _Proportions):
        return False
    low, high = draws.amin(0), draws.amax(0)
    points = low + (high - low) * torch.rand(draws.shape, generator=torch.Generator().manual_seed(0)).double()
    try:
        density = part.log_prob(points.float())
    except NotImplementedError:
        base = part.base_dist if isinstance(part, td.Independent) else part
        raise ConfigError(
            f"the prior {type(base).__name__} has draws and no density, as torch.distributions has none for it: write a class with "
            "log_prob, or take a distribution that has one, such as HalfNormal for the absolute value of a normal variable."
        ) from None
    return bool((density == -math.inf).any())


def _block(kind: str, low: Tensor, high: Tensor) -> Transform:
    count = len(low)
    if kind.startswith("simplex"):
        return StickBreaking(count)
    if kind == "real":
        return Affine(count)
    if kind in ("probit", "logit"):
        width = high - low
        to_unit = Affine(count, shift=tuple((-low / width).tolist()), scale=tuple((1 / width).tolist()))
        return Chain(to_unit, Probit(count) if kind == "probit" else Logit(count))
    if kind == "low":
        shifted = Inverse(Exp(count))
        return shifted if not bool(low.any()) else Chain(Affine(count, shift=tuple((-low).tolist())), shifted)
    return Chain(Affine(count, shift=tuple(high.tolist()), scale=-1.0), Inverse(Exp(count)))
