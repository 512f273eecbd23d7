"""Several transforms side by side, each on its own coordinates."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError, KindError
from pushforward.likelihood import REAL, Kind, Support, join
from pushforward.numerics import Noise
from pushforward.registry import register
from pushforward.transforms.base import Step, Transform, named

__all__ = ["Blocks"]


@register("transforms")
class Blocks(Transform):
    """Transforms of parts of a vector: the first reads the first coordinates, the second the next ones, and so on.

    The contribution is the sum of the parts' contributions. Parameters with different constraints use it: a positive scale
    beside a probability and a simplex.

    Args:
        transforms: at least one bijection of vectors without context.

    Raises:
        ConfigError: if there is none, or a part is not a transform of vectors.
        KindError: if a part is not a bijection.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Blocks, Exp, Inverse, Logit
        >>> blocks = Blocks(Inverse(Exp(1)), Logit(1))             # a positive number and a probability
        >>> blocks.encode(torch.tensor([[1.0, 0.5]])).z
        tensor([[0., 0.]])
    """

    def __init__(self, *transforms: Transform) -> None:
        if not transforms:
            raise ConfigError("Blocks needs at least one transform.")
        for part in transforms:
            if not isinstance(part, Transform) or len(part.in_shape) != 1 or part.context:
                raise ConfigError(f"Blocks takes transforms of vectors without a context; got {named(part)}.")
            if not part.bijective:
                raise KindError(f"{type(part).__name__} is not a bijection, so it cannot be a part of Blocks.")
        super().__init__(sum(part.in_shape[0] for part in transforms), sum(part.out_shape[0] for part in transforms))
        self.transforms = nn.ModuleList(transforms)
        self.domain = Support.joined([(part.domain or REAL, part.in_shape[0]) for part in transforms])
        self.codomain = Support.joined([(part.codomain or REAL, part.out_shape[0]) for part in transforms])
        self.supports_float64 = all(part.supports_float64 for part in transforms)
        self.encode_passes = max(part.encode_passes for part in transforms)
        self.decode_passes = max(part.decode_passes for part in transforms)

    @property
    def parts(self) -> list[Transform]:
        """The transforms, in the order of their coordinates."""
        return list(self.transforms)  # pyright: ignore[reportReturnType]

    @property
    def kind(self) -> Kind:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Join of the parts' present kinds."""
        return join(*(part.kind for part in self.parts))

    @property
    def invertible(self) -> bool:
        """Whether every part is."""
        return all(part.invertible for part in self.parts)

    @property
    def estimators(self) -> list[Transform]:
        """Those of every part."""
        return [estimator for part in self.parts for estimator in part.estimators]

    def map_support(self, box: Support) -> Support | None:
        """The images of the parts' boxes side by side, if each part has its box as its domain."""
        if box.within:
            return None
        found, start = [], 0
        for part in self.parts:
            width = part.in_shape[0]
            mine = Support.joined([(Support(*end), 1) for end in box.ends[start : start + width]]) if box.ends else box
            image, start = part.map_support(mine), start + width
            if image is None and (part.domain is None or not mine.covers(part.domain)):
                return None
            found.append((image or part.codomain or REAL, part.out_shape[0]))
        return Support.joined(found)

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Each part's z side by side, with the sum of the contributions."""
        pieces = x.split([part.in_shape[0] for part in self.parts], -1)
        steps = [part.encode(piece, noise=noise) for part, piece in zip(self.parts, pieces, strict=True)]
        total = functools.reduce(Step.then, steps)
        return total._replace(z=torch.cat([step.z for step in steps], -1))

    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Initialize each part with its coordinates."""
        pieces = x.split([part.in_shape[0] for part in self.parts], -1)
        each = zip(self.parts, pieces, strict=True)
        return torch.cat([part.initialize(piece, noise=noise) for part, piece in each], -1)

    def refresh(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Refresh the statistics of each part with its coordinates."""
        pieces = x.split([part.in_shape[0] for part in self.parts], -1)
        each = zip(self.parts, pieces, strict=True)
        return torch.cat([part.refresh(piece, noise=noise) for part, piece in each], -1)

    @property
    def needs_refresh(self) -> bool:
        """Whether any part has statistics to refresh."""
        return any(part.needs_refresh for part in self.parts)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Each part's data side by side."""
        return self.decode_with_contribution(z, noise=noise)[0]

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """Each part's data side by side, with the sum of the contributions."""
        pieces = z.split([part.out_shape[0] for part in self.parts], -1)
        decoded = [
            part.decode_with_contribution(piece, noise=noise) for part, piece in zip(self.parts, pieces, strict=True)
        ]
        total = sum((contribution for _, contribution in decoded), z.new_zeros(z.shape[:-1]))
        return torch.cat([x for x, _ in decoded], -1), total
