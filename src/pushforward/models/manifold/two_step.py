"""Two-step models: first a manifold, then a density on it (Loaiza-Ganem, Ross, Cresswell, Caterini 2022)."""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor

from pushforward.distributions import Distribution
from pushforward.errors import ConfigError, InputError, KindError
from pushforward.likelihood import Kind, Lebesgue, Manifold, Measure
from pushforward.models.base import Model
from pushforward.models.flow import Flow
from pushforward.models.latent.autoencoder import AutoEncoder
from pushforward.models.latent.vae import VAE
from pushforward.models.vector.nsf import NSF
from pushforward.numerics import Noise, batch_jacobian, bound_square, is_eager
from pushforward.numerics.checks import check_integer
from pushforward.registry import register
from pushforward.transforms import Chain, Flatten, Inverse, Standardize, Step, Transform, Whiten
from pushforward.transforms.embeddings.jacobian import log_volume

__all__ = ["Injectivity", "TwoStep"]

_JACOBIAN_ROWS = 256
"""Rows whose Jacobians are in memory at the same time."""


class Injectivity(NamedTuple):
    """Result of :meth:`TwoStep.check_injectivity`, in the coordinates of whitened codes.

    Attributes:
        singular_ratio: smallest singular value of the Jacobian of the decoder divided by the largest; the least over
            all codes.
        cycle_error: largest distance between a code and the code that is found from its decoded point alone, root mean
            square over coordinates.
        passed: whether both are within their bounds.
        encoder_error: like ``cycle_error``, for the code that the encoder alone finds: how far the encoder is from the
            inverse of the decoder.
    """

    singular_ratio: float
    cycle_error: float
    passed: bool
    encoder_error: float


class Embed(Transform):
    """z = g(x) of an autoencoder, with -1/2 log det J^T J of its decoder at z.

    With a density of z it is a density on the image of the decoder.
    """

    injective: Tensor

    def __init__(self, model: AutoEncoder | VAE) -> None:
        super().__init__(model.shape, model.base.shape)
        self.model = model
        self.register_buffer("injective", torch.tensor(False))

    @property
    def kind(self) -> Kind:  # pyright: ignore[reportIncompatibleVariableOverride]
        """EXACT for a decoder that has passed the test of injectivity; until then ESTIMATE."""
        passed = not self.injective.is_meta and bool(self.injective)
        return Kind.EXACT if passed else Kind.ESTIMATE

    def train(self, mode: bool = True) -> Embed:
        """Set the mode of the module; training mode resets the result of the test of injectivity."""
        if mode:
            self.injective.fill_(False)
        return super().train(mode)

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """g(x), with the volume of the decoder there and the squared distance of x to G(g(x))."""
        z = self.model.code(x)
        codes = z.reshape(-1, *self.out_shape)
        # J has D d numbers for each row, so only a few rows at a time.
        parts = [self._image(part) for part in (codes.split(_JACOBIAN_ROWS) if is_eager() else (codes,))]
        point, volume = (torch.cat(each) for each in zip(*parts, strict=True))
        error = bound_square(x - point.reshape(x.shape), math.prod(self.in_shape)).flatten(x.dim() - len(self.in_shape))
        return Step(z, -volume.reshape(z.shape[:-1]), error.square().sum(-1))

    def _image(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """G(z) and 1/2 log det J^T J there."""
        point, jacobian = batch_jacobian(self.model.decode_mean, z)
        precision = max(16 * torch.finfo(jacobian.dtype).eps, 4e-8)  # of a Jacobian that is computed in its own type
        return point, log_volume(jacobian, precision)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """G(z), without observation noise."""
        return self.model.decode_mean(z)

    def measure(self, latent: Measure) -> Measure:
        """Lebesgue(d) becomes Manifold(d, D).

        Raises:
            KindError: for a latent density on anything else.
        """
        width = self.out_shape[0]
        _check_measure(latent, width)
        return Manifold(width, math.prod(self.in_shape))

    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Set the data-dependent state of the autoencoder; return the codes."""
        self.model.initialize(x)
        return self.model.code(x)


def _check_measure(measure: Measure, width: int) -> None:
    """Refuse a density of the codes on anything but real numbers."""
    if measure != Lebesgue(width):
        raise KindError(f"the codes of a two-step model need a density on {width} reals; got one on {measure}.")


@register("models")
class TwoStep(Model):
    """An autoencoder and a density p_Z of its codes: a density on the image of the decoder G (arXiv 2204.07172).

    log p(x) = log p_Z(g(x)) - 1/2 log det( J^T J ) with J = dG/dz at z = g(x). Samples are G(z), z ~ p_Z.

    If the data are on a manifold of d < D dimensions, a density on R^D can be arbitrarily large near the manifold with
    any distribution along it, and maximum likelihood no longer learns the distribution of the data. So the first step
    fits an autoencoder, which learns the manifold. The second step fixes the autoencoder, whitens its codes and fits a
    density to them. :func:`pushforward.training.fit_two_step` does both steps, and
    :func:`pushforward.data.intrinsic_dimension` estimates d from the rows.

    ``evaluate`` returns a value on Manifold(d, D), in nats for data units to the power -d, for the point G(g(x)).
    ``residual`` is the squared distance of x to that point, which is the nearest one only as far as the encoder is the
    inverse of the decoder: see ``encoder_error`` of :class:`Injectivity`. Report both: neither is enough alone. J is
    computed by d forward-mode products. The kind is ESTIMATE until :meth:`check_injectivity` has passed, and then the kind of
    ``density``. Where J does not have rank d in the precision of its type, there is no density on d dimensions: the
    contribution "0.Embed" is -inf in ``terms``.

    Args:
        autoencoder: an :class:`AutoEncoder`, or a :class:`VAE`, whose codes and points are the means of
            q(z | x) and p(x | z).
        density: the density of the whitened codes: a model or a distribution on Lebesgue(d); None for a spline flow. A
            model of images sees the d numbers as (channels, height, width), one channel after the other.

    Raises:
        ConfigError: for parts that do not fit together, or d > D.
        KindError: for a VAE that binarizes its data, because its codes are random, or a density on anything but real numbers.

    Example:
        >>> import torch, pushforward as pf
        >>> model = TwoStep(AutoEncoder(3, latent=2, hidden=(16,)), pf.distributions.GaussianMixture(2, 3))
        >>> found = model.evaluate(torch.randn(5, 3))
        >>> found.measure, found.residual.shape
        (Measure(name='Manifold', dim=2, ambient=3, counted=0), torch.Size([5]))
        >>> model.sample(4, seed=0).shape
        torch.Size([4, 3])
    """

    def __init__(self, autoencoder: AutoEncoder | VAE, density: Model | Distribution | None = None) -> None:
        if not isinstance(autoencoder, (AutoEncoder, VAE)):
            raise ConfigError(f"autoencoder must be an AutoEncoder or a VAE; got {autoencoder!r:.80}.")
        if isinstance(autoencoder, VAE) and autoencoder.binarize:
            raise KindError("a VAE that binarizes its data gives random codes: train one with binarize=False.")
        width = autoencoder.latent
        if width > math.prod(autoencoder.shape):
            raise ConfigError(
                f"a manifold of {width} dimensions does not fit into {math.prod(autoencoder.shape)} dimensions."
            )
        density = NSF(width) if density is None else density
        if isinstance(density, Distribution):
            density = Flow(Standardize(density.shape), density)
        if isinstance(density, Model) and density.shape != (width,) == (math.prod(density.shape),):
            density = Flow(Chain(Inverse(Flatten(density.shape)), *density.chain), density.base)
        if not isinstance(density, Model) or density.shape != (width,):
            raise ConfigError(f"density must be a model or a distribution of {width} coordinates; got {density!r:.80}.")
        if density.context_features:
            raise ConfigError("the density of the codes cannot have a context.")
        if others := [key for key in density.state_dict() if not key.startswith(("chain.", "base."))]:
            raise ConfigError(
                "the density of the codes must have its state in its transforms and its base; "
                f"{type(density).__name__} also has {others[0]!r}."
            )
        _check_measure(density.measure, width)
        super().__init__(Chain(Embed(autoencoder), Whiten(width), *density.chain), density.base)
        # The parts of the density are in the chain. Registered as a module again, they would be twice in a file.
        object.__setattr__(self, "density", density)

    density: Model
    """The density of the whitened codes; its parts are parts of the chain."""

    @property
    def autoencoder(self) -> AutoEncoder | VAE:
        """The autoencoder."""
        return self.embed.model

    @property
    def embed(self) -> Embed:
        """The transform from data to codes."""
        return cast("Embed", self.chain[0])

    @property
    def whiten(self) -> Whiten:
        """The transform from codes to whitened codes."""
        return cast("Whiten", self.chain[1])

    def loss(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """The sum of the losses of both steps, a scalar.

        The gradient of the second does not reach the codes: its likelihood has no Jacobian, so it would shrink them.
        The method of the paper trains one step after the other, as in ``fit_two_step``.
        """
        x, _, far = self.prepare(x, context)
        codes = self.whiten.encode(self.autoencoder.code(x)).z.detach()
        return (
            self.autoencoder.loss(x, generator=generator) + self.density.loss(codes, generator=generator) - far.mean()
        )

    @torch.no_grad()
    def codes(self, x: Tensor, *, batch_size: int = 1024) -> Tensor:
        """Whitened codes of rows ``(n, *shape)``, ``(n, d)``, computed batch by batch."""
        check_integer("batch_size", batch_size)
        x, _, _ = self.prepare(x, None)
        return torch.cat([self.whiten.encode(self.autoencoder.code(part)).z for part in x.split(batch_size)])

    @torch.no_grad()
    def check_injectivity(
        self,
        x: Tensor,
        *,
        samples: int = 256,
        min_singular_ratio: float = 1e-3,
        max_cycle_error: float = 0.1,
        refinement_steps: int = 5,
        seed: int = 0,
    ) -> Injectivity:
        """Test whether the decoder is injective where the density is, and store the result.

        The result decides the kind of ``evaluate``.

        The test reads the codes of held-out rows and codes drawn from the density. J must have full rank, so that G is
        injective near each code. And h(G(z)) must be z up to ``max_cycle_error``, where h finds a code from a point:
        two codes that decode to the same point have the same h(G(z)), so they are at most twice that distance apart. h
        is the encoder and then up to ``refinement_steps`` damped Gauss-Newton steps toward the point: an encoder is
        trained on data, and for other points of the manifold its code is only approximate. The test says nothing about
        codes that it did not read, and ``train()`` resets its result.

        Args:
            x: held-out rows, ``(n, *shape)``.
            samples: number of codes drawn from the density.
            min_singular_ratio: least allowed ratio of the singular values of J, in whitened coordinates.
            max_cycle_error: largest allowed distance, root mean square over the whitened coordinates.
            refinement_steps: largest number of Gauss-Newton steps; 0 for the encoder alone.
            seed: seed of the draws.

        Raises:
            InputError: if there is no row.
            ConfigError: for a negative number of steps.
        """
        if len(x) == 0:
            raise InputError("check_injectivity needs at least one held-out row; got none.")
        check_integer("refinement_steps", refinement_steps, 0)
        drawn = self.density.sample(samples, seed=seed).to(self.dtype)
        ratios, cycle_errors, encoder_errors = [], [], []
        for part in torch.cat((self.codes(x), drawn)).split(_JACOBIAN_ROWS):
            point, jacobian = batch_jacobian(self._decode_whitened, part)
            values = torch.linalg.svdvals(jacobian.double())
            ratios.append(values[:, -1] / values[:, 0].clamp(min=1e-300))
            found = self.whiten.encode(self.autoencoder.code(point)).z
            encoder_errors.append(_distance(found, part))
            cycle_errors.append(_distance(self._nearest(point, found, refinement_steps), part))
        ratio = torch.cat(ratios).min().item()
        cycle_error, encoder_error = torch.cat(cycle_errors).max().item(), torch.cat(encoder_errors).max().item()
        passed = ratio >= min_singular_ratio and cycle_error <= max_cycle_error
        self.embed.injective.fill_(passed)
        return Injectivity(ratio, cycle_error, passed, encoder_error)

    def _decode_whitened(self, w: Tensor) -> Tensor:
        """G at whitened codes."""
        return self.autoencoder.decode_mean(self.whiten.decode(w))

    def _nearest(self, point: Tensor, start: Tensor, steps: int) -> Tensor:
        """Whitened codes whose decoded points are closer to the given points, ``(n, d)``.

        Each row takes its own Levenberg-Marquardt steps.

        If ``start`` is a function of the point, so is the result: it never reads the code that the point was decoded
        from.
        """
        code, damping = start, torch.full((len(start), 1), 1e-3, dtype=torch.float64, device=start.device)
        decoded, jacobian = batch_jacobian(self._decode_whitened, code)
        error = (point - decoded).double().flatten(1)
        for _ in range(steps):
            j = jacobian.double()
            gram = j.mT @ j
            scale = gram.diagonal(dim1=-2, dim2=-1)
            ridge = damping * scale + 1e-12 * scale.mean(-1, keepdim=True).clamp(min=1e-300)
            step = torch.linalg.solve_ex(gram + torch.diag_embed(ridge), (j.mT @ error[..., None]))[0][..., 0]
            candidate = code + step.to(code.dtype)  # a candidate that is not finite is never better
            decoded, candidate_jacobian = batch_jacobian(self._decode_whitened, candidate)
            candidate_error = (point - decoded).double().flatten(1)
            better = (candidate_error.square().sum(1) < error.square().sum(1))[:, None]
            damping = torch.where(better, damping / 10, damping * 10).clamp(1e-12, 1e12)
            code, error = torch.where(better, candidate, code), torch.where(better, candidate_error, error)
            jacobian = torch.where(better[..., None], candidate_jacobian, jacobian)
            if (step.abs() < 1e-4).all():
                break
        return code


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Root mean square over the coordinates, ``(n,)``; +inf where it is not finite."""
    distance = (a - b).double().square().mean(-1).sqrt()
    return torch.where(torch.isfinite(distance), distance, math.inf)
