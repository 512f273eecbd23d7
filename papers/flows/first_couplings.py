"""NICE and Real NVP of CIFAR-10 at equal CPU time, for the pages of both papers, so that they are trained once."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from papers.experiment import Experiment
from papers.flows.against_time import sample_distance
from papers.flows.timed_training import Contender, Pictures
from pushforward.models import Flow, ImageRealNVP, Model
from pushforward.models.image.building import pixel_transforms
from pushforward.models.vector.nice import nice_base, nice_chain
from pushforward.transforms import Chain, Flatten, Whiten

__all__ = ["nice", "real_nvp", "symmetric_whitening"]


_FLOOR = 1e-5
"""Variance that is added to each direction of whitened pixels, of width 1. Without it, directions that vary less among 9,500 training images
than among others get scales that are too small. Of 0 to 3e-4 it has the best held-out bits/dim with a linear model."""


def symmetric_whitening(rows: Tensor, floor: float = 0.0) -> Chain:
    """z = V (S^2 + floor)^-1/2 V^T (x - mean), where V S^2 V^T is the covariance of the rows (ZCA)."""
    axes = Whiten(rows.shape[1])
    axes.initialize(rows)
    axes.scale.copy_((axes.scale.square() + floor).sqrt())
    back = Whiten(rows.shape[1])  # z V^T: a rotation, as mean 0 and scale 1 leave it
    back.axes.copy_(axes.axes.mT)
    back.initialized.fill_(True)
    return Chain(axes, back)


def nice(experiment: Experiment, images: Pictures) -> Contender:
    """NICE of whitened pixels, as in the paper; its networks are narrower than there but in a full run."""
    shape, size = images.shape, math.prod(images.shape)
    hidden = experiment.choose(smoke=(8,), quick=(500,) * 3, full=(2000,) * 4)

    @cache
    def whitening() -> dict[str, Tensor]:
        noise = torch.rand((len(images.train), *shape), generator=torch.Generator().manual_seed(0))
        rows = (images.train + noise) / 256 - 0.5
        return symmetric_whitening(rows.flatten(1), _FLOOR).state_dict()

    def build() -> Model:
        white = Chain(Whiten(size), Whiten(size))
        white.load_state_dict(whitening())
        couplings = nice_chain(size, 0, 4, hidden, "relu", 0.0, standardize=False, scaling_multiplier=10.0)
        pixels = pixel_transforms(shape, 256, None, "uniform")
        return Flow(Chain(*pixels, Flatten(shape), white, couplings), nice_base(size, "logistic"))

    return Contender("NICE", build, judge=sample_distance)


def real_nvp(experiment: Experiment, images: Pictures) -> Contender:
    """Real NVP with two scales, as in the paper for images of this size.

    Its networks are smaller than there but in a full run: one block of 32 channels has the best held-out bits/dim after a tenth of the
    time, before two blocks of 32 or 64.
    """
    hidden = experiment.choose(smoke=(4,), quick=(32,), full=(64,) * 8)
    layers = experiment.choose(smoke=2, quick=6, full=6)
    return Contender(
        "Real NVP", lambda: ImageRealNVP(images.shape, layers=layers, hidden=hidden), judge=sample_distance
    )
