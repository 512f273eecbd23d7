"""`Run`: the training of one model, without its steps: data, evaluations, best weights, and when it ends."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor

from pushforward.errors import PushforwardWarning, TrainingError
from pushforward.models.base import Model
from pushforward.training.budget import Budget, Schedule, evaluation_interval, make_budget, make_schedule
from pushforward.training.checkpoint import State, load_weights
from pushforward.training.config import TrainingConfig
from pushforward.training.distributed import Processes
from pushforward.training.input_spec import Pair
from pushforward.training.outside_rows import rows_outside
from pushforward.training.progress import MetricsLog, Reporter
from pushforward.training.result import FitResult, TrainingEvent
from pushforward.training.seeds import Purpose, generator
from pushforward.training.sources import ArrayRows, Batch, Position, Source
from pushforward.transforms.base import Shape

__all__ = ["Plan", "Run", "StepLoss", "make_plan", "sample_rows"]

_SAMPLE_ROWS, _SAMPLE_VALUES = 100_000, 1 << 21
"""Largest number of rows, and approximate number of values, from which data-dependent state is set in one pass."""
_CHECK_EVERY = 20
"""Steps between two checks of the losses on a device that works asynchronously."""


def sample_rows(shape: Shape) -> int:
    """Number of training rows of a shape from which data-dependent state is set."""
    return min(_SAMPLE_ROWS, max(1024, _SAMPLE_VALUES // max(1, math.prod(shape))))


def check_interval(device: torch.device) -> int:
    """Steps between two checks that the losses are finite. Each check waits for the device."""
    return 1 if device.type == "cpu" else _CHECK_EVERY


@dataclass(frozen=True)
class Plan:
    """When training ends, when it evaluates, and how the learning rate changes."""

    budget: Budget
    schedule: Schedule
    evaluate_every: int


def make_plan(config: TrainingConfig, steps_per_pass: float | None) -> Plan:
    """The plan that follows from the options and the length of the data.

    Raises:
        ConfigError: for epochs over data of unknown length.
    """
    budget = make_budget(config.epochs, config.max_steps, config.max_time, steps_per_pass)
    return Plan(budget, make_schedule(config.schedule), config.evaluate_every or evaluation_interval(steps_per_pass))


class StepLoss(NamedTuple):
    """Loss and gradient norm of a step, which may still be computed on the device."""

    step: int
    batch: Batch
    loss: Tensor
    norm: Tensor


class Run:
    """The training of one model, without its steps.

    Args:
        model: model to train.
        train: training rows.
        held_out: held-out rows, or None.
        config: options of the run.
        plan: when to stop and to evaluate.
        reporter: shows progress.
    """

    def __init__(
        self,
        model: Model,
        train: Source,
        held_out: Source | None,
        config: TrainingConfig,
        plan: Plan,
        reporter: Reporter,
    ) -> None:
        self.model, self.train, self.held_out = model, train, held_out
        self.config, self.plan, self.reporter = config, plan, reporter
        self.seed = config.seed
        self.device = train.spec.device
        self.log = MetricsLog(config.log)
        self.state = State()
        self.began = monotonic()
        self._check_every = check_interval(self.device)
        self._unchecked: list[StepLoss] = []
        self._callback_stopped = False
        self._rows: Pair | None = None
        self.processes: Processes | None = None

    @property
    def step(self) -> int:
        """Number of steps so far."""
        return self.state.position.step

    @property
    def elapsed(self) -> float:
        """Seconds of training, including the earlier parts of a resumed run."""
        if self.processes is not None:  # the same in all of them, because it decides when training ends
            return self.state.elapsed if self.processes.agreed is None else self.processes.agreed.elapsed
        return self.own_elapsed

    @property
    def own_elapsed(self) -> float:
        """The seconds by the clock of this process."""
        return self.state.elapsed + monotonic() - self.began

    @property
    def used(self) -> float:
        """Used fraction of the budget, in [0, 1]."""
        return self.plan.budget.used(self.step, self.elapsed)

    @property
    def best_step(self) -> int:
        """Step of the best weights."""
        return self.state.history[-1].best_step if self.state.history else 0

    def initialize(self) -> None:
        """Set data-dependent state of the model from training rows."""
        noise = generator(self.seed, Purpose.INITIALIZE, device=self.device)
        self.model.initialize(*self._initial_rows(), generator=noise)

    def start(self) -> None:
        """Start the log and the display of progress."""
        self.log.start(self.state.history)
        self.reporter.start(self.plan.budget.steps)

    def stop_reason(self) -> str | None:
        """Why training ends now, or None if it goes on."""
        if self.state.stopped is not None:
            return self.state.stopped
        if self._callback_stopped:
            return "callback"
        if self.config.patience is not None and self.state.evaluations_since_best >= self.config.patience:
            return "patience"
        return self.plan.budget.stop_reason(self.step, self.elapsed)

    def add_loss(self, result: StepLoss) -> None:
        """Add the loss of a step to the mean that the next event reports.

        Raises:
            TrainingError: if a loss or gradient is not finite.
        """
        self._unchecked.append(result)
        if len(self._unchecked) >= self._check_every:
            self.check_losses()

    def check_losses(self) -> None:
        """Read the losses since the last check, which waits for the device.

        Raises:
            TrainingError: if a loss or gradient is not finite.
        """
        if not self._unchecked:
            return
        losses, norms = (torch.stack(list(of)).tolist() for of in zip(*(r[2:] for r in self._unchecked), strict=True))
        for result, loss, norm in zip(self._unchecked, losses, norms, strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                self._fail(result, loss, norm)
            self.state.loss_sum += loss
            self.state.loss_count += 1
        self._unchecked.clear()

    def advance(self, batch: Batch) -> None:
        """Count the step that used the batch."""
        self.state.position = Position(self.step + 1, batch.epoch, batch.number + 1)
        elapsed = self.elapsed
        self.reporter.tick(self.step, self.plan.budget.used(self.step, elapsed), elapsed)

    def evaluate(self, learning_rate: float) -> None:
        """Measure the held-out rows, keep the weights if they are the best, and report an event.

        Args:
            learning_rate: learning rate of the last step, for the event.
        """
        self.check_losses()
        state, step = self.state, self.step
        self.model.eval()
        if self.model.needs_refresh:
            noise = generator(self.seed, Purpose.REFRESH, step, device=self.device)
            self.model.refresh(*self._initial_rows(), generator=noise)
        value, outside, rank = self.measure()
        if rank is None or state.rank is None or rank > state.rank:
            state.rank, state.evaluations_since_best = rank, 0
            state.best = {key: tensor.detach().clone() for key, tensor in self.model.state_dict().items()}
            best, best_step = value, step
        else:
            state.evaluations_since_best += 1
            best, best_step = state.history[-1].best, state.history[-1].best_step
        loss = state.loss_sum / state.loss_count if state.loss_count else None
        state.loss_sum, state.loss_count = 0.0, 0
        event = TrainingEvent(step, self._passes(), loss, value, outside, best, best_step, learning_rate, self.elapsed)
        state.history.append(event)
        self.log.event(event)
        self.reporter.event(event, self.used)
        if self.config.callback is not None:
            answer = self.config.callback(event)
            if isinstance(answer, Tensor) and answer.dtype == torch.bool and answer.numel() == 1:
                answer = bool(answer)
            if isinstance(answer, (bool, np.bool_)) and answer:
                self._callback_stopped = True
        if self.processes is not None:
            self._callback_stopped = self.processes.same(self._callback_stopped)

    def result(self, reason: str) -> FitResult:
        """The result of a run that stopped for a reason."""
        last = self.state.history[-1]
        return FitResult(
            best_step=last.best_step,
            best_validation=last.best,
            steps=self.step,
            epochs=self._passes(),
            seconds=self.elapsed,
            stopped=reason,
            history=[dict(vars(event)) for event in self.state.history],
        )

    def close(self, result: FitResult | None) -> None:
        """Give the model its best weights, in evaluation mode, and end the display of progress.

        Args:
            result: of the run, or None if it ended with an error.
        """
        if self.state.best:
            load_weights(self.model, self.state.best)
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.grad = None  # else the next backward pass of the user would add to it
        self.model.eval()
        self.reporter.end(result)

    def warn_about_rows_outside(self) -> None:
        """Warn if the best weights give held-out rows no finite log-likelihood."""
        best = next((event for event in reversed(self.state.history) if event.step == event.best_step), None)
        if best is not None and best.outside:
            warnings.warn(
                f"{best.outside} held-out rows have no finite log-likelihood because they lie where the model has no "
                "mass, so the mean is not finite either. The best weights were chosen by the other rows.",
                PushforwardWarning,
                stacklevel=4,
            )

    @torch.no_grad()
    def measure(self) -> tuple[float | None, int, tuple[int, float] | None]:
        """Mean held-out log-likelihood, the number of rows without a finite one, and the rank of these weights.

        One row at -inf makes the mean -inf for all weights alike. So the rank first counts such rows, and then compares
        the mean of the others.
        """
        if self.held_out is None:
            return None, 0, None
        values = self._together([self.model.held_out_value(*pair) for pair in self.held_out.ordered()])
        weights = self.held_out.ordered_weights()
        shares = None if weights is None else self._together(list(weights))
        finite = torch.isfinite(values)
        outside = int((~finite).sum())
        inside = _mean(values[finite], None if shares is None else shares[finite])
        return _mean(values, shares), outside, (-outside, inside)

    def _together(self, batches: list[Tensor]) -> Tensor:
        """The values of all batches, also of other processes, in their order."""
        return (torch.cat(batches) if self.processes is None else self.processes.gather(batches)).cpu().double()

    def read_initial_rows(self) -> None:
        """Read the rows that batch normalization needs, if there is any."""
        if self.model.needs_refresh:
            self._initial_rows()

    def _initial_rows(self) -> Pair:
        """Rows from which data-dependent state is set."""
        if self._rows is None:
            x, context = self.train.raw_sample(sample_rows(self.model.shape))
            if not isinstance(self.train, ArrayRows):  # arrays were checked when they were opened
                self.train.spec.warn_if_imprecise(x)
                if context is not None:
                    self.train.spec.warn_if_imprecise(context, " of the context")
            self._rows = self.train.spec.cast(x, context)
        return self._rows

    def _passes(self) -> float:
        return self.step / self.train.steps if self.train.steps else float(self.state.position.epoch)

    def _fail(self, result: StepLoss, loss: float, norm: float) -> NoReturn:
        what = f"the loss is {loss:.6g}" + (f" but the norm of its gradient is {norm}" if math.isfinite(loss) else "")
        place, advice = self._explain(result.batch)
        raise TrainingError(
            f"{what} at step {result.step}{place}; the model has the weights of step {self.best_step} again. "
            f"{advice[0].upper()}{advice[1:]}."
        )

    def _explain(self, batch: Batch) -> tuple[str, str]:
        """Which batch gave a loss that is not finite, and what to do about it."""
        x, _, epoch, number, _ = batch
        largest = x.abs().max().item() if x.numel() else 0.0
        advice = rows_outside(self.model, x) or (
            "Check that batch for outliers and for rows outside the model's domain, lower learning_rate or gradient_clip, or "
            "standardize inside the model"
        )
        return f" (epoch {epoch}, batch {number}; largest |input| {largest:.6g})", advice


def _mean(values: Tensor, shares: Tensor | None) -> float:
    """Mean of values, weighted if there are shares; -inf of none."""
    if not len(values):
        return -math.inf
    return values.mean().item() if shares is None else ((values * shares).sum() / shares.sum()).item()
