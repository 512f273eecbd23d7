"""Continuous-time flows: a transform that solves an ordinary differential equation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError
from pushforward.likelihood import Kind
from pushforward.networks.velocity import VelocityMLP
from pushforward.numerics import Noise, RowNoise, full_precision
from pushforward.numerics.checks import check_choice, check_integer, check_positive, check_seed, check_widths
from pushforward.registry import register
from pushforward.transforms.base import Step, Transform, check_context
from pushforward.transforms.continuous.ode import Field, solve_adaptive, solve_fixed
from pushforward.transforms.hutchinson import common_signs, mean_of_draws
from pushforward.transforms.validation import vector_width

__all__ = ["Continuous", "Regularizers"]

KINDS = {"exact": Kind.EXACT, "hutchinson": Kind.UNBIASED}


class Regularizers(NamedTuple):
    """Integrals over t that regularize training, for each row, shape ``batch`` (Finlay et al. 2020, sec. 3).

    Attributes:
        kinetic: integral of |dx/dt|^2 / D.
        jacobian: integral of |e^T J|^2 / D for a probe e, an estimate of the squared Frobenius norm of J divided by D.
    """

    kinetic: Tensor
    jacobian: Tensor


@register("transforms")
class Continuous(Transform):
    """dx/dt = v(t, x; context) from noise (t = 0) to data (t = T); encoding solves it backward in time.

    Contribution: - integral over t from 0 to T of tr(dv/dx) (Chen et al. 2018, theorem 1). ``log_det`` says how the
    trace is computed at every evaluation of v:

    - "exact": for the built-in network with one or two hidden layers by a bilinear form of its slopes, which takes about as
      long as v itself for any D; for deeper networks from the Jacobian, layer by layer; for your own dynamics by D backward
      passes;
    - "hutchinson": e^T J e with probes of +1 and -1 that are drawn once for each solution (Grathwohl et al. 2019,
      sec. 3.1): kind UNBIASED. Training draws one probe for each row. Scoring uses the mean over ``probes`` probes, which
      depend on the seed alone and are the same for all rows, and returns its standard error.

    Solvers: "rk4" takes ``steps`` equal steps of the Runge-Kutta method of order 4. "dopri5" (Dormand and Prince) chooses
    the steps of every row, so that the error of each step is below atol + rtol abs(y) in every coordinate of the state and
    in the log-determinant. With both solvers the score of a row does not depend on its neighbors. EXACT means exact up to
    the error of the solver, which :meth:`solver_error` estimates and which limits the round trip too. Gradients are those of
    the discrete steps (discretize, then optimize).

    Args:
        features: number of coordinates D.
        dynamics: your own module, called as ``dynamics(t, x, context)`` with t a number or ``(*batch, 1)``; smooth in x and t,
            each row by itself. None for :class:`~pushforward.networks.VelocityMLP`.
        hidden: widths of the built-in network's hidden layers.
        activation: activation function of the built-in network: "tanh" (the transform is then a shift far from the data),
            "softplus", "silu" or "elu".
        context: width of the context.
        time: end time T; small values start near the identity.
        log_det: "exact" or "hutchinson"; :meth:`set_log_det` changes it later.
        probes: number of probes of "hutchinson" in scoring.
        solver: "rk4" or "dopri5".
        steps: number of steps of "rk4".
        atol: absolute tolerance of "dopri5".
        rtol: relative tolerance of "dopri5".
        recompute: store only the states between steps for the gradient and compute the rest again: less memory, more time.
        seed: seed of the probes.

    Raises:
        ConfigError: for impossible widths, numbers or names; in a call, if ``dynamics`` returns another shape than that of x.
        ConvergenceError: from a call, if "dopri5" does not reach its tolerance in 1000 steps.

    Example:
        >>> import torch
        >>> flow = Continuous(3, hidden=(16,), steps=20)
        >>> x = torch.randn(5, 3)
        >>> torch.allclose(flow.decode(flow.encode(x).z), x, atol=1e-5)
        True
    """

    supports_float64 = False

    def __init__(
        self,
        features: int,
        dynamics: nn.Module | None = None,
        *,
        hidden: tuple[int, ...] = (128, 128),
        activation: str = "tanh",
        context: int = 0,
        time: float = 1.0,
        log_det: str = "exact",
        probes: int = 8,
        solver: str = "rk4",
        steps: int = 20,
        atol: float = 1e-5,
        rtol: float = 1e-5,
        recompute: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(features)
        features = vector_width(features, "Continuous")
        check_seed(seed)
        check_choice("solver", solver, ("rk4", "dopri5"))
        for name, value in (("time", time), ("atol", atol), ("rtol", rtol)):
            check_positive(name, value)
        if dynamics is not None and (not callable(dynamics) or isinstance(dynamics, type)):
            raise ConfigError(
                f"dynamics must be a module that is called as dynamics(t, x, context), or None; got {dynamics!r:.80}."
            )
        self.features, self.dynamics, self.activation = features, dynamics, activation
        self.hidden = check_widths("hidden", hidden)
        self.context, self.time, self.probes = (
            check_integer("context", context, 0),
            time,
            check_integer("probes", probes),
        )
        self.solver, self.steps, self.atol, self.rtol = solver, check_integer("steps", steps), atol, rtol
        self.recompute, self.seed = recompute, seed
        self.set_log_det(log_det)
        self.encode_passes = self.decode_passes = 4 * steps if solver == "rk4" else 6
        network = VelocityMLP(features, hidden, activation=activation, context=context) if dynamics is None else None
        self.network = network

    def set_log_det(self, log_det: str) -> None:
        """Choose "exact" or "hutchinson", and with it the kind of the contribution.

        Raises:
            ConfigError: for any other name.
        """
        check_choice("log_det", log_det, KINDS)
        self.log_det, self.kind = log_det, KINDS[log_det]

    def velocity(self, s: Tensor | float, x: Tensor, context: Tensor | None = None) -> Tensor:
        """T v(T s, x), the velocity at the fraction s of the time, a number or ``(*batch, 1)``: the regressor of flow matching."""
        check_context(context, self.context, "Continuous")
        t = self.time * s
        if self.network is None:
            assert self.dynamics is not None
            return self.time * _checked(self.dynamics(t, x, context), x)
        return self.time * self.network.at(t, x, self.network.prepare(context, trace=False)).value

    @property
    def invertible(self) -> bool:
        """True, for an estimated contribution too."""
        return True

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Solve from t = T to 0, with the integral of the trace."""
        return self._solve(x, context, noise, backward=True)[0]

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Solve from t = 0 to T."""
        return self._solve(z, context, noise, backward=False, trace=False)[0].z

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """x, and the contribution of ``encode(x)``, from one solution."""
        step = self._solve(z, context, noise, backward=False)[0]
        return step.z, step.contribution

    def encode_with_regularizers(
        self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Step, Regularizers]:
        """As :meth:`encode`, with the integrals that regularize training."""
        step, regularizers = self._solve(x, context, noise, backward=True, regularize=True)
        assert regularizers is not None
        return step, regularizers

    @torch.no_grad()
    def solver_error(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """An estimate of the error of the contribution: its change with twice the steps, or with tolerances divided by 100."""
        kept = self.steps, self.atol, self.rtol
        coarse = self.encode(x, context).contribution
        try:
            self.steps, self.atol, self.rtol = 2 * self.steps, self.atol / 100, self.rtol / 100
            return (self.encode(x, context).contribution - coarse).abs()
        finally:
            self.steps, self.atol, self.rtol = kept

    def _solve(
        self,
        x: Tensor,
        context: Tensor | None,
        noise: Noise,
        *,
        backward: bool,
        trace: bool = True,
        regularize: bool = False,
    ) -> tuple[Step, Regularizers | None]:
        check_context(context, self.context, "Continuous")
        batch = self.batch_shape(x)
        with full_precision(x):
            rows = x.reshape(-1, self.features)
            if context is not None and self.context:
                context = context.expand(*batch, self.context).reshape(-1, self.context)
            probes = self._probes(rows, noise, regularize) if trace else None
            field, extra = self._field(context, probes, backward=backward, trace=trace, regularize=regularize)
            state = torch.cat((rows, rows.new_zeros(rows.shape[0], extra)), -1)
            if self.solver == "rk4":
                state = solve_fixed(field, state, self.steps, recompute=self.recompute)
            else:
                state = solve_adaptive(field, state, atol=self.atol, rtol=self.rtol, recompute=self.recompute)
        z, sums = state[:, : self.features].reshape(x.shape), state[:, self.features :].mT.reshape(extra, *batch)
        regularizers = Regularizers(*sums[-2:]) if regularize else None
        draws = sums[:-2] if regularize else sums
        return Step(z, *mean_of_draws(draws)) if trace else Step(z, self.zero_log_det(x)), regularizers

    def _probes(self, rows: Tensor, noise: Noise, regularize: bool) -> Tensor | None:
        """``(count, rows, D)``, or None if nothing is estimated."""
        if self.log_det == "exact" and not regularize:
            return None
        if isinstance(noise, torch.Generator):
            coins = torch.randint(2, (1, *rows.shape), device=noise.device, generator=noise)
            return (2 * coins - 1).to(rows.dtype)
        return common_signs(noise or RowNoise(), self.probes, self.seed, rows)

    def _field(
        self, context: Tensor | None, probes: Tensor | None, *, backward: bool, trace: bool, regularize: bool
    ) -> tuple[Field, int]:
        """dy/ds of the state [x, - traces, regularizers], with s the fraction of the time, and the width of the state beside x."""
        exact, size = self.log_det == "exact", self.features
        prepared = None if self.network is None else self.network.prepare(context, trace=trace and exact)

        def field(s: Tensor | float, state: Tensor) -> Tensor:
            x, t = state[:, :size], self.time * (1 - s if backward else s)
            if self.network is not None and prepared is not None:
                point = self.network.at(t, x, prepared)
                value = point.value
                traces = [] if not trace else [point.trace()] if exact else (probes * point.jvp(probes)).sum(-1)  # pyright: ignore
                norm = point.vjp(probes[0]).square().sum(-1) if regularize and probes is not None else None
            else:
                assert self.dynamics is not None
                value, traces, norm = _by_autograd(self.dynamics, t, x, context, exact, trace, regularize, probes)
            parts = [-value if backward else value, *(-value.unsqueeze(-1) for value in traces)]
            if regularize and norm is not None:
                parts += [value.square().mean(-1, keepdim=True), norm.unsqueeze(-1) / size]
            return self.time * torch.cat(parts, -1)

        extra = 0 if not trace else 1 if exact or probes is None else len(probes)
        return field, extra + (2 if regularize else 0)


def _checked(velocity: Tensor, x: Tensor) -> Tensor:
    """What dynamics returned for x.

    Raises:
        ConfigError: unless it has the shape of x, to which a smaller one would be broadcast.
    """
    if not isinstance(velocity, Tensor) or velocity.shape != x.shape:
        got = f"the shape {tuple(velocity.shape)}" if isinstance(velocity, Tensor) else type(velocity).__name__
        raise ConfigError(
            f"dynamics(t, x, context) must return the velocity in the shape of x, {tuple(x.shape)}; got {got}."
        )
    return velocity


def _by_autograd(
    dynamics: nn.Module,
    t: Tensor | float,
    x: Tensor,
    context: Tensor | None,
    exact: bool,
    trace: bool,
    regularize: bool,
    probes: Tensor | None,
) -> tuple[Tensor, list[Tensor], Tensor | None]:
    """Velocity, traces of its Jacobian (exact, or one for each probe), and |e^T J|^2, by backward passes."""
    keep = torch.is_grad_enabled()
    if torch.is_inference_mode_enabled():  # tensors that are made in it have no gradients, so these are copied
        with torch.inference_mode(False), torch.no_grad():
            t = t.clone() if isinstance(t, Tensor) else t
            context, probes = (None if tensor is None else tensor.clone() for tensor in (context, probes))
            return _by_autograd(dynamics, t, x.clone(), context, exact, trace, regularize, probes)
    with torch.enable_grad():
        inputs = x if x.requires_grad else x.detach().requires_grad_()
        value = _checked(dynamics(t, inputs, context), x)

        def row(weights: Tensor) -> Tensor:
            if not value.requires_grad:  # a velocity that is constant
                return torch.zeros_like(x)
            (gradient,) = torch.autograd.grad(
                value, inputs, weights, create_graph=keep, retain_graph=True, allow_unused=True
            )
            return torch.zeros_like(x) if gradient is None else gradient

        traces: list[Tensor] = []
        if trace and exact:
            units = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
            diagonal = [row(unit.expand_as(x))[:, i] for i, unit in enumerate(units)]
            traces = [torch.stack(diagonal).sum(0)]
        elif trace and probes is not None:
            traces = [(row(probe) * probe).sum(-1) for probe in probes]
        norm = row(probes[0]).square().sum(-1) if regularize and probes is not None else None
    if keep:
        return value, traces, norm
    return value.detach(), [value.detach() for value in traces], None if norm is None else norm.detach()
