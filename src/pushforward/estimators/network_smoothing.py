"""The smoothed score of a guard around a network: percentiles of its score under Gaussian noise on the network's input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pushforward.detection.smoothing import Smoothing
from pushforward.errors import ConfigError, InputError
from pushforward.numerics.checks import check_positive

if TYPE_CHECKING:
    from pushforward.estimators.network_guard import NetworkGuard

__all__ = ["NoisyNetwork", "real_inputs", "rows_of", "smoothed_scores", "smoothing_of"]

_OPTIONS = ("sigma", "draws", "quantile", "seed")


def smoothing_of(option: Any, seed: int) -> Smoothing | None:
    """The smoothing that a number (sigma) or a dictionary asks for; None for None.

    Raises:
        ConfigError: for anything else, a dictionary without "sigma", or a name that is no option.
    """
    if option is None:
        return None
    options = option if isinstance(option, dict) else {"sigma": option}
    if "sigma" not in options or any(name not in _OPTIONS for name in options):
        raise ConfigError(
            f"smoothing must be a number, or a dictionary with 'sigma' and some of {', '.join(_OPTIONS[1:])}; got {option!r}."
        )
    check_positive("smoothing", options["sigma"])
    return Smoothing(**({"seed": seed} | options))


def real_inputs(inputs: Any) -> Tensor:
    """The inputs of a network that can be smoothed, on the CPU.

    Raises:
        InputError: for several tensors, or integers.
    """
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point() or inputs.dim() < 2:
        raise InputError(
            "a guard with smoothing adds noise to its inputs: give one tensor of floating-point numbers, (n, ...)."
        )
    return inputs.detach().cpu()


class NoisyNetwork:
    """The score of a guard around a network, drawn under noise on the input.

    Args:
        guard: whose score, before smoothing, is drawn.
        like: inputs, for the shape and the type of a row.
    """

    def __init__(self, guard: NetworkGuard, like: Tensor) -> None:
        self.guard, self.shape, self.dtype = guard, like.shape[1:], like.dtype

    def noisy_scores(
        self, row: NDArray[np.float64], sigma: float, generator: np.random.Generator, count: int
    ) -> NDArray[np.float64]:
        """Draws of the score of a row ``(d,)`` under noise."""
        found = []
        for start in range(0, count, self.guard.batch_size):
            rows = row + sigma * generator.standard_normal((min(self.guard.batch_size, count - start), row.size))
            reading = self.guard._read(torch.from_numpy(rows).to(self.dtype).reshape(-1, *self.shape), finite=False)
            found.append(self.guard.score_.combine(self.guard._statistics(reading)))
        return torch.cat(found).numpy()


def rows_of(inputs: Tensor) -> NDArray[np.float64]:
    """Inputs as rows of numbers, ``(n, d)``."""
    return inputs.double().flatten(1).numpy()


def smoothed_scores(guard: NetworkGuard, smoothing: Smoothing, inputs: Any) -> Tensor:
    """The smoothed score of each input, ``(n,)``; inf for one with NaN or infinity."""
    x = real_inputs(inputs)
    rows = rows_of(x)
    finite = np.isfinite(rows).all(1)
    scores = np.full(len(rows), np.inf)
    scores[finite] = smoothing.score(NoisyNetwork(guard, x), rows[finite])
    return torch.from_numpy(scores)
