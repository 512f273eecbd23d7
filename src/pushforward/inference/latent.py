"""Latent variables of one input of a VAE: its amortized posterior with importance weights, and the exact log-density."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pushforward.display import card
from pushforward.errors import InputError, KindError
from pushforward.inference.summary import Summary, summarize
from pushforward.inference.weights import ImportanceWeights
from pushforward.likelihood import Kind
from pushforward.models.base import Model
from pushforward.models.sampling import seeded_generator
from pushforward.numerics.checks import check_integer
from pushforward.numerics.noise import RowNoise
from pushforward.transforms import Chain, Variational

__all__ = ["LatentPosterior", "latent_log_density", "latent_posterior"]

_PART = 1024


@dataclass(frozen=True)
class LatentPosterior:
    """Draws of q(z | x) for one input x, with importance weights p(x, z) / q(z | x).

    Attributes:
        draws: z, ``(n, latent)``.
        weights: their importance weights, float64.

    Example:
        >>> import torch, pushforward as pf
        >>> vae = pf.models.VAE(3, latent=2, hidden=(8,))
        >>> found = pf.inference.latent_posterior(vae, torch.zeros(3), 1000, seed=0)
        >>> found.draws.shape, found.resample(5).shape
        (torch.Size([1000, 2]), torch.Size([5, 2]))
    """

    draws: Tensor = field(repr=False)
    weights: ImportanceWeights

    @property
    def k_hat(self) -> float:
        """Shape of the tail of the weights; below 0.7 the estimates are reliable."""
        return self.weights.k_hat

    @property
    def ess(self) -> float:
        """Effective sample size of the draws, between 1 and their number."""
        return self.weights.ess

    @property
    def log_evidence(self) -> float:
        """log p(x), nats: the importance-weighted estimate (Burda et al. 2016, eq. 8)."""
        return self.weights.log_evidence

    @property
    def log_evidence_error(self) -> float:
        """Standard error of :attr:`log_evidence`; it means nothing if k-hat is above 0.7."""
        return self.weights.log_evidence_error

    @property
    def bound(self) -> float:
        """The evidence lower bound E_q[log p(x, z) - log q(z | x)], nats; -inf if a weight is 0."""
        return float(self.weights.log_ratios.mean())

    @property
    def reliable(self) -> bool:
        """Whether the weights are reliable (:attr:`ImportanceWeights.reliable`)."""
        return self.weights.reliable

    def resample(self, count: int, *, seed: int | None = None) -> Tensor:
        """Draws of p(z | x): draws of q(z | x), chosen with the probabilities of their weights; they may repeat."""
        check_integer("count", count, 0)
        return self.draws[self.weights.resample(count, seeded_generator(seed)).to(self.draws.device)]

    def summary(self, *, probs: Sequence[float] = (0.05, 0.5, 0.95)) -> Summary:
        """Weighted mean, deviation and quantiles of every latent variable, and whether each can be trusted (:func:`summarize`)."""
        return summarize(self.draws, self.weights, probs=probs)

    def __repr__(self) -> str:
        verdict = "reliable" if self.reliable else "not reliable"
        return (
            f"LatentPosterior({verdict}: k-hat {self.k_hat:.2f}, ESS {self.ess:.0f} of {len(self.draws)}, log evidence "
            f"{self.log_evidence:.3f} +- {self.log_evidence_error:.3f}, bound {self.bound:.3f})"
        )

    def _repr_html_(self) -> str:
        """What says whether to trust the draws, for a notebook."""
        facts = [
            ("verdict", "reliable" if self.reliable else "not reliable"),
            ("k-hat", f"{self.k_hat:.2f}"),
            ("effective sample size", f"{self.ess:.0f} of {len(self.draws)} draws"),
            ("log evidence", f"{self.log_evidence:.3f} +- {self.log_evidence_error:.3f} nats"),
            ("bound", f"{self.bound:.3f} nats"),
        ]
        return card("Posterior of the latent variables of one input", facts, "")


@torch.no_grad()
def latent_posterior(
    model: Model, x: Tensor, count: int = 1000, *, context: Tensor | None = None, seed: int = 0
) -> LatentPosterior:
    """Draw z from the posterior q(z | x) that a VAE learned, and say whether it is near p(z | x).

    The weights are w = p(x | z) p(z) / q(z | x). Their mean is p(x), and their k-hat says whether that estimate, which is what
    ``model.evaluate(x, samples=count)`` gives, can be trusted. If it is not reliable, fit a flow to the exact log-density
    of this input: ``fit_to_target(latent, latent_log_density(model, x))``. Each draw has its own noise in a model that adds any
    (dequantization), which is part of the weights and of their error. With a flow of the family
    of the encoder, as a normal distribution, the difference of the two bounds is the amortization gap (Cremer, Li, Duvenaud 2018,
    arXiv 1801.03558); with a richer one it includes part of the gap that the family leaves.

    Args:
        model: a :class:`~pushforward.models.VAE`, or a :class:`~pushforward.models.Flow` that ends with
            :class:`~pushforward.transforms.Variational`.
        x: one input, of the model's shape.
        count: number of draws, at least 25.
        context: the context of the input, ``(context,)``, for a conditional model.
        seed: of the draws; of the binary image too, for a model that draws one
            (:class:`~pushforward.transforms.DynamicBinarize`). It is that of ``model.evaluate(x, seed=seed)``.

    Raises:
        KindError: for a model without latent variables.
        InputError: for several inputs, a wrong shape, or fewer than 25 draws.

    Example:
        >>> import torch, pushforward as pf
        >>> vae = pf.models.VAE(3, latent=2, hidden=(8,))
        >>> found = pf.inference.latent_posterior(vae, torch.zeros(3), 4000, seed=0)
        >>> bool(found.bound <= found.log_evidence)
        True
    """
    check_integer("count", count, 25)
    latent, before, row, given, constant = _split(model, x, context, seed)
    generator = seeded_generator(seed, device=row.device)
    fresh = before.kind is not Kind.EXACT  # it draws noise, or may
    step = before.encode(row, given, noise=generator)
    inferred = latent.infer(step.z, given)
    draws, ratios = [], []
    for begin in range(0, count, _PART):
        size = min(_PART, count - begin)
        contexts = None if given is None else given.expand(size, -1)
        if fresh:
            step = before.encode(row.expand(size, *row.shape[1:]), contexts, noise=generator)
            inferred = latent.infer(step.z, contexts)
        y = step.z.expand(size, *step.z.shape[1:])
        drawn = latent.draw_from(inferred.expand(size, -1), y, generator, contexts)
        draws.append(drawn.z)
        log_p = drawn.log_p + model.base.log_prob(drawn.z)
        ratios.append(log_p.double() - drawn.log_q.double() + step.contribution.double())
    return LatentPosterior(torch.cat(draws), ImportanceWeights.of(torch.cat(ratios) + constant))


def latent_log_density(
    model: Model, x: Tensor, *, context: Tensor | None = None, seed: int = 0
) -> Callable[[Tensor], Tensor]:
    """log p(x, z) of one input x as a function of z, ``(n, latent)`` to ``(n,)``, nats: what ``fit_to_target`` reads.

    Its integral over z is p(x), so the evidence of the fit is the log-likelihood of the input. It raises an InputError for z of
    another shape.

    In a model that adds noise to the data (dequantization), the density is that of z and of one draw of the noise: p(y, z) / q(y | x)
    for one y. Its integral over z depends on the seed, and has the mean p(x) over seeds.

    Args:
        model: as for :func:`latent_posterior`.
        x: one input, of the model's shape.
        context: the context of the input, ``(context,)``, for a conditional model.
        seed: of the noise, and of the binary image, as for :func:`latent_posterior`.

    Raises:
        KindError: for a model without latent variables.
        InputError: for several inputs or a wrong shape.

    Example:
        >>> import torch, pushforward as pf
        >>> vae = pf.models.VAE(3, latent=2, hidden=(8,))
        >>> log_density = pf.inference.latent_log_density(vae, torch.zeros(3))
        >>> fit = pf.inference.fit_to_target(2, log_density, max_steps=20, seed=0, progress="silent")
        >>> fit.draws.shape
        torch.Size([10000, 2])
    """
    with torch.no_grad():
        latent, before, row, given, constant = _split(model, x, context, seed)
        step = before.encode(row, given, noise=RowNoise(seed))
        y, constant = step.z, constant + step.contribution.double().reshape(())
    (width,) = latent.out_shape

    def log_density(z: Tensor) -> Tensor:
        if not isinstance(z, Tensor) or z.dim() != 2 or z.shape[1] != width:
            found = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
            raise InputError(f"z must be a tensor of the shape (n, {width}); got {found}.")
        z = z.to(model.dtype)
        rows = y.expand(len(z), *y.shape[1:])
        log_p = latent.log_prob(rows, z, None if given is None else given.expand(len(z), -1))
        return (log_p + model.base.log_prob(z)).double() + constant

    return log_density


def _split(
    model: Model, x: Tensor, context: Tensor | None, seed: int
) -> tuple[Variational, Chain, Tensor, Tensor | None, Tensor]:
    """What the posterior of one input needs.

    Returns:
        The latent variable; the transforms before it, without those whose draw is data (dynamic binarization); one row, as these
        transforms read it; its context; and what the left-out transforms add to the log-density, float64.
    """
    parts = list(model.chain)
    last = parts[-1] if parts else None
    if not isinstance(last, Variational):
        raise KindError(f"{type(model).__name__} has no posterior of latent variables; a VAE has one.")
    if x.shape != torch.Size(model.shape):
        raise InputError(f"x must be one input of shape {tuple(model.shape)}; got {tuple(x.shape)}.")
    row, given, far = model.prepare(x[None], None if context is None else context[None])
    drawn = max((index + 1 for index, part in enumerate(parts) if part.kind is Kind.ESTIMATE), default=0)
    step = model.chain[:drawn].encode(row, given, noise=RowNoise(seed))
    return last, model.chain[drawn:-1], step.z, given, (step.contribution + far).double().reshape(())
