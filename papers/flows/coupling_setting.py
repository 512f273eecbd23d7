"""The data, training options and model sizes that all reproductions of coupling flows use, so that they compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from papers.experiment import Experiment, size, width_for
from pushforward.models import ImageNICE, ImageRealNVP, Model

__all__ = ["CouplingSetting", "coupling_setting"]


@dataclass(frozen=True)
class CouplingSetting:
    """Images, training options, and builders of models with a given number of parameters.

    Attributes:
        name: name of the image set.
        train: training images.
        held_out: validation images, which choose the weights that are kept.
        test: test images.
        options: options for ``Experiment.train``.
        couplings: number of coupling layers of Real NVP.
        widths: smallest and largest width of the hidden layers.
    """

    name: str
    train: Tensor
    held_out: Tensor
    test: Tensor
    options: dict[str, Any]
    couplings: int
    widths: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an image."""
        return tuple(self.test.shape[1:])

    def nice(self, parameters: int) -> Callable[[], Model]:
        """A builder of NICE. Its log-scales take steps ten times as large as other weights, because they hardly change otherwise."""

        def build(width: int) -> Model:
            return ImageNICE(shape=self.shape, hidden=(width, width), scaling_multiplier=10.0)

        width = width_for(build, parameters, self.widths)
        return lambda: build(width)

    def real_nvp(self, parameters: int) -> Callable[[], Model]:
        """A builder of Real NVP with about this number of parameters."""

        def build(width: int) -> Model:
            return ImageRealNVP(shape=self.shape, layers=self.couplings, hidden=(width, width))

        width = width_for(build, parameters, self.widths)
        return lambda: build(width)

    def same_size(self, model: Model) -> dict[str, Callable[[], Model]]:
        """Builders of NICE and Real NVP with about as many parameters as ``model``."""
        return {"NICE": self.nice(size(model)), "Real NVP": self.real_nvp(size(model))}


def coupling_setting(experiment: Experiment) -> CouplingSetting:
    """The setting for the budget of an experiment: CIFAR-10 for the full budget, Fashion-MNIST for the others."""
    name = experiment.choose(smoke="fashion-mnist", quick="fashion-mnist", full="cifar10")
    train, held_out, test = experiment.image_parts(
        name,
        rows=experiment.choose(smoke=200, quick=20_500, full=51_000),
        held_out=experiment.choose(smoke=50, quick=500, full=1000),
        test=experiment.choose(smoke=50, quick=1000, full=10_000),
    )
    options = {
        "max_steps": experiment.choose(smoke=2, quick=200, full=200_000),
        "batch_size": 64,
        "patience": None,
        "evaluate_every": experiment.choose(smoke=2, quick=100, full=1000),
    }
    return CouplingSetting(
        name=name,
        train=train,
        held_out=held_out,
        test=test,
        options=options,
        couplings=experiment.choose(smoke=2, quick=2, full=8),
        widths=experiment.choose(smoke=(4, 16), quick=(8, 1024), full=(8, 1024)),
    )
