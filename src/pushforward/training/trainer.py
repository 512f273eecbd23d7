"""The training loop: steps, evaluations, the best weights, and where a run may stop and go on."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from time import monotonic
from typing import Literal, NamedTuple, NoReturn

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError, InputError, PushforwardError, PushforwardWarning, TrainingError
from pushforward.kernels import freed_memory_kept
from pushforward.models.base import Model
from pushforward.training.budget import Budget, Schedule
from pushforward.training.checkpoint import Checkpoint, State, load_weights
from pushforward.training.compiled import CompiledLoss, Loss
from pushforward.training.ema import WeightAverage
from pushforward.training.input_spec import Pair
from pushforward.training.interruption import Interruption
from pushforward.training.microbatches import in_parts
from pushforward.training.progress import MetricsLog, Reporter
from pushforward.training.result import FitResult, TrainingEvent
from pushforward.training.seeds import Purpose, generator, mix, preserved, seed_step
from pushforward.training.sources import ArrayRows, Batch, Position, Source
from pushforward.transforms.base import Shape

__all__ = ["Trainer", "gradients", "sample_rows"]

_SAMPLE_ROWS, _SAMPLE_VALUES = 100_000, 1 << 21
"""Most rows, and about the most numbers, that data-dependent state is set from: all pass through the model at once."""
_CHECK_EVERY = 20
"""Steps between two looks at the losses on a device that works asynchronously."""


def sample_rows(shape: Shape) -> int:
    """How many training rows of a shape data-dependent state is set from."""
    return min(_SAMPLE_ROWS, max(1024, _SAMPLE_VALUES // max(1, math.prod(shape))))


def gradients(
    model: Model,
    parameters: list[nn.Parameter],
    batch: Batch,
    *,
    noise: torch.Generator,
    clip: float | None,
    amp: bool,
    accumulate: int | None = None,
    loss_of: Loss | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss and gradient norm of a batch, with the gradients clipped to norm ``clip`` in the parameters.

    ``loss_of`` is ``model.loss`` in another form.
    """
    loss_of = model.loss if loss_of is None else loss_of
    for parameter in parameters:
        parameter.grad = None
    losses = []
    for part in in_parts(model, batch, accumulate):
        with torch.autocast(batch.x.device.type, torch.bfloat16, enabled=amp):
            loss = loss_of(part.x, part.context, generator=noise)
        if part is not batch:
            loss = loss * (len(part.x) / len(batch.x))
        loss.backward()
        losses.append(loss.detach())
    loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    # On a CPU looking at the norm costs nothing and usually saves the pass that scales; elsewhere it would wait.
    if clip is not None and (norm.device.type != "cpu" or norm > clip):
        nn.utils.clip_grads_with_norm_(parameters, clip, norm)
    return loss, norm


class Pending(NamedTuple):
    """A step whose loss has not been looked at yet."""

    step: int
    batch: Batch
    loss: Tensor
    norm: Tensor


@dataclass
class Trainer:
    """One run of training, with everything decided.

    Args:
        model: to train.
        train: training rows.
        held_out: held-out rows, or None.
        optimizer: None if the model has nothing to train.
        budget: when to stop.
        schedule: factor of the learning rate.
        gradient_clip: largest norm of the gradient, or None.
        decay: of the moving average of the weights, which is then what is evaluated and kept; or None.
        patience: evaluations without improvement before stopping, or None.
        evaluate_every: steps between evaluations.
        seed: of everything random.
        amp: bfloat16 autocast around the loss.
        initialize: set data-dependent state first.
        callback: called at each evaluation; True stops.
        reporter: shows progress.
        log: of metrics.
        checkpoint: where the run is written, or None.
        resume: go on with the run in the checkpoint.
        accumulate: parts whose gradients add up to a step's, or None for what suits.
        compile: True compiles the loss, "try" does so if that works.
    """

    model: Model
    train: Source
    held_out: Source | None
    optimizer: torch.optim.Optimizer | None
    budget: Budget
    schedule: Schedule
    gradient_clip: float | None
    decay: float | None
    patience: int | None
    evaluate_every: int
    seed: int
    amp: bool
    initialize: bool
    callback: Callable[[TrainingEvent], object] | None
    reporter: Reporter
    log: MetricsLog
    checkpoint: Checkpoint | None
    resume: bool
    accumulate: int | None = None
    compile: bool | Literal["try"] = False

    state: State = field(default_factory=State, init=False)

    def __post_init__(self) -> None:
        self.device = self.train.form.device
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        groups = [] if self.optimizer is None else self.optimizer.param_groups
        self.rates = [float(group["lr"]) for group in groups]
        self.noise = torch.Generator(self.device)
        self.check_every = 1 if self.device.type == "cpu" else _CHECK_EVERY
        self.pending: list[Pending] = []
        self.average: WeightAverage | None = None
        self.asked_to_stop = False
        self.loss_of: Loss = self.model.loss
        self.sample: Pair | None = None
        self.began = monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds of training, over all runs that were resumed."""
        return self.state.elapsed + monotonic() - self.began

    def run(self) -> FitResult:
        """Train to the end; whatever happens, the model is left with the best weights, in evaluation mode."""
        with preserved(self.device), torch.enable_grad(), freed_memory_kept(), Interruption() as interruption:
            result = None
            try:
                self._begin()
                result = self._finish(self._loop(interruption))
                return result
            finally:
                if self.state.best:
                    load_weights(self.model, self.state.best)
                self.model.eval()
                self.reporter.end(result)
                if result is not None:
                    self._warn_outside()

    def _begin(self) -> None:
        self.model.eval()
        resumed = None
        if self.resume and self.checkpoint is not None:
            self.state, resumed = self.checkpoint.load(self.model, self.optimizer)
        elif self.initialize:
            noise = generator(self.seed, Purpose.INITIALIZE, device=self.device)
            self.model.initialize(*self._sample(), generator=noise)
        if self.decay is not None and self.optimizer is not None:
            self.average = WeightAverage(self.parameters, self.decay)  # begins at weights that data have set
            if resumed is not None:
                self.average.load(resumed)
        self.log.start(self.state.history)
        self.reporter.start(self.budget.steps)
        if not self.state.history:
            self._evaluate()
            self._save()  # at once, so that a path that cannot be written is known now and not in a minute

    def _loop(self, interruption: Interruption) -> str:
        state = self.state
        batches = self.train.batches(state.position)
        while (reason := self._reason()) is None:
            if interruption.asked:
                self._interrupt()
            if self.checkpoint is not None and self.checkpoint.due(state.position.step):
                self._save()
            if not self.model.training:
                self.model.train()
            self._step(next(batches))
            if state.position.step % self.evaluate_every == 0:
                self._evaluate()
        return reason

    def _reason(self) -> str | None:
        """Why training ends now, or None."""
        if self.state.stopped is not None:
            return self.state.stopped
        if self.asked_to_stop:
            return "callback"
        if self.patience is not None and self.state.waited >= self.patience:
            return "patience"
        return self.budget.reason(self.state.position.step, self.elapsed)

    def _step(self, batch: Batch) -> None:
        assert self.optimizer is not None
        step = self.state.position.step
        self._set_rate(self.budget.spent(step, self.elapsed))
        try:
            if self.compile:
                self._compile(batch)
            loss, norm = self._gradients(batch)
        except InputError as error:
            raise InputError(f"step {step} (epoch {batch.epoch}, batch {batch.place}): {error}") from error
        self.pending.append(Pending(step, batch, loss, norm))
        if len(self.pending) >= self.check_every:
            self._look()
        self.optimizer.step()
        if self.average is not None:
            self.average.update(step + 1)
        self.state.position = Position(step + 1, batch.epoch, batch.place + 1)
        elapsed = self.elapsed
        self.reporter.tick(step + 1, self.budget.spent(step + 1, elapsed), elapsed)

    def _gradients(self, batch: Batch) -> tuple[Tensor, Tensor]:
        step = self.state.position.step
        seed_step(mix(self.seed, Purpose.STEP, step), self.device)
        self.noise.manual_seed(mix(self.seed, Purpose.LOSS, step))
        return gradients(
            self.model, self.parameters, batch, noise=self.noise, clip=self.gradient_clip, amp=self.amp,
            accumulate=self.accumulate, loss_of=self.loss_of,
        )  # fmt: skip

    def _compile(self, batch: Batch) -> None:
        """Take the compiled loss from here on, if it gives gradients of this batch: a compiler fails at its first use."""
        insists, self.compile = self.compile is True, False
        parts = len(self.model.chain) - self.model.chain.first_trainable()
        self.reporter.note(f"compiling the loss of a training step: some seconds for each of {parts} transforms")
        try:
            with warnings.catch_warnings():  # of torch's own compiler
                warnings.simplefilter("ignore", FutureWarning)
                warnings.simplefilter("ignore", DeprecationWarning)
                self.loss_of = CompiledLoss(self.model)
                self._gradients(batch)
        except PushforwardError:  # of the batch, not of the compiler
            raise
        except Exception as error:
            self.loss_of = self.model.loss
            self._gradients(batch)  # what fails here too is no matter of the compiler
            said = next(iter(str(error).strip().splitlines()), type(error).__name__)
            text = f"the loss of this {type(self.model).__name__} could not be compiled ({said:.200})"
            if insists:
                raise ConfigError(f"compile=True, but {text}: compile=False trains without.") from error
            warnings.warn(f"{text}; it is trained without.", PushforwardWarning, stacklevel=5)

    def _set_rate(self, spent: float) -> None:
        assert self.optimizer is not None
        factor = self.schedule(spent)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def _look(self) -> None:
        """Add up the losses of the steps since the last look, and stop at one that is not finite."""
        if not self.pending:
            return
        losses, norms = (torch.stack(list(of)).tolist() for of in zip(*(p[2:] for p in self.pending), strict=True))
        for pending, loss, norm in zip(self.pending, losses, norms, strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                self._fail(pending, loss, norm)
            self.state.loss_sum += loss
            self.state.loss_count += 1
        self.pending.clear()

    def _fail(self, pending: Pending, loss: float, norm: float) -> NoReturn:
        x, _, epoch, place = pending.batch
        largest = x.abs().max().item() if x.numel() else 0.0
        what = f"the loss is {loss:.6g}" + (f" but its gradient is {norm}" if math.isfinite(loss) else "")
        raise TrainingError(
            f"{what} at step {pending.step} (epoch {epoch}, batch {place}; largest |input| {largest:.6g}). The model "
            f"has the weights of step {self._best_step()} again. Look at that batch for outliers or rows outside the "
            "model's domain, lower lr or gradient_clip, or standardize inside the model."
        )

    def _evaluate(self) -> None:
        """Measure the held-out rows, keep the weights if they are the best, and tell everyone."""
        with nullcontext() if self.average is None else self.average.in_place():
            self._evaluate_weights()

    def _evaluate_weights(self) -> None:
        self._look()
        state, step = self.state, self.state.position.step
        self.model.eval()
        if self.model.chain.needs_refresh:
            self.model.refresh(
                *self._sample(), generator=generator(self.seed, Purpose.REFRESH, step, device=self.device)
            )
        value, outside, rank = self._measure()
        if rank is None or state.rank is None or rank > state.rank:
            state.rank, state.waited = rank, 0
            state.best = {key: tensor.detach().clone() for key, tensor in self.model.state_dict().items()}
            best, best_step = value, step
        else:
            state.waited += 1
            best, best_step = state.history[-1].best, state.history[-1].best_step
        rate = 0.0 if self.optimizer is None else float(self.optimizer.param_groups[0]["lr"])
        loss = state.loss_sum / state.loss_count if state.loss_count else None
        state.loss_sum, state.loss_count = 0.0, 0
        event = TrainingEvent(step, self._passes(), loss, value, outside, best, best_step, rate, self.elapsed)
        state.history.append(event)
        self.log.event(event)
        self.reporter.event(event, self.budget.spent(step, self.elapsed))
        if self.callback is not None and self.callback(event) is True:
            self.asked_to_stop = True

    @torch.no_grad()
    def _measure(self) -> tuple[float | None, int, tuple[int, float] | None]:
        """Mean held-out log-likelihood, the rows that have none, and the rank of these weights.

        One row at -inf makes the mean -inf for all weights alike, so the rank counts such rows first and compares the
        mean of the others second.
        """
        if self.held_out is None:
            return None, 0, None
        values = torch.cat([self.model.evaluate(*pair).value for pair in self.held_out.ordered()]).cpu().double()
        finite = torch.isfinite(values)
        outside = int((~finite).sum())
        inside = values[finite].mean().item() if outside < len(values) else -math.inf
        return values.mean().item(), outside, (-outside, inside)

    def _finish(self, reason: str) -> FitResult:
        state = self.state
        if state.history[-1].step != state.position.step:
            self._evaluate()
        if state.stopped is None:
            state.stopped = None if reason == "callback" else reason  # a run that its user stopped can go on
            self._save()
        last = state.history[-1]
        return FitResult(
            best_step=last.best_step,
            best_validation=last.best,
            steps=state.position.step,
            epochs=self._passes(),
            seconds=self.elapsed,
            stopped=reason,
            history=[dict(vars(event)) for event in state.history],
        )

    def _interrupt(self) -> NoReturn:
        step = self.state.position.step
        text = f"interrupted at step {step}; the model has the weights of step {self._best_step()}"
        if self.checkpoint is not None:
            self._save()
            text += f"; the same call goes on from {self.checkpoint.path}"
        self.reporter.note(text)
        raise KeyboardInterrupt(text)

    def _save(self) -> None:
        if self.checkpoint is not None:
            self._look()
            average = {} if self.average is None else self.average.state()
            self.checkpoint.save(self.state, self.elapsed, self.model, self.optimizer, average)

    def _sample(self) -> Pair:
        """Rows that data-dependent state is set from."""
        if self.sample is None:
            raw, context = self.train.raw_sample(sample_rows(self.model.shape))
            if not isinstance(self.train, ArrayRows):  # arrays were looked at before they were moved to the device
                self.train.form.warn_if_lost(raw)
            self.sample = self.train.form.cast(raw, context)
        return self.sample

    def _passes(self) -> float:
        position = self.state.position
        return position.step / self.train.steps if self.train.steps else float(position.epoch)

    def _best_step(self) -> int:
        return self.state.history[-1].best_step if self.state.history else 0

    def _warn_outside(self) -> None:
        last = next((e for e in reversed(self.state.history) if e.step == e.best_step), None)
        if last is not None and last.outside:
            warnings.warn(
                f"{last.outside} held-out rows have no finite log-likelihood: they lie where the model has no mass, so "
                "the mean is not finite either. The best weights were chosen by the other rows.",
                PushforwardWarning,
                stacklevel=4,
            )
