"""fab-torch, the code of Midgley et al. 2023, on the targets of :mod:`benchmarks.modes`, with the settings that it publishes.

    PYTHONPATH=FOLDER python -m benchmarks.modes --targets gmm-40 --objectives fab-torch --steps 4000

FOLDER is a checkout of the repository lollcat/fab-torch, which is on no package index; normflows must be installed. Settings are those
of its notebooks for GMM-40 (4,000 iterations) and Many Well in 6 dimensions (500), and of ``experiments/config/many_well.yaml`` with
its prioritized buffer for 32 dimensions, where the published training is of 10^10 draws. An iteration draws one batch by annealed
importance sampling and takes several steps on batches of the buffer. The densities are ours, equal to theirs: for GMM-40 with our centers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["SETTINGS", "draw_and_weigh"]


@dataclass(frozen=True)
class Settings:
    """Of one target.

    Attributes:
        layers: of the Real NVP.
        width: hidden units for each dimension.
        learning_rate: of Adam.
        batch: number of draws of an iteration.
        between: number of distributions between flow and target.
        metropolis: step size of a Metropolis transition; None for Hamiltonian Monte Carlo of five leapfrog steps.
        batches: of the buffer, for each iteration.
        buffer: largest number of draws in the buffer.
        clip: largest correction of a weight for a draw's age.
    """

    layers: int
    width: int
    learning_rate: float
    batch: int
    between: int
    metropolis: float | None
    batches: int
    buffer: int
    clip: float | None


SETTINGS = {
    "gmm-40": Settings(15, 40, 1e-4, 128, 1, 5.0, 4, 51_200, None),
    "many-well-6": Settings(10, 40, 2e-4, 128, 4, None, 4, 51_200, 10.0),
    "many-well-32": Settings(10, 10, 3e-4, 2048, 4, None, 8, 512_000, None),
}
"""By target."""


def draw_and_weigh(
    name: str, features: int, log_density: Callable[[Tensor], Tensor], iterations: int, draws: int
) -> tuple[Tensor, Tensor]:
    """Train, and return draws of the flow ``(draws, d)`` with their log-weights, in double precision."""
    import normflows as nf
    from fab import FABModel, HamiltonianMonteCarlo, Metropolis, PrioritisedBufferTrainer
    from fab.utils.prioritised_replay_buffer import PrioritisedReplayBuffer
    from fab.wrappers.normflows import WrappedNormFlowModel

    chosen = SETTINGS[name]
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        half = (features + 1) // 2
        layers: list[Any] = []
        for _ in range(chosen.layers):
            hidden = features * chosen.width
            network = nf.nets.MLP([half, hidden, hidden, 2 * (features - half)], init_zeros=True)
            layers += [nf.flows.AffineCouplingBlock(network, scale_map="exp"), nf.flows.InvertibleAffine(features)]
        flow = WrappedNormFlowModel(nf.NormalizingFlow(nf.distributions.base.DiagGaussian(features), layers))
        shared: dict[str, Any] = {"n_ais_intermediate_distributions": chosen.between, "dim": features, "base_log_prob": flow.log_prob,
                                  "target_log_prob": log_density, "alpha": 2.0, "p_target": False}  # fmt: skip
        step = chosen.metropolis
        transition = (
            HamiltonianMonteCarlo(**shared, n_outer=1, epsilon=1.0, L=5)
            if step is None
            else Metropolis(**shared, n_updates=1, adjust_step_size=False, max_step_size=step, min_step_size=step, eval_mode=False)
        )  # fmt: skip

        class Target:
            log_prob = staticmethod(log_density)

        model = FABModel(
            flow=flow, target_distribution=Target(), n_intermediate_distributions=chosen.between,
            transition_operator=transition, alpha=2.0,
        )  # fmt: skip

        def start() -> tuple[Tensor, Tensor, Tensor]:
            point, weights = model.annealed_importance_sampler.sample_and_log_weights(chosen.batch, logging=False)
            return point.x, weights, point.log_q

        least = (
            chosen.batch * chosen.batches * (10 if chosen.batch < 1000 else 4)
        )  # 65,536 in 32 dimensions, as published
        buffer = PrioritisedReplayBuffer(
            dim=features, max_length=chosen.buffer, min_sample_length=least, initial_sampler=start
        )
        trainer = PrioritisedBufferTrainer(
            model=model, optimizer=torch.optim.Adam(flow.parameters(), lr=chosen.learning_rate), buffer=buffer, alpha=2.0,
            n_batches_buffer_sampling=chosen.batches, max_gradient_norm=100.0, w_adjust_max_clip=chosen.clip,
        )  # fmt: skip
        trainer.run(
            iterations, chosen.batch, eval_batch_size=None, n_eval=None, n_plot=None, n_checkpoints=None, save=False
        )
        with torch.no_grad():
            x, log_q = flow.sample_and_log_prob((draws,))
            return x, log_density(x) - log_q
    finally:
        torch.set_default_dtype(before)
