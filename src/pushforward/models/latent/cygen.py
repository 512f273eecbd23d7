"""Generative models from cyclic conditionals (Liu, Tang, Qin, Wang, Liu 2021)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pushforward.errors import ConfigError, InputError, KindError
from pushforward.likelihood import Kind
from pushforward.models.base import Model
from pushforward.models.latent.autoencoder import Codec, scaling
from pushforward.models.latent.cyclic_pair import Cyclic, Start
from pushforward.numerics import RowNoise
from pushforward.numerics.checks import check_choice, check_integer, check_positive
from pushforward.registry import register
from pushforward.transforms import Chain, Transform
from pushforward.transforms.base import Shape, as_shape

__all__ = ["Compatibility", "CyGen"]


class Compatibility(NamedTuple):
    """What :meth:`CyGen.check_compatibility` found: means over rows of squared Frobenius norms.

    Attributes:
        penalty: of the mixed Hessian d^2/dx dz^T log p(x | z)/q(z | x); 0 for a compatible pair.
        decoder: of that of log p(x | z) alone: 0 if p ignores z, and the pair is compatible for no good reason.
        encoder: of that of log q(z | x).
        passed: whether the penalty is small beside the others.
    """

    penalty: float
    decoder: float
    encoder: float
    passed: bool


@register("models")
class CyGen(Model):
    """A joint law of x and z from p(x | z) and q(z | x) alone, without a prior (arXiv 2106.15962).

    The pair comes from one joint if log p(x | z)/q(z | x) is a function of x plus one of z, that is, if its mixed Hessian
    vanishes. The loss is a data-fit term and a penalty on it,

        E log mean_k 1/p(x | z_k) + weight E || grad_x grad_z^T log p(x | z)/q(z | x) ||^2,   z, z_k ~ q(z | x).

    With one draw the first is the loss of a denoising autoencoder, and all that is generative comes from the penalty.
    For a compatible pair p(x) = 1 / E_q 1/p(x | z), so minus the first term is too high on average: a biased estimate of log p(x)
    by a heavy-tailed mean, worse the smaller the decoder's variance (half log(1 + 1/scale^2) nats for a linear code and one draw).
    ``evaluate`` returns it as UPPER_BOUND if :meth:`check_compatibility` has passed, else as ESTIMATE: never a likelihood.

    p(x | z) is N(G(z), scale^2 I) for standardized x. q(z | x) is a diagonal normal, pushed through ``flow``, whose z-derivatives are found
    along the draws and corrected for the z that moves with x. ``sample`` runs a Gibbs chain of ``chain_steps`` from a normal z.

    Args:
        features: a width, or (channels, height, width).
        latent: width of z.
        scale: of p(x | z), in units of the standardized data; the penalty grows as its power -4.
        weight: of the penalty.
        draws: z_k of the data-fit term.
        probes: random directions in x that estimate the penalty; None takes all, which is exact, for small data.
        objective: "cyclic", or "elbo": a VAE with the prior N(0, I), for pretraining; then ``evaluate`` is LOWER_BOUND.
        chain_steps: of ``sample``.
        flow: a bijection of width ``latent``, which may read a context made by the encoder; its encode must be the fast direction.
        levels: data are gray levels, and the networks see them scaled to [-1, 1]; None standardizes.
        hidden: widths of the hidden layers.
        channels: widths of the convolutions instead, for images.
        activation: of the networks; smooth, since the loss holds second derivatives.

    Raises:
        ConfigError: for impossible sizes.
        KindError: if ``flow`` is no bijection.

    Example:
        >>> import torch
        >>> from pushforward import transforms
        >>> model = CyGen(2, latent=2, hidden=(16,), flow=transforms.Sylvester(2, 2), chain_steps=5)
        >>> model.evaluate(torch.randn(5, 2)).kind, model.sample(3, seed=0).shape
        (<Kind.ESTIMATE: 'estimate'>, torch.Size([3, 2]))
    """

    def __init__(
        self,
        features: int | Shape,
        latent: int = 2,
        *,
        scale: float = 0.1,
        weight: float = 1e-5,
        draws: int = 16,
        probes: int | None = 1,
        objective: str = "cyclic",
        chain_steps: int = 100,
        flow: Transform | None = None,
        levels: int | None = None,
        hidden: tuple[int, ...] = (128, 128),
        channels: tuple[int, ...] = (),
        activation: str = "tanh",
    ) -> None:
        check_positive("scale", scale)
        check_positive("weight", weight, zero=True)
        shape, count = as_shape(features), check_integer("draws", draws)
        if flow is not None and (
            not isinstance(flow, Transform) or (flow.in_shape, flow.out_shape) != ((latent,), (latent,))
        ):
            raise ConfigError(f"flow must be a transform of {latent} coordinates; got {flow!r:.80}.")
        if flow is not None and flow.kind is not Kind.EXACT:
            raise KindError(f"{type(flow).__name__} is not a bijection, so it has no density for an encoder.")
        codes = 2 * latent + (0 if flow is None else flow.context)
        codec = Codec(shape, latent, codes, tuple(hidden), tuple(channels), activation, input_bound=10.0)
        pair = Cyclic(shape, latent, scale, count, flow, codec)
        super().__init__(Chain(scaling(shape, levels), pair), Start(latent))
        self.features, self.latent, self.scale, self.weight, self.draws = features, latent, scale, weight, draws
        self.probes = None if probes is None else check_integer("probes", probes)
        self.chain_steps, self.levels, self.activation = check_integer("chain_steps", chain_steps), levels, activation
        self.hidden, self.channels = tuple(hidden), tuple(channels)
        self.pair.steps = chain_steps
        self.set_objective(objective)

    @property
    def pair(self) -> Cyclic:
        """The conditionals, of scaled data."""
        part = self.chain[1]
        assert isinstance(part, Cyclic)
        return part

    @property
    def flow(self) -> Transform | None:
        """Of the encoder."""
        return self.pair.flow

    def set_objective(self, objective: str) -> None:
        """Train and evaluate as "cyclic" conditionals, or as a VAE by its "elbo": first the one, then the other.

        Raises:
            ConfigError: for another name.
        """
        check_choice("objective", objective, ("cyclic", "elbo"))
        assert isinstance(self.base, Start)
        self.objective = objective
        self.pair.elbo = self.base.prior = objective == "elbo"

    def loss(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """The data-fit term and the penalty; or minus the ELBO. A surrogate: never reported as a likelihood."""
        if self.objective == "elbo":
            return super().loss(x, generator=generator)
        x, _, far = self._prepare(x, context)
        x = self.chain[0].encode(x.reshape(-1, *self.shape)).z
        penalty = self.pair.penalty(x, generator, self.probes).mean() if self.weight else 0.0
        return self.weight * penalty - self.pair.encode(x, noise=generator).contribution.mean() - far.mean()

    @torch.no_grad()
    def code(self, x: Tensor) -> Tensor:
        """The center of q(z | x): what the flow makes of the mean of its normal, ``(*batch, latent)``."""
        x, _, _ = self._prepare(x, None)
        scaled = self.chain[0].encode(x).z
        return self.pair.transport(scaled.new_zeros((*self.chain.batch_shape(x), self.latent)), scaled)[0]

    @torch.no_grad()
    def compatibility(self, x: Tensor, *, probes: int | None = None, seed: int = 0) -> Tensor:
        """Squared norm of the mixed Hessian of log p(x | z)/q(z | x) at each row and one z ~ q(z | x), ``(n,)``.

        Args:
            x: ``(n, *shape)``.
            probes: random directions, or None for the exact norm, which costs one for each coordinate of x.
            seed: of z and the directions.
        """
        return self._norms(x, probes, seed, (1.0, 1.0))

    @torch.no_grad()
    def check_compatibility(
        self, x: Tensor, *, tolerance: float = 1e-6, probes: int | None = None, seed: int = 0
    ) -> Compatibility:
        """Test on rows that the pair is compatible, and remember it: the kind follows.

        It passes if the penalty is below ``tolerance`` times the mean of what p and q have alone. A trained network never is;
        a linear-Gaussian pair with its exact posterior is, to rounding.

        Raises:
            InputError: if there is no row.
        """
        if len(x) == 0:
            raise InputError("check_compatibility needs rows; got none.")
        penalty, decoder, encoder = (
            self._norms(x, probes, seed, parts).double().mean().item() for parts in ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0))
        )
        passed = penalty <= tolerance * 0.5 * (decoder + encoder) and decoder > 0
        self.pair.compatible.fill_(passed)
        return Compatibility(penalty, decoder, encoder, passed)

    def _norms(self, x: Tensor, probes: int | None, seed: int, parts: tuple[float, float]) -> Tensor:
        x, _, _ = self._prepare(x, None)
        scaled = self.chain[0].encode(x).z
        return torch.cat([self.pair.penalty(part, RowNoise(seed), probes, parts) for part in scaled.split(256)])

    @torch.no_grad()
    def gibbs(self, count: int, steps: int, *, seed: int = 0, start: Tensor | None = None) -> Tensor:
        """Chains z ~ q(z | x), x ~ p(x | z), ``(count, *shape)``.

        Args:
            count: how many chains.
            steps: of each.
            seed: of everything random.
            start: rows to start from; None for noise of the data's mean and spread, so that nothing is owed to the data.
        """
        x, generator = self._begin(count, steps, seed, start)
        for _ in range(steps):
            x = self.pair.draw_x(self.pair.draw_z(x, generator), generator)
        return self.chain[0].decode(x)

    @torch.no_grad()
    def langevin(self, count: int, steps: int, step: float, *, seed: int = 0, start: Tensor | None = None) -> Tensor:
        """Chains x <- x + step grad_x log[ p(x | z)/q(z | x) ] + sqrt(2 step) noise with a fresh z ~ q(z | x), ``(count, *shape)``.

        For a compatible pair the mean of that gradient over z is grad log p(x). Nothing is annealed or clamped.

        Args:
            count: how many chains.
            steps: of each.
            step: in units of the scaled data, squared; small beside scale^2, else the chain diverges.
            seed: of everything random.
            start: as in :meth:`gibbs`.
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
        generator = torch.Generator(device).manual_seed(seed)
        if start is None:
            return torch.randn((count, *self.shape), generator=generator, dtype=self.dtype, device=device), generator
        rows, _, _ = self._prepare(start, None)
        if len(rows) != count:
            raise ConfigError(f"{count} chains need as many rows to start from; got {len(rows)}.")
        return self.chain[0].encode(rows).z, generator
