"""`ManifoldModel`, the base class of models with a density on a learned manifold, and functions on such models."""

from __future__ import annotations

from abc import ABC

import torch
from torch import Tensor

from pushforward.distributions import Distribution, Normal
from pushforward.errors import ConfigError, KindError
from pushforward.models.base import Model
from pushforward.models.validation import check_data
from pushforward.models.vector.building import coupling_layers
from pushforward.numerics import batch_jacobian
from pushforward.numerics.checks import check_choice, check_positive
from pushforward.transforms import ActNorm, AffineTransformer, Chain, Embedding, Monotone, Transform, Transformer
from pushforward.transforms.embeddings.embedding import squared_distance

__all__ = ["PHASES", "ManifoldModel", "cycle_error", "latent_flow", "project", "singular_values"]

PHASES = ("joint", "manifold", "density")


class ManifoldModel(Model, ABC):
    """An embedding, a flow of its codes, and a base: log p = log p_base(u) + log abs det du/dz - 1/2 log det J^T J.

    The value is the density at the point that the embedding decodes, with respect to d-dimensional area in the units of
    the data. It does not depend on the distance of the row to that point; ``evaluate(x).residual`` is the square of
    that distance. Report both.

    :attr:`phase` decides what training minimizes:

    - "joint": -mean log p + reconstruction_weight * mean residual;
    - "manifold": the mean residual alone, which trains the embedding;
    - "density": -mean log-density of the codes, which trains the flow and does not change the embedding.

    "manifold" and then "density" is the training of the M-flow (Brehmer and Cranmer 2020, arXiv 2003.13913) and the
    sequential training of conformal embeddings. Held-out likelihood must not select an embedding, because a smaller
    manifold has a higher one: pass ``validation=None`` to ``fit`` in the phases "joint" and "manifold".

    Example:
        >>> import torch, pushforward as pf
        >>> model = pf.models.ConformalEmbeddingFlow(3, latent=2)
        >>> found = model.evaluate(torch.zeros(1, 3))
        >>> str(found.measure), found.residual.shape
        ('Manifold(2, 3)', torch.Size([1]))
    """

    phase: str
    reconstruction_weight: float

    def __init__(
        self, embedding: Embedding, flow: Transform, base: Distribution | None, phase: str, reconstruction_weight: float
    ) -> None:
        if not isinstance(embedding, Embedding) or len(embedding.out_shape) != 1:
            raise ConfigError(
                f"{type(self).__name__} needs an embedding with vector codes, such as "
                f"transforms.ConformalEmbedding(...); got {type(embedding).__name__}."
            )
        check_positive("reconstruction_weight", reconstruction_weight, zero=True)
        super().__init__(Chain(embedding, flow), Normal(embedding.out_shape[0]) if base is None else base)
        self.reconstruction_weight = reconstruction_weight
        self.set_phase(phase)

    @property
    def embedding(self) -> Embedding:
        """The transform from data to codes: the first transform of the chain."""
        return self.chain[0]  # pyright: ignore[reportReturnType]

    @property
    def flow(self) -> Chain:
        """The transform from codes to the base: the rest of the chain."""
        return self.chain[1:]

    def set_phase(self, phase: str) -> None:
        """Set what the next training minimizes: "joint", "manifold" or "density".

        "density" also resets the data-dependent scaling of the flow, so that ``fit`` sets it from the present codes.

        Raises:
            ConfigError: for another name.
        """
        check_choice("phase", phase, PHASES)
        self.phase = phase
        if phase == "density":
            for part in (*self.flow.modules(), *self.base.modules()):
                if isinstance(getattr(part, "initialized", None), Tensor):
                    part.initialized.fill_(False)  # pyright: ignore[reportCallIssue]

    def loss(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """What training minimizes in this :attr:`phase`, a scalar.

        Estimates of the gradient of the volume are used only here.
        """
        x, context, far = self.prepare(x, context)
        z = self.embedding.codes(x, context)
        if self.phase == "density":
            return -(far + self._code_log_prob(z.detach(), context)).mean()
        if self.phase == "manifold":
            back = self.embedding.decode(z, context)
            return (squared_distance(x, back, len(self.shape)) - far).mean()
        back, volume = self._volume(x, z, context, generator)
        log_prob = far + self._code_log_prob(z, context) - volume
        return (self.reconstruction_weight * squared_distance(x, back, len(self.shape)) - log_prob).mean()

    def _volume(
        self, x: Tensor, z: Tensor, context: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """g(z), and 1/2 log det J^T J or a value with the same gradient."""
        return self.embedding.decode_with_volume(z, context)

    def _code_log_prob(self, z: Tensor, context: Tensor | None) -> Tensor:
        step = self.flow.encode(z, context)
        return step.contribution + self.base.log_prob(step.z, context)


def latent_flow(
    latent: int, layers: int, hidden: tuple[int, ...], transformer: Transformer | None, context: int = 0
) -> Transform:
    """Actnorm and couplings of d codes; an elementwise spline for one code, which has no other code to depend on."""
    if layers == 0:
        return Chain(ActNorm(latent))
    if latent == 1:
        return Chain(ActNorm(latent), Monotone(1, context=context))
    transformer = AffineTransformer() if transformer is None else transformer
    couplings = coupling_layers(latent, transformer, layers, hidden=hidden, activation="silu", context=context)
    return Chain(ActNorm(latent), *couplings)


def require_manifold(model: Model) -> ManifoldModel:
    """The model, if its density is on a learned manifold.

    Raises:
        KindError: if it is not.
    """
    if not isinstance(model, ManifoldModel):
        raise KindError(
            f"{type(model).__name__} has no learned manifold: use ConformalEmbeddingFlow or RectangularFlow."
        )
    return model


@torch.no_grad()
def project(model: Model, x: Tensor, context: Tensor | None = None) -> Tensor:
    """The point of the manifold that the model scores in place of x, ``(*batch, *shape)``: g(g+(x)).

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.models.manifold.base import project
        >>> model = pf.models.RectangularFlow(3, 2)
        >>> x = torch.randn(5, 3)
        >>> torch.allclose((x - project(model, x)).square().sum(-1), model.evaluate(x).residual, atol=1e-4)
        True
    """
    model = require_manifold(model)
    return model.decode(model.encode(x, context), context)


@torch.no_grad()
def singular_values(model: Model, x: Tensor, context: Tensor | None = None) -> Tensor:
    """Singular values of J at the code of each row, largest first, ``(*batch, d)``.

    One that is small in comparison with the others means that the manifold collapses there, and log p grows without
    bound.
    """
    model = require_manifold(model)
    x, context, _ = model.prepare(x, context)
    z = model.embedding.codes(x, context)
    return torch.linalg.svdvals(batch_jacobian(lambda t: model.embedding.decode(t, context), z)[1])


@torch.no_grad()
def cycle_error(model: Model, z: Tensor, context: Tensor | None = None) -> Tensor:
    """norm(g+(g(z)) - z) of codes, shape ``batch``.

    It is 0 for an embedding, and positive where the manifold intersects itself.

    Args:
        model: a model with a density on a learned manifold.
        z: codes, ``(*batch, d)``, for example of data or of samples.
        context: ``(*batch, context)``, for a model with a context.
    """
    embedding = require_manifold(model).embedding
    check_data(z, embedding.out_shape, f"the decoder of {type(model).__name__}")
    context = model.prepare_context(context, z.shape[:-1])
    return torch.linalg.vector_norm(embedding.codes(embedding.decode(z, context), context) - z, dim=-1)
