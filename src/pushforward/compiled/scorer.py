"""`compile_scorer`: a fast log-likelihood of a model whose weights no longer change, for few rows at a time."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Size, Tensor, nn

from pushforward.compiled.lowering import NotLowerable, lower
from pushforward.distributions import Distribution
from pushforward.errors import ConfigError, KindWarning, PushforwardWarning, collected
from pushforward.kernels.native import kernels
from pushforward.kernels.program import Program
from pushforward.models import Ensemble, Flow, Model
from pushforward.networks.masked import MaskedLinear
from pushforward.numerics import logmeanexp
from pushforward.numerics.checks import check_integer
from pushforward.transforms import Chain

__all__ = ["CompiledScorer", "compile_scorer"]


def compile_scorer(model: Model) -> CompiledScorer:
    """A fast log-likelihood of a model with its present weights, for a few rows at a time, as a service scores them.

    The scorer keeps a copy, so the model may change afterwards. Flows of vectors made of couplings, autoregressive and linear
    layers (NICE, RealNVP, MAF, NSF, and ensembles of them) become a program: a short list of operations that one native
    function runs, with masks multiplied in and constant log-determinants added up. One row then takes tens of microseconds; a
    call for each of torch's operations takes ten times that. The program serves any number of rows, and the number of a row does
    not depend on the others. Transforms at the data's end that have no native form run in torch before the program. A model
    without native form is scored by the copy in torch, with one warning that says why. Results agree with the model's to
    rounding.

    Args:
        model: any model; the copy is in evaluation mode.

    Returns:
        A function of rows, :class:`CompiledScorer`.

    Raises:
        ConfigError: if it is not a model.

    Example:
        >>> import torch, pushforward as pf
        >>> model = pf.models.RealNVP(3, hidden=(16,)).eval()
        >>> score = pf.compile_scorer(model)
        >>> x = torch.randn(1, 3)
        >>> torch.allclose(score(x), model.log_prob(x), atol=1e-5)
        True
    """
    if not isinstance(model, Model):
        raise ConfigError(
            f"compile_scorer takes a pushforward model, such as pf.models.MAF(features=6); got {model!r:.80}."
        )
    return CompiledScorer(model)


class CompiledScorer:
    """The log-likelihood of a model with fixed weights; see :func:`compile_scorer`. Several threads may call it at once.

    Attributes:
        native: how much of the model runs natively: "all", "part" (all but transforms at the data's end) or "none".
        reason: what does not run natively, and why; empty for "all".

    Example:
        >>> import torch, pushforward as pf
        >>> model = pf.models.NSF(features=2, layers=2, hidden=(8, 8)).eval()
        >>> fast = pf.compile_scorer(model)
        >>> x = torch.zeros(1, 2)
        >>> torch.allclose(fast(x), model.log_prob(x), atol=1e-4)
        True
    """

    def __init__(self, model: Model) -> None:
        with torch.no_grad():
            self._copy = fixed_copy(model)
            self._model, self._density, self.native, self.reason = lower_model(self._copy)
        if self.native == "none" and kernels() != "plain":
            warnings.warn(
                f"the scorer of this {type(model).__name__} runs in torch, not natively: {self.reason}.",
                PushforwardWarning,
                stacklevel=3,
            )

    @torch.no_grad()
    def __call__(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-likelihood of each row, nats, without gradient: ``(*batch, *shape)`` to ``batch``.

        The kind is that of the model (``evaluate`` says which). Rows that are infinitely far have -inf.

        Raises:
            InputError: for a wrong shape or type, or NaN, as the model does.
        """
        density = self._density
        if density is not None and isinstance(x, Tensor) and x.dim() == 2 and x.shape[1:] == self._copy.shape:
            found = density.run(x, context, self._model)
            if found is not None:
                return found
        return self._model(x, context)

    @torch.no_grad()
    def value(self, x: Tensor, context: Tensor | None = None, *, samples: int = 1, seed: int = 0) -> Tensor:
        """The ``value`` of the model's ``evaluate`` with these samples and this seed, nats, without gradient."""
        check_integer("samples", samples)
        if self._density is not None:  # exact: there is no noise to draw
            return self(x, context)
        return self._model.evaluate(x, context, samples=samples, seed=seed).value

    def __repr__(self) -> str:
        return f"CompiledScorer({type(self._copy).__name__}, native={self.native!r})"


class NativeDensity(Distribution):
    """A base distribution that scores rows by programs, and by torch modules where programs cannot.

    Args:
        programs: one, or one for each member of an ensemble, whose densities are averaged.
        chain: the transforms that the programs replace; may be empty.
        base: the base distribution that they replace.
        raw: whether the programs standardize the context themselves.
    """

    def __init__(self, programs: list[Program], chain: Chain, base: Distribution, raw: bool) -> None:
        super().__init__(chain.in_shape)
        self.chain, self.base = chain, base
        self.context = chain.context or base.context
        self.support = base.support if chain.domain is None else chain.domain
        self.kind = base.kind
        self.programs, self.raw = programs, raw

    @property
    def measure(self) -> Any:
        """That of the modules."""
        return self.chain.measure(self.base.measure)

    def run(
        self, x: Tensor, context: Tensor | None, modules: Callable[[Tensor, Tensor | None], Tensor]
    ) -> Tensor | None:
        """Log-density of rows ``(n, D)`` by the programs, and of infinite rows by the modules; None for other inputs and NaN."""
        if not len(x) or x.is_complex() or x.device.type != "cpu":
            return None
        if not self.context:
            if context is not None:
                return None
        elif not isinstance(context, Tensor) or context.shape != (len(x), self.context):
            return None
        dtype = self.programs[0].dtype
        rows = x.to(dtype).contiguous().resolve_neg()
        contexts = None if context is None else context.to(dtype).contiguous().resolve_neg()
        found = self._by_programs(rows, contexts)
        if found is not None:
            return found
        usual = rows.isfinite().all(1)
        if contexts is not None:
            usual &= contexts.isfinite().all(1)
        if not usual.any() or x.isnan().any() or (context is not None and context.isnan().any()):
            return None
        there = self._by_programs(rows[usual], None if contexts is None else contexts[usual])
        if there is None:
            return None
        rest = modules(x[~usual], None if context is None else context[~usual])
        found = rest.new_empty(len(x))
        found[usual], found[~usual] = there.to(rest), rest
        return found

    def _by_programs(self, x: Tensor, context: Tensor | None) -> Tensor | None:
        """Log-density by the programs; None if a number is not finite."""
        found = []
        for program in self.programs:
            part = program.run(x, context)
            if part is None:
                return None
            found.append(part)
        return found[0] if len(found) == 1 else logmeanexp(torch.stack(found), 0)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats: ``(*batch, *shape)`` to ``batch``."""
        if not self.raw and not torch.is_grad_enabled():
            batch = z.shape[:-1]
            rows = None
            if self.context and context is not None:
                rows = context.expand(*batch, self.context).reshape(-1, self.context)
            found = self.run(z.reshape(-1, z.shape[-1]), rows, self._by_modules)
            if found is not None:
                return found.reshape(batch)
        return self._by_modules(z, context)

    def _by_modules(self, z: Tensor, context: Tensor | None) -> Tensor:
        step = self.chain.encode(z, context)
        return step.contribution + self.base.log_prob(step.z, context)

    def sample(self, batch: Size, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Drawn by the modules."""
        z = self.base.sample(batch, context, generator=generator)
        return self.chain.decode(z, context, noise=generator)


def fixed_copy(model: Model) -> Model:
    """A copy in evaluation mode, without gradients, and with masks multiplied into the weights."""
    fixed = copy.deepcopy(model).eval().requires_grad_(False)
    for parent in list(fixed.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, MaskedLinear):
                plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
                plain.weight = nn.Parameter(layer.weight * layer.mask, requires_grad=False)
                plain.bias = layer.bias
                setattr(parent, name, plain)
    return fixed


def lower_model(model: Model) -> tuple[Model, NativeDensity | None, str, str]:
    """As much of a model as possible as programs.

    Returns:
        A model for the rows that programs do not take; the density that programs compute from the user's rows, if they compute
        all of it; how much they compute ("all", "part", "none"); and why not more.
    """
    chain = model.chain
    scaling = (model.context_mean, model.context_scale) if model.context_features else None
    if type(chain) is not Chain:
        return model, None, "none", f"there is no native version of {type(chain).__name__}"
    best, reason = None, ""
    for first in range(len(chain), -1, -1):  # from the base toward the data
        try:
            programs = lower_members(chain[first:], model.base, model.context_features, None if first else scaling)
        except NotLowerable as part:
            reason = f"there is no native version of {part}"
            break
        best = first, programs
    if best is None or (best[0] and not has_network(chain[best[0] :], model.base)):
        return model, None, "none", reason
    first, programs = best
    if any(program.ready() is None for program in programs):
        return (
            model,
            None,
            "none",
            "the native kernels are not installed or not in use (see `pushforward info --system`)",
        )
    density = NativeDensity(programs, chain[first:], model.base, first == 0)
    if first == 0:
        return model, density, "all", ""
    with collected(KindWarning):  # the model warned when it was built
        rest = Flow(chain[:first], density).eval()
    if scaling is not None:
        rest.context_features = model.context_features
        rest.register_buffer("context_mean", scaling[0])
        rest.register_buffer("context_scale", scaling[1])
    return rest, None, "part", reason


def has_network(chain: Chain, base: Distribution) -> bool:
    """Whether there is a linear layer; without one a program saves too little."""
    return any(isinstance(module, nn.Linear) for part in (*chain, base) for module in part.modules())


def lower_members(
    chain: Chain, base: Distribution, context: int, scaling: tuple[Tensor, Tensor] | None
) -> list[Program]:
    """One program, or one for each member of an ensemble.

    Raises:
        NotLowerable: naming the part that has no operation.
    """
    width = chain.in_shape[0]
    if not isinstance(base, Ensemble):
        return [lower(list(chain), base, width, context, scaling)]
    if context:
        raise NotLowerable("an ensemble with a context")
    members = [model for model in base.models if isinstance(model, Model)]
    return [lower([*chain, *member.chain], member.base, width, 0) for member in members]
