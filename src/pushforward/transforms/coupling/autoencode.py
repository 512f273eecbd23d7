"""Autoencoders within flows: encoder and decoder as two couplings of one transform (Silvestri et al. 2023)."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError, KindError
from pushforward.likelihood import REAL, Extended, Kind, Measure
from pushforward.networks.codec import encoder_and_decoder
from pushforward.numerics import Noise, normal_like, soft_clamp, sum_event
from pushforward.numerics.checks import check_choice, check_indices, check_integer, check_positive, check_widths
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform, as_shape
from pushforward.transforms.elementwise.normalization import fixed_statistics
from pushforward.transforms.linear.permutation import inverse_permutation
from pushforward.transforms.surjections.conditional import MAX_LOG_SCALE, require_lebesgue

__all__ = ["Autoencode", "LinearAutoencode", "core_of"]


MAX_SIZE = 2**20
"""Largest number of coordinates among which a core is chosen, so that an untrusted file cannot make a constructor run for hours."""


class AutoencodingTransform(Transform):
    """Shared parts of both forms: the networks, their scales, and the flow of the core. Not for use by itself."""

    max_log_scale = 7.0
    """Smooth bound on |log sigma| of the encoder; that of the decoder is ``MAX_LOG_SCALE`` of the conditional densities."""

    def __init__(
        self,
        features: int | Shape,
        latent: int,
        flow: Transform | None,
        hidden: tuple[int, ...],
        channels: tuple[int, ...],
        activation: str,
    ) -> None:
        shape, owner = as_shape(features), type(self).__name__
        latent = check_integer("latent", latent)
        super().__init__(shape)
        if len(shape) not in (1, 3):
            raise ConfigError(f"features must be a width or (channels, height, width); got {features!r}.")
        if flow is not None and (not isinstance(flow, Transform) or {flow.in_shape, flow.out_shape} != {(latent,)}):
            raise ConfigError(f"flow must be a transform of {latent} coordinates; got {flow!r:.80}.")
        if flow is not None and not flow.bijective:
            raise KindError(f"{type(flow).__name__} is not a bijection, so it cannot be the flow of {owner}.")
        if flow is not None and flow.context:
            raise ConfigError(f"flow must not read a context; got one that reads a context of width {flow.context}.")
        if flow is not None and {flow.domain, flow.codomain} - {REAL, None}:
            raise ConfigError(
                f"flow must be a bijection of all reals, because the core and the code of {owner} are any reals; "
                f"{type(flow).__name__} maps {flow.domain} to {flow.codomain}."
            )
        self.features, self.latent, self.flow = features, latent, flow
        self.hidden, self.channels = check_widths("hidden", hidden), check_widths("channels", channels)
        self.activation = activation
        # Outputs as in a VAE with a Gaussian likelihood: mean and log-scale of the code, and of each channel of each pixel.
        count = 2 * (shape[0] if len(shape) == 3 else 1)
        self.encoder, self.decoder = encoder_and_decoder(
            shape, latent, 2 * latent, count, self.hidden, self.channels, activation
        )

    def encoder_parameters(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """mu_e and log sigma_e, each ``(*batch, latent)``."""
        inputs = x.clamp(-10, 10)
        if not self.channels:
            inputs = inputs.flatten(x.dim() - len(self.in_shape))
        mean, log_scale = self.encoder(inputs).to(x.dtype).chunk(2, -1)
        return mean, soft_clamp(log_scale, self.max_log_scale)

    def decoder_parameters(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """mu_d and log sigma_d of each coordinate, ``(*batch, D)`` in the order of the flattened event."""
        out, batch = self.decoder(z).to(z.dtype), z.shape[:-1]
        if len(self.in_shape) == 3:
            channels, pixels = self.in_shape[0], self.in_shape[1] * self.in_shape[2]
            if self.channels:
                out = out.reshape(*batch, channels, 2, pixels).movedim(-2, -1)
            else:
                out = out.reshape(*batch, pixels, channels, 2).movedim(-3, -2)
        mean, log_scale = out.reshape(*batch, math.prod(self.in_shape), 2).unbind(-1)
        return mean, soft_clamp(log_scale, MAX_LOG_SCALE)

    def apply_flow(self, core: Tensor) -> tuple[Tensor, Tensor]:
        """F of the core, and log abs det F."""
        if self.flow is None:
            return core, core.new_zeros(core.shape[:-1])
        transformed, contribution = self.flow.decode_with_contribution(core)
        return transformed, -contribution

    def flat(self, x: Tensor) -> Tensor:
        """x as vectors, ``(*batch, D)``."""
        return x.flatten(x.dim() - len(self.in_shape))


@register("transforms")
class Autoencode(AutoencodingTransform):
    """Autoencoder within a flow whose core is a part of the coordinates: the partition form (Silvestri, Roos, Ambrogioni 2023, arXiv 2205.09546).

    The d coordinates of the *core* c and the other D - d, the *shell* s, are transformed by

        z_1 = mu_e(s) + sigma_e(s) F(c),    delta = (s - mu_d(z_1)) / sigma_d(z_1),    z = (z_1, delta),
        contribution = sum log sigma_e - sum_shell log sigma_d + log abs det F.

    This is a coupling of the core given the shell, then one of the shell given the new core: a bijection, EXACT. The encoder
    reads zeros in place of the core. z_1 is the code, and delta the residual of the reconstruction in units of sigma_d.

    Args:
        features: number of coordinates D, or (channels, height, width).
        latent: size d of the core, below D; for images a multiple of the number of channels.
        flow: F, a bijection of all reals of d coordinates that is applied to the core by its *decode* (as the flow of a posterior
            is applied to a normal draw); None is the identity.
        core: for images "center" or "corner", with all channels of a pixel; for vectors both are the first coordinates. Or a
            tuple of d indices of the flattened event.
        hidden: widths of the hidden layers of encoder and decoder.
        channels: widths of convolutional layers, used instead for images; each layer halves height and width.
        activation: name of the activation function.

    Raises:
        ConfigError: for impossible sizes, or a core or a flow that does not fit.
        KindError: if ``flow`` is not a bijection.

    Example:
        >>> import torch
        >>> transform = Autoencode(5, latent=2, hidden=(8,))
        >>> x = torch.randn(3, 5)
        >>> torch.allclose(transform.decode(transform.encode(x).z), x, atol=1e-5)
        True
    """

    index_buffers = ("core_indices", "shell_indices")
    core_indices: Tensor
    shell_indices: Tensor
    inverse_order: Tensor

    def __init__(
        self,
        features: int | Shape,
        latent: int = 1,
        flow: Transform | None = None,
        *,
        core: str | tuple[int, ...] = "center",
        hidden: tuple[int, ...] = (128, 128),
        channels: tuple[int, ...] = (),
        activation: str = "relu",
    ) -> None:
        super().__init__(features, latent, flow, hidden, channels, activation)
        self.core = core
        size = math.prod(self.in_shape)
        chosen = core_of(self.in_shape, latent, core)
        self.out_shape = (size,)
        in_core = set(chosen)
        shell = [i for i in range(size) if i not in in_core]
        self.register_buffer("core_indices", torch.tensor(chosen))
        self.register_buffer("shell_indices", torch.tensor(shell))
        self.register_buffer("inverse_order", inverse_permutation([*chosen, *shell]))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """``(*batch, *features)`` to ``(*batch, D)``: the code and then the residuals."""
        flat = self.flat(x)
        shell = flat.index_select(-1, self.shell_indices)
        mean, log_scale = self.encoder_parameters(self._without_core(shell))
        core, log_det = self.apply_flow(flat.index_select(-1, self.core_indices))
        code = mean + log_scale.exp() * core
        center, log_spread = self._shell_parameters(code)
        delta = (shell - center) * torch.exp(-log_spread)
        contribution = log_det + sum_event(log_scale, 1) - sum_event(log_spread, 1)
        return Step(torch.cat((code, delta), -1), contribution)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """``(*batch, D)`` to ``(*batch, *features)``: the shell from the code, then the core from the shell."""
        code, delta = z[..., : self.latent], z[..., self.latent :]
        center, log_spread = self._shell_parameters(code)
        shell = center + log_spread.exp() * delta
        mean, log_scale = self.encoder_parameters(self._without_core(shell))
        core = (code - mean) * torch.exp(-log_scale)
        if self.flow is not None:
            with fixed_statistics(self.flow):  # apply_flow, which decodes it, uses them too
                core = self.flow.encode(core).z
        return self._joined(core, shell)

    def _shell_parameters(self, code: Tensor) -> tuple[Tensor, Tensor]:
        center, log_spread = self.decoder_parameters(code)
        return center.index_select(-1, self.shell_indices), log_spread.index_select(-1, self.shell_indices)

    def _without_core(self, shell: Tensor) -> Tensor:
        return self._joined(shell.new_zeros(*shell.shape[:-1], self.latent), shell)

    def _joined(self, core: Tensor, shell: Tensor) -> Tensor:
        flat = torch.cat((core, shell), -1).index_select(-1, self.inverse_order)
        return flat.reshape(*shell.shape[:-1], *self.in_shape)


def core_of(shape: Shape, latent: int, core: str | tuple[int, ...]) -> list[int]:
    """Indices of the core in the flattened event.

    Raises:
        ConfigError: for an unknown name, indices that do not fit, or a size that does not.
    """
    size = math.prod(shape)
    if size > MAX_SIZE:
        raise ConfigError(f"features must have at most {MAX_SIZE:,} coordinates; the shape {shape} has {size:,}.")
    if not latent < size:
        raise ConfigError(
            f"latent must be less than the {size} coordinates of the data, because the shell needs at least one; got {latent}."
        )
    if not isinstance(core, str):
        chosen = check_indices("core", core, size)
        if len(chosen) != latent:
            raise ConfigError(f"core must contain {latent} distinct indices in 0, ..., {size - 1}; got {core!r:.80}.")
        return list(chosen)
    check_choice("core", core, ("center", "corner"))
    if len(shape) == 1:
        return list(range(latent))
    channels, height, width = shape
    if latent % channels:
        raise ConfigError(
            f"latent must be a multiple of the {channels} channels, because a core has all channels of a pixel; got {latent}."
        )
    middle = ((height - 1) / 2, (width - 1) / 2) if core == "center" else (0.0, 0.0)

    def distance(pixel: int) -> tuple[float, float]:
        row, column = abs(pixel // width - middle[0]), abs(pixel % width - middle[1])
        return max(row, column), row + column

    pixels = sorted(range(height * width), key=distance)[: latent // channels]
    return sorted(channel * height * width + pixel for pixel in pixels for channel in range(channels))


@register("transforms")
class LinearAutoencode(AutoencodingTransform):
    """Autoencoder within a flow whose core is a linear function of the data: the linear form (Silvestri, Roos, Ambrogioni 2023, arXiv 2205.09546).

    The data are extended by d further numbers u = W x:

        z_1 = mu_e(x) + sigma_e(x) F(u),    delta = (x - mu_d(z_1)) / sigma_d(z_1),    z = (z_1, delta),
        contribution = sum log sigma_e - sum log sigma_d + log abs det F.

    With ``scale = 0`` the result is the log-density of (x, u) at u = W x, EXACT on Extended(D + d, D). It is neither log p(x)
    nor a bound of it, as the density p(u | x) may be large. With ``scale > 0``, u is drawn from N(W x, scale^2) and its
    log-density is subtracted, so that several draws in ``evaluate`` give an importance estimate of log p(x): LOWER_BOUND, on
    Lebesgue(D). ``decode`` does not use u.

    Args:
        features: number of coordinates D, or (channels, height, width).
        latent: number d of coordinates that are added.
        flow: F, as in :class:`~pushforward.transforms.Autoencode`.
        scale: standard deviation of u around W x; 0 for the extended density.
        hidden: widths of the hidden layers of encoder and decoder.
        channels: widths of convolutional layers, used instead for images; each layer halves height and width.
        activation: name of the activation function.

    Raises:
        ConfigError: for impossible sizes, a flow that does not fit, or a scale that is negative or not finite.
        KindError: if ``flow`` is not a bijection, or the rest of the chain has no density on R^(D + d).

    Example:
        >>> import torch
        >>> from pushforward.likelihood import Lebesgue
        >>> transform = LinearAutoencode(5, latent=2, hidden=(8,))
        >>> str(transform.measure(Lebesgue(7))), str(transform.reduced(0.1).measure(Lebesgue(7)))
        ('Extended(7, 5)', 'Lebesgue(5)')
    """

    supports_float64 = False

    def __init__(
        self,
        features: int | Shape,
        latent: int = 1,
        flow: Transform | None = None,
        *,
        scale: float = 0.0,
        hidden: tuple[int, ...] = (128, 128),
        channels: tuple[int, ...] = (),
        activation: str = "relu",
    ) -> None:
        super().__init__(features, latent, flow, hidden, channels, activation)
        self.scale = check_positive("scale", scale, zero=True)
        self.out_shape = (math.prod(self.in_shape) + latent,)
        self.extension = nn.Linear(math.prod(self.in_shape), latent, bias=False)

    @property
    def kind(self) -> Kind:  # pyright: ignore[reportIncompatibleVariableOverride]
        """EXACT for the extended density, LOWER_BOUND where u is drawn."""
        return Kind.LOWER_BOUND if self.scale else Kind.EXACT

    def reduced(self, scale: float) -> LinearAutoencode:
        """This transform with u drawn from N(W x, scale^2); it shares its weights.

        Raises:
            ConfigError: if the scale is not positive and finite.
        """
        other = copy.copy(self)
        other.scale = check_positive("scale", scale)
        return other

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """``(*batch, *features)`` to ``(*batch, D + d)``: the code and then the residuals."""
        flat = self.flat(x)
        u, contribution = self.extension(flat).to(x.dtype), self.zero_log_det(x)
        if self.scale:
            e = normal_like(flat, 1, noise, (self.latent,))
            u = u + self.scale * e
            contribution = sum_event(0.5 * e * e + 0.5 * math.log(2 * math.pi) + math.log(self.scale), 1)
        core, log_det = self.apply_flow(u)
        mean, log_scale = self.encoder_parameters(x)
        code = mean + log_scale.exp() * core
        center, log_spread = self.decoder_parameters(code)
        delta = (flat - center) * torch.exp(-log_spread)
        contribution = contribution + log_det + sum_event(log_scale, 1) - sum_event(log_spread, 1)
        return Step(torch.cat((code, delta), -1), contribution)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """``(*batch, D + d)`` to ``(*batch, *features)``: mu_d + sigma_d delta."""
        center, log_spread = self.decoder_parameters(z[..., : self.latent])
        flat = center + log_spread.exp() * z[..., self.latent :]
        return flat.reshape(*z.shape[:-1], *self.in_shape)

    def measure(self, latent: Measure) -> Measure:
        """Lebesgue(D + d) becomes Extended(D + d, D), or Lebesgue(D) where u is drawn."""
        size = math.prod(self.in_shape)
        plain = require_lebesgue(latent, size, "LinearAutoencode")
        return plain if self.scale else Extended(size + self.latent, size)
