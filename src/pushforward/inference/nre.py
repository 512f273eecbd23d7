"""Neural ratio estimation: a classifier that tells matching pairs of parameters and data from others."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError, TrainingError
from pushforward.inference.data_scale import DataScale
from pushforward.inference.method import SimulationMethod, is_fraction
from pushforward.inference.nle import LikelihoodPosterior
from pushforward.inference.priors import Prior
from pushforward.inference.training_data import TrainingData
from pushforward.networks import MLP
from pushforward.numerics import seeded
from pushforward.numerics.checks import check_integer, check_seed, check_widths
from pushforward.training.budget import make_budget, make_schedule
from pushforward.training.config import TrainingConfig, changed_fields
from pushforward.training.result import FitResult, TrainingEvent
from pushforward.training.sources import default_batch_size

__all__ = ["NRE", "NREPosterior"]


_OPTIONS = frozenset(
    ("batch_size", "epochs", "evaluate_every", "gradient_clip", "learning_rate", "max_steps", "max_time", "patience", "progress",
     "schedule", "seed", "weight_decay")
)  # fmt: skip


class NRE(SimulationMethod["NREPosterior"]):
    """Contrastive neural ratio estimation (Durkan, Murray, Papamakarios 2020): the simplest of the three methods, a baseline.

    A network f(theta, x) is trained to find, among K parameters, the one that x was simulated from. Then
    f is, up to a function of x, the log-likelihood log p(x | theta).

    Args:
        prior: a torch distribution of vectors, or a list of independent ones.
        hidden: widths of the residual blocks of the network.
        contrasts: K, at least 2.

    Raises:
        ConfigError: for a prior whose support is not a box, or sizes that are not possible.

    Example:
        >>> import torch, pushforward as pf
        >>> from torch.distributions import Normal
        >>> prior = Normal(torch.zeros(2), 1.0)
        >>> theta = prior.sample((500,))
        >>> x = theta + 0.1 * torch.randn(500, 2)
        >>> post = pf.inference.NRE(prior).fit(theta, x, max_steps=50)
        >>> post.sample(100, x=torch.zeros(2), seed=0).shape
        torch.Size([100, 2])
    """

    def __init__(self, prior: Any, *, hidden: tuple[int, ...] = (64, 64), contrasts: int = 10) -> None:
        super().__init__(prior)
        self.hidden = check_widths("hidden", hidden)
        self.contrasts = check_integer("contrasts", contrasts, 2)

    def _fit(self, data: TrainingData, validation: Any, config: TrainingConfig) -> NREPosterior:
        unknown = sorted(changed_fields(config) - _OPTIONS - ({"device"} if str(config.device) == "cpu" else set()))
        if unknown:
            raise ConfigError(f"NRE has no option {unknown[0]}: leave it out, or train NPE or NLE.")
        u, x = self._arrays(data)
        if not is_fraction(validation):
            raise ConfigError(
                f"NRE holds out a fraction of the simulations, 0 < validation < 1; got {validation!r:.80}."
            )
        center, spread = u.double().mean(0), u.double().std(0)
        spread = torch.where(spread > 0, spread, 1.0)
        u = ((u - center) / spread).float()
        with seeded(config.seed), torch.enable_grad():
            network = MLP(
                self.prior.features + data.width, 1, self.hidden, residual=True
            ).float()  # whatever the default
            result = self._train(network, u, x, validation, config)
        return NREPosterior(
            self.prior, [network], data.scale, data.x_shape, [result], center=center.tolist(), spread=spread.tolist()
        )

    def _train(self, network: nn.Module, u: Tensor, x: Tensor, fraction: float, config: TrainingConfig) -> FitResult:
        order = torch.randperm(len(u), generator=torch.Generator().manual_seed(check_seed(config.seed)))
        held = min(max(2, int(fraction * len(u) + 0.5)), len(u) - 2)  # a single row has no others to be told from
        held_u, held_x, train_u, train_x = u[order[:held]], x[order[:held]], u[order[held:]], x[order[held:]]
        size = min(config.batch_size or default_batch_size(len(train_u)), len(train_u))
        budget = make_budget(config.epochs, config.max_steps, config.max_time, len(train_u) / size)
        schedule, every = make_schedule(config.schedule), config.evaluate_every or max(25, len(train_u) // size)
        optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        best, best_step, best_state, waited = -math.inf, 0, copy.deepcopy(network.state_dict()), 0
        step, began, history, losses, rate = 0, time.monotonic(), [], [], config.learning_rate
        while True:
            reason = budget.stop_reason(step, time.monotonic() - began)
            if step % every == 0 or reason is not None:
                value = -float(self._loss(network, held_u, held_x, torch.Generator().manual_seed(0)).detach())
                if value > best:
                    best, best_step, best_state, waited = value, step, copy.deepcopy(network.state_dict()), 0
                else:
                    waited += 1
                loss = sum(losses) / len(losses) if losses else None
                passed = time.monotonic() - began
                event = TrainingEvent(step, step * size / len(train_u), loss, value, 0, best, best_step, rate, passed)
                history.append(dataclasses.asdict(event))
                losses.clear()
                if reason is None and config.patience is not None and waited >= config.patience:
                    reason = "patience"
            if reason is not None:
                break
            rows = torch.randint(len(train_u), (size,))
            loss = self._loss(network, train_u[rows], train_x[rows], None)
            if not math.isfinite(float(loss.detach())):
                raise TrainingError(f"the loss is {float(loss.detach())} at step {step}: lower learning_rate.")
            optimizer.zero_grad()
            loss.backward()
            if config.gradient_clip is not None:
                nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip)
            losses.append(float(loss.detach()))
            rate = config.learning_rate * schedule(budget.used(step, time.monotonic() - began))
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            step += 1
        network.load_state_dict(best_state)
        seconds = time.monotonic() - began
        return FitResult(best_step, best, step, step * size / len(train_u), seconds, reason, history)

    def _loss(self, network: nn.Module, u: Tensor, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Cross-entropy of the matching parameter among K."""
        count = len(u)
        others = min(self.contrasts, count) - 1
        shifts = torch.randint(1, max(count, 2), (count, others), generator=generator)
        index = (torch.arange(count)[:, None] + torch.cat((torch.zeros(count, 1, dtype=torch.long), shifts), 1)) % count
        pairs = torch.cat((u[index], x[:, None].expand(-1, others + 1, -1)), -1)
        logits = network(pairs)[..., 0]
        return (torch.logsumexp(logits, 1) - logits[:, 0]).mean()


class NREPosterior(LikelihoodPosterior):
    """The posterior of :class:`NRE`.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> prior = torch.distributions.Uniform(-torch.ones(1), torch.ones(1))
        >>> theta = prior.sample((200,))
        >>> x = theta + 0.1 * torch.randn(200, 1)
        >>> posterior = pf.inference.NRE(prior).fit(theta, x, max_steps=20, progress="silent")
        >>> posterior.sample(10, x=torch.zeros(1)).shape
        torch.Size([10, 1])
    """

    method: ClassVar[str] = "nre"

    def __init__(
        self, *args: Any, center: Sequence[float] | None = None, spread: Sequence[float] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.center = torch.tensor([0.0] * self.features if center is None else list(center), dtype=torch.float64)
        self.spread = torch.tensor([1.0] * self.features if spread is None else list(spread), dtype=torch.float64)

    def _log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:
        """The log-ratio, up to a function of x."""
        u = ((self.inputs(theta) - self.center) / self.spread).to(x.dtype)
        return self.networks[0](torch.cat((u, x.expand(len(theta), -1)), -1))[..., 0]

    def _options(self) -> dict[str, Any]:
        return super()._options() | {"center": self.center.tolist(), "spread": self.spread.tolist()}

    @classmethod
    def _restore(
        cls,
        prior: Prior,
        networks: list[nn.Module],
        scale: DataScale,
        x_shape: tuple[int, ...],
        options: Mapping[str, Any],
    ) -> Self:
        result = super()._restore(prior, networks, scale, x_shape, options)
        for name in ("center", "spread"):
            values = torch.tensor([float(value) for value in options[name]], dtype=torch.float64)
            if len(values) != prior.features:
                raise ValueError("its scales do not fit the parameters")
            setattr(result, name, values)
        return result
