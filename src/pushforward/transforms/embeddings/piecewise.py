"""An orthogonal transform in two pieces: the one freedom of conformal embeddings beyond spheres and planes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError
from pushforward.numerics import Noise
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform
from pushforward.transforms.linear.linear import reflections_product, whole_precision
from pushforward.transforms.validation import seeded_normal

__all__ = ["PiecewiseOrthogonal"]


@register("transforms")
class PiecewiseOrthogonal(Transform):
    """z = Q1 x where norm(x) >= radius sqrt(D), else Q2 x, both orthogonal; contribution 0 (Ross and Cresswell 2021,
    arXiv 2106.05275).

    Both keep the norm that chooses between them, so the inverse knows which it was. It tears space along that sphere, a set
    of measure zero, and within a piece keeps lengths and angles. Of images, each pixel's channels are turned by the norm of
    those channels: two pieces for each pixel.

    Args:
        features: D, or (channels, height, width); D is then the number of channels.
        radius: where the pieces meet, in root mean square of the coordinates.
        seed: of the starting reflections; both pieces start as the same transform.

    Raises:
        ConfigError: for another event, or a radius that is not positive.

    Example:
        >>> import torch
        >>> from pushforward.transforms import PiecewiseOrthogonal
        >>> layer = PiecewiseOrthogonal(2)
        >>> x = torch.tensor([[0.1, 0.2], [3.0, 4.0]])
        >>> torch.allclose(layer.decode(layer.encode(x).z), x, atol=1e-6)
        True
    """

    valid_on_manifold = angle_preserving = True

    def __init__(self, features: int | Shape, radius: float = 1.0, seed: int = 0) -> None:
        super().__init__(features)
        if len(self.in_shape) not in (1, 3):
            raise ConfigError(
                f"PiecewiseOrthogonal acts on vectors and on the channels of images (C, H, W); got {features!r}."
            )
        if not 0 < radius < math.inf:
            raise ConfigError(f"radius must be positive and finite; got {radius!r}.")
        self.features, self.radius, self.seed = features, radius, seed
        width = self.in_shape[0]
        self.outer = nn.Parameter(seeded_normal(width, width, seed=seed))
        self.inner = nn.Parameter(seeded_normal(width, width, seed=seed))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Q1 x or Q2 x."""
        return Step(self._turn(x, back=False), self.zero_log_det(x))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Q1^T z or Q2^T z."""
        return self._turn(z, back=True)

    def _turn(self, x: Tensor, *, back: bool) -> Tensor:
        with whole_precision(x):
            last = -len(self.in_shape)
            kind = torch.promote_types(self.outer.dtype, x.dtype)
            rows = x.to(kind).movedim(last, -1)
            # In float64: the rounding of a turn must not decide a norm that lies at the border.
            norm = torch.linalg.vector_norm(rows.detach().double(), dim=-1, keepdim=True)
            far = norm >= self.radius * math.sqrt(self.in_shape[0])
            pieces = []
            for vectors in (self.outer, self.inner):
                units, mixed = reflections_product(vectors.to(kind))
                first, second = (units, mixed) if back else (mixed, units)
                pieces.append(rows - (rows @ first.mT) @ second)
            return torch.where(far, *pieces).movedim(-1, last)
