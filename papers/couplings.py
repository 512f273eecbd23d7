"""Rows, steps and sizes with which the reproductions of coupling flows compare them: one setting for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from papers.experiment import Experiment, size, width_for
from pushforward.models import ImageNICE, ImageRealNVP, Model

__all__ = ["Contest", "contest"]


@dataclass(frozen=True)
class Contest:
    """One setting: images, options of training, and builders of models of about so many parameters.

    Attributes:
        name: of the image set.
        train: training images.
        held_out: images that choose among the weights.
        test: images that are measured.
        options: of ``Experiment.train``.
        couplings: of Real NVP.
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
        """Of an image."""
        return tuple(self.test.shape[1:])

    def nice(self, parameters: int) -> Callable[[], Model]:
        """A builder of NICE; its log-scales move ten times as far a step as other weights, else they would hardly move."""

        def build(width: int) -> Model:
            return ImageNICE(shape=self.shape, hidden=(width, width), scaling_multiplier=10.0)

        width = width_for(build, parameters, self.widths)
        return lambda: build(width)

    def real_nvp(self, parameters: int) -> Callable[[], Model]:
        """A builder of Real NVP."""

        def build(width: int) -> Model:
            return ImageRealNVP(shape=self.shape, layers=self.couplings, hidden=(width, width))

        width = width_for(build, parameters, self.widths)
        return lambda: build(width)

    def same_size(self, model: Model) -> dict[str, Callable[[], Model]]:
        """Builders of both, as large as a model."""
        return {"NICE": self.nice(size(model)), "Real NVP": self.real_nvp(size(model))}


def contest(experiment: Experiment) -> Contest:
    """The setting that belongs to the budget: Fashion-MNIST, or CIFAR-10 with the full one."""
    name = experiment.choose(smoke="fashion-mnist", quick="fashion-mnist", full="cifar10")
    held = experiment.choose(smoke=50, quick=500, full=1000)
    images = experiment.images(name, train=True, rows=experiment.choose(smoke=150, quick=20_000, full=50_000) + held)
    options = {
        "max_steps": experiment.choose(smoke=2, quick=200, full=200_000),
        "batch_size": 64,
        "patience": None,
        "evaluate_every": experiment.choose(smoke=2, quick=100, full=1000),
    }
    return Contest(
        name=name,
        train=images[:-held],
        held_out=images[-held:],
        test=experiment.images(name, train=False, rows=experiment.choose(smoke=50, quick=1000, full=10_000)),
        options=options,
        couplings=experiment.choose(smoke=2, quick=2, full=8),
        widths=experiment.choose(smoke=(4, 16), quick=(8, 1024), full=(8, 1024)),
    )
