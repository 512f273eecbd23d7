"""`FewRows`: a program that follows its model, for calls with one row or a few."""

from __future__ import annotations

import ctypes
import itertools
import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module

from pushforward.compiled.lowering import NotLowerable, write
from pushforward.distributions import Distribution
from pushforward.kernels import Program, kernels
from pushforward.kernels.program import MANY
from pushforward.networks.masked import MaskedLinear
from pushforward.numerics import is_eager
from pushforward.transforms import Chain

__all__ = ["FewRows"]


class FewRows:
    """Log-likelihoods of few rows of a model by a program, with the weights that the model has at each call.

    A layer costs torch tens of microseconds however few the rows; the whole of a program takes so long for one row. Layers
    are read where they lie, so that training, loading and whatever else writes to them is followed. What the program holds a
    copy of (scales, permutations, small matrices) is compared at each call, number by number; so are the modules, their
    attributes and the addresses of their tensors, by identity. If anything differs the program is written anew. A model with
    hooks, or with a part that programs have no operation for, is left to torch, and so are more rows than pay
    (:attr:`~pushforward.kernels.Program.most`).

    Example:
        >>> import torch
        >>> from pushforward import models
        >>> model = models.MAF(2).eval()
        >>> with torch.no_grad():
        ...     found = FewRows().log_prob(model.chain, model.base, torch.zeros(1, 2), None)
        >>> found is None or found.shape == (1,)     # None where there is no C compiler
        True
    """

    def __init__(self) -> None:
        self._state: _State | None = None
        self._hopeless = False

    def log_prob(
        self,
        chain: Chain,
        base: Distribution,
        x: Tensor,
        context: Tensor | None,
        scaling: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor | None:
        """Log-density in nats, ``(n, D)`` to ``n`` or ``(D,)`` to one number; None where it must go another way.

        Args:
            chain: transforms.
            base: what they lead to.
            x: rows as the user gives them.
            context: ``(n, C)`` or ``(C,)``, or None.
            scaling: mean and scale of the context.
        """
        if self._hopeless or not plainly_run():  # first: a compiler must not see what follows
            return None
        if lone(x) and (context is None or lone(context)):
            given = None if context is None else context.unsqueeze(0)
            found = self.log_prob(chain, base, x.unsqueeze(0), given, scaling)
            return None if found is None else found.squeeze(0)
        if not few(x) or (context is not None and not few(context)):
            return None
        state = self._state
        if state is not None and len(x) > state.program.most:
            return None
        if state is None or not state.holds(chain, base, scaling):
            self._state = state = self._written(chain, base, scaling)
            if state is None:
                return None
        program = state.program
        if len(x) > program.most:
            return None
        shape = None if context is None else tuple(context.shape)
        if x.shape[1] != program.features or shape != ((len(x), program.context) if program.context else None):
            return None
        given = None if context is None else context.to(program.dtype).contiguous()
        return program.run(x.to(program.dtype).contiguous(), given)

    def _written(self, chain: Chain, base: Distribution, scaling: tuple[Tensor, Tensor] | None) -> _State | None:
        modules = [*chain.modules(), *base.modules()]
        if not ordinary(modules, scaling or ()):
            return None
        parts = list(chain)
        shape = parts[0].in_shape if parts else base.shape
        try:
            if type(chain) is not Chain or len(shape) != 1:
                raise NotLowerable("another chain, or images")
            width = 0 if scaling is None else scaling[0].numel()
            program = write(parts, base, shape[0], width, scaling, follows=True)
        except NotLowerable:
            self._hopeless = True
            return None
        return None if program.ready() is None else _State(chain, base, modules, scaling or (), program)

    def __reduce__(self) -> tuple[type[FewRows], tuple[()]]:
        """Copies and files hold none of it: addresses mean nothing there."""
        return FewRows, ()


class _State:
    """A program, and all that must be as it was when the program was written. It holds no model, which so goes when nobody needs it."""

    def __init__(
        self, chain: Chain, base: Distribution, modules: list[nn.Module], scaling: tuple[Tensor, ...], program: Program
    ) -> None:
        self.chain, self.base, self.modules, self.program = chain, base, modules, program
        self.scaled = tuple(map(id, scaling))  # which self.places keeps alive
        self.hooks = [hooks for m in modules for hooks in (m._forward_hooks, m._forward_pre_hooks)]
        self.types = list(map(type, modules))
        registers = [d for m in modules for d in (m._parameters, m._buffers, m._modules)]
        self.dicts = [*registers, *map(vars, modules)]
        self.counts = list(map(len, self.dicts))
        self.registers = [d for d in registers if d]
        self.settings = [setting for m in modules if (setting := settings_of(m)) is not None]
        self.values = list(self._current())
        tensors = [t for d in registers for t in d.values() if isinstance(t, Tensor)] + [*scaling]
        masks = [m.mask for m in modules if isinstance(m, MaskedLinear)]
        self.masks = [(mask, mask._version) for mask in masks]
        self.autoregressive_order = [(t, t.data_ptr(), t.shape) for t in tensors]
        apart = {id(t) for t in (*program.in_place, *masks)}
        copied = [t for t in tensors if id(t) not in apart and t.numel()]
        self.copies = [t.detach().clone() for t in copied]
        count = len(copied)
        addresses = ctypes.c_void_p * count
        self.compare = (
            ctypes.c_int64(count),
            addresses(*(t.data_ptr() for t in copied)),
            addresses(*(t.data_ptr() for t in self.copies)),
            (ctypes.c_int64 * count)(*(t.numel() * t.element_size() for t in copied)),
        )
        compiled = program.ready()
        assert compiled is not None
        self.same = compiled.same

    def holds(self, chain: Chain, base: Distribution, scaling: tuple[Tensor, Tensor] | None) -> bool:
        """Whether these are the parts of then, and nothing has changed but numbers that are read in place."""
        if chain is not self.chain or base is not self.base or tuple(map(id, scaling or ())) != self.scaled:
            return False
        try:
            return self._unchanged()
        except KeyError:  # an attribute has gone, and another has come
            return False

    def _unchanged(self) -> bool:
        return (
            not any(self.hooks)
            and not any(map(_training, self.modules))
            and all(map(operator.is_, map(type, self.modules), self.types))
            and list(map(len, self.dicts)) == self.counts  # so the next line finds as many as there were
            and all(map(operator.is_, self._current(), self.values))
            and all(
                t.data_ptr() == at and t.shape == shape and t.is_contiguous()
                for t, at, shape in self.autoregressive_order
            )
            and all(mask._version == version for mask, version in self.masks)
            and self.same(*self.compare) == 1
        )

    def _current(self) -> Iterator[Any]:
        """All tensors, parts and settings of all modules."""
        return itertools.chain(
            itertools.chain.from_iterable(map(_values, self.registers)),
            itertools.chain.from_iterable(get(attributes) for get, attributes in self.settings),
        )


_training = operator.attrgetter("training")
_values = dict.values


def lone(x: Tensor) -> bool:
    """Whether this is one row."""
    return isinstance(x, Tensor) and x.dim() == 1


def few(x: Tensor) -> bool:
    """Whether these are a few ordinary rows."""
    if type(x) is not Tensor or x.dim() != 2 or not 0 < len(x) <= MANY:
        return False
    return x.device.type == "cpu" and x.layout is torch.strided and not x.is_complex() and not x.is_neg()


def plainly_run() -> bool:
    """Whether nothing asks for torch's own operations: gradients, compilers, modes, autocast, hooks, ``use_kernels("plain")``."""
    return not (
        not is_eager()
        or torch.is_grad_enabled()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
        or torch.is_autocast_enabled("cpu")
        or nn_module._has_any_global_hook()
        or kernels() == "plain"
    )


def ordinary(modules: list[nn.Module], scaling: tuple[Tensor, ...]) -> bool:
    """Whether all tensors can be read by a compiled function, and every module does what its class says."""
    tensors = [t for m in modules for t in (*m._parameters.values(), *m._buffers.values()) if t is not None]
    return (
        not any(m.training or m._forward_hooks or m._forward_pre_hooks for m in modules)
        and all(
            type(t) in (Tensor, nn.Parameter) and t.device.type == "cpu" and t.is_contiguous() and not t.is_inference()
            for t in (*tensors, *scaling)
        )
        and not any(callable(getattr(type(m), name, None)) for m in modules for name in vars(m))
    )


_INTERNAL = vars(nn.Module()).keys()
"""What every module has: its registers, looked at by themselves, its hooks, and whether it trains."""
_PLAIN = (nn.Linear, MaskedLinear, nn.Dropout, nn.ModuleList, nn.Sequential)
"""Modules without a setting that a program would depend on."""


def settings_of(module: nn.Module) -> tuple[Callable[[dict[str, Any]], tuple[Any, ...]], dict[str, Any]] | None:
    """How to get a module's own attributes, all at once, and from where; None if it has none of interest."""
    names = [name for name in vars(module) if name not in _INTERNAL]
    if type(module) in _PLAIN or not names:
        return None
    return (operator.itemgetter(*names) if len(names) > 1 else lambda found: (found.get(names[0]),)), vars(module)
