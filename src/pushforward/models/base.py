"""`Model`: a chain of transforms over a base, and everything a user does with one."""

from __future__ import annotations

import itertools
import math
from abc import ABC
from typing import Literal, final

import torch
from torch import Size, Tensor, nn

from pushforward.distributions.base import Distribution
from pushforward.errors import ConfigError, InputError, KindError
from pushforward.likelihood import Kind, LogLik, Measure, join, require_log_prob
from pushforward.models.validation import (
    check_data,
    check_form,
    check_numbers,
    check_sizes,
    check_wide,
    floating_type,
    splits,
    widest,
)
from pushforward.numerics import Noise, RowNoise, RunningMean, may_check_values, split_infinite
from pushforward.numerics.checks import check_integer
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform, check_context
from pushforward.transforms.chain import Chain, check_support

__all__ = ["Flow", "Model"]

_PART, _WIDE = 2048, 700
"""Rows that are scored together where no gradient is wanted, so that what they leave behind stays in reach of the cache; half
of them where a layer has so many outputs."""


class Model(nn.Module, ABC):
    """A density: a chain of transforms that takes data to noise, and a base that the noise follows.

    log p(x) = log p_base(z) + sum of the transforms' contributions, with z = encode(x) (change of variables).

    Subclasses are leaves: one a paper, each building its ``chain`` and ``base`` in the constructor and handing them to
    this one. All methods below are the same for every model. Data have shape ``(*batch, *shape)``, contexts
    ``(*batch, context)`` (broadcast over missing leading dimensions), log-likelihoods ``batch``, in nats.

    Data may be any real or integer type and are cast to the type of the weights. NaN raises and names the place; a row
    that is infinitely far has log-density -inf. In training mode on an accelerator, and while a CUDA graph is captured, nobody looks
    for NaN, as the host would have to wait: it shows in the result.
    """

    def __init__(self, chain: Transform, base: Distribution) -> None:
        super().__init__()
        if not isinstance(chain, Transform) or not isinstance(base, Distribution):
            raise ConfigError(
                f"a model is a transform and a base; got {type(chain).__name__} and {type(base).__name__}."
            )
        if chain.out_shape != base.shape:
            raise ConfigError(f"the transforms end with shape {chain.out_shape} and the base has shape {base.shape}.")
        if chain.context and base.context and chain.context != base.context:
            raise ConfigError(
                f"the transforms read a context of width {chain.context}, the base one of {base.context}."
            )
        self.chain = chain if isinstance(chain, Chain) else Chain(chain)
        self.base = base
        self.shape: Shape = self.chain.in_shape
        self.context_features = self.chain.context or base.context
        stated = join(self.chain.kind, base.kind)
        self.support_kind = check_support(self.chain.codomain, base.support, "the chain", type(base).__name__, stated)
        self.measure: Measure = self.chain.measure(base.measure)
        if self.context_features:  # networks see a standardized context, whatever the user's units
            self.register_buffer("context_mean", torch.zeros(self.context_features))
            self.register_buffer("context_scale", torch.ones(self.context_features))
            self.register_buffer("context_initialized", torch.tensor(False))

    context_mean: Tensor
    context_scale: Tensor
    context_initialized: Tensor

    @property
    def kind(self) -> Kind:
        """What a log-likelihood is of the true one: the join of the chain's kind and the base's."""
        parts = self.chain.kind, self.base.kind, self.support_kind
        return Kind.EXACT if all(part is Kind.EXACT for part in parts) else join(*parts)

    @final
    def set_log_det(self, log_det: str) -> None:
        """Choose how transforms with an expensive log-determinant find it: a model may train with an estimate and score exactly.

        Args:
            log_det: "exact", or what the transforms of this model offer: "power" and "roulette"
                (:class:`~pushforward.transforms.InvertibleResidual`), "hutchinson" (:class:`~pushforward.transforms.Continuous`).

        Raises:
            ConfigError: if the model has no such transform, or it does not know this way.

        Example:
            >>> import pushforward as pf
            >>> model = pf.models.ResidualFlow(features=2, blocks=2, hidden=(16,))
            >>> model.kind
            <Kind.UNBIASED: 'unbiased'>
            >>> model.set_log_det("exact")
            >>> model.kind
            <Kind.EXACT: 'exact'>
        """
        self.chain.set_log_det(log_det)
        if hasattr(self, "log_det"):  # the constructor's argument, by which a file describes the model
            self.log_det = log_det

    @final
    def evaluate(self, x: Tensor, context: Tensor | None = None, *, samples: int = 1, seed: int = 0) -> LogLik:
        """Log-likelihood of each row, with what the number is.

        Args:
            x: data, ``(*batch, *shape)``.
            context: ``(*batch, context)`` where the model has one.
            samples: draws of the model's own noise (dequantization and other stochastic transforms); more draws tighten a
                LOWER_BOUND bound, log mean exp over draws (Burda et al. 2016, eq. 8). Where a transform only estimates its
                log-determinant the value is the plain mean over draws: through an exponential an unbiased estimate
                would not stay one. Without such transforms it has no effect. Memory does not grow with them: the result of
                several draws carries no gradient.
            seed: of that noise. Noise depends on the seed and on the row itself, never on the other rows.

        Returns:
            :class:`~pushforward.LogLik` with ``value`` of shape ``batch`` and the terms that add up to it.

        Raises:
            InputError: for a wrong shape or type, or NaN.

        Example:
            >>> import torch, pushforward as pf
            >>> model = pf.models.NICE(features=2)
            >>> model.evaluate(torch.zeros(3, 2))
            LogLik(an exact value on Lebesgue(2), shape (3,), mean -2.773 nats)
        """
        check_integer("samples", samples)
        x, context, far = self._read(x, context)
        random = self.kind is not Kind.EXACT
        draws = samples if random else 1
        with torch.set_grad_enabled(torch.is_grad_enabled() and draws == 1):
            terms, residual, stderr = self._terms(x, context, RowNoise(seed, 0))
            start = x.new_zeros(()) if far is None else far
            value = sum(terms.values(), start=start)
            if draws > 1:
                mean = RunningMean(value)
                for k in range(1, draws):
                    more, _, _ = self._terms(x, context, RowNoise(seed, k))
                    mean.add(sum(more.values(), start=start))
                    terms = {name: terms[name] + more[name] for name in terms}
                log_dets = [part.kind for part in self.chain.estimators]
                estimated = any(kind is not Kind.EXACT for kind in log_dets)
                value = mean.mean() if estimated else mean.log_mean_exp()
                terms = {name: total / draws for name, total in terms.items()}
                stderr = mean.standard_error()  # the spread of the draws holds whatever noise is within each
        return LogLik(value, self.kind, self.measure, stderr, residual, terms)

    @final
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Exact log-density (or log-probability of discrete data) in nats, shape ``batch``.

        On a CPU, in evaluation mode and without gradient, many rows are scored in parts, so that memory does not grow with
        the number of rows. :func:`pushforward.compile_scorer` is faster for few rows at a time.

        Raises:
            KindError: if the model gives a bound or an estimate, or a density on a manifold; it names ``evaluate``.
            InputError: for a wrong shape or type, or NaN.
        """
        require_log_prob(self.kind, self.measure)
        if self.training or not splits(x, context, self.shape, _PART):
            return self._log_likelihood(x, context, None)
        part = _PART // 2 if widest(self) >= _WIDE else _PART
        if len(x) < 2 * part:
            return self._log_likelihood(x, context, None)
        contexts = itertools.repeat(None) if context is None else context.split(part)
        return torch.cat([self._log_likelihood(*some, None) for some in zip(x.split(part), contexts, strict=False)])

    @final
    def conditional_log_prob(
        self, x: Tensor, context: Tensor | None = None, *, samples: int = 1, seed: int = 0
    ) -> Tensor:
        """Terms of the chain rule, log p(x_i | x_<i, context), nats, ``(*batch, *shape)``.

        Defined where every transform of the chain is elementwise or autoregressive in one common order and the base has
        independent coordinates or that order too; the terms then add up to the log-likelihood. ``samples`` and ``seed`` as in
        :meth:`evaluate`; terms are averaged over draws.

        Raises:
            KindError: for models that mix coordinates in no order (couplings, linear layers, alternating orders).

        Example:
            >>> import torch, pushforward as pf
            >>> model = pf.models.NSF(3, layer="autoregressive", linear="none", hidden_features=16)
            >>> x = torch.randn(4, 3)
            >>> torch.allclose(model.conditional_log_prob(x).sum(-1), model.log_prob(x), atol=1e-5)
            True
        """
        orders = {part.autoregressive_order for part in [*self.chain, self.base]} - {"any"}
        if "mixed" in orders or len(orders) > 1:
            raise KindError(
                f"{type(self).__name__} does not factorize in one order of the coordinates: use an autoregressive model "
                'with one order, as NSF(layer="autoregressive", linear="none").'
            )
        x, context, far = self._read(x, context)
        total, draws = torch.zeros_like(x), samples if self.kind is not Kind.EXACT else 1
        with torch.set_grad_enabled(torch.is_grad_enabled() and draws == 1):
            for k in range(draws):
                z = x
                for part in self.chain:
                    z, terms = part.encode_terms(z, context, noise=RowNoise(seed, k))
                    total = total + terms
                total = total + self.base.log_prob_terms(z, context)
        return total / draws if far is None else total / draws + far.reshape(*far.shape, *(1,) * len(self.shape))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-likelihood as one tensor whatever its kind, for ``torch.compile`` and ``torch.export``."""
        return self._log_likelihood(x, context, None)

    def loss(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """What training minimizes, a scalar: here -mean log-likelihood. A surrogate in some models; never reported."""
        return -self._log_likelihood(x, context, generator).mean()

    @final
    def encode(self, x: Tensor, context: Tensor | None = None, *, seed: int = 0, wide: bool = False) -> Tensor:
        """Data to noise: ``(*batch, *shape)`` to ``(*batch, *base.shape)``.

        Args:
            x: data.
            context: where the model has one.
            seed: of the model's own noise, as dequantization.
            wide: keep coordinates in float64 while networks run in the type of the weights. The noise is float64 then, and
                ``decode(z, wide=True)`` undoes it to float64's rounding, whatever the weights: float32 noise has too few
                digits for that where a flow stretches space. Decode the batches that were encoded: float32 networks may
                round differently in a batch of another size. Rarely a coordinate lies so near the border of two float32
                numbers that a network sees the other one on the way back; the error is float32's then.

        Raises:
            InputError: for a wrong shape or type, or NaN.
            KindError: for ``wide``, if a transform drops something or its way back runs its network at other places
                (autoregressive, residual and continuous transforms); the transform is named. Float64 weights need none of this.

        Example:
            >>> import torch, pushforward as pf
            >>> model = pf.models.RealNVP(features=2)
            >>> x = torch.randn(5, 2)
            >>> z = model.encode(x, wide=True)
            >>> z.dtype, (model.decode(z, wide=True) - x).abs().max().item() < 1e-12
            (torch.float64, True)
        """
        if wide:
            check_wide(self.chain, type(self).__name__)
        x, context, _ = self._read(x, context, torch.float64 if wide else None)
        return self.chain.encode(x, context, noise=RowNoise(seed)).z

    @final
    def decode(self, z: Tensor, context: Tensor | None = None, *, seed: int = 0, wide: bool = False) -> Tensor:
        """Noise to data: ``(*batch, *base.shape)`` to ``(*batch, *shape)``.

        Args:
            z: noise.
            context: where the model has one.
            seed: of what the model draws on the way.
            wide: as in :meth:`encode`; data are float64 then.

        Raises:
            InputError: for a wrong shape or type, or NaN.
            KindError: as :meth:`encode`.
        """
        check_data(z, self.base.shape, "noise of " + type(self).__name__)
        if wide:
            check_wide(self.chain, type(self).__name__)
        z = z.to(torch.float64 if wide else self.latent_dtype)
        context = self._broadcast(context, z.shape[: z.dim() - len(self.base.shape)])
        return self.chain.decode(z, context, noise=RowNoise(seed))

    @final
    def sample(
        self,
        sample_shape: int | tuple[int, ...] = (),
        context: Tensor | None = None,
        *,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Samples without gradient, ``(*sample_shape, *context_batch, *shape)``.

        Args:
            sample_shape: how many; an integer or a shape.
            context: ``(*context_batch, context)``: that many samples for each context.
            seed: makes the samples reproducible; or pass a ``generator``.
            noise: base noise to decode instead of drawing it (interpolation, paired comparisons), ``(*batch,
                *base.shape)``; a context broadcasts to its batch.
        """
        with torch.no_grad():
            return self.rsample(sample_shape, context, seed=seed, generator=generator, noise=noise)

    @final
    def rsample(
        self,
        sample_shape: int | tuple[int, ...] = (),
        context: Tensor | None = None,
        *,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """As :meth:`sample`, with gradients to the parameters and the context where the base allows it."""
        z, context, generator = self._draw(sample_shape, context, seed, generator, noise)
        return self.chain.decode(z, context, noise=generator)

    @final
    def sample_and_log_prob(
        self,
        sample_shape: int | tuple[int, ...] = (),
        context: Tensor | None = None,
        *,
        seed: int | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Samples with gradients and their log-density, in one pass where the transforms allow it (variational inference).

        Raises:
            KindError: where :meth:`log_prob` would.
        """
        require_log_prob(self.kind, self.measure)
        z, context, generator = self._draw(sample_shape, context, seed, generator, None)
        x, contribution = self.chain.decode_with_contribution(z, context, noise=generator)
        return x, self.base.log_prob(z, context) + contribution

    @final
    def distribution(self, context: Tensor | None = None) -> torch.distributions.Distribution:
        """This model as a ``torch.distributions`` object, for Pyro, mixtures, KL and friends.

        Its batch shape is the context's; its ``log_prob`` refuses what :meth:`log_prob` refuses.
        """
        from pushforward.models.distribution import ModelDistribution

        return ModelDistribution(self, context)

    @final
    def initialize(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> None:
        """Set data-dependent state (standardization of data and context, actnorm, kept rows); ``pf.fit`` calls it once."""
        with torch.no_grad():
            if self.context_features and context is not None and not self.context_initialized:
                rows = context.reshape(-1, self.context_features).double()
                spread = rows.std(0, correction=0)
                self.context_mean.copy_(rows.mean(0))
                self.context_scale.copy_(torch.where(spread > 0, spread, 1.0))
                self.context_initialized.fill_(True)
            x, context, _ = self._prepare(x, context)
            self.base.initialize(self.chain.initialize(x, context, noise=generator), context)

    @final
    def refresh(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> None:
        """Bring statistics that depend on the weights (batch norm) up to date with training rows; no gradient."""
        if self.chain.needs_refresh:
            with torch.no_grad():
                x, context, _ = self._prepare(x, context)
                self.chain.refresh(x, context, noise=generator)

    @property
    def dtype(self) -> torch.dtype:
        """Floating type that data are cast to: that of the first transform with tensors."""
        return floating_type(itertools.chain(self.chain.transforms, (self.base,)))

    @property
    def latent_dtype(self) -> torch.dtype:
        """Floating type of the noise: that of the base, or of the last transform with tensors."""
        return floating_type([self.base, *reversed(list(self.chain))])

    @property
    def fast(self) -> Literal["both", "log_prob", "sample"]:
        """Which direction takes one pass: MAF scores fast, IAF samples fast, coupling flows do both."""
        forward, backward = self.chain.encode_passes, self._sample_passes
        return "both" if forward == backward else "log_prob" if forward < backward else "sample"

    @property
    def _sample_passes(self) -> int:
        return max(self.chain.decode_passes, self.base.sample_passes)

    def extra_repr(self) -> str:
        """What stands in ``repr`` before the parts."""
        size = "x".join(map(str, self.shape))
        context = f", context={self.context_features}" if self.context_features else ""
        return (
            f"shape={size}{context}, {self.kind.value} on {self.measure}, fast={self.fast!r} "
            f"(log_prob {self.chain.encode_passes}, sample {self._sample_passes} steps a layer)"
        )

    def _terms(
        self, x: Tensor, context: Tensor | None, noise: Noise
    ) -> tuple[dict[str, Tensor], Tensor | None, Tensor | None]:
        terms: dict[str, Tensor] = {}
        total = Step(x, self.chain.zero_log_det(x))
        for index, step in enumerate(self.chain.encode_steps(x, context, noise=noise)):
            terms[f"{index}.{type(self.chain[index]).__name__}"] = step.contribution
            total = total.then(step)
        terms["base"] = self.base.log_prob(total.z, context)
        return terms, total.residual, total.stderr

    def _log_likelihood(self, x: Tensor, context: Tensor | None, noise: Noise) -> Tensor:
        x, context, far = self._read(x, context)
        chain, base = self.chain, self.base
        step = chain.encode(x, context, noise=noise)
        found = step.contribution + base.log_prob(step.z, context)
        return found if far is None else far + found

    def _prepare(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
        """As :meth:`_read`, with 0 where no row is far."""
        x, context, far = self._read(x, context)
        return x, context, x.new_zeros(()) if far is None else far

    def _read(
        self, x: Tensor, context: Tensor | None, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Check x, cast it, and put rows that are infinitely far at 0 with a log-density of -inf; None if there are none."""
        check_form(x, self.shape, type(self).__name__)
        given, x = x, x.to(self.dtype if dtype is None else dtype)
        context = self._broadcast(context, x.shape[: x.dim() - len(self.shape)])
        if may_check_values(x, self.training):
            # One sum tells that all is finite, in a tenth of the time of looking at each; if it is not, they are looked at.
            if math.isfinite(x.detach().sum().item()):
                return x, context, None
            check_numbers(given, type(self).__name__)
            if torch.isfinite(x).all():
                return x, context, None
        x, far = split_infinite(x, len(self.shape))
        return x, context, far

    def _check_context(self, context: Tensor | None) -> None:
        owner = type(self).__name__
        if context is not None and not self.context_features:
            raise InputError(f"this {owner} takes no context: build it with a width for it, or leave the context out.")
        check_context(context, self.context_features, owner)
        if context is not None and may_check_values(context, self.training) and not torch.isfinite(context).all():
            place = tuple((~torch.isfinite(context)).nonzero()[0].tolist())
            value = str(context[place].item()).replace("nan", "NaN")
            raise InputError(f"{owner} met {value} in its context at index {place}: give every row a finite one.")

    def _broadcast(self, context: Tensor | None, batch: Size) -> Tensor | None:
        self._check_context(context)
        if context is None:
            return None
        try:
            context = (context.to(self.context_mean.dtype) - self.context_mean) / self.context_scale
            return context.expand(*batch, self.context_features)
        except RuntimeError:
            raise InputError(
                f"a context of shape {tuple(context.shape)} does not broadcast to the data's batch {tuple(batch)}."
            ) from None

    def _draw(
        self,
        sample_shape: int | tuple[int, ...],
        context: Tensor | None,
        seed: int | None,
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> tuple[Tensor, Tensor | None, torch.Generator]:
        if seed is not None and generator is not None:
            raise ConfigError("give a seed or a generator, not both.")
        batch = check_sizes(sample_shape)
        self._check_context(context)
        if noise is not None:
            check_data(noise, self.base.shape, "noise of " + type(self).__name__)
            rows = noise.shape[: noise.dim() - len(self.base.shape)]
            if batch and rows[: len(batch)] != batch:
                raise ConfigError(f"the noise holds {tuple(rows)} samples, not {tuple(batch)}: leave sample_shape out.")
            batch = rows
        elif context is not None and self.context_features:
            batch = batch + context.shape[:-1]
        context = self._broadcast(context, batch)
        if generator is None:
            device = next((t.device for t in itertools.chain(self.parameters(), self.buffers())), torch.device("cpu"))
            generator = torch.Generator(device)
            generator.manual_seed(int(torch.randint(2**62, ()).item()) if seed is None else seed)
        if noise is None:
            return self.base.sample(batch, context, generator=generator), context, generator
        return noise.to(self.latent_dtype), context, generator


@register("models")
class Flow(Model):
    """A model of your own: any chain of transforms over any base.

    Args:
        chain: a transform, usually a :class:`~pushforward.transforms.Chain`.
        base: a base of the chain's out shape.

    Raises:
        ConfigError: if shapes or context widths do not meet.

    Example:
        >>> import torch
        >>> from pushforward import distributions, transforms, models
        >>> model = models.Flow(transforms.Chain(transforms.Logit(2), transforms.Affine(2)), distributions.Normal(2))
        >>> model.log_prob(torch.full((1, 2), 0.5))     # log N(0, I) at 0, plus 2 log 4
        tensor([0.9347])
    """

    def __init__(self, chain: Transform, base: Distribution) -> None:
        super().__init__(chain, base)
