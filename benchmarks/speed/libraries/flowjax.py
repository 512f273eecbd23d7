"""flowjax (github.com/danielward27/flowjax), every call under ``jax.jit``."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.speed.cases import BOUND, Flow, batches
from benchmarks.speed.devices import CPU, Device
from benchmarks.speed.libraries import Array, NotOffered

DISTRIBUTION = MODULE = "flowjax"
IMPORT = "import flowjax.flows, flowjax.bijections, flowjax.distributions"
START = (
    "each call is compiled for its shapes beforehand and the training step (optax's Adam) may reuse its arguments' memory; "
    "equinox's default initial weights; scales softplus(a) + 0.01; couplings condition on the first half, with a random permutation after "
    "each layer, also in autoregressive flows; 3 K + 1 spline parameters for 3 K - 1, because its end slopes are free"
)
LEARNING_RATE = 1e-3


def build(flow: Flow, device: Device = CPU) -> FlowjaxFlow:
    return FlowjaxFlow(flow, device)


class FlowjaxFlow:
    def __init__(self, flow: Flow, device: Device = CPU) -> None:
        import equinox as eqx
        import jax
        import jax.numpy as jnp
        import paramax
        from flowjax.bijections import RationalQuadraticSpline
        from flowjax.distributions import Normal
        from flowjax.flows import coupling_flow, masked_autoregressive_flow

        if flow.members > 1 or flow.kind == "glow":
            raise NotOffered("no ensembles and no images")
        device.choose_in_jax()
        jax.clear_caches()  # of the previous flow
        jax.config.update("jax_enable_x64", flow.dtype == "float64")
        family = masked_autoregressive_flow if flow.autoregressive else coupling_flow
        # Its knots are the inner ones: one fewer than there are bins.
        spline = RationalQuadraticSpline(knots=flow.bins - 1, interval=BOUND) if flow.spline else None
        model = family(
            jax.random.key(0),
            base_dist=paramax.non_trainable(Normal(jnp.zeros(flow.features))),
            transformer=spline,
            flow_layers=flow.layers,
            nn_width=flow.width,
            nn_depth=len(flow.hidden),
        )
        self.flow = flow
        self.weights, self.rest = eqx.partition(
            model, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable)
        )
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(self.weights))
        self.state: Any = None

    def train(self, steps: int) -> None:
        if steps:
            step = self.work("train_step", 512)
            for _ in range(steps):
                step()

    def work(self, work: str, batch: int) -> Callable[[], Any]:
        import equinox as eqx
        import jax
        import jax.numpy as jnp

        feed = batches(self.flow.features, batch, self.flow.dtype)
        if work == "train_step":
            return self._step([jnp.asarray(next(feed)) for _ in range(8)])
        rest = self.rest
        if work == "log_prob":
            x = jnp.asarray(next(feed))
            score = jax.jit(lambda weights, x: eqx.combine(weights, rest).log_prob(x))
            return lambda: score(self.weights, x).block_until_ready()
        key = jax.random.key(1)
        draw = jax.jit(lambda weights, key: eqx.combine(weights, rest).sample(key, (batch,)))
        return lambda: draw(self.weights, key).block_until_ready()

    def _step(self, rows: list[Any]) -> Callable[[], Any]:
        import equinox as eqx
        import jax
        import optax

        rest, adam = self.rest, optax.adam(LEARNING_RATE)
        turn = itertools.cycle(rows)
        if self.state is None:
            self.state = adam.init(self.weights)

        def update(weights: Any, state: Any, x: Any) -> tuple[Any, Any, Any]:
            loss, gradient = jax.value_and_grad(lambda w: -eqx.combine(w, rest).log_prob(x).mean())(weights)
            change, state = adam.update(gradient, state, weights)
            return eqx.apply_updates(weights, change), state, loss

        compiled = jax.jit(update, donate_argnums=(0, 1))

        def step() -> Any:
            self.weights, self.state, loss = compiled(self.weights, self.state, next(turn))
            return jax.block_until_ready((self.weights, loss))[1]

        return step

    def encode(self, x: Array) -> tuple[Array, Array]:
        return self._map(self.weights, self.rest, x, "inverse_and_log_det", 1)

    def decode(self, z: Array) -> tuple[Array, Array]:
        return self._map(self.weights, self.rest, z, "transform_and_log_det", -1)

    def autodiff_log_det(self, x: Array) -> Array:
        import equinox as eqx
        import jax
        import jax.numpy as jnp
        import paramax

        with jax.enable_x64(True):
            weights, rest = jax.tree.transform(
                lambda leaf: leaf.astype(jnp.float64) if eqx.is_inexact_array(leaf) else leaf, (self.weights, self.rest)
            )
            bijection = paramax.unwrap(eqx.combine(weights, rest)).bijection
            jacobian = jax.vmap(jax.jacrev(bijection.inverse))(jnp.asarray(x, dtype=jnp.float64))
            return np.asarray(jnp.linalg.slogdet(jacobian)[1])

    def _map(self, weights: Any, rest: Any, value: Array, method: str, sign: int) -> tuple[Array, Array]:
        import equinox as eqx
        import jax
        import paramax

        bijection = paramax.unwrap(eqx.combine(weights, rest)).bijection
        out, log_det = jax.jit(jax.vmap(getattr(bijection, method)))(value)
        return np.asarray(out), sign * np.asarray(log_det)
