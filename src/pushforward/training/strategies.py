"""Step strategies of the trainer: how one step changes the weights of a single model, or of several stacked models."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

from pushforward.errors import ConfigError, PushforwardError
from pushforward.models.base import Model
from pushforward.training.compiled_loss import CompiledLoss, Loss, why_not_compilable
from pushforward.training.config import TrainingConfig
from pushforward.training.distributed import Processes
from pushforward.training.ema import WeightAverage
from pushforward.training.gradients import gradients
from pushforward.training.optim import make_optimizer
from pushforward.training.sources import Batch
from pushforward.training.stacking import Stack

__all__ = ["SingleModel", "StackedModels", "Strategy"]


class Strategy(ABC):
    """How one step changes the weights of the trained models.

    In each step the trainer calls :meth:`gradients` and :meth:`update`. It checks that the losses are finite: in each step on a CPU, every few steps on an accelerator.

    Args:
        config: options of the run.
    """

    notice: str | None = None
    """Message to show before the first step."""

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.optimizer: torch.optim.Optimizer | None = None
        self.initial_rates: list[float] = []
        self.ema: WeightAverage | None = None

    @abstractmethod
    def start(self) -> None:
        """Start from the present weights of the models. Data-dependent state is set by now."""

    @abstractmethod
    def gradients(
        self, batches: Sequence[Batch], noise: Sequence[torch.Generator]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Compute and clip the gradients of one step.

        Args:
            batches: a batch for each model.
            noise: a generator for each model, for the noise of its transforms.

        Returns:
            For each model the loss, and the norm of the gradient before clipping.
        """

    def update(self, step: int, factor: float) -> None:
        """Change the weights by the gradients.

        Args:
            step: number of the step, counted from 1.
            factor: factor of the learning rate.
        """
        assert self.optimizer is not None
        for group, rate in zip(self.optimizer.param_groups, self.initial_rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(step)

    def give_weights(self) -> None:
        """Give each model its present weights, where these are elsewhere during training."""
        return

    def evaluated_weights(self) -> AbstractContextManager[object]:
        """Inside the ``with`` block the models have the weights that are evaluated and kept."""
        return nullcontext() if self.ema is None else self.ema.applied()

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last step; 0 if there is nothing to train."""
        return 0.0 if self.optimizer is None else float(self.optimizer.param_groups[0]["lr"])

    def set_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Train with this optimizer, whose present learning rates the schedule scales."""
        self.optimizer = optimizer
        self.initial_rates = [float(group["lr"]) for group in optimizer.param_groups]


class SingleModel(Strategy):
    """Trains one model.

    Args:
        model: model to train.
        config: options of the run.

    Raises:
        ConfigError: with ``compile=True`` for a model whose loss cannot be compiled.
    """

    def __init__(self, model: Model, config: TrainingConfig) -> None:
        super().__init__(config)
        self.model = model
        self.processes: Processes | None = None
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if self.parameters:
            self.set_optimizer(
                make_optimizer(config.optimizer, self.parameters, config.learning_rate, config.weight_decay)
            )
        self.loss_function: Loss | None = model.loss
        if config.compile:
            if (reason := why_not_compilable(model)) is not None:
                raise ConfigError(
                    f"the loss of this {type(model).__name__} cannot be compiled because {reason}: use compile=False."
                )
            self.loss_function = None  # compiled at the first step
            count = len(model.chain) - model.chain.first_trainable()
            self.notice = f"compiling the training loss, which takes a few seconds for each of {count} transforms"

    def start(self) -> None:
        """Start the moving average at the present weights."""
        if self.config.ema is not None and self.optimizer is not None:
            self.ema = WeightAverage(self.parameters, self.config.ema)

    def gradients(
        self, batches: Sequence[Batch], noise: Sequence[torch.Generator]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Gradients of the only batch; the first call compiles the loss if that was asked for."""
        if self.loss_function is None:
            loss, norm = self._compile(batches[0], noise[0])
        else:
            loss, norm = self._gradients(batches[0], noise[0], self.loss_function)
        return [loss], [norm]

    def _gradients(self, batch: Batch, noise: torch.Generator, loss_function: Loss) -> tuple[Tensor, Tensor]:
        config = self.config
        return gradients(
            self.model, self.parameters, batch, noise=noise, clip=config.gradient_clip, amp=config.amp,
            microbatches=config.microbatches, loss_function=loss_function, processes=self.processes,
        )  # fmt: skip

    def _compile(self, batch: Batch, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        """Compile the loss and use it for a batch, since a compiler fails only when the loss is used."""
        try:
            with warnings.catch_warnings():  # torch's compiler warns about torch itself
                warnings.simplefilter("ignore", FutureWarning)
                warnings.simplefilter("ignore", DeprecationWarning)
                self.loss_function = CompiledLoss(self.model)
                return self._gradients(batch, noise, self.loss_function)
        except PushforwardError:  # the batch is at fault, not the compiler
            raise
        except Exception as error:
            self._gradients(batch, noise, self.model.loss)  # raises if the compiler is not at fault
            message = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ConfigError(
                f"the loss of this {type(self.model).__name__} could not be compiled ({message:.200}): "
                "use compile=False."
            ) from error


class StackedModels(Strategy):
    """Trains several models of one architecture as one batched model.

    Each model has its own gradient norm and is clipped on its own.

    Args:
        models: models to train.
        config: options of the run.

    Raises:
        Unstackable: for models that cannot be stacked.
    """

    def __init__(self, models: Sequence[Model], config: TrainingConfig) -> None:
        super().__init__(config)
        self.models = models
        self.stack = Stack(models)

    def start(self) -> None:
        """Stack the present weights, and start the optimizer and the moving average with them."""
        config, self.stack = self.config, Stack(self.models)
        self.stack.chain.train()
        self.parameters = list(self.stack.parameters())
        dimensions = [count for _, count in self.stack.dimensions()]
        self.set_optimizer(
            make_optimizer(config.optimizer, self.parameters, config.learning_rate, config.weight_decay, dimensions)
        )
        if config.ema is not None:
            self.ema = WeightAverage(self.parameters, config.ema)

    def gradients(
        self, batches: Sequence[Batch], noise: Sequence[torch.Generator]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Gradients of all models at once."""
        for parameter in self.parameters:
            parameter.grad = None
        losses = self.stack.losses([batch.x for batch in batches], noise)
        losses.sum().backward()  # the loss of a model depends only on its own weights
        grads = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norms = torch.stack([grad.flatten(1).norm(dim=1) for grad in grads]).norm(dim=0)
        clip = self.config.gradient_clip
        if clip is not None and bool((norms > clip).any()):
            factors = (clip / (norms + 1e-6)).clamp(max=1.0)
            for grad in grads:
                grad.mul_(factors.reshape(-1, *(1,) * (grad.dim() - 1)))
        return losses.detach().unbind(), norms.unbind()

    def give_weights(self) -> None:
        """Copy the stacked weights to the models."""
        self.stack.unstack()

    @contextmanager
    def evaluated_weights(self) -> Iterator[None]:
        """Inside the ``with`` block each model has its own weights, or their average."""
        with super().evaluated_weights():
            self.stack.unstack()
            yield
