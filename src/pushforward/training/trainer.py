"""`Trainer`: the training loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NoReturn

import torch

from pushforward.errors import ConfigError, InputError
from pushforward.kernels import freed_memory_kept
from pushforward.training.checkpoint import Checkpoint
from pushforward.training.distributed import Processes
from pushforward.training.interruption import Interruption
from pushforward.training.optim import unpack_optimizer
from pushforward.training.result import FitResult
from pushforward.training.run import Plan, Run, StepLoss
from pushforward.training.seeds import Purpose, mix, preserved, seed_step
from pushforward.training.sources import Batch
from pushforward.training.strategies import Strategy

__all__ = ["Trainer"]


class Trainer:
    """The training loop: steps, evaluations, checkpoints, and the end of each run.

    All runs make their steps together; each has its own data, best weights and end.

    Args:
        runs: a run for each model.
        strategy: how one step changes the weights of these models.
        plan: when to stop and to evaluate.
        initialize: whether to set data-dependent state of the models first.
        checkpoint: where to write the runs, or None.
        resume: whether to continue the runs in the checkpoint.
        processes: those that train together, or None. They need a single run; the first one has the checkpoint.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        strategy: Strategy,
        plan: Plan,
        *,
        initialize: bool,
        checkpoint: Checkpoint | None = None,
        resume: bool = False,
        processes: Processes | None = None,
    ) -> None:
        self.runs, self.strategy, self.plan = runs, strategy, plan
        self.initialize, self.checkpoint, self.resume = initialize, checkpoint, resume
        self.processes = processes
        self.device = runs[0].device
        self.noise = [torch.Generator(self.device) for _ in runs]
        self.results: list[FitResult | None] = [None] * len(runs)

    def train(self) -> list[FitResult]:
        """Train all models. Even after an error they have their best weights and are in evaluation mode."""
        self._require_gradients()
        with preserved(self.device), torch.enable_grad(), freed_memory_kept(), Interruption() as interruption:
            try:
                self._start()
                self._loop(interruption)
            finally:
                for run, result in zip(self.runs, self.results, strict=True):
                    run.close(result)
        for run in self.runs:
            run.warn_about_rows_outside()
        return [result for result in self.results if result is not None]

    def _require_gradients(self) -> None:
        """Refuse inference mode, in which torch records no gradients, also not for tensors that were made in it.

        Raises:
            ConfigError: if it is on, or a model was made in it.
        """
        if torch.is_inference_mode_enabled():
            raise ConfigError(
                "training needs gradients, which torch.inference_mode() does not allow: call outside of it, or use torch.no_grad()."
            )
        if any(parameter.is_inference() for run in self.runs for parameter in run.model.parameters()):
            raise ConfigError("a model that was made inside torch.inference_mode() cannot be trained: make it outside.")

    def _start(self) -> None:
        loaded = None
        for run in self.runs:
            run.model.eval()
        if self.resume and self.checkpoint is not None:
            loaded = self.checkpoint.load([run.model for run in self.runs])
            for run, state in zip(self.runs, loaded[0], strict=True):
                run.state = state
        elif self.initialize:
            for run in self.runs:
                run.initialize()
        if self.processes is not None:
            self.processes.copy(self.runs[0].model)
            loaded = self.processes.same(loaded)
            if loaded is not None:
                self.runs[0].state = loaded[0][0]
        self.strategy.start()
        if loaded is not None:
            _, averages, optimizer = loaded
            if self.strategy.optimizer is not None:
                unpack_optimizer(self.strategy.optimizer, *optimizer)
            if self.strategy.ema is not None:
                self.strategy.ema.load(averages)
            for run in self.runs:
                run.read_initial_rows()  # before the passes over the data start, as in a run that was not interrupted
        for run in self.runs:
            run.start()
        if not self.runs[0].state.history:
            self._evaluate(self.runs)
            self._save()  # an unwritable path raises now and not after the first minute

    def _loop(self, interruption: Interruption) -> None:
        batches = [run.train.batches(run.state.position) for run in self.runs]
        while active := self._active_runs():
            if self._is_interrupted(interruption):
                self._interrupt(self.runs[active[0]])
            if self.checkpoint is not None and self.checkpoint.due(self.runs[active[0]].step):
                self._save()
            self._step(batches, active)
            due = [self.runs[k] for k in active if self.runs[k].step % self.plan.evaluate_every == 0]
            if due:
                self._evaluate(due)

    def _is_interrupted(self, interruption: Interruption) -> bool:
        """Whether training is to stop. Several processes stop after the same step."""
        if self.processes is None:
            return interruption.requested
        self.processes.interrupted = interruption.requested
        return self.processes.agreed is not None and self.processes.agreed.interrupted

    def _active_runs(self) -> list[int]:
        """Indices of the runs that go on. Runs that end now get their result."""
        active = []
        for k, run in enumerate(self.runs):
            if self.results[k] is not None:
                continue
            reason = run.stop_reason()
            if reason is None:
                active.append(k)
            else:
                self.results[k] = self._finish(run, reason)
        return active

    def _step(self, streams: Sequence[Iterator[Batch]], active: Sequence[int]) -> None:
        first = self.runs[active[0]]
        step = first.step
        if self.strategy.notice is not None:
            first.reporter.note(self.strategy.notice)
            self.strategy.notice = None
        for k in active:
            if not self.runs[k].model.training:
                self.runs[k].model.train()
        batches = [next(stream) for stream in streams]
        factor = self.plan.schedule(first.used)
        rank = []  # each process has noise of its own, and the first one that of a single process
        if self.processes is not None:
            self.processes.elapsed = first.own_elapsed
            rank = [] if self.processes.first else [self.processes.share.rank]
        seed_step(mix(first.seed, Purpose.STEP, step, *rank), self.device)
        for run, noise in zip(self.runs, self.noise, strict=True):
            noise.manual_seed(mix(run.seed, Purpose.LOSS, step, *rank))
        try:
            losses, norms = self.strategy.gradients(batches, self.noise)
        except InputError as error:
            batch = batches[active[0]]
            raise InputError(f"step {step} (epoch {batch.epoch}, batch {batch.number}): {error}") from error
        for k in active:
            self.runs[k].add_loss(StepLoss(step, batches[k], losses[k], norms[k]))
        self.strategy.update(step + 1, factor)
        for k in active:
            self.runs[k].advance(batches[k])

    def _evaluate(self, runs: Sequence[Run]) -> None:
        if self.processes is not None:
            self.processes.copy(runs[0].model, buffers_only=True)
        with self.strategy.evaluated_weights():
            for run in runs:
                run.evaluate(self.strategy.learning_rate)

    def _finish(self, run: Run, reason: str) -> FitResult:
        if run.state.history[-1].step != run.step:
            self._evaluate([run])
        if run.state.stopped is None:
            run.state.stopped = None if reason == "callback" else reason  # a run that a callback stopped can be resumed
            self._save()
        return run.result(reason)

    def _interrupt(self, run: Run) -> NoReturn:
        text = f"interrupted at step {run.step}; the model has the weights of step {run.best_step}"
        if self.checkpoint is not None:
            self._save()
            text += f"; the same call resumes from {self.checkpoint.path}"
        run.reporter.note(text)
        raise KeyboardInterrupt(text)

    def _save(self) -> None:
        if self.checkpoint is not None:
            ema = self.strategy.ema
            for run in self.runs:
                run.check_losses()
            self.strategy.give_weights()
            averages = {} if ema is None else ema.state()
            states = [(run.state, run.elapsed, run.model) for run in self.runs]
            self.checkpoint.save(states, self.strategy.optimizer, averages)
