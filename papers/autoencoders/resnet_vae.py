"""The residual VAE of IAF's section 4: stochastic layers in a hierarchy, inferred upward and downward, with or without an IAF.

Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling 2016, arXiv 1606.04934, section 4 and appendix.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from pushforward.distributions import Normal
from pushforward.errors import ConfigError
from pushforward.likelihood import REAL, Kind, Measure
from pushforward.models import Model
from pushforward.networks.masked_conv import MaskedConv2d
from pushforward.numerics import Noise, bound_input, normal_like, soft_clamp, sum_event, uniform_like
from pushforward.numerics.checks import check_choice, check_integer, check_positive, check_widths
from pushforward.registry import register
from pushforward.transforms import Chain, GatedTransformer, LogisticLikelihood, Step, Transform
from pushforward.transforms.base import Shape

__all__ = ["ConvolutionalIAF", "Draws", "HierarchicalLatents", "ResNetVAE"]

MAX_LOG_SCALE = 7.0
"""Smooth bound on the log-scales of priors and posteriors."""
BRANCH = 0.1
"""Factor on the branches of the residual blocks."""
_LOG_NORMAL = 0.5 * math.log(2 * math.pi)


class ConvolutionalIAF(nn.Module):
    """Inverse autoregressive steps on maps z, with masked convolutions as autoregressive networks (alg. 1).

    A step is z_i <- g_i z_i + (1 - g_i) m_i with g_i = sigmoid(s_i + 2), where m_i and s_i depend on h and on the coordinates before i:
    pixels in raster order, and in a pixel the channels in their order. The order is reversed after each step. Each network has
    one hidden layer, to which h is added without a mask, so every coordinate depends on all of h near its pixel.

    Args:
        channels: of z.
        hidden: channels of the hidden layer and of h, a multiple of the channels of z.
        steps: number of steps.

    Raises:
        ConfigError: for impossible sizes.

    Example:
        >>> import torch
        >>> z, log_slopes = ConvolutionalIAF(2, 4, steps=2)(torch.zeros(5, 2, 3, 3), torch.zeros(5, 4, 3, 3))
        >>> z.shape, log_slopes.shape
        (torch.Size([5, 2, 3, 3]), torch.Size([5, 2, 3, 3]))
    """

    def __init__(self, channels: int, hidden: int, steps: int = 1) -> None:
        super().__init__()
        check_integer("steps", steps)
        self.transformer = GatedTransformer()
        self.first = nn.ModuleList(MaskedConv2d(channels, hidden, (3, 3), "A", channels) for _ in range(steps))
        self.last = nn.ModuleList(MaskedConv2d(hidden, 2 * channels, (3, 3), "B", channels, 2) for _ in range(steps))
        with torch.no_grad():
            for layer in self.last:
                assert isinstance(layer, MaskedConv2d)
                layer.weight.mul_(0.1)  # the steps start near a mild contraction
                assert layer.bias is not None
                layer.bias.zero_()

    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """z after all steps, and log dz_i / dz_i of each coordinate, both ``(n, channels, height, width)``."""
        total = torch.zeros_like(z)
        for k, (first, last) in enumerate(zip(self.first, self.last, strict=True)):
            if k:
                z, total, h = z.flip(1, 2, 3), total.flip(1, 2, 3), h.flip(2, 3)
            raw = last(F.elu(first(bound_input(z, 10.0)) + h))
            z, log_slopes = self.transformer.forward(z, torch.stack(raw.chunk(2, 1)))
            total = total + log_slopes
        if len(self.first) % 2 == 0:
            z, total = z.flip(1, 2, 3), total.flip(1, 2, 3)
        return z, total


class Downward(NamedTuple):
    """What the downward pass knows before z is drawn: the prior's mean and log-scale, and its part of the posterior.

    Attributes:
        mean: of the prior.
        log_scale: of the prior.
        added_mean: what is added to the mean of the posterior.
        added_log_scale: what is added to its raw log-scale.
        context: what is added to h, without channels if there is no IAF.
        rest: deterministic features.
    """

    mean: Tensor
    log_scale: Tensor
    added_mean: Tensor
    added_log_scale: Tensor
    context: Tensor
    rest: Tensor


class Block(nn.Module):
    """One stochastic layer: a residual block of the upward and one of the downward pass.

    Args:
        width: channels of the deterministic features.
        latent: channels of z.
        steps: steps of the IAF; 0 for a diagonal posterior.
        halves: whether the upward block halves height and width, and the downward block doubles them.
        last: whether no upward block follows, so that the upward features end here.
    """

    def __init__(self, width: int, latent: int, steps: int, halves: bool, last: bool) -> None:
        super().__init__()
        self.halves = halves
        context = width if steps else 0
        self.up_parts = (latent, latent, context, 0 if last else width)
        self.down_parts = (latent, latent, latent, latent, context, width)
        stride = 2 if halves else 1
        self.up_first = nn.Conv2d(width, sum(self.up_parts), 3, stride, 1)
        self.up_last = None if last else nn.Conv2d(width, width, 3, 1, 1)
        self.down_first = nn.Conv2d(width, sum(self.down_parts), 3, 1, 1)
        self.down_last = nn.Conv2d(latent + width, width * stride**2, 3, 1, 1)
        self.iaf = ConvolutionalIAF(latent, width, steps) if steps else None

    def up(self, h: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The features after this block, and its part of the posterior: mean, raw log-scale and context."""
        *inferred, rest = self.up_first(F.elu(h)).split(self.up_parts, 1)
        if self.up_last is None:
            return h, tuple(inferred)
        skip = F.avg_pool2d(h, 2) if self.halves else h
        return skip + BRANCH * self.up_last(F.elu(rest)), tuple(inferred)

    def down(self, h: Tensor) -> Downward:
        """What follows from the layers above."""
        mean, log_scale, *others = self.down_first(F.elu(h)).split(self.down_parts, 1)
        return Downward(mean, soft_clamp(log_scale, MAX_LOG_SCALE), *others)

    def posterior(self, inferred: tuple[Tensor, ...], known: Downward, e: Tensor) -> tuple[Tensor, Tensor]:
        """z ~ q(z | x, layers above) from standard normal noise e, and the terms of its log-density, all shaped as e."""
        mean, log_scale, context = inferred
        log_scale = soft_clamp(log_scale + known.added_log_scale, MAX_LOG_SCALE)
        z = mean + known.added_mean + log_scale.exp() * e
        log_q = -0.5 * e * e - _LOG_NORMAL - log_scale
        if self.iaf is not None:
            z, log_slopes = self.iaf(z, context + known.context)
            log_q = log_q - log_slopes
        return z, log_q

    def close(self, h: Tensor, known: Downward, z: Tensor) -> Tensor:
        """The features after z is drawn, for the next layer."""
        branch = self.down_last(F.elu(torch.cat((z, known.rest), 1)))
        if self.halves:
            h, branch = F.interpolate(h, scale_factor=2.0, mode="nearest"), F.pixel_shuffle(branch, 2)
        return h + BRANCH * branch


def normalize_weight(layer: nn.Conv2d) -> None:
    """Train length and direction of each kernel (Salimans, Kingma 2016, arXiv 1602.07868), as the paper does, in place.

    Without it the residual networks diverge at the learning rates that a short training needs.
    """
    if isinstance(layer, MaskedConv2d):
        with torch.no_grad():
            layer.weight.mul_(layer.mask)  # what the mask hides has no part in the length, and stays 0
    weight_norm(layer)


class Draws(NamedTuple):
    """A draw of all latent variables of images.

    Attributes:
        u: (z - prior mean) / prior scale, ``(n, total)``: standard normal noise for images of the model.
        log_p: log p(x | z), nats, ``(n,)``.
        log_q: log q(z | x), nats, ``(n,)``.
        log_scale: sum of the log-scales of the priors, ``(n,)``.
        divergences: for each layer log q - log p of each coordinate of z, ``(n, latent, height, width)``.
    """

    u: Tensor
    log_p: Tensor
    log_q: Tensor
    log_scale: Tensor
    divergences: list[Tensor]


@register("transforms")
class HierarchicalLatents(Transform):
    """Images to the noise of a hierarchy of latent variables z_1, ..., z_L, of which z_1 is drawn first.

    With u_l = (z_l - mean_l(z_<l)) / scale_l(z_<l) the prior p(z) is a standard normal of u, so the contribution of ``encode`` is
    log p(x | z) - sum_l [ log q(z_l | x, z_<l) + log scale_l ]. An upward pass of x gives every layer its part of the posterior's
    parameters, and the downward pass, which is also the generator, adds its own (bidirectional inference). p(x | z) is a discretized
    logistic around the network's output, with one scale for each color. All convolutions have normalized weights.

    Args:
        shape: (channels, height, width); height and width are halved once for each number of blocks.
        width: channels of the deterministic features.
        latent: channels of each z; with an IAF they divide the width.
        blocks: number of stochastic layers at each resolution, the largest first, which has half the height and width of the image.
        posterior: "diagonal" or "iaf".
        steps: steps of the IAF.
        levels: number of gray levels.

    Raises:
        ConfigError: for impossible sizes or another posterior.
    """

    supports_float64 = False
    kind = Kind.LOWER_BOUND
    codomain = REAL

    def __init__(
        self, shape: Shape, width: int, latent: int, blocks: tuple[int, ...], posterior: str = "iaf", steps: int = 1, levels: int = 256
    ) -> None:  # fmt: skip
        if len(shape) != 3 or any(side % 2 ** len(blocks) for side in shape[1:]):
            raise ConfigError(
                f"shape must be (channels, height, width) with sides that {len(blocks)} halvings divide; got {shape!r}."
            )
        check_choice("posterior", posterior, ("diagonal", "iaf"))
        check_widths("blocks", blocks)
        self.sides = [
            tuple(side // 2 ** (level + 1) for side in shape[1:]) for level, count in enumerate(blocks) for _ in range(count)
        ]  # fmt: skip
        self.sizes = [latent * math.prod(sides) for sides in self.sides]
        super().__init__(shape, sum(self.sizes))
        self.shape, self.width, self.latent, self.blocks = tuple(shape), width, latent, tuple(blocks)
        self.posterior, self.steps, self.levels = posterior, steps, levels
        self.likelihood = LogisticLikelihood(levels, 1)
        self.domain = self.likelihood.support
        count = steps if posterior == "iaf" else 0
        self.stem = nn.Conv2d(shape[0], width, 5, 2, 2)
        places = [(level, k) for level, number in enumerate(blocks) for k in range(number)]
        self.layers = nn.ModuleList(
            Block(width, latent, count, halves=level > 0 and k == 0, last=(level, k) == places[-1])
            for level, k in places
        )
        self.top = nn.Parameter(torch.zeros(width))
        self.image = nn.Conv2d(width, 4 * shape[0], 3, 1, 1)
        self.log_scale = nn.Parameter(torch.full((shape[0],), -2.0))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                normalize_weight(module)

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """u of a draw of all z, with log p(x | z) - log q(z | x) - log of the scales of the priors."""
        drawn = self.draw(x, noise)
        batch = self.batch_shape(x)
        contribution = drawn.log_p - drawn.log_q - drawn.log_scale
        return Step(drawn.u.reshape(*batch, -1), contribution.reshape(batch))

    def draw(self, x: Tensor, noise: Noise) -> Draws:
        """All z from the posterior, for images as one batch."""
        x = x.reshape(-1, *self.in_shape)
        e = normal_like(x, 3, noise, self.out_shape).split(self.sizes, 1)
        h, inferred = self.stem(self.likelihood.network_input(x)), []
        for layer in self._blocks():
            h, part = layer.up(h)
            inferred.append(part)
        h, divergences, scales, log_q, u = self._top(len(x)), [], [], [], []
        for k, layer in reversed(list(enumerate(self._blocks()))):
            known = layer.down(h)
            z, terms = layer.posterior(inferred[k], known, e[k].unflatten(1, (self.latent, *self.sides[k])))
            standard = (z - known.mean) * torch.exp(-known.log_scale)
            divergences.append(terms + 0.5 * standard * standard + _LOG_NORMAL + known.log_scale)
            scales.append(sum_event(known.log_scale, 3))
            log_q.append(sum_event(terms, 3))
            u.append(standard.flatten(1))
            h = layer.close(h, known, z)
        log_p = sum_event(self.likelihood.log_prob(x.movedim(1, -1), self._raw(h)), 3)
        return Draws(torch.cat(u[::-1], 1), log_p, sum(log_q, x.new_zeros(())), sum(scales, x.new_zeros(())), divergences)  # fmt: skip

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Images of noise u: a draw of p(x | z) from a generator, or a value near its median without one."""
        raw, batch = self.raw(z.reshape(-1, *self.out_shape)), z.shape[:-1]
        shape = (*self.in_shape[1:], self.likelihood.draws(self.in_shape[0]))
        if isinstance(noise, torch.Generator):
            uniform = uniform_like(raw, 3, noise, shape)
        else:
            uniform = raw.new_full((len(raw), *shape), 0.5)
        return self.likelihood.sample(raw, uniform).movedim(-1, 1).reshape(*batch, *self.in_shape)

    def raw(self, u: Tensor) -> Tensor:
        """Raw parameters of p(x | z), ``(n, height, width, outputs)``, from noise u, ``(n, total)``."""
        h, parts = self._top(len(u)), u.split(self.sizes, 1)
        for k, layer in reversed(list(enumerate(self._blocks()))):
            known = layer.down(h)
            z = known.mean + known.log_scale.exp() * parts[k].unflatten(1, (self.latent, *self.sides[k]))
            h = layer.close(h, known, z)
        return self._raw(h)

    def measure(self, latent: Measure) -> Measure:
        """Counting: the probability of integers."""
        return self.likelihood.measure(math.prod(self.in_shape))

    def _blocks(self) -> list[Block]:
        return [layer for layer in self.layers if isinstance(layer, Block)]

    def _top(self, rows: int) -> Tensor:
        """The features above the first latent variable."""
        return self.top[:, None, None].expand(rows, self.width, *self.sides[-1])

    def _raw(self, h: Tensor) -> Tensor:
        """The means from the features, with the scales and without dependence between the colors."""
        means = F.pixel_shuffle(self.image(F.elu(h)), 2).movedim(1, -1)
        channels = self.in_shape[0]
        zeros = means.new_zeros(())
        return torch.cat((
            zeros.expand(*means.shape[:-1], 1), means, self.log_scale.expand(means.shape),
            zeros.expand(*means.shape[:-1], channels * (channels - 1) // 2),
        ), -1)  # fmt: skip


@register("models")
class ResNetVAE(Model):
    """The residual VAE with bidirectional inference, log p(x) >= E_q [ log p(x | z) + log p(z) - log q(z | x) ].

    ``evaluate`` draws all z and is a LOWER_BOUND on Counting; ``evaluate(x, samples=k)`` is the importance-weighted bound.

    Args:
        shape: (channels, height, width).
        width: channels of the deterministic features; the paper has 160.
        latent: channels of each z; the paper has 32.
        blocks: number of stochastic layers at each resolution; the paper has (10, 10).
        posterior: "diagonal", or "iaf" (alg. 1).
        steps: steps of the IAF in each layer.
        free_bits: in the training loss the KL of a channel of z, summed over its pixels and averaged over the batch, counts as at
            least this many nats (eq. 15 of the paper). It is never part of the evaluation.
        levels: number of gray levels.

    Raises:
        ConfigError: for impossible sizes or another posterior.

    Example:
        >>> import torch
        >>> model = ResNetVAE((3, 8, 8), width=8, latent=2, blocks=(1, 1))
        >>> x = torch.randint(256, (2, 3, 8, 8))
        >>> model.evaluate(x, samples=4).bits_per_dim().shape, model.sample(2, seed=0).shape
        (torch.Size([2]), torch.Size([2, 3, 8, 8]))
    """

    def __init__(
        self, shape: Shape = (3, 32, 32), *, width: int = 32, latent: int = 8, blocks: tuple[int, ...] = (2, 2), posterior: str = "iaf",
        steps: int = 1, free_bits: float = 0.25, levels: int = 256,
    ) -> None:  # fmt: skip
        check_positive("free_bits", free_bits, zero=True)
        latents = HierarchicalLatents(shape, width, latent, blocks, posterior, steps, levels)
        super().__init__(Chain(latents), Normal(latents.out_shape[0]))
        self.width, self.latent, self.blocks, self.posterior = width, latent, tuple(blocks), posterior
        self.steps, self.free_bits, self.levels = steps, free_bits, levels

    @property
    def latents(self) -> HierarchicalLatents:
        """The only transform."""
        [transform] = self.chain
        assert isinstance(transform, HierarchicalLatents)
        return transform

    def loss(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """-mean of the bound for one draw of z, where each channel's KL is at least ``free_bits``."""
        x, _, far = self.prepare(x, context)
        drawn = self.latents.draw(x, generator)
        kl = torch.cat([each.sum((2, 3)).mean(0) for each in drawn.divergences])
        return kl.clamp(min=self.free_bits).sum() - (drawn.log_p + far.reshape(-1)).mean()
