"""What the studies of two-step models on images share: the sets and the densities of codes."""

from __future__ import annotations

from collections.abc import Callable

from papers.experiment import Experiment
from pushforward.distributions import Distribution, GaussianMixture, KernelDensity, PixelCNN
from pushforward.models import NSF, Model
from pushforward.transforms import GaussianMixtureLikelihood

__all__ = ["SETS", "code_densities"]

SETS = ("mnist", "fashion-mnist")


def code_densities(experiment: Experiment, width: int) -> dict[str, Callable[[], Model | Distribution]]:
    """Functions that make the densities of codes, the second steps."""
    grid = (1, *experiment.choose(smoke=(1, 2), quick=(4, 5), full=(4, 5)))  # of the codes, for PixelCNN
    return {
        "NF": lambda: NSF(width, layers=experiment.choose(smoke=1, quick=4, full=4), hidden=(64, 64)),
        "mixture": lambda: GaussianMixture(width, experiment.choose(smoke=2, quick=50, full=100)),
        "KDE": lambda: KernelDensity(width, experiment.choose(smoke=20, quick=5000, full=20_000)),
        "PixelCNN": lambda: PixelCNN(
            grid, GaussianMixtureLikelihood(10), layers=experiment.choose(smoke=1, quick=4, full=6)
        ),
    }
