"""What training reports: an event at each evaluation, and the result at the end."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["FitResult", "TrainingEvent", "plain_number", "restored"]


@dataclass(frozen=True)
class TrainingEvent:
    """State of training at an evaluation.

    Args:
        step: optimizer steps done.
        epoch: passes over the training rows done, with a fraction.
        loss: mean training loss since the event before, nats; None at step 0.
        validation: mean held-out log-likelihood in nats (higher is better; -inf if a row has none), or None without
            held-out rows.
        outside: held-out rows with log-likelihood -inf (or undefined), which lie where the model has no mass.
        best: ``validation`` of the best weights so far.
        best_step: their step.
        lr: learning rate of the last step.
        seconds: since training began, over all runs that were resumed.
    """

    step: int
    epoch: float
    loss: float | None
    validation: float | None
    outside: int
    best: float | None
    best_step: int
    lr: float
    seconds: float

    def plain(self) -> dict[str, Any]:
        """Strict JSON: numbers, None, and the texts "nan", "inf", "-inf", which ``float`` reads back."""
        return {key: plain_number(value) for key, value in asdict(self).items()}


@dataclass(frozen=True)
class FitResult:
    """How training went. The model holds the best weights, in evaluation mode.

    Args:
        best_step: step of the weights that were kept.
        best_validation: their mean held-out log-likelihood, nats; None without held-out rows.
        steps: optimizer steps done.
        epochs: passes over the training rows.
        seconds: wall time, over all runs that were resumed.
        stopped: "patience", "epochs", "max_steps", "max_time", "callback" or "nothing to train".
        history: the events as dictionaries, one an evaluation.
    """

    best_step: int
    best_validation: float | None
    steps: int
    epochs: float
    seconds: float
    stopped: str
    history: list[dict[str, Any]] = field(repr=False)

    def __repr__(self) -> str:
        held = "no held-out rows" if self.best_validation is None else f"held-out {self.best_validation:.4f} nats"
        return (
            f"FitResult({held} at step {self.best_step} of {self.steps}, {self.epochs:.1f} passes in "
            f"{self.seconds:.1f} s, stopped by {self.stopped})"
        )


def restored(plain: dict[str, Any]) -> TrainingEvent:
    """The event that :meth:`TrainingEvent.plain` described."""
    values: dict[str, Any] = {key: float(value) if isinstance(value, str) else value for key, value in plain.items()}
    return TrainingEvent(**values)


def plain_number(value: Any) -> Any:
    """The value, or text for a float that JSON has no name for."""
    finite = not isinstance(value, float) or value - value == 0.0
    return value if finite else str(value)
