"""`sbi_estimator`: flows of this library as density estimators inside the package sbi."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.inference.npe import FlowMaker, conditional_flow

__all__ = ["sbi_estimator"]


def sbi_estimator(flow: str | FlowMaker = "nsf") -> Callable[[Tensor, Tensor], Any]:
    """A function that builds a density estimator for sbi's NPE and NLE, with a flow of this library.

    Args:
        flow: "nsf", "maf", "cnf", or a function of (features, context width) that returns a conditional model.

    Raises:
        ConfigError: without the package sbi.

    Example (with sbi):
        >>> import torch, pushforward as pf  # doctest: +SKIP
        >>> from sbi.inference import NPE  # doctest: +SKIP
        >>> from sbi.utils import BoxUniform  # doctest: +SKIP
        >>> prior = BoxUniform(-torch.ones(2), torch.ones(2))  # doctest: +SKIP
        >>> trainer = NPE(prior, density_estimator=pf.inference.sbi_estimator("maf"), show_progress_bars=False)  # doctest: +SKIP
        >>> theta = prior.sample((100,))  # doctest: +SKIP
        >>> estimator = trainer.append_simulations(theta, theta).train(max_num_epochs=1)  # doctest: +SKIP
        >>> trainer.build_posterior().sample((5,), x=torch.zeros(1, 2), show_progress_bars=False).shape  # doctest: +SKIP
        torch.Size([5, 2])
    """
    try:
        from sbi.neural_nets.estimators.base import ConditionalDensityEstimator  # pyright: ignore[reportMissingImports]  only with sbi
    except ImportError:
        raise ConfigError("sbi_estimator needs the package sbi: pip install sbi.") from None

    class Estimator(ConditionalDensityEstimator):
        """A conditional flow with the methods that sbi calls."""

        def log_prob(self, input: Tensor, condition: Tensor, **kwargs: Any) -> Tensor:
            """Log-density, ``(samples, batch, D)`` given ``(batch, *shape)`` to ``(samples, batch)``."""
            rows, given, batch = self._broadcast_and_align(input, condition)
            net: Any = self.net
            return net.log_prob(rows, given.reshape(len(rows), batch, -1))

        def loss(self, input: Tensor, condition: Tensor, **kwargs: Any) -> Tensor:
            """Negative log-density of each row."""
            return -self.log_prob(input.unsqueeze(0), condition)[0]

        def sample(self, sample_shape: Any, condition: Tensor, **kwargs: Any) -> Tensor:
            """Draws ``(*sample_shape, batch, D)``."""
            net: Any = self.net
            return net.sample(tuple(sample_shape), condition.reshape(len(condition), -1))

    def build(theta: Tensor, x: Tensor) -> Any:
        context = x.flatten(1).float()
        model = conditional_flow(flow, theta.shape[1], context.shape[1])
        model.initialize(theta.float(), context)
        return Estimator(net=model, input_shape=torch.Size(theta.shape[1:]), condition_shape=torch.Size(x.shape[1:]))

    return build
