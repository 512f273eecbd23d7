"""Bayes by Backprop (Blundell et al. 2015, arXiv 1505.05424) with local reparameterization (Kingma, Salimans, Welling
2015, arXiv 1506.02557)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from pushforward.models.base import Model
from pushforward.networks.masked import MaskedLinear
from pushforward.numerics import inverse_softplus
from pushforward.numerics.checks import check_integer, check_positive
from pushforward.training.bayes.common import (
    choose_parameters,
    count_rows,
    open_data,
    recorded_names,
    refresh,
    sampling_config,
)
from pushforward.training.bayes.posterior import Posterior
from pushforward.training.config import TrainingConfig, TrainingOptions, with_options
from pushforward.training.fit import fit
from pushforward.training.seeds import generator, preserved

__all__ = ["bayes_by_backprop"]

_SAMPLE_SEED = 103
_LAYERS = (nn.Linear, MaskedLinear)
"""Layers that may sample outputs: those of a convolution at several positions depend on each other, since they share its weights."""


@with_options
def bayes_by_backprop(
    model: Model,
    data: Any,
    n_samples: int = 20,
    *,
    context: Any = None,
    parameters: Sequence[str] | None = None,
    prior_scale: float = 1.0,
    initial_scale: float = 0.01,
    local: bool = True,
    n_rows: int | None = None,
    config: TrainingConfig | None = None,
    **options: Unpack[TrainingOptions],
) -> Posterior:
    """Train and sample q(theta) = N(mu, softplus(rho)^2) on E_q [mean loss] + KL(q || N(0, prior_scale^2)) / N (eq. 2).

    mu are the model's own weights and start at their present values: those of an untrained model, or of one that
    ``fit`` has trained. Weights that are not chosen are trained too, without a posterior; ``requires_grad_(False)``
    keeps them fixed. loss is the model's own, -mean log-likelihood (of a VAE the bound).

    All rows of a batch share one sample of the weights, except in linear layers that the loss calls exactly once, with one
    vector for each row, and whose weights it uses nowhere else. Such a layer samples its outputs N(mu x, sigma^2 x^2) for each
    row instead: the expectation is the same, and the gradient has less noise (Kingma et al. 2015, eq. 6). These layers
    are found by evaluating the loss once.

    Args:
        model: model to train. It ends with the weights mu.
        data: training rows, as for :func:`pushforward.fit`.
        n_samples: number of samples M, drawn from q after training.
        context: context of array data, as for ``fit``.
        parameters: names of the sub-modules or weights with a posterior, as for :func:`sghmc`; None for all.
        prior_scale: standard deviation of the normal prior of each weight.
        initial_scale: standard deviation of q at the start.
        local: whether layers sample their outputs where that is possible.
        n_rows: number of training rows N; needed for a loader without a length.
        config: options of the training; the options below replace its values. ``batch_size`` is 512 by default. The
            method sets ``ema`` and ``patience`` itself, and has no checkpoints.
        options: fields of :class:`TrainingConfig`.

    Raises:
        ConfigError: for a value that an option does not take.
        TrainingError: if the loss is not finite.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.training import bayes
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> model = pf.models.NICE(2, layers=2, hidden=(8,))
        >>> posterior = bayes.bayes_by_backprop(model, x, 3, max_steps=50, progress="silent")
        >>> posterior.log_likelihoods(x).shape
        torch.Size([3, 200])
    """
    config = sampling_config("bayes_by_backprop", config, options, ("ema", "patience"))
    check_integer("n_samples", n_samples)
    source, _ = open_data(model, data, context, None, config)
    count = count_rows(source, n_rows)
    mean_field = MeanField(model, choose_parameters(model, parameters), count, prior_scale, initial_scale, local)
    fit(mean_field, source, validation=None, config=dataclasses.replace(config, ema=None, patience=None))
    chosen = mean_field.chosen
    posterior = Posterior(model, n_samples, recorded_names(model, chosen))
    means = {name: weight.detach().clone() for name, weight in chosen.items()}
    with torch.no_grad():
        for k in range(n_samples):
            noise = generator(config.seed, _SAMPLE_SEED, k)
            for name, weight in chosen.items():
                scale = mean_field.scale(name)
                weight.copy_(means[name] + scale * torch.randn(weight.shape, generator=noise).to(weight))
            refresh(model, source, config.seed)
            posterior.record(k)
        for name, weight in chosen.items():
            weight.copy_(means[name])
    refresh(model, source, config.seed)
    return posterior.trimmed(n_samples)


class MeanField(Model):
    """A model for ``fit`` whose loss samples the weights. All other attributes are those of the inner model.

    Args:
        inner: the model.
        chosen: its weights with a posterior, by name.
        rows: number of training rows N.
        prior_scale: standard deviation of the prior.
        initial_scale: standard deviation of q at the start.
        local: whether layers sample their outputs instead of their weights where that is possible.
    """

    def __init__(
        self,
        inner: Model,
        chosen: dict[str, nn.Parameter],
        rows: int,
        prior_scale: float,
        initial_scale: float,
        local: bool,
    ) -> None:
        nn.Module.__init__(self)  # chain, base and other attributes are those of the inner model
        self.call = _Loss(inner)
        self.chosen, self.rows, self.local = chosen, rows, local
        self.prior_scale = check_positive("prior_scale", prior_scale)
        start = inverse_softplus(check_positive("initial_scale", initial_scale))
        self.rho = nn.ParameterDict({_key(name): torch.full_like(p, start) for name, p in chosen.items()})
        self.layers: list[str] | None = None if local else []

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.call.inner, name)

    def scale(self, name: str) -> Tensor:
        """Standard deviation sigma of a weight."""
        return F.softplus(self.rho[_key(name)])

    def loss(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """The model's loss with sampled weights, plus the divergence / N."""
        if self.layers is None:
            self.layers = self._find_layers(x, context)
        modules = dict(self.call.inner.named_modules())
        local = {name: modules[name] for name in self.layers}
        sampled = {}
        for name, weight in self.chosen.items():
            if name.rpartition(".")[0] not in local:
                noise = torch.randn(weight.shape, dtype=weight.dtype, device=weight.device, generator=generator)
                sampled[f"inner.{name}"] = weight + self.scale(name) * noise
        with self._replaced(local, lambda path, layer: lambda h: self._outputs(path, layer, h, generator)):
            value = functional_call(self.call, sampled, (x, context, generator))
        return value + self.divergence() / self.rows

    def divergence(self) -> Tensor:
        """KL(q || prior), nats: the sum of log(s / sigma) + (sigma^2 + mu^2) / (2 s^2) - 1/2 over the weights."""
        total: Any = 0.0
        for name, weight in self.chosen.items():
            ratio = self.scale(name) / self.prior_scale
            each = ((weight / self.prior_scale).square() + ratio.square() - 1) / 2 - ratio.log()
            total = total + each.sum(dtype=torch.float64)
        return total.to(next(iter(self.chosen.values())).dtype)

    def _outputs(self, path: str, layer: nn.Module, h: Tensor, noise: torch.Generator | None) -> Tensor:
        """Sample a layer's output for each row, with the mean and variance that it has under q."""
        moments = {}
        for leaf in ("weight", "bias"):
            value: Tensor | None = getattr(layer, leaf)
            chosen = value is not None and f"{path}.{leaf}" in self.chosen
            moments[leaf] = value, self.scale(f"{path}.{leaf}").square() if chosen else None
        (weight, weight_variance), (bias, bias_variance) = moments["weight"], moments["bias"]
        mean = _apply(layer, h, weight, bias)
        if weight_variance is not None:
            variance = _apply(layer, h.square(), weight_variance, bias_variance)
        else:
            assert bias_variance is not None
            variance = bias_variance.expand_as(mean)
        e = torch.randn(mean.shape, dtype=mean.dtype, device=mean.device, generator=noise)
        return mean + variance.clamp(min=torch.finfo(mean.dtype).tiny).sqrt() * e

    def _find_layers(self, x: Tensor, context: Tensor | None) -> list[str]:
        """Layers with chosen weights that the loss calls exactly once, and whose weights it uses in no other way."""
        paths = {name.rpartition(".")[0] for name in self.chosen}
        uses = [p for _, p in self.call.inner.named_parameters(remove_duplicate=False)]
        layers = {
            name: layer for name, layer in self.call.inner.named_modules()
            if name in paths and type(layer) in _LAYERS
            and all(sum(p is q for q in uses) == 1 for p in layer.parameters())
        }  # fmt: skip
        calls = dict.fromkeys(layers, 0)

        def detached(path: str, layer: nn.Module) -> Callable[[Tensor], Tensor]:
            def forward(h: Tensor) -> Tensor:
                calls[path] += 1 if h.dim() == 2 else 2  # a row with several positions has one sample of the weights
                bias: Any = layer.bias
                # With detached weights: a gradient that still reaches them comes from another use.
                return _apply(layer, h, layer.weight.detach(), None if bias is None else bias.detach())  # pyright: ignore[reportCallIssue, reportArgumentType]

            return forward

        with preserved(x.device), self._replaced(layers, detached):
            loss = self.call(x, context, generator(0, device=x.device))
        weights = [(path, weight) for path, layer in layers.items() for weight in layer.parameters()]
        gradients: Sequence[Tensor | None] = [None] * len(weights)
        if loss.requires_grad and weights:
            gradients = torch.autograd.grad(loss, [weight for _, weight in weights], allow_unused=True)
        used_again = {path for (path, _), gradient in zip(weights, gradients, strict=True) if gradient is not None}
        return [path for path, count in calls.items() if count == 1 and path not in used_again]

    @contextmanager
    def _replaced(
        self, layers: Mapping[str, nn.Module], make: Callable[[str, nn.Module], Callable[[Tensor], Tensor]]
    ) -> Iterator[None]:
        """Replace the forward methods of layers inside the ``with`` block."""
        try:
            for path, layer in layers.items():
                layer.forward = make(path, layer)
            yield
        finally:
            for layer in layers.values():
                layer.__dict__.pop("forward", None)


class _Loss(nn.Module):
    """A model's loss as the forward method of a module, which ``functional_call`` needs."""

    def __init__(self, inner: Model) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Tensor:
        return self.inner.loss(x, context, generator=generator)


def _apply(layer: nn.Module, h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The layer applied with other weights."""
    return F.linear(h, weight * layer.mask if isinstance(layer, MaskedLinear) else weight, bias)


def _key(name: str) -> str:
    return name.replace(".", "/")
