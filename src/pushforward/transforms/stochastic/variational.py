"""Latent variables: a stochastic transform that draws z from an approximate posterior (VAE)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pushforward.errors import ConfigError, InputError, KindError
from pushforward.likelihood import REAL, Kind, Measure
from pushforward.networks.codec import encoder_and_decoder
from pushforward.numerics import Noise, bound_input, may_check_values, normal_like, soft_clamp, sum_event, uniform_like
from pushforward.numerics.checks import check_integer, check_widths
from pushforward.registry import register
from pushforward.transforms.autoregressive.masked import MaskedAutoregressive
from pushforward.transforms.base import Shape, Step, Transform, as_shape, check_context, outside
from pushforward.transforms.chain import Chain
from pushforward.transforms.inverse import Inverse
from pushforward.transforms.stochastic.discrete_likelihoods import BernoulliLikelihood
from pushforward.transforms.stochastic.gaussian_likelihoods import GaussianLikelihood
from pushforward.transforms.stochastic.likelihoods import Likelihood, check_likelihood
from pushforward.transforms.surjections.conditional import require_lebesgue

__all__ = ["Posterior", "Variational"]


class Posterior(NamedTuple):
    """A draw z ~ q(z | x), with its log-densities and the parameters of q.

    Attributes:
        z: ``(*batch, latent)``.
        log_q: log q(z | x), nats, shape ``batch``.
        log_p: log p(x | z), nats, shape ``batch``.
        mean: mean of the diagonal normal before the flow, ``(*batch, latent)``.
        log_scale: log-scale of that normal, ``(*batch, latent)``.
        log_q_terms: term of each coordinate in log q(z | x), ``(*batch, latent)``; None if the flow has no such terms.
    """

    z: Tensor
    log_q: Tensor
    log_p: Tensor
    mean: Tensor
    log_scale: Tensor
    log_q_terms: Tensor | None


@register("transforms")
class Variational(Transform):
    """Latent variable: encode draws z ~ q(z | x) and adds log p(x | z) - log q(z | x) (VAE, Kingma and Welling 2014,
    arXiv 1312.6114, eq. 3; as a stochastic transform, Nielsen et al. 2020, arXiv 2007.02731, sec. 3.1).

    With the prior as base distribution the log-likelihood is the evidence lower bound: kind LOWER_BOUND, on the measure of
    p(x | z). q is a diagonal normal, transformed by ``flow`` if one is given: z = flow.decode(z_0, h), where h is a further
    output of the encoder (IAF, Kingma et al. 2016, arXiv 1606.04934, alg. 1). ``decode`` draws x ~ p(x | z) from a generator;
    without one it returns a value near the median of p(x | z), the reconstruction.

    Args:
        features: event shape: a width, or (channels, height, width).
        latent: width of z.
        likelihood: distribution p(x | z) of each pixel; Gaussian by default.
        flow: a bijection of width ``latent`` onto all reals, which may read a context; its decode must be the fast direction.
        hidden: widths of the hidden layers of encoder and decoder.
        channels: widths of convolutional layers, used instead for images; each layer halves height and width.
        activation: name of the activation function of the networks.
        context: width of the context c that encoder and decoder read: q(z | x, c) and p(x | z, c) (Sohn et al. 2015).

    Raises:
        ConfigError: for impossible sizes, or parts that do not fit.
        KindError: if ``flow`` is not a bijection.

    Example:
        >>> import torch
        >>> latent = Variational(3, latent=2, hidden=(8,))
        >>> step = latent.encode(torch.randn(5, 3))
        >>> step.z.shape, latent.decode(step.z).shape
        (torch.Size([5, 2]), torch.Size([5, 3]))
    """

    supports_float64 = False
    kind = Kind.LOWER_BOUND
    max_log_scale = 7.0
    """Smooth bound on |log s| of the posterior."""

    def __init__(
        self,
        features: int | Shape,
        latent: int = 8,
        likelihood: Likelihood | None = None,
        flow: Transform | None = None,
        *,
        hidden: tuple[int, ...] = (128, 128),
        channels: tuple[int, ...] = (),
        activation: str = "relu",
        context: int = 0,
    ) -> None:
        shape = as_shape(features)
        super().__init__(shape, check_integer("latent", latent))
        if len(shape) not in (1, 3):
            raise ConfigError(f"features must be a width or (channels, height, width); got {features!r}.")
        if flow is not None and (
            not isinstance(flow, Transform) or flow.in_shape != (latent,) or flow.out_shape != (latent,)
        ):
            raise ConfigError(f"flow must be a transform of {latent} coordinates; got {flow!r:.80}.")
        if flow is not None and not flow.bijective:
            raise KindError(f"{type(flow).__name__} is not a bijection, so it cannot be the flow of a posterior.")
        if flow is not None and flow.codomain not in (None, REAL):
            raise ConfigError(
                f"flow must map onto all reals, because its noise is normal; {type(flow).__name__} maps onto {flow.codomain}: use its "
                "Inverse, or put a transform to the reals, such as Logit, at its end."
            )
        self.features, self.latent = features, latent
        self.likelihood = check_likelihood(likelihood or GaussianLikelihood())
        self.hidden, self.channels, self.activation = (
            check_widths("hidden", hidden),
            check_widths("channels", channels),
            activation,
        )
        self.context = check_integer("context", context, 0)
        self.domain, self.codomain = self.likelihood.support, REAL
        self.flow = flow
        self.extra = 0 if flow is None else flow.context
        count = self.likelihood.outputs(shape[0] if len(shape) == 3 else 1)
        self.space = shape[1:] if len(shape) == 3 else shape
        self.encoder, self.decoder = encoder_and_decoder(
            shape, latent, 2 * latent + self.extra, count, self.hidden, self.channels, activation, context
        )

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """A draw of z, with log p(x | z) - log q(z | x)."""
        drawn = self.draw(x, noise, context)
        return Step(drawn.z, drawn.log_p - drawn.log_q + outside(x, self.domain, len(self.in_shape)))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """A draw of x from a generator, or a value near the median of p(x | z) without one."""
        raw, channels = self.raw(z, context), 1 if len(self.in_shape) == 1 else self.in_shape[0]
        rows, shape = z.shape[:-1], (*self.space, self.likelihood.draws(channels))
        if isinstance(noise, torch.Generator):
            u = uniform_like(z, 1, noise, shape)
        else:
            u = z.new_full((*rows, *shape), 0.5)
        x = self.likelihood.sample(raw, u)
        return x.squeeze(-1) if len(self.in_shape) == 1 else x.movedim(-1, -3)

    def draw(self, x: Tensor, noise: Noise, context: Tensor | None = None) -> Posterior:
        """z ~ q(z | x), with its log-density, the log-density of x given z, and the parameters of the posterior."""
        return self.draw_from(self.infer(x, context), x, noise, context)

    def infer(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The encoder's output for x, ``(*batch, 2 latent + extra)``: mean, raw log-scale, and h for the flow."""
        self._check_binary(x, training=False)
        return self._encoded(x, context)

    def draw_from(self, inferred: Tensor, x: Tensor, noise: Noise, context: Tensor | None = None) -> Posterior:
        """As :meth:`draw`, from posterior parameters in the form of :meth:`infer`."""
        mean, log_scale, h = inferred.split((self.latent, self.latent, self.extra), -1)
        log_scale = soft_clamp(log_scale, self.max_log_scale)
        e = normal_like(x, len(self.in_shape), noise, (self.latent,))
        z = mean + log_scale.exp() * e
        terms = -0.5 * e * e - 0.5 * math.log(2 * math.pi) - log_scale
        z, terms, log_q = self._push(z, terms, h if self.extra else None)
        return Posterior(z, log_q, self.log_prob(x, z, context), mean, log_scale, terms)

    def log_prob(self, x: Tensor, z: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(x | z), nats, shape ``batch``."""
        pixels = x.unsqueeze(-1) if len(self.in_shape) == 1 else x.movedim(-3, -1)
        return sum_event(self.likelihood.log_prob(pixels, self.raw(z, context)), len(self.space) + 1)

    def _push(self, z: Tensor, terms: Tensor, h: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
        """The flow applied to a draw and to the terms of its log-density: z, the terms (None if there are none), and their sum."""
        parts = [] if self.flow is None else list(self.flow) if isinstance(self.flow, Chain) else [self.flow]
        autoregressive = [
            part.transform
            for part in parts
            if isinstance(part, Inverse) and isinstance(part.transform, MaskedAutoregressive)
        ]
        if self.flow is not None and len(autoregressive) < len(parts):
            z, contribution = self.flow.decode_with_contribution(z, h)
            return z, None, sum_event(terms, 1) + contribution
        for part in reversed(autoregressive):  # the fast direction, in which each coordinate has its own log-slope
            z, log_slopes = part.encode_terms(z, h)
            terms = terms - log_slopes
        return z, terms, sum_event(terms, 1)

    def center(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The center of q(z | x): its mean, or the flow applied to the mean of its normal; ``(*batch, latent)``."""
        mean, _, h = self._encoded(x, context).split((self.latent, self.latent, self.extra), -1)
        return mean if self.flow is None else self.flow.decode(mean, h if self.extra else None)

    def mean(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Mean of p(x | z), smooth in z; ``(*batch, *in_shape)``."""
        x = self.likelihood.mean(self.raw(z, context), 1 if len(self.in_shape) == 1 else self.in_shape[0])
        return x.squeeze(-1) if len(self.in_shape) == 1 else x.movedim(-1, -3)

    def raw(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Raw parameters of p(x | z) for each pixel, ``(*batch, *space, outputs)``."""
        check_context(context, self.context, "Variational")
        inputs = z
        if self.context and context is not None:
            inputs = torch.cat((z, context.to(z.dtype).expand(*z.shape[:-1], -1)), -1)
        out = self.decoder(inputs).to(z.dtype)
        return out.movedim(-3, -1) if self.channels else out.unflatten(-1, (*self.space, -1))

    def _encoded(self, x: Tensor, context: Tensor | None) -> Tensor:
        """The encoder's output for x and, if there is one, the context."""
        check_context(context, self.context, "Variational")
        inputs = self.likelihood.network_input(x)
        if not self.channels:
            inputs = inputs.flatten(x.dim() - len(self.in_shape))
        if self.context and context is not None:
            extra = bound_input(context.to(inputs.dtype), 10.0).expand(*self.batch_shape(x), -1)
            if self.channels:
                extra = extra[..., None, None].expand(*extra.shape, *self.space)
            inputs = torch.cat((inputs, extra), -3 if self.channels else -1)
        return self.encoder(inputs).to(x.dtype)

    def measure(self, latent: Measure) -> Measure:
        """The measure of p(x | z).

        Raises:
            KindError: if the rest of the chain, the prior, has no density on R^latent.
        """
        require_lebesgue(latent, self.latent, "Variational")
        return self.likelihood.measure(math.prod(self.in_shape))

    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Check the training rows, which must be 0 or 1 for a Bernoulli likelihood; return z.

        Raises:
            InputError: for other values with a Bernoulli likelihood.
        """
        self.check_training(x)
        return self.encode(x, context, noise=noise).z

    def check_training(self, x: Tensor) -> None:
        """Refuse training rows with values other than 0 and 1 for a Bernoulli likelihood.

        Raises:
            InputError: naming a value.
        """
        self._check_binary(x, training=True)

    def _check_binary(self, x: Tensor, training: bool) -> None:
        if not isinstance(self.likelihood, BernoulliLikelihood) or not may_check_values(x, self.training):
            return
        gray = (x != 0) & (x != 1) if training else (x > 0) & (x < 1)
        if gray.any():
            raise InputError(
                f"a Bernoulli likelihood needs pixels that are 0 or 1; got {x[gray][0].item():g}. Binarize the images "
                "(binarize=True draws each pixel anew), or choose a likelihood of gray levels."
            )
