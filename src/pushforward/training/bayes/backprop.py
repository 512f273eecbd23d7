"""Bayes by Backprop (Blundell et al. 2015, arXiv 1505.05424), with local reparameterization (Kingma, Salimans, Welling 2015,
arXiv 1506.02557)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from pushforward.models.base import Model
from pushforward.networks.masked import MaskedLinear
from pushforward.networks.masked_conv import MaskedConv2d
from pushforward.numerics import inverse_softplus
from pushforward.numerics.checks import check_integer, check_positive
from pushforward.training.bayes.common import Callback, check_options, choose, count_rows, opened, refresh, varying
from pushforward.training.bayes.posterior import Posterior
from pushforward.training.fit import fit
from pushforward.training.seeds import generator, preserved

__all__ = ["bayes_by_backprop"]

_DRAW = 103
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, MaskedLinear, MaskedConv2d)


def bayes_by_backprop(
    model: Model,
    data: Any,
    samples: int = 20,
    *,
    context: Any = None,
    parameters: Sequence[str] | None = None,
    prior_scale: float = 1.0,
    initial_scale: float = 0.01,
    local: bool = True,
    rows: int | None = None,
    batch_size: int = 512,
    seed: int = 0,
    device: Any = None,
    callback: Callback = None,
    **options: Any,
) -> Posterior:
    """Train q(theta) = N(mu, softplus(rho)^2) on E_q [mean loss] + KL(q || N(0, prior_scale^2)) / N (eq. 2), and sample it.

    mu are the model's own weights, and start where they are: an untrained model, or one that ``fit`` has trained. Weights
    that are not chosen are trained beside them, without a posterior; compile_scorer them with ``requires_grad_(False)``. loss is the
    model's own, -mean log-likelihood (of a VAE the bound).

    One draw of the weights serves a whole batch. A linear or convolutional layer that the loss calls once, and whose weights
    it reads nowhere else, draws its outputs instead, N(mu x, sigma^2 x^2), anew for each row: the same expectation, with
    less noise in its gradient (Kingma et al. 2015, eq. 6). Which layers these are is found out by trying.

    Args:
        model: ends with the weights mu.
        data: as for :func:`pushforward.fit`.
        samples: M, drawn from q after training.
        context: as for ``fit``.
        parameters: names of the sub-modules or weights with a posterior, as for :func:`sghmc`; None for all.
        prior_scale: standard deviation of the prior of each weight.
        initial_scale: standard deviation of q at the start.
        local: False to draw the weights of every layer.
        rows: N, where a loader does not say.
        batch_size: rows of a step.
        seed: of everything random.
        device: where to run.
        callback: as for ``fit``.
        options: further options of ``fit``, as ``lr``, ``max_steps``, ``max_time`` or ``progress``.

    Raises:
        ConfigError: for an option that does not work.
        TrainingError: if the loss is not finite.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.training import bayes
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> model = pf.models.NICE(2, couplings=2, hidden=(8,))
        >>> posterior = bayes.bayes_by_backprop(model, x, 3, max_steps=50, progress="silent")
        >>> posterior.log_likelihoods(x).shape
        torch.Size([3, 200])
    """
    check_options(options)
    check_integer("samples", samples)
    source, _ = opened(model, data, context, None, batch_size, seed, device)
    count = count_rows(source, rows)
    law = MeanField(model, choose(model, parameters), count, prior_scale, initial_scale, local)
    fit(law, source, validation=None, average=None, patience=None, seed=seed, callback=callback, **options)
    posterior = Posterior(model, samples, varying(model, law.chosen))
    means = {name: weight.detach().clone() for name, weight in law.chosen.items()}
    with torch.no_grad():
        for k in range(samples):
            noise = generator(seed, _DRAW, k)
            for name, weight in law.chosen.items():
                weight.copy_(means[name] + law.scale(name) * torch.randn(weight.shape, generator=noise).to(weight))
            refresh(model, source, seed)
            posterior.record(k)
        for name, weight in law.chosen.items():
            weight.copy_(means[name])
    refresh(model, source, seed)
    return posterior.trimmed(samples)


class MeanField(Model):
    """A model as ``fit`` sees it, whose loss draws weights: for everything else it is the model inside.

    Args:
        inner: the model.
        chosen: its weights with a law.
        rows: N.
        prior_scale: of the prior.
        initial_scale: of q.
        local: draw outputs instead of weights where that is right.
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
        nn.Module.__init__(self)  # chain, base and the rest are those of the model inside
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
        """sigma of a weight."""
        return F.softplus(self.rho[_key(name)])

    def loss(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """The model's loss with weights drawn, plus the divergence / N."""
        if self.layers is None:
            self.layers = self._find_layers(x, context)
        modules = dict(self.call.inner.named_modules())
        local = {name: modules[name] for name in self.layers}
        drawn = {}
        for name, weight in self.chosen.items():
            if name.rpartition(".")[0] not in local:
                noise = torch.randn(weight.shape, dtype=weight.dtype, device=weight.device, generator=generator)
                drawn[f"inner.{name}"] = weight + self.scale(name) * noise
        with self._replaced(local, lambda path, layer: lambda h: self._outputs(path, layer, h, generator)):
            value = functional_call(self.call, drawn, (x, context, generator))
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
        """A layer's output for each row, with the mean and variance that q gives it."""
        law = {}
        for leaf in ("weight", "bias"):
            value: Tensor | None = getattr(layer, leaf)
            chosen = value is not None and f"{path}.{leaf}" in self.chosen
            law[leaf] = value, self.scale(f"{path}.{leaf}").square() if chosen else None
        (weight, spread), (bias, bias_spread) = law["weight"], law["bias"]
        mean = _apply(layer, h, weight, bias)
        if spread is not None:
            variance = _apply(layer, h.square(), spread, bias_spread)
        else:
            wide = (-1,) if isinstance(layer, nn.Linear) else (-1, *(1,) * (weight.dim() - 2))
            variance = bias_spread.reshape(wide).expand_as(mean)
        e = torch.randn(mean.shape, dtype=mean.dtype, device=mean.device, generator=noise)
        return mean + variance.clamp(min=torch.finfo(mean.dtype).tiny).sqrt() * e

    def _find_layers(self, x: Tensor, context: Tensor | None) -> list[str]:
        """Layers with chosen weights that the loss calls once, and whose weights it reads in no other way."""
        paths = {name.rpartition(".")[0] for name in self.chosen}
        tied = [p for _, p in self.call.inner.named_parameters(remove_duplicate=False)]
        layers = {
            name: layer for name, layer in self.call.inner.named_modules()
            if name in paths and type(layer) in _LAYERS and getattr(layer, "padding_mode", "zeros") == "zeros"
            and all(sum(p is q for q in tied) == 1 for p in layer.parameters())
        }  # fmt: skip
        calls = dict.fromkeys(layers, 0)

        def cut(path: str, layer: nn.Module) -> Callable[[Tensor], Tensor]:
            def forward(h: Tensor) -> Tensor:
                calls[path] += 1
                bias: Any = layer.bias
                # Cut off from the weights, so that a gradient that reaches them came by another way.
                return _apply(layer, h, layer.weight.detach(), None if bias is None else bias.detach())  # pyright: ignore[reportCallIssue, reportArgumentType]

            return forward

        with preserved(x.device), self._replaced(layers, cut):
            loss = self.call(x, context, generator(0, device=x.device))
        weights = [(path, weight) for path, layer in layers.items() for weight in layer.parameters()]
        found: Sequence[Tensor | None] = [None] * len(weights)
        if loss.requires_grad and weights:
            found = torch.autograd.grad(loss, [weight for _, weight in weights], allow_unused=True)
        read = {path for (path, _), gradient in zip(weights, found, strict=True) if gradient is not None}
        return [path for path, count in calls.items() if count == 1 and path not in read]

    @contextmanager
    def _replaced(
        self, layers: Mapping[str, nn.Module], make: Callable[[str, nn.Module], Callable[[Tensor], Tensor]]
    ) -> Iterator[None]:
        """Let layers do something else, for a while."""
        try:
            for path, layer in layers.items():
                layer.forward = make(path, layer)
            yield
        finally:
            for layer in layers.values():
                layer.__dict__.pop("forward", None)


class _Loss(nn.Module):
    """A model's loss as a call, which ``functional_call`` needs."""

    def __init__(self, inner: Model) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Tensor:
        return self.inner.loss(x, context, generator=generator)


def _apply(layer: nn.Module, h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What the layer does, with these weights."""
    if isinstance(layer, (MaskedLinear, MaskedConv2d)):
        weight = weight * layer.mask
    if isinstance(layer, nn.Linear):
        return F.linear(h, weight, bias)
    convolve: Any = F.conv1d if isinstance(layer, nn.Conv1d) else F.conv2d
    return convolve(h, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def _key(name: str) -> str:
    return name.replace(".", "/")
