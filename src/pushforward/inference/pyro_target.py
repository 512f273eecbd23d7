"""`PyroTarget`: the posterior of a Pyro model as a log-density that `fit_to_target` takes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pushforward.errors import ConfigError

__all__ = ["PyroTarget"]


class PyroTarget:
    """The unnormalized posterior density of a Pyro model, on the unconstrained reals.

    Pyro maps each latent variable to the reals and includes the log-determinants; this class joins the variables to one
    vector. Models with discrete latent variables that Pyro cannot sum over are refused by Pyro. Needs the extra
    ``inference``.

    Args:
        model: a Pyro model.
        args: its arguments, such as the data.
        kwargs: its keyword arguments.

    Raises:
        ConfigError: without Pyro, or for a model without continuous latent variables.

    Example:
        >>> import pyro, pyro.distributions as dist, torch, pushforward as pf
        >>> def model(y):
        ...     sigma = pyro.sample("sigma", dist.LogNormal(0.0, 1.0))
        ...     with pyro.plate("rows", len(y)):
        ...         pyro.sample("y", dist.Normal(0.0, sigma), obs=y)
        >>> target = pf.inference.PyroTarget(model, torch.ones(5))
        >>> target.features, target.names
        (1, ['sigma'])
        >>> target(torch.zeros(1, 1)).shape                                   # log p at sigma = 1
        torch.Size([1])
    """

    def __init__(self, model: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        try:
            import pyro
            from pyro.infer.mcmc.util import initialize_model
        except ImportError:
            raise ConfigError(
                "PyroTarget needs Pyro, of the extra inference: pip install 'pushforward[inference]'."
            ) from None
        self._pyro = pyro
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            start, self._potential, self._transforms, _ = initialize_model(model, args, kwargs)
        if not start:
            raise ConfigError("the Pyro model has no continuous latent variable, so there is nothing to infer.")
        self._shapes = {name: value.shape for name, value in start.items()}
        self.features = sum(math.prod(shape) for shape in self._shapes.values())
        self._model = lambda: model(*args, **kwargs)
        self._vectorized: bool | None = None

    @property
    def names(self) -> list[str]:
        """A name for each coordinate."""
        return [
            name if not shape else f"{name}[{index}]"
            for name, shape in self._shapes.items() for index in range(math.prod(shape))
        ]  # fmt: skip

    def __call__(self, u: Tensor) -> Tensor:
        """Log-density of unconstrained points, ``(n, D)`` to ``(n,)``."""
        if self._vectorized is None:
            self._vectorized = self._can_vectorize(u)
        with self._pyro.validation_enabled(False), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self._vectorized:
                return torch.func.vmap(self._direct, randomness="same")(u)
            return -torch.stack([self._potential(self._split(row)) for row in u])

    def constrain(self, u: Tensor) -> dict[str, Tensor]:
        """Unconstrained points ``(*batch, D)`` to the values of the latent variables, by name."""
        return {
            name: self._transforms[name].inv(value) if name in self._transforms else value
            for name, value in self._split(u).items()
        }

    def _split(self, u: Tensor) -> dict[str, Tensor]:
        pieces = u.split([math.prod(shape) for shape in self._shapes.values()], -1)
        return {
            name: piece.reshape((*u.shape[:-1], *shape))
            for (name, shape), piece in zip(self._shapes.items(), pieces, strict=True)
        }

    def _direct(self, row: Tensor) -> Tensor:
        """Log-density of one point from the log-densities of the model's sites, which torch can vectorize."""
        free = self._split(row)
        values = {name: self._transforms[name].inv(value) for name, value in free.items() if name in self._transforms}
        poutine = self._pyro.poutine
        trace = poutine.trace(poutine.condition(self._model, data={**free, **values})).get_trace()
        total = sum(
            -self._transforms[name].log_abs_det_jacobian(value, free[name]).sum() for name, value in values.items()
        )
        for node in trace.nodes.values():
            site: Any = node
            if site["type"] == "sample" and not site["infer"].get("is_auxiliary", False):
                log_prob = site["fn"].log_prob(site["value"])
                if isinstance(site["mask"], Tensor) or site["mask"] is False:
                    log_prob = torch.where(torch.as_tensor(site["mask"]), log_prob, 0.0)
                total = total + (site["scale"] * log_prob).sum()
        return torch.as_tensor(total)

    def _can_vectorize(self, u: Tensor) -> bool:
        """Whether vmap runs the model and gives what Pyro's potential gives for single points."""
        rows = u.detach()[:2]
        try:
            with self._pyro.validation_enabled(False), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                many = torch.func.vmap(self._direct, randomness="same")(rows)
                single = -torch.stack([self._potential(self._split(row)) for row in rows])
            return bool(torch.allclose(many, single, rtol=1e-4, equal_nan=True))
        except (RuntimeError, ValueError, NotImplementedError, IndexError):
            return False
