"""The terms of log p as separate columns."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.detection.scores.base import Statistic
from pushforward.detection.scores.model_outputs import NOISES, check_model, far_rows
from pushforward.detection.scores.scales import path, path_names
from pushforward.models import Model
from pushforward.numerics import cast_finite
from pushforward.numerics.checks import check_choice, check_integer
from pushforward.registry import register

__all__ = ["LikelihoodPath"]


@register("scores")
class LikelihoodPath(Statistic):
    """The terms of log p(x) as separate columns, because terms with opposite changes cancel in the sum.

    The first :attr:`terms` columns are in nats and add up to ``model.evaluate(x).value``:

    - ``elementwise``: the first transforms of the chain, which act on each coordinate separately (dequantization, logit,
      scaling);
    - ``volume``: log abs det of all other transforms;
    - ``reconstruction`` and ``posterior`` of a latent variable: log p(x | z) and -log q(z | x), at one draw of z;
    - ``base``: log p(z).

    A flow that factors out channels has ``volume k`` and ``base k`` for each scale k, where 0 is the finest (the terms of
    Schirrmeister et al. 2020, arXiv 2006.10848). The remaining columns are squared norms:

    - ``square``: of z, for each scale, unless the base is a standard normal, whose log-density has the same information;
    - ``error``, ``latent mean`` and ``latent scale`` of a latent variable: of x - decode(z), and of the mean and scale of
      q(z | x);
    - ``residual``: of the difference between x and its projection, for a density on a manifold.

    :class:`~pushforward.detection.scores.DoSE` combines the columns into a score.

    Args:
        model: model without a context.
        samples: number of draws of the model's noise, over which the columns are averaged.
        noise: of dequantization: "row" (a hash of the row), or "middle" (the middle of each cell), which can be exported.

    Raises:
        ConfigError: for a model with a context, or ``samples`` below 1.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import LikelihoodPath
        >>> model = pf.models.Glow((1, 8, 8), scales=2, layers=1, hidden=(4,))
        >>> path = LikelihoodPath(model)
        >>> path.names
        ('elementwise', 'volume 0', 'volume 1', 'base 0', 'base 1')
        >>> x = torch.randint(256, (3, 1, 8, 8))
        >>> torch.allclose(path.values(x).sum(1), model.evaluate(x).value.double(), rtol=1e-4)
        True
    """

    def __init__(self, model: Model, samples: int = 1, noise: str = "row") -> None:
        super().__init__()
        self.model, self.samples = (
            check_model(model, "LikelihoodPath", context=False),
            check_integer("samples", samples),
        )
        self.noise = check_choice("noise", noise, tuple(NOISES))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns: terms of log p, then squared norms."""
        terms, others = path_names(self.model)
        return (*terms, *others)

    @property
    def terms(self) -> int:
        """The number of columns, from the first, that add up to log p."""
        return len(path_names(self.model)[0])

    def _values(self, x: Tensor) -> Tensor:
        far = far_rows(x)
        x = cast_finite(torch.where(torch.isinf(x), 0.0, x), self.model.dtype)
        total: Tensor | None = None
        for draw in range(self.samples):
            columns = path(self.model, x, NOISES[self.noise](0, draw))
            values = torch.stack([columns[name] for name in self.names], 1)
            total = values if total is None else total + values
        assert total is not None
        infinite = total.new_tensor([-torch.inf] * self.terms + [torch.inf] * (total.shape[1] - self.terms))
        return torch.where(far[:, None], infinite, total / self.samples)
