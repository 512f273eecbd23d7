"""A model's distribution as an object of Pyro, whose inference takes only objects of its own classes."""

from __future__ import annotations

import functools
import sys
from typing import Any

__all__ = ["pyro_class"]


def pyro_class(cls: type) -> type:
    """``cls``, or the subclass of it that is also a distribution of Pyro, if the program has imported Pyro.

    Args:
        cls: a ``torch.distributions.Distribution``.
    """
    return cls if "pyro.distributions" not in sys.modules else _with_pyro(cls)


@functools.cache
def _with_pyro(cls: type) -> type:
    from pyro.distributions.torch_distribution import TorchDistributionMixin

    def reduce(self: Any) -> tuple[Any, ...]:
        return _restore, (cls, self.__dict__)

    # Like Pyro's own wrappers of torch distributions. The mixin comes second, so `expand` and `has_rsample` stay ours.
    content = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    bases = (cls, TorchDistributionMixin)
    make: Any = type(TorchDistributionMixin)
    return make(cls.__name__, bases, content | {"__reduce__": reduce})


def _restore(cls: type, state: dict[str, Any]) -> Any:
    """A copy or an unpickled object: with the methods of Pyro where the program has it."""
    new = object.__new__(pyro_class(cls))
    new.__dict__.update(state)
    return new
