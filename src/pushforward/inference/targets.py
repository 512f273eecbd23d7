"""Unnormalized log-densities as functions on the reals: checks, constraints, pairs of value and gradient, Pyro models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pushforward.errors import ConfigError, InputError
from pushforward.inference.parameters import Parameters
from pushforward.numerics.checks import check_integer

__all__ = ["LogDensity", "Target"]

LogDensity = Callable[..., Any] | tuple[Callable[..., Any], Callable[..., Any]]
"""A function of parameters, ``(n, D)`` to ``(n,)``; or a pair of functions, of the value and of its gradient."""
POINT_ERRORS = (ValueError, ArithmeticError, torch.linalg.LinAlgError)  # pyright: ignore[reportPrivateImportUsage]
"""Errors that one point may cause: distributions with a scale of 0, an overflow, a matrix without Cholesky factor."""
_A_BATCH = 8
"""Fewer points, such as those of a line search, may all be outside."""
_COUNTS = ("_tolerant", "nan_count", "error_count", "first_error", "infinite_count", "evaluations")


class Target:
    """An unnormalized log-density, as a function of unconstrained real vectors in float64.

    With ``parameters`` the function that the user wrote reads a dictionary of constrained values, and this class adds the
    log-determinant: log p(u) = log p(x(u)) + log abs det dx/du.

    A NaN counts as -inf; :attr:`nan_count` counts them. After :meth:`tolerate_errors` so does a point at which the function
    raises an error such as those of torch's distributions, unless it raises at every point of a batch. The user's function
    gets float64 tensors if it accepts them, and float32 tensors otherwise.

    Args:
        log_density: function of ``(n, D)`` (or of a dictionary, with ``parameters``) that returns ``(n,)``; or a pair of
            functions (value, gradient) that may compute with NumPy, the gradient with the shape of the input.
        features: D, the number of coordinates.
        parameters: names and constraints of the parameters.

    Raises:
        ConfigError: for something that is not a function or a pair of functions, or another number of coordinates than that of the
            parameters.

    Example:
        >>> import torch
        >>> from pushforward.inference import Target
        >>> target = Target(lambda v: -0.5 * v.square().sum(-1), 2)
        >>> target(torch.zeros(3, 2))
        tensor([-0., -0., -0.], dtype=torch.float64)
    """

    def __init__(self, log_density: LogDensity, features: int, parameters: Parameters | None = None) -> None:
        pair = isinstance(log_density, tuple)
        if not (pair and len(log_density) == 2 and all(map(callable, log_density))) and not callable(log_density):
            raise ConfigError(
                "log_density must be a function, or a pair of functions (value, gradient); got "
                f"{type(log_density).__name__}."
            )
        check_integer("features", features)
        if parameters is not None and not isinstance(parameters, Parameters):
            raise ConfigError(f"parameters must be pf.inference.Parameters(...); got {type(parameters).__name__}.")
        if parameters is not None and parameters.features != features:
            raise ConfigError(f"the parameters have {parameters.features} coordinates; got features={features}.")
        if pair and parameters is not None:
            raise ConfigError(
                "a pair (value, gradient) reads unconstrained vectors: write the constraints into the pair, or pass one "
                "torch function."
            )
        self.log_density, self.features, self.parameters = log_density, features, parameters
        self.transform = None if parameters is None else parameters.transform().double()
        self.dtype: torch.dtype | None = None
        self.nan_count = 0
        self.error_count = 0
        self.first_error = ""
        self._tolerant = False
        self.infinite_count = 0
        self.evaluations = 0

    def __call__(self, u: Tensor) -> Tensor:
        """Log-density of unconstrained points, ``(n, D)`` to ``(n,)``, float64; -inf where it is not defined.

        Raises:
            InputError: if the function returns something else, or a value without gradient.
        """
        u = u.double()
        if self.transform is None:
            return self._values(u)
        if self.transform is not None:
            self.transform.to(u.device)
        x, contribution = self.transform.decode_with_contribution(u)
        return self._values(x) - contribution

    def tolerate_errors(self) -> None:
        """From now on single points at which the function raises an error count as outside the support.

        An error at the start says what is wrong with the function; later one draw that is too far away must not end a training.
        """
        self._tolerant = True

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Tolerate errors at points that are only tried, and count none of them."""
        before = {name: getattr(self, name) for name in _COUNTS}
        self._tolerant = True
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)

    def constrain(self, u: Tensor) -> Tensor:
        """Unconstrained points to the flat constrained coordinates."""
        return u if self.transform is None else self.transform.decode(u.double())

    def unconstrain(self, x: Tensor) -> Tensor:
        """Flat constrained coordinates to unconstrained points."""
        return x if self.transform is None else self.transform.encode(x.double()).z

    def value_and_gradient(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Log-density ``(n,)`` and its gradient ``(n, D)``, float64, without a graph; 0 where it is not finite."""
        with torch.enable_grad():
            u = u.detach().double().requires_grad_()
            value = self(u)
            finite = torch.isfinite(value)
            (gradient,) = torch.autograd.grad(torch.where(finite, value, 0.0).sum(), u)
        return value.detach(), torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)

    def _values(self, x: Tensor) -> Tensor:
        self.evaluations += len(x)
        values = self._evaluate(x).double()
        undefined = torch.isnan(values)
        if bool(undefined.any()):
            self.nan_count += int(undefined.sum())
            values = torch.where(undefined, -math.inf, values)
        infinite = torch.isposinf(values)
        if bool(infinite.any()):
            row = int(infinite.nonzero()[0])
            raise InputError(f"the log-density is +inf at {_show(x[row])}, so it is no density: bound it there.")
        self.infinite_count += int(torch.isneginf(values).sum())
        return values

    def _evaluate(self, x: Tensor) -> Tensor:
        """Values as the function gives them; those of a pair, and of a function of float32, too."""
        if isinstance(self.log_density, tuple):
            return self._tolerated(self._pair_values, x)
        values = self._tolerated(self._function_values, x)
        if x.requires_grad and torch.is_grad_enabled() and not values.requires_grad:
            raise InputError(
                "the log-density returned values without a gradient, so they do not depend on its argument: compute with torch "
                "operations on it, without .detach(), .item() or NumPy, or pass a pair of functions (value, gradient); a constant "
                "is no density of the reals."
            )
        return values

    def _tolerated(self, evaluate: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Values; -inf at points where an error is raised, which halves of the batch find, once errors are tolerated.

        Raises:
            Exception: what the function raises, before that, and if it raises at every point of a batch.
        """
        try:
            return evaluate(x)
        except POINT_ERRORS as error:
            if not self._tolerant:
                raise
            cause = error.__cause__ or error
            first = f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0][:300].rstrip(' :.')}"
            values, failed = self._by_halves(evaluate, x)
            if failed == len(x) >= _A_BATCH:
                raise
        self.error_count += failed
        self.first_error = self.first_error or first
        return values

    def _by_halves(self, evaluate: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, int]:
        """Values of points of which at least one raises an error, and how many do."""
        if len(x) == 1:
            return x.sum(1).masked_fill(torch.ones_like(x[:, 0], dtype=torch.bool), -math.inf), 1  # its gradient is 0
        found, failed = [], 0
        for half in x.tensor_split(2):
            try:
                found.append(evaluate(half))
            except POINT_ERRORS:
                values, count = self._by_halves(evaluate, half)
                found.append(values)
                failed += count
        return torch.cat(found), failed

    def _function_values(self, x: Tensor) -> Tensor:
        if self.dtype is None:
            self.dtype = self._find_dtype(x)
        values = self._call(x.to(self.dtype))
        self._check(values, len(x))
        return values

    def _call(self, x: Tensor) -> Any:
        assert callable(self.log_density)
        try:
            return self.log_density(x if self.parameters is None else self.parameters.unflatten(x))
        except ValueError as error:
            if "Expected value argument" not in str(error) and "Expected parameter" not in str(error):
                raise
            raise InputError(
                "the log-density is not defined at every point that the flow tries: state the constraints of the parameters, such "
                f"as parameters=Parameters(p=interval(0, 1)), or build its distributions with validate_args=False. {str(error)[:200]}"
            ) from error

    def _find_dtype(self, x: Tensor) -> torch.dtype:
        """float64 if the function accepts it, else float32."""
        with torch.no_grad():
            try:
                self._call(x[:2].detach())
            except RuntimeError as error:
                if "dtype" not in str(error) and "type" not in str(error).lower():
                    raise
                self._call(x[:2].detach().float())  # raises what is wrong, if it is not the type
                return torch.float32
        return torch.float64

    def _pair_values(self, x: Tensor) -> Tensor:
        return _Pair.apply(x, *self.log_density, self._check)  # pyright: ignore[reportReturnType, reportGeneralTypeIssues]

    def _check(self, values: Any, rows: int) -> None:
        if not isinstance(values, Tensor):
            raise InputError(
                f"the log-density must return a tensor of shape ({rows},) for {rows} points; it returned a "
                f"{type(values).__name__}."
            )
        if values.is_complex():
            raise InputError("the log-density must return real numbers; it returned complex ones.")
        if values.shape != (rows,):
            hint = ""
            if values.dim() == 0:
                hint = ": it sums over the points too; sum over the last dimension only, as in .sum(-1)"
            elif values.dim() == 2:
                hint = ": sum over the last dimension, as in .sum(-1)"
            raise InputError(
                f"the log-density must return a tensor of shape ({rows},), one number for each of the {rows} points; it "
                f"returned the shape {tuple(values.shape)}{hint}."
            )


class _Pair(torch.autograd.Function):
    """A value and its gradient from two functions, which may compute with NumPy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Callable[..., Any], gradient: Callable[..., Any], check: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        plain = x.detach()
        values = torch.as_tensor(value(plain), dtype=x.dtype, device=x.device)
        check(values, len(x))
        ctx.gradient, ctx.device = gradient, x.device
        ctx.save_for_backward(plain)
        return values

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        gradient = torch.as_tensor(ctx.gradient(x), dtype=x.dtype, device=x.device)
        if gradient.shape != x.shape:
            raise InputError(
                f"the gradient must have the shape {tuple(x.shape)} of the points; it has {tuple(gradient.shape)}."
            )
        return grads[0][:, None] * gradient, None, None, None


def _show(x: Tensor) -> str:
    values = ", ".join(f"{value:.4g}" for value in x.flatten()[:6].tolist())
    return f"({values}{', ...' if x.numel() > 6 else ''})"
