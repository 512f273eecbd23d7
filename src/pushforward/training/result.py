"""What training reports: an event at each evaluation and a result at the end."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pushforward.display import card, table

__all__ = ["FitResult", "TrainingEvent", "event_from_json", "json_number"]


@dataclass(frozen=True)
class TrainingEvent:
    """State of training at an evaluation.

    Args:
        step: number of optimizer steps so far.
        epoch: number of passes over the training rows so far, including the fraction of the current one.
        loss: mean training loss since the previous event, in nats; None at step 0.
        validation: mean held-out log-likelihood in nats (higher is better); -inf if the likelihood of a row is 0. None
            without held-out rows.
        outside: number of held-out rows whose log-likelihood is not finite. They lie where the model has no mass.
        best: ``validation`` of the best weights so far.
        best_step: step of the best weights so far.
        learning_rate: learning rate of the last step.
        seconds: time since the start of training, including the earlier parts of a resumed run.

    Example:
        >>> import torch, pushforward as pf
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> steps = []
        >>> _ = pf.fit(pf.models.NICE(features=2), x, max_steps=4, evaluate_every=2, seed=0, progress="silent", callback=lambda event: steps.append(event.step))
        >>> steps
        [0, 2, 4]
    """

    step: int
    epoch: float
    loss: float | None
    validation: float | None
    outside: int
    best: float | None
    best_step: int
    learning_rate: float
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values: numbers, None, and "nan", "inf" or "-inf" as text."""
        return {key: json_number(value) for key, value in asdict(self).items()}


@dataclass(frozen=True)
class FitResult:
    """Result of a training run. The model has the best weights and is in evaluation mode.

    Args:
        best_step: step of the weights that were kept.
        best_validation: mean held-out log-likelihood of these weights in nats; None without held-out rows.
        steps: number of optimizer steps.
        epochs: number of passes over the training rows.
        seconds: wall time, including the earlier parts of a resumed run.
        stopped: why training stopped: "patience", "epochs", "max_steps", "max_time", "callback" or "nothing to train".
        history: the events as dictionaries, one for each evaluation.

    Example:
        >>> import torch, pushforward as pf
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> result = pf.fit(pf.models.NICE(features=2), x, max_steps=20, seed=0, progress="silent")
        >>> result.steps, result.stopped, len(result.history) > 0
        (20, 'max_steps', True)
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

    def _repr_html_(self) -> str:
        """The result and the evaluations, for a notebook."""
        held = None if self.best_validation is None else f"{self.best_validation:.4f} nats"
        facts = [
            ("held-out log-likelihood", held),
            ("weights", f"of step {self.best_step} of {self.steps}"),
            ("passes over the rows", f"{self.epochs:.1f}"),
            ("time", f"{self.seconds:.1f} s"),
            ("stopped by", self.stopped),
        ]
        columns = ("step", "loss, nats", "held-out, nats")
        more = table(columns, map(_event_row, self.history), f"{len(self.history)} evaluations") if self.history else ""
        return card("Training", facts, more)


def _event_row(event: dict[str, Any]) -> tuple[str, ...]:
    numbers = (event["loss"], event["validation"])
    return str(event["step"]), *("" if each is None else f"{float(each):.4f}" for each in numbers)


def event_from_json(fields: dict[str, Any]) -> TrainingEvent:
    """The event that :meth:`TrainingEvent.as_json` wrote."""
    values: dict[str, Any] = {key: float(value) if isinstance(value, str) else value for key, value in fields.items()}
    return TrainingEvent(**values)


def json_number(value: Any) -> Any:
    """The value itself, or text for nan and infinity, which JSON does not have."""
    finite = not isinstance(value, float) or value - value == 0.0
    return value if finite else str(value)
