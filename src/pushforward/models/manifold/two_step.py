"""Two-step models: a manifold first, then a density on it (Loaiza-Ganem, Ross, Cresswell, Caterini 2022)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pushforward.distributions import Distribution
from pushforward.errors import ConfigError, InputError, KindError
from pushforward.likelihood import Kind, Lebesgue, Manifold, Measure
from pushforward.models.base import Flow, Model
from pushforward.models.latent.autoencoder import AutoEncoder
from pushforward.models.latent.vae import VAE
from pushforward.models.vector.nsf import NSF
from pushforward.numerics import Noise, batch_jacobian, bound_square, is_eager
from pushforward.numerics.checks import check_integer
from pushforward.registry import register
from pushforward.transforms import Chain, Flatten, Inverse, Standardize, Step, Transform, Whiten

__all__ = ["Injectivity", "TwoStep", "log_volume"]

_ROWS = 256
"""Rows whose Jacobians are held at once."""


class Injectivity(NamedTuple):
    """What :meth:`TwoStep.check_injectivity` found.

    Attributes:
        singular: smallest singular value of the decoder's Jacobian over its largest, the least over all codes; coordinates
            are whitened codes.
        cycle: largest distance of a whitened code to the one that is found again from its point alone, root mean square over
            coordinates.
        passed: whether both are within bounds.
        encoder: as ``cycle``, where the encoder alone finds the code: how far it is from the decoder's inverse.
    """

    singular: float
    cycle: float
    passed: bool
    encoder: float


class Embed(Transform):
    """z = g(x) of an autoencoder, with -1/2 log det J^T J of its decoder at z: a density on the decoder's image."""

    injective: Tensor

    def __init__(self, model: AutoEncoder | VAE) -> None:
        super().__init__(model.shape, model.base.shape)
        self.model = model
        self.register_buffer("injective", torch.tensor(False))

    @property
    def kind(self) -> Kind:  # pyright: ignore[reportIncompatibleVariableOverride]
        """EXACT for a decoder that was tested to be injective; until then ESTIMATE."""
        known = not self.injective.is_meta and bool(self.injective)
        return Kind.EXACT if known else Kind.ESTIMATE

    def train(self, mode: bool = True) -> Embed:
        """As of any module; training may change the decoder, so it is no longer known to be injective."""
        if mode:
            self.injective.fill_(False)
        return super().train(mode)

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """g(x), with the decoder's volume there and the squared distance of x to G(g(x))."""
        z = self.model.code(x)
        codes = z.reshape(-1, *self.out_shape)
        # J is large, D d numbers a row: a few rows at a time.
        parts = [self._image(part) for part in (codes.split(_ROWS) if is_eager() else (codes,))]
        point, volume = (torch.cat(each) for each in zip(*parts, strict=True))
        miss = bound_square(x - point.reshape(x.shape), math.prod(self.in_shape)).flatten(x.dim() - len(self.in_shape))
        return Step(z, -volume.reshape(z.shape[:-1]), miss.square().sum(-1))

    def _image(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """G(z) and 1/2 log det J^T J there."""
        point, jacobian = batch_jacobian(self.model.point, z)
        return point, log_volume(jacobian)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """G(z), without observation noise."""
        return self.model.point(z)

    def measure(self, latent: Measure) -> Measure:
        """Lebesgue(d) becomes Manifold(d, D).

        Raises:
            KindError: for a latent density on anything else.
        """
        width = self.out_shape[0]
        if latent != Lebesgue(width):
            raise KindError(f"the codes of a two-step model want a density on {width} reals; got one on {latent}.")
        return Manifold(width, math.prod(self.in_shape))

    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Set the autoencoder's data-dependent state; return the codes."""
        self.model.initialize(x)
        return self.model.code(x)


@register("models")
class TwoStep(Model):
    """log p(x) = log p_Z(g(x)) - 1/2 log det( J^T J ) with J = dG/dz at z = g(x): the density, on the d-dimensional image of
    the decoder G, of a density p_Z of codes (arXiv 2204.07172). Samples are G(z), z ~ p_Z.

    Where data lie on a manifold of d < D dimensions, a density on R^D can be as large as one likes near it whatever
    its law along it: likelihood no longer learns the data. So first an autoencoder learns where they are, and
    then, its codes frozen and whitened, a density is fitted to them: :func:`pushforward.training.fit_two_step` does both, and
    :func:`pushforward.data.intrinsic_dimension` estimates d from the rows.

    ``evaluate`` returns a value on Manifold(d, D), in nats for data units to the power -d, of the point G(g(x)), with the
    squared distance of x to it as ``residual``; neither number says enough without the other. J is found by d
    forward-mode products. The kind is ESTIMATE until :meth:`check_injectivity` has passed, then that of ``second``. Where J has
    no rank d, in the digits of its type, there is no density on d dimensions: the contribution "0.Embed" is -inf in ``terms``.

    Args:
        first: the autoencoder: an :class:`AutoEncoder`, or a :class:`VAE`, of which the means of q(z | x) and p(x | z) are taken.
        second: the density of the whitened codes: a model or a base on Lebesgue(d); a spline flow by default. One of images, as
            a PixelCNN with a continuous law, sees the d numbers as (channels, height, width), a channel after the other.

    Raises:
        ConfigError: for parts that do not fit, or d > D.
        KindError: for a VAE that binarizes its data, whose codes are random.

    Example:
        >>> import torch, pushforward as pf
        >>> model = TwoStep(AutoEncoder(3, latent=2, hidden=(16,)), pf.distributions.GaussianMixture(2, 3))
        >>> found = model.evaluate(torch.randn(5, 3))
        >>> found.measure, found.residual.shape
        (Measure(kind='Manifold', dim=2, ambient=3, counted=0), torch.Size([5]))
        >>> model.sample(4, seed=0).shape
        torch.Size([4, 3])
    """

    def __init__(self, first: AutoEncoder | VAE, second: Model | Distribution | None = None) -> None:
        if not isinstance(first, (AutoEncoder, VAE)):
            raise ConfigError(f"first must be an AutoEncoder or a VAE; got {first!r:.80}.")
        if isinstance(first, VAE) and first.binarize:
            raise KindError("a VAE that binarizes its data gives random codes: train one with binarize=False.")
        width = first.latent
        if width > math.prod(first.shape):
            raise ConfigError(f"a manifold of {width} dimensions does not fit into {math.prod(first.shape)}.")
        second = NSF(width) if second is None else second
        if isinstance(second, Distribution):
            second = Flow(Standardize(second.shape), second)
        if isinstance(second, Model) and second.shape != (width,) == (math.prod(second.shape),):
            second = Flow(Chain(Inverse(Flatten(second.shape)), *second.chain), second.base)
        if not isinstance(second, Model) or second.shape != (width,):
            raise ConfigError(f"second must be a model or a base of {width} coordinates; got {second!r:.80}.")
        if second.context_features:
            raise ConfigError("the density of the codes cannot read a context.")
        if strays := [key for key in second.state_dict() if not key.startswith(("chain.", "base."))]:
            raise ConfigError(
                f"{type(second).__name__} has state beside its transforms and its base, as {strays[0]!r}."
            )
        super().__init__(Chain(Embed(first), Whiten(width), *second.chain), second.base)
        # Its parts are in the chain already: registered again, a file would hold them twice.
        object.__setattr__(self, "second", second)

    second: Model
    """The density of the whitened codes; its parts are those of the chain."""

    @property
    def first(self) -> AutoEncoder | VAE:
        """The autoencoder."""
        return self.embed.model

    @property
    def embed(self) -> Embed:
        """The transform from data to codes."""
        part = self.chain[0]
        assert isinstance(part, Embed)
        return part

    @property
    def whiten(self) -> Whiten:
        """The transform from codes to whitened codes."""
        part = self.chain[1]
        assert isinstance(part, Whiten)
        return part

    def loss(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """The sum of both steps' losses, with the codes cut off from the gradient of the second: its likelihood has no
        Jacobian, so that it would shrink them. One step after the other, as in ``fit_two_step``, is the method."""
        x, _, far = self._prepare(x, context)
        codes = self.whiten.encode(self.first.code(x)).z.detach()
        return self.first.loss(x, generator=generator) + self.second.loss(codes, generator=generator) - far.mean()

    @torch.no_grad()
    def codes(self, x: Tensor, *, batch: int = 1024) -> Tensor:
        """Whitened codes of rows ``(n, *shape)``, ``(n, d)``, found batch by batch."""
        x, _, _ = self._prepare(x, None)
        return torch.cat([self.whiten.encode(self.first.code(part)).z for part in x.split(batch)])

    @torch.no_grad()
    def check_injectivity(
        self, x: Tensor, *, draws: int = 256, singular: float = 1e-3, cycle: float = 0.1, refine: int = 5, seed: int = 0
    ) -> Injectivity:
        """Test that the decoder is injective where the density is, and remember it: the kind follows.

        At the codes of held-out rows and at as many codes as asked for drawn from the second step. J must have full rank, so
        that G is injective nearby. And h(G(z)) must be z, up to ``cycle``, where h finds a code from a point: two codes that
        decode to one point have one h(G(z)), so no two that lie further apart than twice that can. h is the encoder and then
        up to ``refine`` damped Gauss-Newton steps toward the point, since an encoder is trained on data and finds the codes of
        other points of the manifold only about. The test says nothing of codes that it did not see, and ``train()`` forgets it.

        Args:
            x: held-out rows, ``(n, *shape)``.
            draws: codes drawn from the second step.
            singular: least ratio of the singular values of J, in whitened coordinates.
            cycle: largest distance, root mean square over the whitened coordinates.
            refine: largest number of Gauss-Newton steps; 0 for the encoder alone.
            seed: of the draws.

        Raises:
            InputError: if there is no row.
            ConfigError: for a negative number of steps.
        """
        if len(x) == 0:
            raise InputError("check_injectivity needs held-out rows; got none.")
        check_integer("refine", refine, 0)
        drawn = self.second.sample(draws, seed=seed).to(self.dtype)
        ratios, cycles, plain = [], [], []
        for part in torch.cat((self.codes(x), drawn)).split(_ROWS):
            point, jacobian = batch_jacobian(self._decoded, part)
            values = torch.linalg.svdvals(jacobian.double())
            ratios.append(values[:, -1] / values[:, 0].clamp(min=1e-300))
            found = self.whiten.encode(self.first.code(point)).z
            plain.append(_distance(found, part))
            cycles.append(_distance(self._nearest(point, found, refine), part))
        worst = torch.cat(ratios).min().item()
        longest, encoder = torch.cat(cycles).max().item(), torch.cat(plain).max().item()
        passed = worst >= singular and longest <= cycle
        self.embed.injective.fill_(passed)
        return Injectivity(worst, longest, passed, encoder)

    def _decoded(self, w: Tensor) -> Tensor:
        """G at whitened codes."""
        return self.first.point(self.whiten.decode(w))

    def _nearest(self, point: Tensor, start: Tensor, steps: int) -> Tensor:
        """Whitened codes from which the decoder comes nearer to the points, ``(n, d)``: Levenberg and Marquardt, row by row.

        A function of the point, if ``start`` is one: it never sees the code that the point was decoded from.
        """
        code, damping = start, torch.full((len(start), 1), 1e-3, dtype=torch.float64, device=start.device)
        decoded, jacobian = batch_jacobian(self._decoded, code)
        miss = (point - decoded).double().flatten(1)
        for _ in range(steps):
            j = jacobian.double()
            gram = j.mT @ j
            scale = gram.diagonal(dim1=-2, dim2=-1)
            ridge = damping * scale + 1e-12 * scale.mean(-1, keepdim=True).clamp(min=1e-300)
            step = torch.linalg.solve_ex(gram + torch.diag_embed(ridge), (j.mT @ miss[..., None]))[0][..., 0]
            tried = code + step.to(code.dtype)  # not finite: not better, so not taken
            decoded, slopes = batch_jacobian(self._decoded, tried)
            left = (point - decoded).double().flatten(1)
            better = (left.square().sum(1) < miss.square().sum(1))[:, None]
            damping = torch.where(better, damping / 10, damping * 10).clamp(1e-12, 1e12)
            code, miss = torch.where(better, tried, code), torch.where(better, left, miss)
            jacobian = torch.where(better[..., None], slopes, jacobian)
            if (step.abs() < 1e-4).all():
                break
        return code


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Root mean square over the coordinates, ``(n,)``; +inf where it is not finite."""
    found = (a - b).double().square().mean(-1).sqrt()
    return torch.where(torch.isfinite(found), found, math.inf)


def log_volume(jacobian: Tensor) -> Tensor:
    """1/2 log det J^T J in nats, ``(*batch, D, d)`` to ``batch``; +inf where J has no rank d in the digits of its type.

    By Cholesky's factor of the columns' cosines, in float64: units of the codes do not matter, and a column that is all
    but a combination of others is seen by its pivot.
    """
    finite = torch.isfinite(jacobian)
    wide = torch.where(finite, jacobian, 0.0).double()
    square = wide.square().sum(-2)
    alive = (square > 0) & finite.all(-2)
    size = torch.where(alive, square, 1.0).sqrt()
    unit = wide / size.unsqueeze(-2)
    gram = unit.mT @ unit
    tolerance = max(16 * torch.finfo(jacobian.dtype).eps, 4e-8)
    factor, info = torch.linalg.cholesky_ex(gram.detach())
    full = (info == 0) & (factor.diagonal(dim1=-2, dim2=-1).amin(-1) > tolerance) & alive.all(-1)
    safe = torch.where(full[..., None, None], gram, torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device))
    factor = torch.linalg.cholesky_ex(safe)[0]
    log_det = size.log().sum(-1) + factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return torch.where(full, log_det, math.inf).to(jacobian.dtype)
