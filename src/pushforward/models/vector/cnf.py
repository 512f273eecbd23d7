"""Continuous normalizing flow (FFJORD: Grathwohl et al. 2019, arXiv 1810.01367; flow matching: Lipman et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.distributions import Normal
from pushforward.errors import ConfigError
from pushforward.models.base import Model
from pushforward.models.vector.building import vector_chain
from pushforward.numerics import normal_like, uniform_like
from pushforward.numerics.checks import check_choice, check_positive
from pushforward.registry import register
from pushforward.transforms import Continuous

__all__ = ["CNF"]


@register("models")
class CNF(Model):
    """The flow of dx/dt = v(t, x; context) from normal noise (t = 0) to data (t = 1), with an exact trace.

    log p(x) = log N(z) - integral of tr(dv/dx) dt along the path from x back to z (Grathwohl et al. 2019, sec. 2.2).
    With one or two hidden layers the trace costs about as much as v, so the likelihood is EXACT up to the error of the
    solver at any D (:class:`~pushforward.transforms.Continuous`); ``log_det="hutchinson"`` is the unbiased estimate of
    FFJORD.

    There are two ways to train the model; ``evaluate`` and ``log_prob`` are the same for both:

    - "likelihood": the loss is the negative log-likelihood, with the equation solved for every batch, plus two
      regularizers with the weights ``kinetic_weight`` and ``jacobian_weight`` (RNODE, Finlay et al. 2020, sec. 3). They
      keep the paths straight and the equation easy to solve, and they are part of the loss alone;
    - "flow-matching": no equation is solved. With x_0 noise, x_1 data and t uniform, the loss is the mean over
      coordinates of ``(v(t, (1 - t) x_0 + t x_1) - (x_1 - x_0))^2`` (Lipman et al. 2023, eq. 23 with sigma_min = 0; Liu et
      al. 2022). It is not a likelihood and bounds none.

    ``log_prob`` and ``sample`` solve one equation each, with 4 ``steps`` passes of v for "rk4".

    Args:
        features: D.
        context: width of the context that v reads.
        objective: objective of training, "likelihood" or "flow-matching".
        pairing: how flow matching pairs noise and data: "independent", or "optimal", which pairs them inside each batch
            so that the sum of squared distances is least (Tong et al. 2024, here without replacement). A model with a
            context refuses "optimal", because it would pair rows of different contexts.
        hidden: widths of the hidden layers of v.
        activation: "tanh", "softplus", "silu", "elu" or "lipswish".
        time: integration time; v sees times from 0 to this value.
        log_det: "exact" or "hutchinson".
        probes: number of probes of a score by "hutchinson".
        solver: "rk4" with ``steps`` equal steps, or "dopri5" with adaptive steps for each row.
        steps: number of steps of "rk4".
        atol: absolute tolerance of "dopri5".
        rtol: relative tolerance of "dopri5".
        kinetic_weight: weight of the integral of ``|v|^2 / D`` in the loss of "likelihood".
        jacobian_weight: weight of the integral of ``|e^T dv/dx|^2 / D`` in the loss of "likelihood".
        recompute: use less memory and more time in training.
        standardize: standardize the data first.

    Raises:
        ConfigError: for sizes that are not possible, unknown names or negative weights.

    Example:
        >>> import torch
        >>> model = CNF(features=2, hidden=(16,), objective="flow-matching")
        >>> x = torch.randn(8, 2)
        >>> model.loss(x).shape, model.log_prob(x).shape
        (torch.Size([]), torch.Size([8]))
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        *,
        objective: str = "likelihood",
        pairing: str = "independent",
        hidden: tuple[int, ...] = (128, 128),
        activation: str = "tanh",
        time: float = 1.0,
        log_det: str = "exact",
        probes: int = 8,
        solver: str = "rk4",
        steps: int = 20,
        atol: float = 1e-5,
        rtol: float = 1e-5,
        kinetic_weight: float = 0.0,
        jacobian_weight: float = 0.0,
        recompute: bool = False,
        standardize: bool = True,
    ) -> None:
        check_choice("objective", objective, ("likelihood", "flow-matching"))
        check_choice("pairing", pairing, ("independent", "optimal"))
        if pairing == "optimal" and context:
            raise ConfigError("pairing='optimal' would pair rows of different contexts: use pairing='independent'.")
        check_positive("kinetic_weight", kinetic_weight, zero=True)
        check_positive("jacobian_weight", jacobian_weight, zero=True)
        flow = Continuous(
            features,
            hidden=hidden,
            activation=activation,
            context=context,
            time=time,
            log_det=log_det,
            probes=probes,
            solver=solver,
            steps=steps,
            atol=atol,
            rtol=rtol,
            recompute=recompute,
        )
        super().__init__(vector_chain(features, [flow], context=context, standardize=standardize), Normal(features))
        self.features, self.context, self.hidden = features, context, tuple(hidden)
        self.objective, self.pairing = objective, pairing
        self.activation, self.time, self.log_det, self.probes, self.solver = activation, time, log_det, probes, solver
        self.steps, self.atol, self.rtol = steps, atol, rtol
        self.kinetic_weight, self.jacobian_weight = kinetic_weight, jacobian_weight
        self.recompute, self.standardize = recompute, standardize

    def loss(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """What training minimizes, a scalar; see ``objective``. It is never reported."""
        if self.objective == "likelihood" and not (self.kinetic_weight or self.jacobian_weight):
            return super().loss(x, context, generator=generator)
        x, context, far = self.prepare(x, context)
        flow = self.chain[-1]
        assert isinstance(flow, Continuous)
        before = self.chain[:-1].encode(x, context, noise=generator)
        x = before.z
        if self.objective == "flow-matching":
            return (_matching_error(flow, x, context, generator, self.pairing) - far).mean()
        step, effort = flow.encode_with_regularizers(x, context, noise=generator)
        total = far + before.contribution + step.contribution + self.base.log_prob(step.z, context)
        regularizer = self.kinetic_weight * effort.kinetic + self.jacobian_weight * effort.jacobian
        return (regularizer - total).mean()


def _matching_error(
    flow: Continuous, data: Tensor, context: Tensor | None, generator: torch.Generator | None, pairing: str
) -> Tensor:
    """Squared error of the velocity on the straight line from noise to data, at a random time; shape ``batch``."""
    noise = normal_like(data, 1, generator)
    if pairing == "optimal":
        noise = _pair_optimally(noise.reshape(-1, flow.features), data.reshape(-1, flow.features)).reshape(data.shape)
    t = uniform_like(data[..., :1], 1, generator)
    velocity = flow.velocity(t, torch.lerp(noise, data, t), context)
    return (velocity - (data - noise)).square().mean(-1)


def _pair_optimally(noise: Tensor, data: Tensor) -> Tensor:
    """The rows of noise in the order that makes the sum of squared distances to the data least.

    Each row is used once.
    """
    from scipy.optimize import linear_sum_assignment

    cost = torch.cdist(data.detach().double(), noise.double()).square().cpu().numpy()
    return noise[torch.as_tensor(linear_sum_assignment(cost)[1], device=noise.device)]
