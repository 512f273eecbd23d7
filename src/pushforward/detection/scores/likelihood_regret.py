"""Likelihood regret of a variational autoencoder."""

from __future__ import annotations

import copy
import math
from typing import ClassVar

import torch
from torch import Tensor

from pushforward.detection.scores.base import Need, Score
from pushforward.detection.without_preprocessing import differentiable
from pushforward.errors import ConfigError
from pushforward.models import VAE
from pushforward.numerics import RowNoise, RunningMean
from pushforward.numerics.checks import check_choice, check_integer, check_positive
from pushforward.registry import register
from pushforward.transforms import Variational

__all__ = ["LikelihoodRegret"]


@register("scores")
class LikelihoodRegret(Score):
    """L(x; best q for x) - L(x; q(z | x)), nats: the gain in the bound if the posterior is fitted to x alone (Xiao, Yan and
    Amit 2020, "Likelihood regret", arXiv 2003.02977, eq. 6).

    The encoder is trained on inputs like the training data; on other inputs its posterior is far from the optimum for the
    decoder. L is the importance-weighted bound with ``samples`` draws, and the same noise is used before and after. The rounding
    error of the bound, |L| times the spacing of the model's float type, is added: so a row too far away for an exact
    difference has no small score. That of an ordinary row can be slightly negative, because L is an estimate.

    ``refit="latent"`` optimizes the mean and log-scale of z (of the posterior's initial normal, if it has a flow) for all rows
    in parallel. ``refit="encoder"`` is the method of the paper: it optimizes a copy of the encoder for each row, and is slow.

    Args:
        model: a VAE.
        refit: "latent" or "encoder".
        steps: number of Adam steps, each with one new draw of z.
        learning_rate: learning rate of Adam; None for 0.05 (latent), or the paper's 2e-4 (encoder).
        samples: number of draws for each of the two bounds.
        seed: seed of the draws.

    Raises:
        ConfigError: for a model that is not a VAE, an unknown ``refit``, or a setting that is not positive.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import LikelihoodRegret
        >>> score = LikelihoodRegret(pf.models.VAE(3, latent=1, hidden=(8,)), steps=20, samples=10)
        >>> score(torch.randn(4, 3)).shape
        torch.Size([4])
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"forward", "backward"})
    batch_size: ClassVar[int] = 64

    def __init__(
        self,
        model: VAE,
        refit: str = "latent",
        steps: int = 100,
        learning_rate: float | None = None,
        samples: int = 100,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(model, VAE):
            raise ConfigError(
                f"LikelihoodRegret refits the posterior of a VAE and needs a VAE; got {type(model).__name__}."
            )
        check_choice("refit", refit, ("latent", "encoder"))
        check_integer("steps", steps)
        check_integer("samples", samples)
        check_positive("learning_rate", learning_rate, optional=True)
        self.model, self.refit, self.steps, self.learning_rate, self.samples, self.seed = (
            model,
            refit,
            steps,
            learning_rate,
            samples,
            seed,
        )

    def _score(self, x: Tensor) -> Tensor:
        x, _, far = self.model.prepare(x, None)
        last = self.model.chain[-1]
        assert isinstance(last, Variational)
        before = self.model.chain[:-1].encode(x, noise=RowNoise(self.seed))
        y, total = before.z, far + before.contribution
        inferred = last.infer(y)
        if self.refit == "latent":
            better = self._refit_latent(last, y, inferred)
        else:
            fitted = [self._refit_encoder(last, y[:1])]
            for row in y[1:].split(1):  # a batch is padded with copies of its first row
                fitted.append(fitted[0] if torch.equal(row, y[:1]) else self._refit_encoder(last, row))
            better = torch.cat(fitted)
        old, new = self._bound(last, y, inferred), self._bound(last, y, better)
        impossible = torch.isneginf(total + old)
        new, old = (torch.where(impossible, 0.0, bound) for bound in (new, old))
        return torch.where(impossible, math.inf, new - old + torch.finfo(y.dtype).eps * old.abs())

    def _refit_latent(self, last: Variational, y: Tensor, inferred: Tensor) -> Tensor:
        with differentiable(inferred) as free:
            optimizer = torch.optim.Adam(
                [free], lr=self.learning_rate or 0.05
            )  # elementwise, so rows do not affect each other
            for k in range(self.steps):
                value = self._draw(last, y, free, RowNoise(self.seed, k))
                (slope,) = torch.autograd.grad(-value.sum(), free)
                free.grad = torch.nan_to_num(slope)
                optimizer.step()
            return free.detach()

    def _refit_encoder(self, last: Variational, row: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            row, own = row.clone(), copy.deepcopy(last)
            weights = [weight.requires_grad_() for weight in own.encoder.parameters()]
            optimizer = torch.optim.Adam(weights, lr=self.learning_rate or 2e-4, weight_decay=5e-5)
            for k in range(self.steps):
                value = self._draw(last, row, own.infer(row), RowNoise(self.seed, k))
                slopes = torch.autograd.grad(-value.sum(), weights, allow_unused=True)
                for weight, slope in zip(weights, slopes, strict=True):
                    weight.grad = None if slope is None else torch.nan_to_num(slope)
                optimizer.step()
            return own.infer(row).detach()

    def _bound(self, last: Variational, y: Tensor, inferred: Tensor) -> Tensor:
        mean = RunningMean(self._draw(last, y, inferred, RowNoise(self.seed, self.steps)).double())
        for k in range(1, self.samples):
            mean.add(self._draw(last, y, inferred, RowNoise(self.seed, self.steps + k)))
        return mean.log_mean_exp()

    def _draw(self, last: Variational, y: Tensor, inferred: Tensor, noise: RowNoise) -> Tensor:
        drawn = last.draw_from(inferred, y, noise)
        return drawn.log_p - drawn.log_q + self.model.base.log_prob(drawn.z)
