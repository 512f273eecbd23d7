"""`compile_scorer`: a model's log-likelihood with its weights as they are now, quick for few rows at a time."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Size, Tensor, nn

from pushforward.compiled.lowering import NotLowerable, write
from pushforward.distributions import Distribution
from pushforward.errors import ConfigError, KindWarning, PushforwardWarning
from pushforward.kernels.native import kernels
from pushforward.kernels.program import Program
from pushforward.models import Ensemble, Flow, Model
from pushforward.networks.masked import MaskedLinear
from pushforward.numerics import logmeanexp
from pushforward.transforms import Chain

__all__ = ["CompiledScorer", "compile_scorer"]


def compile_scorer(model: Model) -> CompiledScorer:
    """The log-likelihood of a model with its weights as they are now, quick for few rows at a time.

    A copy is taken: the model stays as it is, and what happens to it later does not reach the copy. Where a C compiler is
    found, flows of couplings, autoregressive and linear layers (NICE, RealNVP, MAF, NSF of vectors, and ensembles of
    them) become a short list of operations that one compiled function runs, with the masks multiplied in and constant
    log-determinants added up: one row costs tens of microseconds, where calling torch's operations one after the other
    costs ten times that. Nothing is compiled for a batch size, and a row's number does not depend on how many come with
    it. Transforms at the data's end that have no such form run in torch before it, and a model that does not fit at all is the
    copy in torch, with one warning that says why. Numbers agree with the model's to rounding.

    Args:
        model: any model; in evaluation mode from here on, as a copy.

    Returns:
        :class:`Frozen`, a function of rows.

    Raises:
        ConfigError: for anything that is no model.

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
    """A model's log-likelihood with fixed weights; see :func:`compile_scorer`. May be called from several threads at a time.

    Attributes:
        native: how much of the model runs in the compiled function: "all", "part" (the transforms at the data's end do not) or
            "none".
        reason: what does not, and why; empty for "all".
    """

    def __init__(self, model: Model) -> None:
        with torch.no_grad():
            self._plain = plain_copy(model)
            self._model, self._density, self.native, self.reason = accelerate(self._plain)
        if self.native == "none" and kernels() != "plain":
            warnings.warn(
                f"this {type(model).__name__} is frozen in plain torch operations: {self.reason}.",
                PushforwardWarning,
                stacklevel=3,
            )

    @torch.no_grad()
    def __call__(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-likelihood of each row, nats, without gradient: ``(*batch, *shape)`` to ``batch``.

        What the model's ``forward`` returns, of whatever kind it is (``evaluate`` says which). Rows that are infinitely
        far have -inf.

        Raises:
            InputError: for a wrong shape or type, or NaN, as the model does.
        """
        density = self._density
        if density is not None and isinstance(x, Tensor) and x.dim() == 2 and x.shape[1:] == self._plain.shape:
            found = density.quick(x, context)
            if found is not None:
                return found
        return self._model(x, context)

    @torch.no_grad()
    def value(self, x: Tensor, context: Tensor | None = None, *, samples: int = 1, seed: int = 0) -> Tensor:
        """The value of the model's ``evaluate`` with these samples and this seed, nats, without gradient."""
        if self._density is not None:  # an exact value: nothing is drawn
            return self(x, context)
        return self._model.evaluate(x, context, samples=samples, seed=seed).value

    def __repr__(self) -> str:
        return f"Frozen({type(self._plain).__name__}, native={self.native!r})"


class NativeDensity(Distribution):
    """A base that scores rows by programs (the mean of their densities), and by the modules behind them where those cannot.

    Args:
        programs: one, or one for each member of an ensemble.
        chain: the transforms that the programs replace; may be empty.
        base: the base distribution that they replace.
        raw: whether programs read the context as the user gives it; else standardized.
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
        """Of the density behind."""
        return self.chain.measure(self.base.measure)

    def quick(self, x: Tensor, context: Tensor | None) -> Tensor | None:
        """Log-density of rows ``(n, D)``, from a context as the user gives it; None where that must go another way."""
        if not len(x) or x.is_complex() or x.device.type != "cpu":
            return None
        dtype = self.programs[0].dtype
        x = x.to(dtype).contiguous().resolve_neg()
        if self.context:
            if not isinstance(context, Tensor) or context.shape != (len(x), self.context):
                return None
            context = context.to(dtype).contiguous().resolve_neg()
        elif context is not None:
            return None
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
            wide = context if context is None or not self.context else context.expand(*batch, self.context)
            rows = None if wide is None or not self.context else wide.reshape(-1, self.context)
            found = self.quick(z.reshape(-1, z.shape[-1]), rows)
            if found is not None:
                return found.reshape(batch)
        step = self.chain.encode(z, context)
        return step.contribution + self.base.log_prob(step.z, context)

    def sample(self, batch: Size, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Drawn by the modules behind."""
        z = self.base.sample(batch, context, generator=generator)
        return self.chain.decode(z, context, noise=generator)


def plain_copy(model: Model) -> Model:
    """A copy in evaluation mode, whose weights are fixed and whose masks are multiplied in."""
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    for parent in list(frozen.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, MaskedLinear):
                plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
                plain.weight = nn.Parameter(layer.weight * layer.mask, requires_grad=False)
                plain.bias = layer.bias
                setattr(parent, name, plain)
    return frozen


def accelerate(model: Model) -> tuple[Model, NativeDensity | None, str, str]:
    """As much of a model as possible in programs.

    Returns:
        A model for all that programs do not do; the density that they give of the user's rows, if they do it all; how much
        they do ("all", "part", "none"), and why not more.
    """
    chain = model.chain
    scaling = (model.context_mean, model.context_scale) if model.context_features else None
    if type(chain) is not Chain:
        return model, None, "none", f"there is no native version of {type(chain).__name__}"
    best, reason = None, ""
    for first in range(len(chain), -1, -1):  # from the base toward the data, as far as it goes
        try:
            programs = programs_of(chain[first:], model.base, model.context_features, None if first else scaling)
        except NotLowerable as stranger:
            reason = f"there is no native version of {stranger}"
            break
        best = first, programs
    if best is None or (best[0] and not worth(chain[best[0] :], model.base)):
        return model, None, "none", reason
    first, programs = best
    if any(program.ready() is None for program in programs):
        return model, None, "none", "no C compiler is at hand"
    density = NativeDensity(programs, chain[first:], model.base, first == 0)
    if first == 0:
        return model, density, "all", ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KindWarning)  # the model that is taken apart has said it
        rest = Flow(chain[:first], density).eval()
    if scaling is not None:
        rest.context_features = model.context_features
        rest.register_buffer("context_mean", scaling[0])
        rest.register_buffer("context_scale", scaling[1])
    return rest, None, "part", reason


def worth(parts: Chain, base: Distribution) -> bool:
    """Whether a program of these has anything to gain: a network."""
    return any(isinstance(module, nn.Linear) for part in (*parts, base) for module in part.modules())


def programs_of(parts: Chain, base: Distribution, context: int, scaling: tuple[Tensor, Tensor] | None) -> list[Program]:
    """One program, or one for each member of an ensemble.

    Raises:
        NotLowerable: naming what has no operation.
    """
    width = parts.in_shape[0]
    if not isinstance(base, Ensemble):
        return [write(list(parts), base, width, context, scaling)]
    if context:
        raise NotLowerable("an ensemble with a context")
    members = [model for model in base.models if isinstance(model, Model)]
    return [write([*parts, *member.chain], member.base, width, 0) for member in members]
