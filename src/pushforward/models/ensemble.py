"""`Ensemble`: an equal-weight mixture of models, used as a base distribution."""

from __future__ import annotations

import torch
from torch import Size, Tensor, nn

from pushforward.distributions.base import Distribution
from pushforward.errors import ConfigError
from pushforward.likelihood import Kind, Measure, Support, require_log_prob
from pushforward.models.base import Model
from pushforward.numerics import logmeanexp
from pushforward.registry import register

__all__ = ["Ensemble"]


@register("models")
class Ensemble(Distribution):
    """Equal-weight mixture of models on the same data space: p(x) = mean_k p_k(x).

    The density of a mixture of exact densities is exact (Papamakarios et al. 2021, sec. 5), so a deep ensemble is a
    density like any other: it can be the base of a chain of preprocessing transforms, saved, and sampled from. It has the
    methods of a base distribution, ``log_prob`` and ``sample(shape)``; a :class:`Flow` with it as the base has those of a model.

    Args:
        models: at least one model; all have the same shape, measure and width of context, and an exact ``log_prob``.

    Raises:
        ConfigError: if there is no model, or shapes, measures or widths of contexts differ.
        KindError: if a model has no exact ``log_prob``.

    Example:
        >>> import torch
        >>> from pushforward import models, transforms
        >>> mixture = Ensemble(models.NICE(2), models.RealNVP(2))
        >>> mixture.log_prob(torch.zeros(3, 2)).shape, mixture.sample((5,)).shape
        (torch.Size([3]), torch.Size([5, 2]))
        >>> models.Flow(transforms.Affine(2), mixture).sample(5, seed=0).shape
        torch.Size([5, 2])
    """

    has_rsample = False

    def __init__(self, *models: Model) -> None:
        if not models:
            raise ConfigError("an ensemble needs at least one model.")
        if wrong := [model for model in models if not isinstance(model, Model)]:
            raise ConfigError(f"an ensemble is made of models, as in Ensemble(*models); got {type(wrong[0]).__name__}.")
        first = models[0]
        for model in models:
            require_log_prob(model.kind, model.measure)
            if model.shape != first.shape or model.measure != first.measure:
                raise ConfigError("the models of an ensemble must have the same data shape and the same measure.")
            if model.context_features != first.context_features:
                raise ConfigError("the models of an ensemble must read contexts of the same width.")
        super().__init__(first.shape)
        self.models = nn.ModuleList(models)
        self.context = first.context_features
        supports = [model.base.support if model.chain.domain is None else model.chain.domain for model in models]
        hull = Support(min(each.low for each in supports), max(each.high for each in supports))
        self.support = supports[0] if all(each == supports[0] for each in supports) else hull

    @property
    def kind(self) -> Kind:  # pyright: ignore[reportIncompatibleVariableOverride]
        """EXACT, unless a model is not: the mean of densities that are only bounded or estimated in logs has no guarantee."""
        return Kind.EXACT if all(model.kind is Kind.EXACT for model in self._members()) else Kind.ESTIMATE

    @property
    def measure(self) -> Measure:
        """The measure of the models."""
        return self._members()[0].measure

    def member_log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density under each model, nats, ``(models, *batch)``."""
        context = self._own(context)
        return torch.stack([model(z, context) for model in self._members()])

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """log mean_k p_k(z), nats, shape ``batch``."""
        return logmeanexp(self.member_log_prob(z, context), 0)

    @property
    def reads_raw_context(self) -> bool:
        """Whether a model has its own standardization of the context already."""
        members = [model for model in self._members() if model.context_features]
        return any(bool(model.context_initialized) or model.base.reads_raw_context for model in members)

    def initialize(self, z: Tensor, context: Tensor | None = None) -> None:
        """Initialize each model that is not yet."""
        for model in self._members():
            model.initialize(z, self._own(context))

    @property
    def needs_refresh(self) -> bool:
        """Whether a model has batch normalization."""
        return any(model.needs_refresh for model in self._members())

    def refresh(self, z: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> None:
        """Refresh the statistics of each model."""
        for model in self._members():
            model.refresh(z, self._own(context), generator=generator)

    def sample(self, batch: Size, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Samples ``(*batch, *shape)``, each from a model drawn at random."""
        device = generator.device if generator is not None else self.anchor.device
        chosen = torch.randint(len(self.models), tuple(batch), generator=generator, device=device)
        each = tuple(batch)
        context = self._own(context)
        if context is not None:  # a model draws one sample for each context
            self._members()[0].prepare_context(context, Size(batch))  # refuses one that does not fit
            context, each = context.expand(*batch, self.context), ()
        drawn = [model.sample(each, context, generator=generator) for model in self._members()]
        chosen = chosen.reshape(*batch, *(1,) * len(self.shape))
        result = drawn[0]
        for k, samples in enumerate(drawn[1:], start=1):
            result = torch.where(chosen == k, samples, result)
        return result

    def _own(self, context: Tensor | None) -> Tensor | None:
        """The context, which may be that of the chain before: None if the models read none."""
        return context if self.context else None

    def _members(self) -> list[Model]:
        return list(self.models)  # pyright: ignore[reportReturnType]
