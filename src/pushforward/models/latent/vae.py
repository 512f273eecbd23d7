"""Variational autoencoder (Kingma and Welling 2014, arXiv 1312.6114), with flows as posterior and any prior."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.distributions import Distribution, Normal
from pushforward.errors import ConfigError
from pushforward.models.base import Model
from pushforward.models.ensemble import Ensemble
from pushforward.numerics.checks import check_choice, check_integer, check_positive
from pushforward.registry import register
from pushforward.transforms import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    Chain,
    Coupling,
    DynamicBinarize,
    GatedTransformer,
    GaussianLikelihood,
    Inverse,
    Likelihood,
    LogisticLikelihood,
    MaskedAutoregressive,
    SplineTransformer,
    Standardize,
    Transform,
    Variational,
)
from pushforward.transforms.base import Shape, as_shape

__all__ = ["VAE"]


@register("models")
class VAE(Model):
    """log p(x) >= E_q [ log p(x | z) + log p(z) - log q(z | x) ] (eq. 3).

    ``evaluate`` draws z and is LOWER_BOUND; ``evaluate(x, samples=k)`` is the importance-weighted bound log mean_k p(x, z_k) /
    q(z_k | x) (Burda et al. 2016, arXiv 1509.00519, eq. 8), which rises to log p(x). With a decoder of gray levels it is a
    probability of integers, so bits/dim are defined. ``decode`` returns the reconstruction.

    Args:
        features: a width, or (channels, height, width).
        latent: width of z.
        context: width of the context c, as a one-hot class: q(z | x, c) and p(x | z, c), with p(z) as it is (the conditional
            VAE of Sohn, Lee, Yan 2015).
        decoder: the law p(x | z): "logistic" (a mixture of discretized logistics, integers 0, ..., levels - 1),
            "categorical" (a softmax over the levels), "bernoulli" (data are 0 or 1), or "gaussian" (real data, mean and scale
            learned). None is "logistic" for images and "gaussian" for vectors.
        posterior: "normal" (diagonal), "iaf" (inverse autoregressive, Kingma et al. 2016, arXiv 1606.04934, alg. 1) or "nsf"
            (spline couplings, Durkan et al. 2019, sec. 5.3), after the diagonal normal and given the encoder's h.
        prior: p(z), any :class:`~pushforward.distributions.Base`, or a model with an exact density; a standard normal by default.
        levels: gray levels.
        components: of the logistic mixture.
        binarize: grays are binarized anew at each visit, for a Bernoulli decoder: the number is then an estimate, of the
            likelihood of a binary image.
        hidden: widths of the hidden layers of encoder and decoder.
        channels: widths of the convolutions instead, for images; each halves the sides.
        steps: of the posterior's flow.
        posterior_hidden: widths of its networks.
        posterior_context: width of h.
        free_bits: nats of KL for each latent coordinate below which the training loss does not push it (Kingma et al. 2016,
            eq. 15); never part of the evaluation. With a standard normal prior it is the KL of each coordinate, averaged over the
            batch: in closed form for a diagonal posterior, drawn for "iaf". Else it is the drawn KL of z as a whole.
        standardize: standardize real data first.
        activation: of the networks.

    Raises:
        ConfigError: for an unknown decoder or posterior, or parts that do not fit.

    Example:
        >>> import torch
        >>> model = VAE((1, 6, 6), latent=2, levels=8, hidden=(16,))
        >>> x = torch.randint(0, 8, (3, 1, 6, 6))
        >>> model.evaluate(x, samples=10).bits_per_dim().shape
        torch.Size([3])
        >>> model.decode(model.encode(x)).shape
        torch.Size([3, 1, 6, 6])
    """

    def __init__(
        self,
        features: int | Shape,
        latent: int = 16,
        context: int = 0,
        *,
        decoder: str | None = None,
        posterior: str = "normal",
        prior: Distribution | Model | None = None,
        levels: int = 256,
        components: int = 1,
        binarize: bool = False,
        hidden: tuple[int, ...] = (256, 256),
        channels: tuple[int, ...] = (),
        steps: int = 2,
        posterior_hidden: tuple[int, ...] = (64,),
        posterior_context: int = 16,
        free_bits: float = 0.0,
        standardize: bool = True,
        activation: str = "relu",
    ) -> None:
        shape = as_shape(features)
        kind = decoder or ("logistic" if len(shape) == 3 else "gaussian")
        laws = {"logistic": lambda: LogisticLikelihood(levels, components), "categorical": lambda: CategoricalLikelihood(levels),
                "bernoulli": BernoulliLikelihood, "gaussian": GaussianLikelihood}  # fmt: skip
        check_choice("decoder", kind, laws)
        if binarize and kind != "bernoulli":
            raise ConfigError(f"binarized images want decoder='bernoulli'; got {kind!r}.")
        check_positive("free_bits", free_bits, zero=True)
        check_integer("latent", latent)
        law: Likelihood = laws[kind]()
        flow = posterior_flow(posterior, latent, steps, tuple(posterior_hidden), posterior_context)
        transforms: list[Transform] = [DynamicBinarize(shape, levels)] if binarize else []
        transforms += [Standardize(shape)] if standardize and kind == "gaussian" else []
        latents = Variational(
            shape, latent, law, flow, hidden=hidden, channels=channels, activation=activation, context=context
        )
        transforms.append(latents)
        super().__init__(Chain(*transforms), prior_base(prior, latent))
        self.features, self.latent, self.context = features, latent, context
        self.decoder, self.posterior = decoder, posterior
        self.levels, self.components, self.binarize = levels, components, binarize
        self.hidden, self.channels, self.steps = tuple(hidden), tuple(channels), steps
        self.posterior_hidden, self.posterior_context = tuple(posterior_hidden), posterior_context
        self.free_bits, self.standardize, self.activation = free_bits, standardize, activation

    @property
    def prior(self) -> Distribution:
        """p(z)."""
        return self.base

    def loss(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """-mean of the bound over one draw; with free bits, of E log p(x | z) - sum of max(free bits, KL)."""
        front, last = self.chain[:-1], self.chain[-1]
        assert isinstance(last, Variational)
        x, context, far = self._prepare(x, context)
        z, contribution, *_ = front.encode(x, noise=generator)
        total = far + contribution
        last.check_training(z)
        if not self.free_bits:
            step = last.encode(z, context, noise=generator)
            return -(total + step.contribution + self.base.log_prob(step.z)).mean()
        drawn = last.draw(z, generator, context)
        standard = isinstance(self.base, Normal) and not self.base.trainable
        if standard and drawn.log_q_terms is not None:
            if last.flow is None:
                each = 0.5 * (drawn.mean.square() + (2 * drawn.log_scale).exp() - 1) - drawn.log_scale
            else:
                each = drawn.log_q_terms + 0.5 * drawn.z.square() + 0.5 * math.log(2 * math.pi)
            divergence = each.reshape(-1, self.latent).mean(0).clamp(min=self.free_bits).sum()
        else:
            divergence = (drawn.log_q - self.base.log_prob(drawn.z)).mean().clamp(min=self.free_bits * self.latent)
        return divergence - (total + drawn.log_p).mean()

    def code(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The center of q(z | x), without noise, ``(*batch, latent)``."""
        front, last = self.chain[:-1], self.chain[-1]
        assert isinstance(last, Variational)
        x = x if x.is_floating_point() else x.to(self.dtype)
        context = self._broadcast(context, x.shape[: x.dim() - len(self.shape)])
        return last.center(front.encode(x).z, context)

    def point(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Mean of p(x | z) in the units of the data, without observation noise, ``(*batch, *shape)``."""
        front, last = self.chain[:-1], self.chain[-1]
        assert isinstance(last, Variational)
        return front.decode(last.mean(z, self._broadcast(context, z.shape[:-1])))


def posterior_flow(posterior: str, latent: int, steps: int, hidden: tuple[int, ...], context: int) -> Transform | None:
    """The bijection between a posterior and a diagonal normal, whose decode is fast; None for "normal".

    Raises:
        ConfigError: for another name.
    """
    check_choice("posterior", posterior, ("normal", "iaf", "nsf"))
    if posterior == "normal":
        return None
    transforms: list[Transform] = []
    for k in range(check_integer("steps", steps)):
        if posterior == "iaf":
            order = "reverse" if k % 2 else None
            law = MaskedAutoregressive(latent, GatedTransformer(), order=order, hidden=hidden, context=context)
            transforms.append(Inverse(law))
        else:
            transforms.append(
                Coupling(latent, SplineTransformer(8, 4.0), flip=k % 2 == 1, hidden=hidden, context=context)
            )
    return Chain(*transforms)


def prior_base(prior: Distribution | Model | None, latent: int) -> Distribution:
    """A prior as a base.

    Raises:
        ConfigError: if it is neither base nor model, of another width, reads a context, or counts.
        KindError: for a model without an exact density.
    """
    base = Ensemble(prior) if isinstance(prior, Model) else Normal(latent) if prior is None else prior
    if not isinstance(base, Distribution) or base.shape != (latent,):
        raise ConfigError(f"prior must be a base or a model of {latent} coordinates; got {prior!r:.80}.")
    if base.context or base.measure.name != "Lebesgue":
        raise ConfigError(f"the prior of z is a density on {latent} reals without a context; got {prior!r:.80}.")
    return base
