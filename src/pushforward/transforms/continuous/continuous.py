"""Continuous flows: a transform that follows an ordinary differential equation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pushforward.likelihood import Kind
from pushforward.networks.velocity import VelocityMLP
from pushforward.numerics import Noise, RowNoise, full_precision
from pushforward.numerics.checks import check_choice, check_integer, check_positive
from pushforward.registry import register
from pushforward.transforms.base import Step, Transform, check_context
from pushforward.transforms.continuous.ode import Field, solve_adaptive, solve_fixed
from pushforward.transforms.hutchinson import common_signs, mean_of_draws
from pushforward.transforms.validation import vector_width

__all__ = ["Continuous", "Effort"]

RELATIONS = {"exact": Kind.EXACT, "hutchinson": Kind.UNBIASED}


class Effort(NamedTuple):
    """What a flow spends on its way, integrals over t of each row, ``batch`` (Finlay et al. 2020, sec. 3).

    Attributes:
        kinetic: of |dx/dt|^2 / D.
        jacobian: of |e^T J|^2 / D for a probe e: an estimate of the squared Frobenius norm of J, over D.
    """

    kinetic: Tensor
    jacobian: Tensor


@register("transforms")
class Continuous(Transform):
    """dx/dt = v(t, x; context) from noise (t = 0) to data (t = T); encoding solves it backwards.

    Contribution: - integral over t from 0 to T of tr(dv/dx) (Chen et al. 2018, theorem 1). ``log_det`` says how the
    trace is found, at every evaluation of v:

    - "exact": for the built-in network with one or two hidden layers by a bilinear form of its slopes, which costs about
      what v itself costs, at any D; for deeper ones from the Jacobian, layer by layer; for dynamics of your own by D
      backward passes;
    - "hutchinson": e^T J e with probes of +1 and -1 that are drawn once for each solution (Grathwohl et al. 2019,
      sec. 3.1): kind UNBIASED. Training draws one probe for each row; scoring takes the mean over ``probes``,
      the same for all rows and fixed by the seed, and gives its standard error.

    Solvers: "rk4" takes ``steps`` equal steps of the Runge-Kutta method of order 4. "dopri5" (Dormand and Prince) chooses
    steps of its own for every row, so that each step's error is below atol + rtol abs(y) in every coordinate of the state
    and in the log-determinant; a row's score does not depend on its neighbors with either. EXACT means up to the
    solver's error, of which :meth:`solver_error` gives an estimate. The error is that of the round trip too.
    Gradients are those of the steps themselves (discretize, then optimize).

    Args:
        features: D.
        dynamics: a module of your own, ``dynamics(t, x, context)`` with t a number or ``(*batch, 1)``, smooth in x and t
            and without dependence between rows; None for :class:`~pushforward.networks.VelocityMLP`.
        hidden: widths of the built-in network's hidden layers.
        activation: of the built-in network: "tanh" (far away the transform is then a shift), "softplus", "silu", "elu".
        context: width of the context.
        time: T; small values start near the identity.
        log_det: "exact" or "hutchinson"; :meth:`set_log_det` changes it later.
        probes: of a score by "hutchinson".
        solver: "rk4" or "dopri5".
        steps: of "rk4".
        atol: of "dopri5".
        rtol: of "dopri5".
        recompute: keep only the states between steps for the gradient and compute the rest again: less memory, more time.
        seed: of the probes.

    Raises:
        ConfigError: for impossible widths, numbers or names.
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
        vector_width(features, "Continuous")
        check_choice("solver", solver, ("rk4", "dopri5"))
        for name, value in (("time", time), ("atol", atol), ("rtol", rtol)):
            check_positive(name, value)
        self.features, self.dynamics, self.hidden, self.activation = features, dynamics, tuple(hidden), activation
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
        check_choice("log_det", log_det, RELATIONS)
        self.log_det, self.kind = log_det, RELATIONS[log_det]

    def velocity(self, s: Tensor | float, x: Tensor, context: Tensor | None = None) -> Tensor:
        """T v(T s, x), the velocity at a part s of the way, a number or ``(*batch, 1)``: what flow matching regresses."""
        check_context(context, self.context, "Continuous")
        t = self.time * s
        if self.network is None:
            assert self.dynamics is not None
            return self.time * self.dynamics(t, x, context)
        return self.time * self.network.at(t, x, self.network.prepare(context, trace=False)).value

    @property
    def invertible(self) -> bool:
        """True, whatever the contribution is."""
        return True

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Solve from t = T to 0, with the integral of the trace."""
        return self._solve(x, context, noise, backwards=True)[0]

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Solve from t = 0 to T."""
        return self._solve(z, context, noise, backwards=False, volume=False)[0].z

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """X, and the contribution that ``encode(x)`` has, in one solution."""
        step = self._solve(z, context, noise, backwards=False)[0]
        return step.z, step.contribution

    def encode_with_effort(
        self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Step, Effort]:
        """As :meth:`encode`, with the integrals that regularize training."""
        step, effort = self._solve(x, context, noise, backwards=True, effort=True)
        assert effort is not None
        return step, effort

    @torch.no_grad()
    def solver_error(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """An estimate of the contribution's error: its change with twice the steps, or a hundredth of the tolerances."""
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
        backwards: bool,
        volume: bool = True,
        effort: bool = False,
    ) -> tuple[Step, Effort | None]:
        check_context(context, self.context, "Continuous")
        batch = self.batch_shape(x)
        with full_precision(x):
            rows = x.reshape(-1, self.features)
            if context is not None and self.context:
                context = context.expand(*batch, self.context).reshape(-1, self.context)
            probes = self._probes(rows, noise, effort) if volume else None
            field, extra = self._field(context, probes, backwards=backwards, volume=volume, effort=effort)
            state = torch.cat((rows, rows.new_zeros(rows.shape[0], extra)), -1)
            if self.solver == "rk4":
                state = solve_fixed(field, state, self.steps, recompute=self.recompute)
            else:
                state = solve_adaptive(field, state, atol=self.atol, rtol=self.rtol, recompute=self.recompute)
        z, sums = state[:, : self.features].reshape(x.shape), state[:, self.features :].mT.reshape(extra, *batch)
        spent = Effort(*sums[-2:]) if effort else None
        draws = sums[:-2] if effort else sums
        return Step(z, *mean_of_draws(draws)) if volume else Step(z, self.zero_log_det(x)), spent

    def _probes(self, rows: Tensor, noise: Noise, effort: bool) -> Tensor | None:
        """``(count, rows, D)`` or None where nothing is estimated."""
        if self.log_det == "exact" and not effort:
            return None
        if isinstance(noise, torch.Generator):
            coins = torch.randint(2, (1, *rows.shape), device=noise.device, generator=noise)
            return (2 * coins - 1).to(rows.dtype)
        return common_signs(noise or RowNoise(), self.probes, self.seed, rows)

    def _field(
        self, context: Tensor | None, probes: Tensor | None, *, backwards: bool, volume: bool, effort: bool
    ) -> tuple[Field, int]:
        """dy/ds of the state [x, - traces, efforts], with s the progress of the solution, and how much stands beside x."""
        exact, size = self.log_det == "exact", self.features
        prepared = None if self.network is None else self.network.prepare(context, trace=volume and exact)

        def field(s: Tensor | float, state: Tensor) -> Tensor:
            x, t = state[:, :size], self.time * (1 - s if backwards else s)
            if self.network is not None and prepared is not None:
                point = self.network.at(t, x, prepared)
                value = point.value
                traces = [] if not volume else [point.trace()] if exact else (probes * point.jvp(probes)).sum(-1)  # pyright: ignore
                norm = point.vjp(probes[0]).square().sum(-1) if effort and probes is not None else None
            else:
                assert self.dynamics is not None
                value, traces, norm = _by_autograd(self.dynamics, t, x, context, exact, volume, effort, probes)
            parts = [-value if backwards else value, *(-trace.unsqueeze(-1) for trace in traces)]
            if effort and norm is not None:
                parts += [value.square().mean(-1, keepdim=True), norm.unsqueeze(-1) / size]
            return self.time * torch.cat(parts, -1)

        extra = 0 if not volume else 1 if exact or probes is None else len(probes)
        return field, extra + (2 if effort else 0)


def _by_autograd(
    dynamics: nn.Module,
    t: Tensor | float,
    x: Tensor,
    context: Tensor | None,
    exact: bool,
    volume: bool,
    effort: bool,
    probes: Tensor | None,
) -> tuple[Tensor, list[Tensor], Tensor | None]:
    """Velocity, traces of its Jacobian (exact, or one for each probe), and |e^T J|^2, by backward passes."""
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        seen = x if x.requires_grad else x.detach().requires_grad_()
        value = dynamics(t, seen, context)

        def row(weights: Tensor) -> Tensor:
            (gradient,) = torch.autograd.grad(
                value, seen, weights, create_graph=keep, retain_graph=True, allow_unused=True
            )
            return torch.zeros_like(x) if gradient is None else gradient

        traces: list[Tensor] = []
        if volume and exact:
            units = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
            diagonal = [row(unit.expand_as(x))[:, i] for i, unit in enumerate(units)]
            traces = [torch.stack(diagonal).sum(0)]
        elif volume and probes is not None:
            traces = [(row(probe) * probe).sum(-1) for probe in probes]
        norm = row(probes[0]).square().sum(-1) if effort and probes is not None else None
    if keep:
        return value, traces, norm
    return value.detach(), [trace.detach() for trace in traces], None if norm is None else norm.detach()
