"""Deterministic autoencoders: plain (Ghosh et al. 2020) and Wasserstein with MMD (Tolstikhin et al. 2018)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pushforward.distributions import Normal
from pushforward.errors import ConfigError
from pushforward.likelihood import Kind, Lebesgue, Measure
from pushforward.models.base import Model
from pushforward.models.validation import check_shape
from pushforward.networks.image_codec import ConvDecoder, ConvEncoder
from pushforward.networks.mlp import MLP
from pushforward.numerics import Noise, bound_square, normal_like, soft_clamp, sum_event
from pushforward.numerics.checks import check_choice, check_integer, check_positive, check_widths
from pushforward.registry import register
from pushforward.transforms import Affine, Chain, Standardize, Step, Transform
from pushforward.transforms.base import Shape, as_shape
from pushforward.transforms.stochastic.likelihoods import check_levels

__all__ = ["AutoEncoder", "Codec", "input_scaling", "mmd"]


class Codec(nn.Module):
    """An encoder and a decoder network for vectors or images, fully connected or convolutional.

    Args:
        shape: shape of the data: (width,) or (channels, height, width).
        latent: width of the code.
        outputs: number of outputs of the encoder.
        hidden: widths of the hidden layers.
        channels: widths of convolutions that replace the hidden layers, for images.
        activation: activation of the networks.
        input_bound: the networks see their input clamped to [-input_bound, input_bound]; None for no clamping.
    """

    def __init__(
        self,
        shape: Shape,
        latent: int,
        outputs: int,
        hidden: tuple[int, ...],
        channels: tuple[int, ...],
        activation: str,
        input_bound: float | None = None,
    ) -> None:
        super().__init__()
        if len(shape) not in (1, 3) or (channels and len(shape) != 3):
            raise ConfigError(
                "an autoencoder models vectors or images (channels, height, width), and channels= is for images only; "
                f"got features={shape} with channels={channels!r}."
            )
        self.shape, self.channels, self.bound = shape, check_widths("channels", channels), input_bound
        check_integer("latent", latent)
        self.encoder: nn.Module
        self.decoder: nn.Module
        if self.channels:
            image = (shape[0], shape[1], shape[2])
            self.encoder = ConvEncoder(image, outputs, self.channels, activation)
            self.decoder = ConvDecoder(latent, image, self.channels, activation, input_bound or math.inf)
        else:
            size = math.prod(shape)
            self.encoder = MLP(size, outputs, hidden, activation=activation)
            self.decoder = MLP(latent, size, hidden, activation=activation, input_bound=input_bound)

    def encode(self, x: Tensor) -> Tensor:
        """``(*batch, *shape)`` to ``(*batch, outputs)``."""
        if self.bound is not None:
            x = x.clamp(-self.bound, self.bound)
        return self.encoder(x if self.channels else x.flatten(x.dim() - len(self.shape))).to(x.dtype)

    def decode(self, z: Tensor) -> Tensor:
        """``(*batch, latent)`` to ``(*batch, *shape)``."""
        return self.decoder(z).to(z.dtype).reshape(*z.shape[:-1], *self.shape)


class PointPosterior(Transform):
    """z = g(x), with the contribution log N(x; G(z), s^2 I): the posterior has all its mass at one point."""

    kind = Kind.ESTIMATE
    max_log_scale = 5.0

    def __init__(
        self, shape: Shape, latent: int, hidden: tuple[int, ...], channels: tuple[int, ...], activation: str
    ) -> None:
        super().__init__(shape, latent)
        self.codec = Codec(shape, latent, latent, hidden, channels, activation)
        self.log_scale = nn.Parameter(torch.zeros(()))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """g(x), with log N(x; G(g(x)), s^2 I)."""
        z, log_scale = self.codec.encode(x), soft_clamp(self.log_scale, self.max_log_scale)
        dims = len(self.in_shape)
        e = bound_square((x - self.codec.decode(z)) * torch.exp(-log_scale), math.prod(self.in_shape))
        return Step(z, sum_event(-0.5 * e * e - log_scale - 0.5 * math.log(2 * math.pi), dims))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """A draw of N(G(z), s^2 I) with a generator; G(z) without one."""
        mean = self.codec.decode(z)
        if not isinstance(noise, torch.Generator):
            return mean
        return mean + soft_clamp(self.log_scale, self.max_log_scale).exp() * normal_like(
            mean, len(self.in_shape), noise
        )

    def measure(self, latent: Measure) -> Measure:
        """Lebesgue(d) becomes Lebesgue(D)."""
        return Lebesgue(math.prod(self.in_shape))


@register("models")
class AutoEncoder(Model):
    """Encoder g and decoder G without noise, trained on the squared error with a learned scale s.

    ``evaluate`` is log N(x; G(z), s^2 I) + log N(z; 0, I) at z = g(x), the log joint density at one code. It bounds log
    p(x) on neither side, so the kind is ESTIMATE. A :class:`~pushforward.models.TwoStep` model adds a density of the
    codes.

    With ``penalty="code"`` the loss is minus that value: ||x - G(g(x))||^2 / 2s^2 + D log s + ||g(x)||^2 / 2, the
    regularized autoencoder (Ghosh et al. 2020, arXiv 1903.12436). With ``"mmd"`` it is the squared error plus
    ``penalty_weight`` times the maximum mean discrepancy between the codes of the batch and N(0, I) (Wasserstein
    autoencoder, Tolstikhin et al. 2018, arXiv 1711.01558, alg. 2), with kernels c / (c + d^2), c = 2 latent (0.1, 0.2,
    0.5, 1, 2, 5, 10).

    Args:
        features: a width, or (channels, height, width).
        latent: width of the code; :func:`pushforward.data.intrinsic_dimension` estimates how many dimensions the rows
            have.
        penalty: "code" or "mmd".
        penalty_weight: weight of the discrepancy; 0 trains on the squared error alone, which fits curved data best.
        levels: data are gray levels 0, ..., levels - 1, and the networks see them scaled to [-1, 1]; None standardizes.
        hidden: widths of the hidden layers of encoder and decoder.
        channels: widths of convolutions that replace the hidden layers, for images; each convolution halves the sides.
        activation: activation of the networks; use a smooth one, so that the image of the decoder is a smooth manifold.

    Raises:
        ConfigError: for sizes that are not possible, or an unknown penalty.

    Example:
        >>> import torch
        >>> model = AutoEncoder(3, latent=2, hidden=(16,))
        >>> x = torch.randn(5, 3)
        >>> model.decode(model.encode(x)).shape
        torch.Size([5, 3])
        >>> model.evaluate(x).kind
        <Kind.ESTIMATE: 'estimate'>
    """

    def __init__(
        self,
        features: int | Shape,
        latent: int = 2,
        *,
        penalty: str = "code",
        penalty_weight: float = 100.0,
        levels: int | None = None,
        hidden: tuple[int, ...] = (256, 256),
        channels: tuple[int, ...] = (),
        activation: str = "elu",
    ) -> None:
        check_choice("penalty", penalty, ("code", "mmd"))
        check_positive("penalty_weight", penalty_weight, zero=True)
        shape = as_shape(features)
        hidden, channels = check_widths("hidden", hidden), check_widths("channels", channels)
        coder = PointPosterior(shape, latent, hidden, channels, activation)
        super().__init__(Chain(input_scaling(shape, levels), coder), Normal(latent))
        self.features, self.latent, self.levels = features, latent, levels
        self.penalty, self.penalty_weight = penalty, penalty_weight
        self.hidden, self.channels, self.activation = hidden, channels, activation

    def loss(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Mean of -log N(x; G(z), s^2 I) at z = g(x), plus the penalty."""
        x, _, far = self.prepare(x, context)
        step = self.chain.encode(x)
        error = -(far + step.contribution).mean()
        if self.penalty == "code":
            return error - self.base.log_prob(step.z).mean()
        if not self.penalty_weight:
            return error
        codes = step.z.reshape(-1, self.latent)
        return error + self.penalty_weight * mmd(codes, normal_like(codes, 1, generator))

    def held_out_value(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """With the penalty "mmd" log N(x; G(z), s^2 I) alone: the likelihood has a prior of the codes that the loss does not."""
        if self.penalty == "code":
            return super().held_out_value(x, context)
        x, _, far = self.prepare(x, context)
        return far + self.chain.encode(x).contribution

    def code(self, x: Tensor) -> Tensor:
        """g(x), ``(*batch, latent)``.

        Raises:
            InputError: for data of another shape.
        """
        check_shape(x, self.shape, type(self).__name__)
        scaler, coder = self.chain
        assert isinstance(coder, PointPosterior)
        x = x if x.is_floating_point() else x.to(self.dtype)
        return coder.codec.encode(scaler.encode(x).z)

    def decode_mean(self, z: Tensor) -> Tensor:
        """G(z) in the units of the data, ``(*batch, *shape)``.

        Raises:
            InputError: for codes of another width.
        """
        check_shape(z, (self.latent,), f"the decoder of {type(self).__name__}")
        scaler, coder = self.chain
        assert isinstance(coder, PointPosterior)
        return scaler.decode(coder.codec.decode(z))


def input_scaling(shape: Shape, levels: int | None) -> Transform:
    """The scaling of gray levels to [-1, 1], or standardization for real data (levels=None)."""
    if levels is None:
        return Standardize(shape)
    return Affine(shape, shift=-1.0, scale=2 / (check_levels(levels) - 1))


def mmd(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased estimate of the squared maximum mean discrepancy of two samples ``(n, d)``, a scalar.

    It is 0 for fewer than two rows.
    """
    count = len(x)
    if count < 2:
        return 0.0 * x.sum()
    x, y = bound_square(x, 4 * x.shape[1]), bound_square(y, 4 * y.shape[1])

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        square = (a.unsqueeze(1) - b.unsqueeze(0)).square().sum(-1)
        sizes = [2 * a.shape[1] * scale for scale in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)]
        return torch.stack([size / (size + square) for size in sizes]).mean(0)

    off_diagonal = 1 - torch.eye(count, dtype=x.dtype, device=x.device)
    within = ((kernel(x, x) + kernel(y, y)) * off_diagonal).sum() / (count * (count - 1))
    return within - 2 * kernel(x, y).mean()
