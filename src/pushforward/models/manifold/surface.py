"""What models of a density on a learned surface share: their loss, its phases, and ways to look at the surface."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.distributions import Distribution, Normal
from pushforward.errors import ConfigError, KindError
from pushforward.models.base import Model
from pushforward.numerics import batch_jacobian
from pushforward.numerics.checks import check_choice, check_integer, check_positive
from pushforward.transforms import ActNorm, Chain, Coupling, Embedding, Monotone, Transform, Transformer
from pushforward.transforms.embeddings.embedding import squared_distance

__all__ = ["PHASES", "SurfaceModel", "cycle_error", "latent_flow", "project", "singular_values"]

PHASES = ("joint", "manifold", "density")


class SurfaceModel(Model):
    """An embedding, a flow of its codes, and a base: log p = log p_base(u) + log abs det du/dz - 1/2 log det J^T J.

    The number is the density at the point that the embedding decodes, with respect to d-dimensional area, in the data's units,
    whatever the distance of the row to it; ``evaluate(x).residual`` is the square of that distance, and belongs beside it.

    Training minimizes by :attr:`phase`:

    - "joint": -mean log p + reconstruction * mean residual;
    - "manifold": the mean residual alone, which trains the embedding;
    - "density": -mean log-density of the codes, which trains the flow and leaves the embedding alone.

    The second and the third one after the other are the M-flow's training (Brehmer and Cranmer 2020, arXiv 2003.13913), or the
    sequential one of conformal embeddings. Held-out likelihood chooses no embedding (a smaller surface has a higher one): give
    ``validation=None`` to ``fit`` in the first two.
    """

    phase: str
    reconstruction: float

    def __init__(
        self, embedding: Embedding, flow: Transform, base: Distribution | None, phase: str, reconstruction: float
    ) -> None:
        if not isinstance(embedding, Embedding) or len(embedding.out_shape) != 1:
            raise ConfigError(
                f"{type(self).__name__} needs an embedding with vector codes, as transforms.ConformalEmbedding(...); got "
                f"{type(embedding).__name__}."
            )
        check_positive("reconstruction", reconstruction, zero=True)
        super().__init__(Chain(embedding, flow), Normal(embedding.out_shape[0]) if base is None else base)
        self.reconstruction = reconstruction
        self.begin(phase)

    @property
    def embedding(self) -> Embedding:
        """From the data to their codes: the first transform of the chain."""
        return self.chain[0]  # pyright: ignore[reportReturnType]

    @property
    def flow(self) -> Chain:
        """From the codes to the base: the rest of the chain."""
        return self.chain[1:]

    def begin(self, phase: str) -> None:
        """What the next training is for: "joint", "manifold" or "density".

        Before "density" the flow forgets its data-dependent scaling, so that ``fit`` sets it from the codes as they are then.

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
        """By :attr:`phase`; see the class. Estimates of the volume's gradient appear here alone."""
        x, context, far = self._prepare(x, context)
        z = self.embedding.codes(x, context)
        if self.phase == "density":
            return -(far + self._code_log_prob(z.detach(), context)).mean()
        if self.phase == "manifold":
            back = self.embedding.decode(z, context)
            return (squared_distance(x, back, len(self.shape)) - far).mean()
        back, volume = self._volume(x, z, context, generator)
        log_prob = far + self._code_log_prob(z, context) - volume
        return (self.reconstruction * squared_distance(x, back, len(self.shape)) - log_prob).mean()

    def _volume(
        self, x: Tensor, z: Tensor, context: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """g(z), and 1/2 log det J^T J or what has its gradient."""
        return self.embedding.decode_with_volume(z, context)

    def _code_log_prob(self, z: Tensor, context: Tensor | None) -> Tensor:
        step = self.flow.encode(z, context)
        return step.contribution + self.base.log_prob(step.z, context)


def latent_flow(
    latent: int, couplings: int, hidden: tuple[int, ...], law: Transformer | None, context: int = 0
) -> Transform:
    """Actnorm and couplings of d codes; with one code, which has no other to depend on, an elementwise spline."""
    check_integer("couplings", couplings, 0)
    transforms: list[Transform] = [ActNorm(latent)]
    if latent == 1:
        transforms += [Monotone(1, context=context)] if couplings else []
    else:
        transforms += [
            Coupling(latent, law, flip=k % 2 == 1, hidden=hidden, activation="silu", context=context)
            for k in range(couplings)
        ]
    return Chain(*transforms)


def surface(model: Model) -> SurfaceModel:
    """The model, if it lives on a learned surface.

    Raises:
        KindError: if it does not.
    """
    if not isinstance(model, SurfaceModel):
        raise KindError(
            f"{type(model).__name__} has no learned surface: use ConformalEmbeddingFlow or RectangularFlow."
        )
    return model


@torch.no_grad()
def project(model: Model, x: Tensor, context: Tensor | None = None) -> Tensor:
    """The point of the surface that the model scores in place of x, ``(*batch, *shape)``: g(g+(x)).

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.models.manifold.surface import project
        >>> model = pf.models.RectangularFlow(3, 2)
        >>> x = torch.randn(5, 3)
        >>> torch.allclose((x - project(model, x)).square().sum(-1), model.evaluate(x).residual, atol=1e-4)
        True
    """
    model = surface(model)
    return model.decode(model.encode(x, context), context)


@torch.no_grad()
def singular_values(model: Model, x: Tensor, context: Tensor | None = None) -> Tensor:
    """Singular values of J at each row's code, largest first, ``(*batch, d)``: a small one beside the others is a surface that
    collapses there, where log p rises without end."""
    model = surface(model)
    x, context, _ = model._prepare(x, context)
    z = model.embedding.codes(x, context)
    return torch.linalg.svdvals(batch_jacobian(lambda t: model.embedding.decode(t, context), z)[1])


@torch.no_grad()
def cycle_error(model: Model, z: Tensor, context: Tensor | None = None) -> Tensor:
    """norm(g+(g(z)) - z) of codes, shape ``batch``: 0 for an embedding, and not where the surface folds.

    Args:
        model: a model of a density on a surface.
        z: codes, ``(*batch, d)``, as those of data or of samples.
        context: as the model's.
    """
    embedding = surface(model).embedding
    return torch.linalg.vector_norm(embedding.codes(embedding.decode(z, context), context) - z, dim=-1)
