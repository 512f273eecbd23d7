"""Autoencoders within flows (Silvestri, Roos, Ambrogioni 2023, arXiv 2205.09546)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pushforward.distributions import Distribution, Normal, Product
from pushforward.errors import ConfigError, KindError
from pushforward.likelihood import LogLik
from pushforward.models.base import Model
from pushforward.models.flow import Flow
from pushforward.models.image.building import pixel_transforms
from pushforward.models.latent.vae import posterior_flow, prior_distribution
from pushforward.models.validation import check_shape
from pushforward.numerics import RunningMean
from pushforward.numerics.checks import check_choice, check_integer, check_widths
from pushforward.registry import register
from pushforward.transforms import ActNorm, Autoencode, Chain, LinearAutoencode, Standardize, Transform
from pushforward.transforms.base import Shape, as_shape

__all__ = ["AEF"]


@register("models")
class AEF(Model):
    """A flow whose layers are the encoder, the decoder and the prior of a VAE, trained without sampling.

    Form "partition": d coordinates are the core, and the others are the shell. With c' = F(core),

        z_1 = mu_e(shell) + sigma_e(shell) c',    delta = (shell - mu_d(z_1)) / sigma_d(z_1),
        log p(x) = log prior(z_1) + log N(delta) + sum log sigma_e - sum log sigma_d + log abs det F.

    The likelihood is exact on vectors; on images it is the bound of a dequantized flow. Form "linear": the data are
    extended by u = W x, and the likelihood is the joint density of x and u, on Extended(D + d, D). Training maximizes
    it, and :meth:`reduced` and :meth:`importance_estimate` give a lower bound of log p(x).

    The noise is z_1, which follows the prior, and then delta. ``decode`` is exact, and :meth:`reconstruct` uses delta =
    0.

    Args:
        features: a width, or (channels, height, width) for images of integers.
        latent: d.
        form: "partition" or "linear".
        core: "center", "corner" or a tuple of indices of the flattened event. Vectors have the first d coordinates in
            the core unless indices are given.
        posterior: the flow F of the core: "normal" (none), "iaf" or "nsf", as in :class:`~pushforward.models.VAE`.
        prior: distribution of z_1, a :class:`~pushforward.distributions.Distribution` or a model with an exact density;
            None for a standard normal.
        levels: number of integer values of a pixel.
        alpha: margin of the logit that maps pixels to the reals; None shifts them to (-1/2, 1/2) instead.
        dequantize: "uniform" or "variational"; the linear form allows "uniform" only.
        hidden: widths of the hidden layers of encoder and decoder.
        channels: widths of convolutions that replace the hidden layers, for images; each convolution halves the sides.
        posterior_layers: number of layers of the flow F.
        posterior_hidden: widths of the hidden layers of the networks of F.
        standardize: standardize vectors first; images have one actnorm instead.
        activation: activation of the networks.

    Raises:
        ConfigError: for an unknown name, or parts that do not fit together.

    Example:
        >>> import torch
        >>> model = AEF(5, latent=2, hidden=(16,))
        >>> x = torch.randn(3, 5)
        >>> model.log_prob(x).shape, model.reconstruct(x).shape
        (torch.Size([3]), torch.Size([3, 5]))
        >>> AEF(5, latent=2, form="linear", hidden=(16,)).evaluate(x).measure
        Measure(name='Extended', dim=7, ambient=5, counted=0)
    """

    def __init__(
        self,
        features: int | Shape,
        latent: int = 16,
        *,
        form: str = "partition",
        core: str | tuple[int, ...] = "center",
        posterior: str = "normal",
        prior: Distribution | Model | None = None,
        levels: int = 256,
        alpha: float | None = 0.0,
        dequantize: str = "uniform",
        hidden: tuple[int, ...] = (256, 256),
        channels: tuple[int, ...] = (),
        posterior_layers: int = 2,
        posterior_hidden: tuple[int, ...] = (64,),
        standardize: bool = True,
        activation: str = "relu",
    ) -> None:
        shape = as_shape(features)
        check_choice("form", form, ("partition", "linear"))
        if form == "linear" and dequantize != "uniform":
            raise ConfigError(f"form='linear' needs dequantize='uniform'; got {dequantize!r}.")
        check_integer("latent", latent)
        hidden, channels = check_widths("hidden", hidden), check_widths("channels", channels)
        posterior_hidden = check_widths("posterior_hidden", posterior_hidden)
        flow = posterior_flow(posterior, latent, posterior_layers, posterior_hidden, 0)
        networks: dict[str, Any] = {"hidden": hidden, "channels": channels, "activation": activation}
        if form == "partition":
            inner: Transform = Autoencode(features, latent, flow, core=core, **networks)
        else:
            inner = LinearAutoencode(features, latent, flow, **networks)
        if len(shape) == 3:
            before = [*pixel_transforms(shape, levels, alpha, dequantize), ActNorm(shape)]
        else:
            before = [Standardize(shape)] if standardize else []
        base = Product(prior_distribution(prior, latent), Normal(inner.out_shape[0] - latent))
        super().__init__(Chain(*before, inner), base)
        self.features, self.latent, self.form, self.core, self.posterior = features, latent, form, core, posterior
        self.levels, self.alpha, self.dequantize = levels, alpha, dequantize
        self.hidden, self.channels, self.posterior_layers = hidden, channels, posterior_layers
        self.posterior_hidden, self.standardize, self.activation = posterior_hidden, standardize, activation
        self._given_prior = prior is not None

    @property
    def prior(self) -> Distribution | None:
        """The prior p(z_1) that was given, or None."""
        assert isinstance(self.base, Product)
        return self.base._list()[0] if self._given_prior else None

    def reconstruct(self, x: Tensor, *, seed: int = 0) -> Tensor:
        """The mean of the decoder at the code of x, ``(*batch, *shape)``: ``decode`` with delta = 0."""
        return self.decode_mean(self.encode(x, seed=seed)[..., : self.latent])

    def decode_mean(self, code: Tensor) -> Tensor:
        """Data with delta = 0 from codes ``(*batch, latent)``.

        Codes from the prior give pictures, which are not samples of the model.

        Raises:
            InputError: for codes of another width.
        """
        check_shape(code, (self.latent,), f"the decoder of {type(self).__name__}")
        rest = code.new_zeros(*code.shape[:-1], self.base.shape[0] - self.latent)
        return self.decode(torch.cat((code, rest), -1))

    def reduced(self, scale: float) -> Flow:
        """A model of x alone that shares the weights of this linear form: u is drawn from N(W x, scale^2).

        Its ``evaluate(x, samples=k)`` is log mean_k p(x, u_k) / N(u_k; W x, scale^2), a LOWER_BOUND on the measure of
        the data.

        Raises:
            KindError: for the partition form, which has a likelihood of x already.
            ConfigError: for a scale that is not positive and finite.
        """
        *before, inner = self.chain
        if not isinstance(inner, LinearAutoencode):
            raise KindError("form='partition' has a likelihood of x already: call evaluate(x).")
        return Flow(Chain(*before, inner.reduced(scale)), self.base)

    def importance_estimate(
        self, x: Tensor, scale: float, *, samples: int = 128, seed: int = 0
    ) -> tuple[LogLik, Tensor]:
        """A lower bound of log p(x) for the linear form, and the effective number of samples behind it.

        The bound is that of :meth:`reduced`. The effective number of samples is (sum w)^2 / sum w^2 of the importance
        weights w. If it is near 1, the scale does not fit p(u | x), and the bound is loose.

        Args:
            x: data, ``(*batch, *shape)``.
            scale: standard deviation of u around W x.
            samples: number of draws.
            seed: seed of the draws.

        Returns:
            The log-likelihood, and the effective number of samples, shape ``batch``.

        Raises:
            KindError: for the partition form.
            ConfigError: for a scale that is not positive and finite, or fewer than one draw.
        """
        check_integer("samples", samples)
        check_integer("seed", seed, None)
        model = self.reduced(scale)
        with torch.no_grad():
            draws = [model.evaluate(x, seed=seed * samples + k) for k in range(samples)]
            weights = torch.stack([draw.value.double() for draw in draws])
            mean = RunningMean(weights[0])
            for more in weights[1:]:
                mean.add(more)
            count = torch.exp(2 * torch.logsumexp(weights, 0) - torch.logsumexp(2 * weights, 0))
            count = torch.where(weights.amax(0) == -torch.inf, samples, count)  # all draws agree
            dtype = draws[0].value.dtype
            error = mean.log_mean_exp_error().to(dtype) if samples > 1 else None
        terms = {name: torch.stack([draw.terms[name] for draw in draws]).mean(0) for name in draws[0].terms}
        result = LogLik(mean.log_mean_exp().to(dtype), model.kind, model.measure, error, None, terms)
        return result, count.clamp(1, samples)
