"""Generative models from cyclic conditionals (Liu, Tang, Qin, Wang, Liu 2021)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pushforward.errors import ConfigError, InputError, KindError
from pushforward.likelihood import REAL
from pushforward.models.base import Model
from pushforward.models.latent.autoencoder import Codec, input_scaling
from pushforward.models.latent.cyclic_pair import Cyclic, Start
from pushforward.numerics import RowNoise
from pushforward.numerics.checks import check_choice, check_integer, check_positive, check_seed, check_widths
from pushforward.registry import register
from pushforward.transforms import Chain, Transform
from pushforward.transforms.base import Shape, as_shape

__all__ = ["Compatibility", "CyGen"]


class Compatibility(NamedTuple):
    """Result of :meth:`CyGen.check_compatibility`: means over rows of squared Frobenius norms of mixed Hessians.

    Attributes:
        penalty: for log p(x | z)/q(z | x), d^2/dx dz^T; 0 for a compatible pair.
        decoder: for log p(x | z) alone; 0 if p ignores z, which makes a pair compatible without being a model.
        encoder: for log q(z | x) alone.
        passed: whether the penalty is small in comparison with the other two.
    """

    penalty: float
    decoder: float
    encoder: float
    passed: bool


@register("models")
class CyGen(Model):
    """A joint distribution of x and z from p(x | z) and q(z | x) alone, without a prior (arXiv 2106.15962).

    The pair comes from one joint distribution if log p(x | z)/q(z | x) is a function of x plus a function of z, that
    is, if its mixed Hessian vanishes. The loss is a data-fit term and a penalty on that Hessian,

        E log mean_k 1/p(x | z_k) + penalty_weight E || grad_x grad_z^T log p(x | z)/q(z | x) ||^2,   z, z_k ~ q(z | x).

    With one draw the first term is the loss of a denoising autoencoder, and only the penalty makes the model
    generative. For a compatible pair p(x) = 1 / E_q 1/p(x | z), so minus the first term is too high on average: it is a
    biased estimate of log p(x) by a heavy-tailed mean, and worse for a smaller variance of the decoder (half log(1 +
    1/scale^2) nats for a linear code and one draw). ``evaluate`` returns it as UPPER_BOUND if
    :meth:`check_compatibility` has passed, and otherwise as ESTIMATE. It is never a likelihood.

    p(x | z) is N(G(z), scale^2 I) for standardized x. q(z | x) is a diagonal normal, transformed by ``flow``; its
    derivatives with respect to z are computed along the draws and corrected because z changes with x. ``sample`` runs a
    Gibbs chain of ``gibbs_steps`` steps from a normal z.

    Args:
        features: a width, or (channels, height, width).
        latent: width of z.
        scale: standard deviation of p(x | z), in units of the standardized data; the penalty grows as scale^-4.
        penalty_weight: weight of the penalty.
        samples: number of draws z_k of the data-fit term.
        probes: number of random directions in x that estimate the penalty; None uses all directions, which is exact and
            feasible for small data.
        objective: "cyclic", or "elbo": a VAE with the prior N(0, I), for pretraining, whose ``evaluate`` is a
            LOWER_BOUND.
        gibbs_steps: number of Gibbs steps of ``sample``.
        flow: a bijection of width ``latent``, which may read a context from the encoder. Its ``encode`` must be the
            fast direction.
        levels: data are gray levels, and the networks see them scaled to [-1, 1]; None standardizes.
        hidden: widths of the hidden layers.
        channels: widths of convolutions that replace the hidden layers, for images.
        activation: activation of the networks; use a smooth one, because the loss contains second derivatives.

    Raises:
        ConfigError: for sizes that are not possible.
        KindError: if ``flow`` is not a bijection.

    Example:
        >>> import torch
        >>> from pushforward import transforms
        >>> model = CyGen(2, latent=2, hidden=(16,), flow=transforms.Sylvester(2, 2), gibbs_steps=5)
        >>> model.evaluate(torch.randn(5, 2)).kind, model.sample(3, seed=0).shape
        (<Kind.ESTIMATE: 'estimate'>, torch.Size([3, 2]))
    """

    def __init__(
        self,
        features: int | Shape,
        latent: int = 2,
        *,
        scale: float = 0.1,
        penalty_weight: float = 1e-5,
        samples: int = 16,
        probes: int | None = 1,
        objective: str = "cyclic",
        gibbs_steps: int = 100,
        flow: Transform | None = None,
        levels: int | None = None,
        hidden: tuple[int, ...] = (128, 128),
        channels: tuple[int, ...] = (),
        activation: str = "tanh",
    ) -> None:
        check_positive("scale", scale)
        check_positive("penalty_weight", penalty_weight, zero=True)
        shape, count = as_shape(features), check_integer("samples", samples)
        check_integer("latent", latent)
        hidden, channels = check_widths("hidden", hidden), check_widths("channels", channels)
        if flow is not None and (
            not isinstance(flow, Transform) or (flow.in_shape, flow.out_shape) != ((latent,), (latent,))
        ):
            raise ConfigError(f"flow must be a transform of {latent} coordinates; got {flow!r:.80}.")
        if flow is not None and not flow.bijective:
            raise KindError(f"flow must be a bijection, because q(z | x) needs a density; got {type(flow).__name__}.")
        if flow is not None and flow.domain not in (None, REAL):
            raise ConfigError(
                f"flow must have all reals as its domain, because it encodes normal noise; {type(flow).__name__} has {flow.domain}."
            )
        outputs = 2 * latent + (0 if flow is None else flow.context)
        codec = Codec(shape, latent, outputs, hidden, channels, activation, input_bound=10.0)
        pair = Cyclic(shape, latent, scale, count, flow, codec)
        super().__init__(Chain(input_scaling(shape, levels), pair), Start(latent))
        self.features, self.latent, self.scale = features, latent, scale
        self.penalty_weight, self.samples = penalty_weight, samples
        self.probes = None if probes is None else check_integer("probes", probes)
        self.gibbs_steps, self.levels, self.activation = check_integer("gibbs_steps", gibbs_steps), levels, activation
        self.hidden, self.channels = hidden, channels
        self.pair.steps = gibbs_steps
        self.set_objective(objective)

    @property
    def pair(self) -> Cyclic:
        """The conditional distributions, of scaled data."""
        part = self.chain[1]
        assert isinstance(part, Cyclic)
        return part

    @property
    def flow(self) -> Transform | None:
        """The flow of the encoder, or None."""
        return self.pair.flow

    def set_objective(self, objective: str) -> None:
        """Train and evaluate as "cyclic" conditionals, or as a VAE by its "elbo", for example to pretrain.

        Raises:
            ConfigError: for another name.
        """
        check_choice("objective", objective, ("cyclic", "elbo"))
        assert isinstance(self.base, Start)
        self.objective = objective
        self.pair.elbo = self.base.prior = objective == "elbo"

    def loss(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """What training minimizes, a scalar: the data-fit term and the penalty, or minus the ELBO.

        It is a surrogate and never reported as a likelihood.
        """
        if self.objective == "elbo":
            return super().loss(x, generator=generator)
        x, _, far = self.prepare(x, context)
        x = self.chain[0].encode(x.reshape(-1, *self.shape)).z
        penalty = self.pair.penalty(x, generator, self.probes).mean() if self.penalty_weight else 0.0
        return self.penalty_weight * penalty - self.pair.encode(x, noise=generator).contribution.mean() - far.mean()

    @torch.no_grad()
    def code(self, x: Tensor) -> Tensor:
        """The center of q(z | x), ``(*batch, latent)``: the flow at the mean of the diagonal normal."""
        x, _, _ = self.prepare(x, None)
        scaled = self.chain[0].encode(x).z
        return self.pair.transport(scaled.new_zeros((*self.chain.batch_shape(x), self.latent)), scaled)[0]

    @torch.no_grad()
    def compatibility(self, x: Tensor, *, probes: int | None = None, seed: int = 0) -> Tensor:
        """Squared norm of the mixed Hessian of log p(x | z)/q(z | x) at each row and one z ~ q(z | x), ``(n,)``.

        Args:
            x: ``(n, *shape)``.
            probes: number of random directions; None for the exact norm, which costs one direction for each coordinate
                of x.
            seed: seed of z and of the directions.

        Raises:
            InputError: if there is no row.
        """
        return self._norms(x, probes, seed, (1.0, 1.0))

    @torch.no_grad()
    def check_compatibility(
        self, x: Tensor, *, tolerance: float = 1e-6, probes: int | None = None, seed: int = 0
    ) -> Compatibility:
        """Test on rows whether the pair is compatible, and store the result, which decides the kind of ``evaluate``.

        The test passes if the penalty is below ``tolerance`` times the mean of the norms of p and of q alone. A trained
        network never passes; a linear-Gaussian pair with its exact posterior passes, up to rounding. ``train()`` resets the
        result.

        Raises:
            InputError: if there is no row.
        """
        penalty, decoder, encoder = (
            self._norms(x, probes, seed, parts).double().mean().item() for parts in ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0))
        )
        passed = penalty <= tolerance * 0.5 * (decoder + encoder) and decoder > 0
        self.pair.compatible.fill_(passed)
        return Compatibility(penalty, decoder, encoder, passed)

    def _norms(self, x: Tensor, probes: int | None, seed: int, parts: tuple[float, float]) -> Tensor:
        check_integer("probes", probes, optional=True)
        x, _, _ = self.prepare(x, None)
        if x.dim() == len(self.shape) or not len(x):
            raise InputError(f"compatibility is that of at least one row (n, *shape); got the shape {tuple(x.shape)}.")
        scaled = self.chain[0].encode(x).z
        return torch.cat([self.pair.penalty(part, RowNoise(seed), probes, parts) for part in scaled.split(256)])

    @torch.no_grad()
    def gibbs(self, count: int, steps: int, *, seed: int = 0, start: Tensor | None = None) -> Tensor:
        """Chains z ~ q(z | x), x ~ p(x | z), ``(count, *shape)``.

        Args:
            count: number of chains.
            steps: number of steps of each chain.
            seed: seed of all draws.
            start: rows to start from; None for normal noise with the mean and the spread of the data, so that no row of
                the data enters a chain.
        """
        x, generator = self._begin(count, steps, seed, start)
        for _ in range(steps):
            x = self.pair.draw_x(self.pair.draw_z(x, generator), generator)
        return self.chain[0].decode(x)

    @torch.no_grad()
    def langevin(self, count: int, steps: int, step: float, *, seed: int = 0, start: Tensor | None = None) -> Tensor:
        """Langevin chains of x with a fresh z ~ q(z | x) in each step, ``(count, *shape)``.

        x <- x + step grad_x log[ p(x | z)/q(z | x) ] + sqrt(2 step) noise.

        For a compatible pair the mean of that gradient over z is grad log p(x). Nothing is annealed or clamped.

        Args:
            count: number of chains.
            steps: number of steps of each chain.
            step: size of a step, in squared units of the scaled data; it must be small in comparison with scale^2, or
                the chain diverges.
            seed: seed of all draws.
            start: rows to start from; see :meth:`gibbs`.
        """
        check_positive("step", step)
        x, generator = self._begin(count, steps, seed, start)
        like = {"generator": generator, "dtype": x.dtype, "device": x.device}
        for _ in range(steps):
            e = torch.randn(len(x), self.latent, **like)
            drift = torch.func.vmap(self.pair.score)(e, x)
            x = x + step * drift + math.sqrt(2 * step) * torch.randn(x.shape, **like)
        return self.chain[0].decode(x)

    def _begin(self, count: int, steps: int, seed: int, start: Tensor | None) -> tuple[Tensor, torch.Generator]:
        check_integer("count", count)
        check_integer("steps", steps)
        device = self.pair.compatible.device
        generator = torch.Generator(device).manual_seed(check_seed(seed))
        if start is None:
            return torch.randn((count, *self.shape), generator=generator, dtype=self.dtype, device=device), generator
        rows, _, _ = self.prepare(start, None)
        if rows.shape != (count, *self.shape):
            raise ConfigError(
                f"start must have one row for each of the {count} chains; got the shape {tuple(rows.shape)}."
            )
        return self.chain[0].encode(rows).z, generator
