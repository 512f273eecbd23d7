"""The VAE of binary MNIST on which the papers compare posteriors: data, initial weights and the importance-weighted likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from papers.experiment import Experiment
from pushforward.models import VAE, Model
from pushforward.transforms import Variational

__all__ = ["VaeSetting", "log_likelihood", "vae_setting", "with_he_weights"]


@dataclass(frozen=True)
class VaeSetting:
    """What all posteriors of a comparison share.

    Attributes:
        train: gray training images, binarized again in each pass.
        held_out: binary images that choose.
        test: binary images that are reported.
        samples: importance samples of the likelihood.
        vae: arguments of the VAE.
        options: arguments of the training.
    """

    train: Tensor
    held_out: Tensor
    test: Tensor
    samples: int
    vae: dict[str, Any]
    options: dict[str, Any]


def vae_setting(experiment: Experiment) -> VaeSetting:
    """Binary MNIST, two hidden layers of 300 and 32 latent coordinates at the quick budget."""
    grays = experiment.images("mnist", train=True)
    n_held_out = experiment.choose(smoke=50, quick=1000, full=10_000)
    n_test = experiment.choose(smoke=20, quick=500, long=2000, full=10_000)
    return VaeSetting(
        train=grays[: experiment.choose(smoke=150, quick=50_000, full=50_000)],
        held_out=_binary(grays[-n_held_out:], seed=0),
        test=_binary(experiment.images("mnist", train=False, rows=n_test), seed=1),
        samples=experiment.choose(smoke=4, quick=128, full=128),
        vae={"features": (1, 28, 28), "decoder": "bernoulli", "binarize": True} | experiment.choose(
            smoke={"latent": 4, "hidden": (16,)},
            quick={"latent": 32, "hidden": (300, 300), "activation": "silu"},
            full={"latent": 32, "channels": (16, 32, 32)},
        ),
        options={
            "max_steps": experiment.choose(smoke=3, quick=1500, long=10_000, full=400_000), "batch_size": 128, "patience": None, "learning_rate": 1e-3,
        },
    )  # fmt: skip


def with_he_weights(model: VAE) -> VAE:
    """Scale the weights of encoder and decoder to He's variance, 2 / fan-in, six times torch's own.

    With torch's variance signals shrink from layer to layer, and the decoder learns to ignore z; a short run would
    measure this instead of the posterior.
    """
    top = list(model.chain)[-1]
    assert isinstance(top, Variational)
    with torch.no_grad():
        for network in (top.encoder, top.decoder):
            for layer in network.modules():
                if isinstance(layer, nn.Linear):
                    layer.weight.mul_(6**0.5)
    return model


@torch.no_grad()
def log_likelihood(model: Model, test: Tensor, samples: int) -> float:
    """Mean over the images of the importance-weighted bound, nats."""
    return torch.cat([model.evaluate(part, samples=samples).value for part in test.split(100)]).double().mean().item()


def _binary(grays: Tensor, seed: int) -> Tensor:
    """Binarize once: 255 with probability gray / 255, else 0; the model binarizes these to 1 and 0 with probability 1."""
    draw = torch.rand(grays.shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(255 * draw < grays, 255, 0).to(torch.uint8)
