"""`Model`: a chain of transforms over a base distribution, with the methods that all models share."""

from __future__ import annotations

import itertools
import math
from abc import ABC
from typing import Literal, final

import torch
from torch import Size, Tensor, nn

from pushforward.display import card, table
from pushforward.distributions.base import Distribution
from pushforward.errors import ConfigError, InputError, KindError
from pushforward.likelihood import Kind, LogLik, Measure, join, require_log_prob
from pushforward.models.precision import check_float64, floating_type
from pushforward.models.row_parts import row_parts
from pushforward.models.sampling import check_rsample, check_sample_shape, seeded_generator
from pushforward.models.torch_distribution import ModelDistribution
from pushforward.models.validation import check_data, check_finite, check_model_context, check_no_nan, check_shape
from pushforward.numerics import Noise, RowNoise, RunningMean, cast_finite, is_eager, may_check_values, split_infinite
from pushforward.numerics.checks import check_integer
from pushforward.transforms.base import Shape, Step, Transform
from pushforward.transforms.chain import Chain, check_support
from pushforward.transforms.elementwise.normalization import moments

__all__ = ["Model"]


class Model(nn.Module, ABC):
    """A density: a chain of transforms from data to noise, and a base distribution of the noise.

    log p(x) = log p_base(z) + sum of the contributions of the transforms, with z = encode(x) (change of variables).

    A subclass is the model of one paper: its constructor builds ``chain`` and ``base`` and passes them to this class.
    All methods below are the same for every model. Data have shape ``(*batch, *shape)``, contexts ``(*batch, context)``
    (broadcast over missing leading dimensions), and log-likelihoods ``batch``, in nats.

    Data may have any real or integer type and are cast to the type of the weights. NaN raises an error with its index.
    A row with an infinite entry has log-density -inf. The model does not search for NaN in training mode on an
    accelerator, where the host would have to wait for the device, and while a CUDA graph is captured: there NaN shows
    in the result.

    Example:
        >>> import torch, pushforward as pf
        >>> model = pf.models.NSF(features=2, layers=2, hidden=(8, 8))
        >>> x = model.sample(3, seed=0)
        >>> torch.allclose(model.decode(model.encode(x)), x, atol=1e-4), model.log_prob(x).shape
        (True, torch.Size([3]))
    """

    def __init__(self, chain: Transform, base: Distribution) -> None:
        super().__init__()
        if not isinstance(chain, Transform) or not isinstance(base, Distribution):
            swapped = isinstance(chain, Distribution) and isinstance(base, Transform)
            hint = ", which are in the wrong order" if swapped else ""
            if isinstance(base, torch.distributions.Distribution):
                hint = " of torch.distributions: take the base from pushforward.distributions"
            elif isinstance(chain, (list, tuple)):
                hint = ": write Chain(*transforms)"
            raise ConfigError(
                "a model needs a transform and a base distribution; got "
                f"{type(chain).__name__} and {type(base).__name__}{hint}."
            )
        if chain.out_shape != base.shape:
            raise ConfigError(
                f"the transforms end with shape {chain.out_shape} and the base has shape {base.shape}: give a base of that shape."
            )
        if chain.context and base.context and chain.context != base.context:
            raise ConfigError(
                f"the transforms read a context of width {chain.context}, so the base must read that width; got {base.context}."
            )
        self.chain = chain if isinstance(chain, Chain) else Chain(chain)
        self.base = base
        self.shape: Shape = self.chain.in_shape
        self.context_features = self.chain.context or base.context
        stated = join(self.chain.kind, base.kind)
        self.support_kind = check_support(self.chain.codomain, base.support, "the chain", type(base).__name__, stated)
        self.measure: Measure = self.chain.measure(base.measure)
        if self.context_features:  # networks see a standardized context, whatever its units
            self.register_buffer("context_mean", torch.zeros(self.context_features))
            self.register_buffer("context_scale", torch.ones(self.context_features))
            self.register_buffer("context_initialized", torch.tensor(False))

    context_mean: Tensor
    context_scale: Tensor
    context_initialized: Tensor

    @property
    def kind(self) -> Kind:
        """How a log-likelihood of this model relates to the true one: the join of the kinds of chain and base."""
        parts = self.chain.kind, self.base.kind, self.support_kind
        return Kind.EXACT if all(part is Kind.EXACT for part in parts) else join(*parts)

    @final
    def set_log_det(self, log_det: str) -> None:
        """Choose how transforms with an expensive log-determinant compute it: train with an estimate and score exactly.

        Args:
            log_det: "exact", or an estimate that the transforms of this model offer: "power" and "roulette"
                (:class:`~pushforward.transforms.InvertibleResidual`), "hutchinson"
                (:class:`~pushforward.transforms.Continuous`).

        Raises:
            ConfigError: if the model has no such transform, or the transform does not offer this choice.

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
        if hasattr(self, "log_det"):  # an argument of the constructor, which a model file stores
            self.log_det = log_det

    def held_out_value(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """What ``pf.fit`` compares weights by: the value of :meth:`evaluate` on held-out rows, nats, shape ``batch``.

        A model whose loss is not its likelihood can override it.
        """
        return self.evaluate(x, context).value

    @final
    def evaluate(self, x: Tensor, context: Tensor | None = None, *, samples: int = 1, seed: int = 0) -> LogLik:
        """Log-likelihood of each row, with its kind and measure.

        Args:
            x: data, ``(*batch, *shape)``.
            context: ``(*batch, context)``, for a model with a context.
            samples: number of draws of the noise of the model (dequantization and other stochastic transforms). The
                value is log mean exp over the draws (Burda et al. 2016, eq. 8), so more draws tighten a LOWER_BOUND. It is
                the plain mean over the draws if a transform only estimates its log-determinant, because the exponential
                would bias an unbiased estimate, and for an UPPER_BOUND, which the exponential would raise. Without such
                transforms ``samples`` has no effect. Memory does not grow with the number of draws: the result of several
                draws carries no gradient.
            seed: seed of that noise. The noise depends on the seed and on the row itself, never on the other rows.

        Returns:
            :class:`~pushforward.LogLik` with ``value`` of shape ``batch`` and the terms that add up to it, see there for
            several draws and infinite rows.

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
        draws = 1 if self.kind is Kind.EXACT else samples
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
                plain = self.kind is Kind.UPPER_BOUND or any(kind is not Kind.EXACT for kind in log_dets)
                value = mean.mean() if plain else mean.log_mean_exp()
                terms = {name: total / draws for name, total in terms.items()}
                # The spread of the draws includes the noise within each draw.
                stderr = mean.standard_error() if plain else mean.log_mean_exp_error()
        return LogLik(value, self.kind, self.measure, stderr, residual, terms)

    @final
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Exact log-density (or log-probability of discrete data) in nats, shape ``batch``.

        On a CPU, in evaluation mode and without gradient, many rows are scored in parts, so that memory does not grow
        with the number of rows. :func:`pushforward.compile_scorer` is faster for few rows at a time.

        Raises:
            KindError: if the model gives a bound or an estimate, or a density on a manifold; the message names
                ``evaluate``.
            InputError: for a wrong shape or type, or NaN.
        """
        require_log_prob(self.kind, self.measure)
        parts = row_parts(self, x, context, self.shape)
        values = [self._log_likelihood(rows, rows_context, None) for rows, rows_context in parts]
        return values[0] if len(values) == 1 else torch.cat(values)

    @final
    def conditional_log_prob(
        self, x: Tensor, context: Tensor | None = None, *, samples: int = 1, seed: int = 0
    ) -> Tensor:
        """Terms of the chain rule, log p(x_i | x_<i, context), nats, ``(*batch, *shape)``.

        They are defined if every transform of the chain is elementwise or autoregressive in one common order, and the
        base has independent coordinates or the same order. The terms then add up to the log-likelihood. ``samples`` and
        ``seed`` have the same meaning as in :meth:`evaluate`; terms are averaged over the draws.

        Raises:
            KindError: for models that do not factorize in one order (couplings, linear layers, alternating orders).

        Example:
            >>> import torch, pushforward as pf
            >>> model = pf.models.NSF(3, layer="autoregressive", linear="none", hidden=(16, 16))
            >>> x = torch.randn(4, 3)
            >>> torch.allclose(model.conditional_log_prob(x).sum(-1), model.log_prob(x), atol=1e-5)
            True
        """
        orders = {part.autoregressive_order for part in [*self.chain, self.base]} - {"any"}
        if "mixed" in orders or len(orders) > 1:
            raise KindError(
                f"{type(self).__name__} does not factorize in one order of the coordinates: use an autoregressive "
                'model with one order, such as NSF(layer="autoregressive", linear="none").'
            )
        x, context, far = self._read(x, context)
        check_integer("samples", samples)
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
        """Log-likelihood as one tensor, of any kind, for ``torch.compile`` and ``torch.export``."""
        return self._log_likelihood(x, context, None)

    def loss(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """What training minimizes, a scalar; it is never reported.

        -mean log-likelihood here; a surrogate in some models.
        """
        return -self._log_likelihood(x, context, generator).mean()

    @final
    def encode(self, x: Tensor, context: Tensor | None = None, *, seed: int = 0, float64: bool = False) -> Tensor:
        """Data to noise: ``(*batch, *shape)`` to ``(*batch, *base.shape)``.

        Args:
            x: data.
            context: context of the rows, for a model with a context.
            seed: seed of the noise of the model, such as dequantization.
            float64: keep the coordinates in float64 while networks run in the type of the weights. The noise is then
                float64, and ``decode(z, float64=True)`` recovers x to the rounding of float64 whatever the type of the
                weights; float32 noise has too few digits for that where a flow stretches space. Decode the batches that
                were encoded: float32 networks may round differently in a batch of another size. Rarely, a coordinate is
                so close to the midpoint of two float32 numbers that a network reads the other one in ``decode``; the
                error is then that of float32.

        Raises:
            InputError: for a wrong shape or type, or NaN.
            KindError: with ``float64``, if a transform drops part of its input or runs its network at other points in
                ``decode`` (autoregressive, residual and continuous transforms); the message names the transform. Models
                with float64 weights never raise it.

        Example:
            >>> import torch, pushforward as pf
            >>> model = pf.models.RealNVP(features=2)
            >>> x = torch.randn(5, 2)
            >>> z = model.encode(x, float64=True)
            >>> z.dtype, (model.decode(z, float64=True) - x).abs().max().item() < 1e-12
            (torch.float64, True)
        """
        if float64:
            check_float64(self.chain, type(self).__name__)
        x, context, _ = self._read(x, context, torch.float64 if float64 else None)
        return self.chain.encode(x, context, noise=RowNoise(seed)).z

    @final
    def decode(self, z: Tensor, context: Tensor | None = None, *, seed: int = 0, float64: bool = False) -> Tensor:
        """Noise to data: ``(*batch, *base.shape)`` to ``(*batch, *shape)``.

        Args:
            z: noise.
            context: context of the rows, for a model with a context.
            seed: seed of everything that the transforms draw.
            float64: keep the coordinates in float64, see :meth:`encode`; the data are then float64.

        Raises:
            InputError: for a wrong shape or type, or NaN.
            KindError: with ``float64``, for the transforms that :meth:`encode` refuses.
        """
        check_data(z, self.base.shape, "noise of " + type(self).__name__)
        if float64:
            check_float64(self.chain, type(self).__name__)
        z = z.to(torch.float64 if float64 else self.latent_dtype)
        context = self.prepare_context(context, z.shape[: z.dim() - len(self.base.shape)])
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
            sample_shape: number of samples, an integer or a shape.
            context: ``(*context_batch, context)``; the samples are drawn for each context.
            seed: makes the samples reproducible; or pass a ``generator``.
            noise: noise to decode instead of drawing it from the base (interpolation, paired comparisons), ``(*batch,
                *base.shape)``; a context broadcasts to its batch.
        """
        with torch.no_grad():
            return self._draw(sample_shape, context, seed, generator, noise)

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
        """The same as :meth:`sample`, with gradients to the parameters and the context.

        Raises:
            KindError: if the base or a transform draws a category, a sign or an order, as
                :class:`~pushforward.distributions.GaussianMixture` does: no gradient passes through such a draw. With
                ``noise`` the base draws nothing, so any base will do.
        """
        check_rsample(self.chain if noise is not None else [self.base, *self.chain])
        return self._draw(sample_shape, context, seed, generator, noise)

    @final
    def sample_and_log_prob(
        self,
        sample_shape: int | tuple[int, ...] = (),
        context: Tensor | None = None,
        *,
        seed: int | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Samples with gradients and their log-density, in one pass if the transforms allow it (variational inference).

        Both are without gradient where :meth:`rsample` raises an error, because that of such samples would lack the part
        of the draw. :meth:`log_prob` of the samples has a gradient at fixed samples.

        Raises:
            KindError: if :meth:`log_prob` raises it.
        """
        require_log_prob(self.kind, self.measure)
        carries = all(part.has_rsample for part in [self.base, *self.chain])
        with torch.set_grad_enabled(torch.is_grad_enabled() and carries):
            z, context, generator = self._base_sample(sample_shape, context, seed, generator, None)
            x, contribution = self.chain.decode_with_contribution(z, context, noise=generator)
            batch = z.shape[: z.dim() - len(self.base.shape)]
            if is_eager() and (contribution.shape != batch or x.shape != (*batch, *self.shape)):
                self._refuse_decode(z, context, generator)
            return x, self._base_log_prob(z, context) + contribution

    @final
    def distribution(self, context: Tensor | None = None) -> torch.distributions.Distribution:
        """This model as a ``torch.distributions`` object, for Pyro, mixtures, KL divergences by Monte Carlo and the like.

        Its batch shape is that of the context. Its ``log_prob`` raises what :meth:`log_prob` raises.
        """
        return ModelDistribution(self, context)

    @final
    def initialize(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> None:
        """Set data-dependent state from training rows; ``pf.fit`` calls it once.

        This state is the standardization of data and context, the scaling of actnorms, and stored rows.

        Raises:
            InputError: for a wrong shape or type, NaN, or an infinite value, also of the context; nothing is set then.
        """
        with torch.no_grad():
            check_shape(x, self.shape, type(self).__name__)
            check_finite(x, type(self).__name__)
            if self.context_features and context is not None and not self.context_initialized:
                # Before its statistics are set: a context that is refused must leave none.
                check_model_context(context, self.context_features, type(self).__name__, training=False)
                self.prepare_context(context, x.shape[: x.dim() - len(self.shape)])
                if not self.base.reads_raw_context:
                    width = (self.context_features,)
                    mean, spread = moments(context, width, width)
                    self.context_mean.copy_(mean)
                    self.context_scale.copy_(torch.where(spread > 0, spread, 1.0))
                self.context_initialized.fill_(True)
            x, context, _ = self.prepare(x, context)
            self.base.initialize(self.chain.initialize(x, context, noise=generator), context)

    @final
    def refresh(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> None:
        """Update statistics that depend on the weights (batch norm) from training rows, without gradient."""
        if self.needs_refresh:
            with torch.no_grad():
                x, context, _ = self.prepare(x, context)
                self.base.refresh(self.chain.refresh(x, context, noise=generator), context, generator=generator)

    @property
    def needs_refresh(self) -> bool:
        """Whether it has batch normalization, so that :meth:`refresh` is needed before evaluation."""
        return self.chain.needs_refresh or self.base.needs_refresh

    @property
    def dtype(self) -> torch.dtype:
        """Floating type that data are cast to: the type of the first transform with tensors."""
        return floating_type(itertools.chain(self.chain.transforms, (self.base,)))

    @property
    def latent_dtype(self) -> torch.dtype:
        """Floating type of the noise: the type of the base, or of the last transform with tensors."""
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
        """Text of ``repr`` before the parts."""
        size = "x".join(map(str, self.shape))
        context = f", context={self.context_features}" if self.context_features else ""
        return (
            f"shape={size}{context}, {self.kind.value} on {self.measure}, fast={self.fast!r} "
            f"(log_prob {self.chain.encode_passes}, sample {self._sample_passes} steps a layer)"
        )

    def _repr_html_(self) -> str:
        """What the model is and its layers, for a notebook."""
        facts = [
            ("data", "x".join(map(str, self.shape))),
            ("context", self.context_features or None),
            ("log-likelihood", f"{self.kind.value} on {self.measure}"),
            ("parameters", f"{sum(p.numel() for p in self.parameters()):,}"),
            ("one pass", {"both": "log_prob and sample", "log_prob": "log_prob", "sample": "sample"}[self.fast]),
            ("mode", "training" if self.training else "evaluation"),
        ]
        rows = [
            (str(index), type(part).__name__, "x".join(map(str, part.out_shape)), part.kind.value)
            for index, part in enumerate(self.chain)
        ]
        rows.append(("base", type(self.base).__name__, "x".join(map(str, self.base.shape)), self.base.kind.value))
        more = table(("layer", "class", "shape after it", "kind"), rows, f"{len(rows) - 1} transforms and a base")
        return card(type(self).__name__, facts, more)

    def _terms(
        self, x: Tensor, context: Tensor | None, noise: Noise
    ) -> tuple[dict[str, Tensor], Tensor | None, Tensor | None]:
        terms: dict[str, Tensor] = {}
        total: Step | None = None
        for index, step in enumerate(self.chain.encode_steps(x, context, noise=noise)):
            terms[f"{index}.{type(self.chain[index]).__name__}"] = step.contribution
            total = step if total is None else total.then(step)
        total = Step(x, self.chain.zero_log_det(x)) if total is None else total
        self._check_steps(total, x, context, noise)
        terms["base"] = self._base_log_prob(total.z, context)
        return terms, total.residual, total.stderr

    def _log_likelihood(self, x: Tensor, context: Tensor | None, noise: Noise) -> Tensor:
        x, context, far = self._read(x, context)
        step = self.chain.encode(x, context, noise=noise)
        self._check_steps(step, x, context, noise)
        found = step.contribution + self._base_log_prob(step.z, context)
        return found if far is None else far + found

    def _base_log_prob(self, z: Tensor, context: Tensor | None) -> Tensor:
        """Log-density of the base at z, ``(*batch, *base.shape)``.

        Raises:
            ConfigError: if it is not one number for each row.
        """
        found, batch = self.base.log_prob(z, context), z.shape[: z.dim() - len(self.base.shape)]
        if is_eager() and getattr(found, "shape", None) != batch:
            what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"type {type(found).__name__}"
            raise ConfigError(
                f"{type(self.base).__name__}.log_prob returned a log-density of {what} for noise of shape "
                f"{tuple(z.shape)}; it must be a tensor of the shape {tuple(batch)}."
            )
        return found

    def _check_steps(self, total: Step, x: Tensor, context: Tensor | None, noise: Noise) -> None:
        """Refuse a result of the chain with a wrong shape, which broadcasting would accept without a word.

        Raises:
            ConfigError: naming the transform whose step has it.
        """
        dims = x.dim() - len(self.shape)
        if not is_eager() or (total.contribution.shape == x.shape[:dims] and total.z.shape[dims:] == self.base.shape):
            return
        batch = x.shape[: x.dim() - len(self.shape)]
        for part, step in zip(self.chain, self.chain.encode_steps(x, context, noise=noise), strict=True):
            if step.z.shape != (*batch, *part.out_shape):
                name, found, wanted = "z", step.z.shape, (*batch, *part.out_shape)
            elif step.contribution.shape != batch:
                name, found, wanted = "contribution", step.contribution.shape, batch
            else:
                continue
            raise ConfigError(
                f"{type(part).__name__}.encode returned a {name} of shape {tuple(found)} for data of shape "
                f"{tuple(x.shape)}; it must have the shape {tuple(wanted)}."
            )

    def _refuse_decode(self, z: Tensor, context: Tensor | None, noise: Noise) -> None:
        """Name the transform whose ``decode_with_contribution`` gave a wrong shape.

        Raises:
            ConfigError: if there is one.
        """
        batch = z.shape[: z.dim() - len(self.base.shape)]
        for part in reversed(list(self.chain)):
            x, contribution = part.decode_with_contribution(z, context, noise=noise)
            own = type(part).decode_with_contribution is not Transform.decode_with_contribution
            if x.shape != (*batch, *part.in_shape):
                call, name, found, wanted = "decode", "an x", x.shape, (*batch, *part.in_shape)
            elif contribution.shape != batch:
                call, name, found, wanted = "encode", "a contribution", contribution.shape, batch
            else:
                z = x
                continue
            raise ConfigError(
                f"{type(part).__name__}.{'decode_with_contribution' if own else call} returned {name} of shape "
                f"{tuple(found)} for noise of shape {tuple(z.shape)}; it must have the shape {tuple(wanted)}."
            )

    @final
    def prepare(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor | None, Tensor]:
        """Data and context as the transforms read them, for code that runs the chain itself.

        Returns:
            x, checked and cast, with 0 in place of infinite entries; the context, checked, standardized and broadcast;
            and the log-density to add: -inf for rows with an infinite entry, else 0 (a scalar 0 if there is no such
            row).

        Raises:
            InputError: for a wrong shape or type, or NaN.
        """
        x, context, far = self._read(x, context)
        return x, context, x.new_zeros(()) if far is None else far

    @final
    def prepare_context(self, context: Tensor | None, batch: Size) -> Tensor | None:
        """A context as the transforms read it: checked, standardized and broadcast, ``(*batch, context)``.

        Raises:
            InputError: for a wrong width, a value that is not finite, or a shape that does not broadcast.
        """
        check_model_context(context, self.context_features, type(self).__name__, training=self.training)
        if context is None:
            return None
        context = (context.to(self.context_mean.dtype) - self.context_mean) / self.context_scale
        try:
            return context.expand(*batch, self.context_features)
        except RuntimeError:
            raise InputError(
                f"a context of shape {tuple(context.shape)} does not broadcast to the data's batch {tuple(batch)}: expand the data "
                "to the batch of the context, or use model.distribution(context)."
            ) from None

    def _read(
        self, x: Tensor, context: Tensor | None, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What :meth:`prepare` returns, with None for the log-density to add if no row has an infinite entry."""
        owner = type(self).__name__
        check_shape(x, self.shape, owner)
        given, x = x, x.to(self.dtype if dtype is None else dtype)
        context = self.prepare_context(context, x.shape[: x.dim() - len(self.shape)])
        if may_check_values(x, self.training):
            # A finite sum shows that every value is finite, in a tenth of the time that a check of each value takes.
            if math.isfinite(x.detach().sum().item()):
                return x, context, None
            check_no_nan(given, owner)
            if torch.isfinite(x).all():
                return x, context, None
        x, far = split_infinite(cast_finite(given, x.dtype), len(self.shape))
        return x, context, far

    def _draw(
        self,
        sample_shape: int | tuple[int, ...],
        context: Tensor | None,
        seed: int | None,
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        z, context, generator = self._base_sample(sample_shape, context, seed, generator, noise)
        return self.chain.decode(z, context, noise=generator)

    def _base_sample(
        self,
        sample_shape: int | tuple[int, ...],
        context: Tensor | None,
        seed: int | None,
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> tuple[Tensor, Tensor | None, torch.Generator]:
        """Noise, given or drawn from the base, its context, and the generator for the transforms."""
        device = next((t.device for t in itertools.chain(self.parameters(), self.buffers())), torch.device("cpu"))
        generator = seeded_generator(seed, generator, device)
        batch = check_sample_shape(sample_shape)
        check_model_context(context, self.context_features, type(self).__name__, training=self.training)
        if noise is not None:
            check_data(noise, self.base.shape, "noise of " + type(self).__name__)
            rows = noise.shape[: noise.dim() - len(self.base.shape)]
            if batch and rows[: len(batch)] != batch:
                raise ConfigError(
                    f"the noise has the batch shape {tuple(rows)}, and sample_shape is {tuple(batch)}: leave "
                    "sample_shape out."
                )
            return noise.to(self.latent_dtype), self.prepare_context(context, rows), generator
        if context is not None:
            batch = batch + context.shape[:-1]
        context = self.prepare_context(context, batch)
        return self.base.sample(batch, context, generator=generator), context, generator
