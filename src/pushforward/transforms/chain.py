"""`Chain`: transforms in order from data to noise."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import overload

import torch
from torch import Tensor, nn
from torch import distributions as td

from pushforward.errors import ConfigError, KindWarning, warn_caller
from pushforward.likelihood import Kind, Measure, Support, join
from pushforward.numerics import Noise, is_eager
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform, check_event, named, require_step
from pushforward.transforms.reversible import encode_reversibly, require_reversible

__all__ = ["Chain", "check_support"]


@register("transforms")
class Chain(Transform):
    """Transforms one after the other, in order from data to noise.

    The contribution is the sum of the parts' contributions, and the kind is the join of their kinds. It is LOWER_BOUND also if
    the image of a part does not cover the domain of the next.

    ``chain[i]`` is a part, and ``chain[i:j]`` a chain of some parts that shares their weights; an empty slice is the identity.

    A reversible chain keeps no activations for the backward pass: it computes the input of each part again from its output, so
    memory does not grow with depth (Gomez et al. 2017). This costs one more encoding, and gradients agree to rounding. Parts
    before the first trainable one (scaling, dequantization) are encoded as usual.

    Args:
        transforms: at least one; the ``out_shape`` of each is the ``in_shape`` of the next.
        reversible: train without keeping activations; second derivatives are then refused.

    Raises:
        ConfigError: if the shapes or context widths do not fit, a part is not a transform, or a part of a reversible chain has no
            exact inverse in one pass (autoregressive, residual and continuous transforms, batch normalization, dropout).

    Example:
        >>> import torch
        >>> from pushforward.transforms import Chain, Affine, Tanh
        >>> chain = Chain(Affine(2, scale=0.5), Tanh(2))
        >>> z, contribution = chain(torch.zeros(3, 2))
        >>> contribution.shape, chain[1:].in_shape
        (torch.Size([3]), (2,))
    """

    def __init__(self, *transforms: Transform, reversible: bool = False) -> None:
        if not transforms:
            raise ConfigError("a chain needs at least one transform.")
        if wrong := [item for item in transforms if not isinstance(item, Transform)]:
            raise ConfigError(f"a chain is made of transforms; got {_named(wrong[0])}.")
        parts: list[Transform] = []
        for item in transforms:
            parts += list(item) if isinstance(item, Chain) else [item]
        for before, after in itertools.pairwise(parts):
            if before.out_shape != after.in_shape:
                raise ConfigError(
                    f"{type(before).__name__} ends with shape {before.out_shape} and {type(after).__name__} starts "
                    f"with {after.in_shape}: each part of a chain must start with the shape that the part before it ends with."
                )
        widths = {part.context for part in parts} - {0}
        if len(widths) > 1:
            raise ConfigError(f"the parts of a chain read contexts of different widths: {sorted(widths)}.")
        gap = self._connect(parts, parts[0].in_shape, parts[-1].out_shape)
        if gap:
            _warn_of_gap(gap, join(*(part.kind for part in parts)))
        self.set_reversible(reversible)

    def _connect(self, parts: list[Transform], in_shape: Shape, out_shape: Shape) -> str:
        """Set up a chain, not yet reversible, of parts that fit each other.

        Returns:
            A warning about the first pair whose supports do not fit; empty if all fit.
        """
        super().__init__(in_shape, out_shape)
        self.transforms = nn.ModuleList(parts)
        self.reversible = False
        self.context = max((part.context for part in parts), default=0)
        self.domain = _domain(parts)
        self.encode_passes = max((part.encode_passes for part in parts), default=1)
        self.decode_passes = max((part.decode_passes for part in parts), default=1)
        self.support_kind = Kind.EXACT  # LOWER_BOUND if the supports of two parts do not fit
        image: Support | None = None
        gap = ""
        for before, part in zip([None, *parts], parts, strict=False):
            carried = None if image is None else part.map_support(image)
            if carried is None and part.domain is not None:
                if image is not None and not image.covers(part.domain):
                    self.support_kind = Kind.LOWER_BOUND
                    gap = gap or _gap(image, part.domain, type(before).__name__, type(part).__name__)
                carried = part.codomain
            image = carried
        self.codomain = image
        return gap

    @property
    def kind(self) -> Kind:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Join of the parts' present kinds, and LOWER_BOUND if the supports of two parts do not fit."""
        exact = Kind.EXACT
        if self.support_kind is exact and all(part.kind is exact for part in self.transforms):
            return exact  # the usual case, which every call of log_prob needs
        return join(self.support_kind, *(part.kind for part in self))

    @property
    def bijective(self) -> bool:
        """Whether every part is, and their supports fit."""
        return self.kind is Kind.EXACT and all(part.bijective for part in self)

    @property
    def invertible(self) -> bool:
        """Whether every part is, and their supports fit."""
        return self.support_kind is Kind.EXACT and all(part.invertible for part in self)

    @property
    def many_to_one(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether any part is."""
        return any(part.many_to_one for part in self)

    @property
    def has_rsample(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether all parts pass gradients to what they draw."""
        return all(part.has_rsample for part in self)

    @property
    def estimators(self) -> list[Transform]:
        """Those of every part."""
        return [estimator for part in self for estimator in part.estimators]

    def set_log_det(self, log_det: str) -> None:
        """Choose how the parts that offer several ways compute their log-determinants.

        Raises:
            ConfigError: if no part offers several ways, or one does not offer this one.
        """
        if not self.estimators:
            raise ConfigError(
                "no part of this chain offers more than one way to compute its log-determinant: leave this choice out."
            )
        for part in self.estimators:
            part.set_log_det(log_det)  # pyright: ignore[reportCallIssue]

    def set_reversible(self, reversible: bool = True) -> None:
        """Choose whether the backward pass computes activations again instead of keeping them.

        Raises:
            ConfigError: naming a part that has no exact inverse in one pass.
        """
        if reversible:
            require_reversible(self[self.first_trainable() :])
        self.reversible = bool(reversible)

    def __iter__(self) -> Iterator[Transform]:
        return iter(self.transforms)  # pyright: ignore[reportReturnType]

    def __len__(self) -> int:
        return len(self.transforms)

    @overload
    def __getitem__(self, index: int) -> Transform: ...

    @overload
    def __getitem__(self, index: slice) -> Chain: ...

    def __getitem__(self, index: int | slice) -> Transform | Chain:
        """A part; or, for a slice, a chain of these parts that shares their weights. An empty slice is the identity.

        Raises:
            ConfigError: for a slice with a step.
        """
        if not isinstance(index, slice):
            return self.transforms[index]  # pyright: ignore[reportReturnType]
        if index.step not in (None, 1):
            raise ConfigError(f"a slice of a chain takes consecutive parts, so it has no step; got {index.step!r}.")
        first, stop, _ = index.indices(len(self))
        parts = list(self)[first:stop]
        shape = self[first].in_shape if first < len(self) else self.out_shape
        result = Chain.__new__(Chain)
        result._connect(parts, shape, parts[-1].out_shape if parts else shape)
        result.reversible, result.training = self.reversible, self.training
        return result

    def first_trainable(self) -> int:
        """Index of the first part with a trainable parameter; the number of parts if there is none.

        The parts before it (preprocessing, dequantization) need no gradient.
        """
        trainable = (any(p.requires_grad for p in part.parameters()) for part in self)
        return next((index for index, found in enumerate(trainable) if found), len(self))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Data to noise through every part. Contributions, residuals and squared standard errors are added (:meth:`Step.then`).

        Raises:
            InputError: for data of another event shape.
        """
        check_event(x, self.in_shape, "the chain")
        if self.reversible and torch.is_grad_enabled() and is_eager():
            front = self.first_trainable()
            if front < len(self):
                before = self[:front].encode(x, context, noise=noise)
                return before.then(Step(*encode_reversibly(self[front:], before.z, context)))
        total: Step | None = None
        for step in self.encode_steps(x, context, noise=noise):
            total = step if total is None else total.then(step)
        return Step(x, self.zero_log_det(x)) if total is None else total

    def encode_steps(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Iterator[Step]:
        """The step of each part, in order; each part reads the z of the step before it."""
        for part in self:
            step = require_step(part.encode(x, context, noise=noise), part)
            yield step
            x = step.z

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Noise to data through every part, last first.

        Raises:
            InputError: for noise of another event shape.
        """
        check_event(z, self.out_shape, "the inverse of the chain")
        for part in reversed(list(self)):
            z = part.decode(z, context, noise=noise)
        return z

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """Noise to data with the sum of the parts' contributions."""
        total = z.new_zeros(z.shape[: z.dim() - len(self.out_shape)])
        for part in reversed(list(self)):
            z, contribution = part.decode_with_contribution(z, context, noise=noise)
            total = total + contribution
        return z, total

    def measure(self, latent: Measure) -> Measure:
        """Measure of the density of x, found part by part from the last to the first."""
        for part in reversed(list(self)):
            latent = part.measure(latent)
        return latent

    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Initialize each part with the rows as the parts before it encode them."""
        for part in self:
            x = part.initialize(x, context, noise=noise)
        return x

    def refresh(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Refresh each part with the rows as the parts before it encode them."""
        for part in self:
            x = part.refresh(x, context, noise=noise)
        return x

    @property
    def needs_refresh(self) -> bool:
        """Whether any part has statistics to refresh."""
        return any(part.needs_refresh for part in self)


def _named(item: object) -> str:
    """What stands in a chain instead of a transform, and what to write."""
    if isinstance(item, (list, tuple)):
        return f"a {type(item).__name__}: write Chain(*transforms)"
    if isinstance(item, td.Transform):
        return f"{type(item).__name__} of torch.distributions: write from_torch({type(item).__name__}(...), features)"
    return named(item)


def _domain(parts: list[Transform]) -> Support | None:
    """The domain of the first part that has one; with ends by coordinate only if the parts before it keep their order."""
    for index, part in enumerate(parts):
        if part.domain is not None:
            return part.domain.reordered(type(parts[0]).__name__) if index and part.domain.ends else part.domain
    return None


def check_support(image: Support | None, mass: Support, before: str, after: str, stated: Kind) -> Kind:
    """EXACT if the image of ``before`` covers the support of ``after``; else LOWER_BOUND.

    A warning names the pair, unless the kind that is ``stated`` for the parts is LOWER_BOUND or weaker anyway.
    """
    if image is None or image.covers(mass):
        return Kind.EXACT
    _warn_of_gap(_gap(image, mass, before, after), stated)
    return Kind.LOWER_BOUND


def _gap(image: Support, mass: Support, before: str, after: str) -> str:
    return (
        f"{before} lands in {image} but {after} has mass on {mass}, so some of the mass belongs to no data point: the "
        "likelihood is a lower bound."
    )


def _warn_of_gap(gap: str, stated: Kind) -> None:
    if stated | Kind.LOWER_BOUND is not stated:
        warn_caller(gap, KindWarning)
