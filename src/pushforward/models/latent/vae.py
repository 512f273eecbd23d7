"""Variational autoencoder (Kingma and Welling 2014, arXiv 1312.6114), with flows as posterior and any prior."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pushforward.distributions import Distribution, Normal
from pushforward.errors import ConfigError
from pushforward.models.base import Model
from pushforward.models.ensemble import Ensemble
from pushforward.models.validation import check_shape
from pushforward.models.vector.building import autoregressive_layers, coupling_layers
from pushforward.numerics.checks import check_choice, check_integer, check_positive, check_widths
from pushforward.registry import register
from pushforward.transforms import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    Chain,
    DynamicBinarize,
    GatedTransformer,
    GaussianLikelihood,
    Inverse,
    Likelihood,
    LogisticLikelihood,
    SplineTransformer,
    Standardize,
    Transform,
    Variational,
)
from pushforward.transforms.base import Shape, as_shape

__all__ = ["VAE", "posterior_flow", "prior_distribution"]


@register("models")
class VAE(Model):
    """Latent variable model with the bound log p(x) >= E_q [ log p(x | z) + log p(z) - log q(z | x) ] (eq. 3).

    ``evaluate`` draws z and is a LOWER_BOUND; ``evaluate(x, samples=k)`` is the importance-weighted bound log mean_k
    p(x, z_k) / q(z_k | x) (Burda et al. 2016, arXiv 1509.00519, eq. 8), which rises to log p(x). With a decoder of gray
    levels it is a probability of integers, so bits/dim are defined. ``decode`` returns the reconstruction.

    Args:
        features: a width, or (channels, height, width).
        latent: width of z.
        context: width of the context c, for example a one-hot class: q(z | x, c) and p(x | z, c), with the prior p(z)
            that does not depend on c (the conditional VAE of Sohn, Lee, Yan 2015).
        decoder: the distribution p(x | z): "logistic" (a mixture of discretized logistics, integers 0, ..., levels -
            1), "categorical" (a softmax over the levels), "bernoulli" (data are 0 or 1), or "gaussian" (real data, with
            learned mean and scale). None is "logistic" for images and "gaussian" for vectors.
        posterior: "normal" (diagonal), "iaf" (inverse autoregressive, Kingma et al. 2016, arXiv 1606.04934, alg. 1) or
            "nsf" (spline couplings, Durkan et al. 2019, sec. 5.3). The last two transform a diagonal normal, given a
            context h that the encoder returns.
        prior: p(z), a :class:`~pushforward.distributions.Distribution` or a model with an exact density; None for a
            standard normal.
        levels: number of gray levels.
        components: number of components of the logistic mixture.
        binarize: binarize gray levels at random each time they are read, for a Bernoulli decoder. The likelihood is
            then an estimate of the likelihood of a binary image.
        hidden: widths of the hidden layers of encoder and decoder.
        channels: widths of convolutions that replace the hidden layers, for images; each convolution halves the sides.
        posterior_layers: number of layers of the flow of the posterior.
        posterior_hidden: widths of the hidden layers of its networks.
        posterior_context: width of h.
        free_bits: the training loss does not reduce the KL of a latent coordinate below this many nats (Kingma et al.
            2016, eq. 15); it is never part of the evaluation. With a standard normal prior it applies to the KL of each
            coordinate, averaged over the batch: in closed form for a diagonal posterior, drawn for "iaf". Otherwise it
            applies to the drawn KL of z as a whole.
        standardize: standardize real data first.
        activation: activation of the networks.

    Raises:
        ConfigError: for an unknown decoder or posterior, or parts that do not fit together.

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
        posterior_layers: int = 2,
        posterior_hidden: tuple[int, ...] = (64,),
        posterior_context: int = 16,
        free_bits: float = 0.0,
        standardize: bool = True,
        activation: str = "relu",
    ) -> None:
        shape = as_shape(features)
        name = decoder or ("logistic" if len(shape) == 3 else "gaussian")
        likelihoods: dict[str, Callable[[], Likelihood]] = {
            "logistic": lambda: LogisticLikelihood(levels, components),
            "categorical": lambda: CategoricalLikelihood(levels),
            "bernoulli": BernoulliLikelihood,
            "gaussian": GaussianLikelihood,
        }
        check_choice("decoder", name, likelihoods)
        if binarize and name != "bernoulli":
            raise ConfigError(f"binarize=True needs decoder='bernoulli'; got {name!r}.")
        check_positive("free_bits", free_bits, zero=True)
        check_integer("latent", latent)
        likelihood = likelihoods[name]()
        posterior_hidden = check_widths("posterior_hidden", posterior_hidden)
        check_integer("posterior_context", posterior_context, 0)
        check_integer("levels", levels)
        check_integer("components", components)
        flow = posterior_flow(posterior, latent, posterior_layers, posterior_hidden, posterior_context)
        transforms: list[Transform] = [DynamicBinarize(shape, levels)] if binarize else []
        transforms += [Standardize(shape)] if standardize and name == "gaussian" else []
        transforms.append(
            Variational(
                shape,
                latent,
                likelihood,
                flow,
                hidden=hidden,
                channels=channels,
                activation=activation,
                context=context,
            )
        )
        super().__init__(Chain(*transforms), prior_distribution(prior, latent))
        self.features, self.latent, self.context = features, latent, context
        self.decoder, self.posterior = decoder, posterior
        self.levels, self.components, self.binarize = levels, components, binarize
        self.hidden, self.channels, self.posterior_layers = tuple(hidden), tuple(channels), posterior_layers
        self.posterior_hidden, self.posterior_context = posterior_hidden, posterior_context
        self.free_bits, self.standardize, self.activation = free_bits, standardize, activation

    @property
    def prior(self) -> Distribution:
        """p(z)."""
        return self.base

    def loss(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """-mean of the bound for one draw of z; with free bits, -mean of log p(x | z) - sum of max(free bits, KL)."""
        front, last = self.chain[:-1], self.chain[-1]
        assert isinstance(last, Variational)
        x, context, far = self.prepare(x, context)
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
        """The center of q(z | x), without noise, ``(*batch, latent)``.

        Raises:
            InputError: for data of another shape.
        """
        check_shape(x, self.shape, type(self).__name__)
        front, last = self.chain[:-1], self.chain[-1]
        assert isinstance(last, Variational)
        x = x if x.is_floating_point() else x.to(self.dtype)
        context = self.prepare_context(context, x.shape[: x.dim() - len(self.shape)])
        return last.center(front.encode(x).z, context)

    def decode_mean(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Mean of p(x | z) in the units of the data, without observation noise, ``(*batch, *shape)``.

        Raises:
            InputError: for codes of another width.
        """
        check_shape(z, (self.latent,), f"the decoder of {type(self).__name__}")
        front, last = self.chain[:-1], self.chain[-1]
        assert isinstance(last, Variational)
        return front.decode(last.mean(z, self.prepare_context(context, z.shape[:-1])))


def posterior_flow(posterior: str, latent: int, layers: int, hidden: tuple[int, ...], context: int) -> Transform | None:
    """The bijection from a posterior to a diagonal normal, with a fast ``decode``; None for "normal".

    Raises:
        ConfigError: for an unknown posterior, or fewer than one layer.
    """
    check_choice("posterior", posterior, ("normal", "iaf", "nsf"))
    check_integer("posterior_layers", layers)
    if posterior == "normal":
        return None
    if posterior == "iaf":
        stack = autoregressive_layers(latent, GatedTransformer(), layers, hidden=hidden, context=context)
        return Chain(*(Inverse(layer) for layer in stack))
    return Chain(*coupling_layers(latent, SplineTransformer(8, 4.0), layers, hidden=hidden, context=context))


def prior_distribution(prior: Distribution | Model | None, latent: int) -> Distribution:
    """A prior as a distribution.

    A model becomes an :class:`~pushforward.models.Ensemble` of one model, and None a standard normal.

    Raises:
        ConfigError: if it is neither a distribution nor a model, has another width, a context, or a measure that is not
            Lebesgue.
        KindError: for a model without an exact density.
    """
    base = Ensemble(prior) if isinstance(prior, Model) else Normal(latent) if prior is None else prior
    if not isinstance(base, Distribution) or base.shape != (latent,):
        raise ConfigError(f"prior must be a distribution or a model of {latent} coordinates; got {prior!r:.80}.")
    if base.context or base.measure.name != "Lebesgue":
        raise ConfigError(f"prior must be a density on {latent} reals without a context; got {prior!r:.80}.")
    return base
