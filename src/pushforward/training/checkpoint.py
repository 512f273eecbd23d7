"""Checkpoints: everything that decides how a run continues, in one file that is replaced atomically."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pushforward import io, registry
from pushforward.errors import ConfigError, StorageError, TrainingError
from pushforward.training.optim import pack_optimizer
from pushforward.training.result import TrainingEvent, event_from_json, json_number
from pushforward.training.sources import Position

__all__ = ["Checkpoint", "State", "load_weights", "model_digest"]


@dataclass
class State:
    """State of a run between two steps. It needs no generator state, because seeds follow from the step."""

    position: Position = field(default_factory=Position)
    elapsed: float = 0.0
    """Seconds of training before this process resumed the run."""
    loss_sum: float = 0.0
    loss_count: int = 0
    rank: tuple[int, float] | None = None
    """Rank of the best weights: minus the number of held-out rows without likelihood, then the mean of the others."""
    evaluations_since_best: int = 0
    history: list[TrainingEvent] = field(default_factory=list)
    stopped: str | None = None
    """Why the run ended, if it did."""
    best: dict[str, Tensor] = field(default_factory=dict)
    """The best weights."""


class Checkpoint:
    """Writes a run, or several that train together, to a file and reads it back.

    Args:
        path: path of the file.
        every: steps (an integer) or seconds (a float) between two writes.
        settings: JSON values that must be the same for a run to continue.
    """

    def __init__(self, path: str | os.PathLike[str], every: int | float, settings: dict[str, Any]) -> None:
        self.path = os.path.expanduser(os.fspath(path))
        self.every = every
        self.settings = json.loads(json.dumps(settings))
        self.written_at = time.monotonic()
        self.written_step = 0

    def exists(self) -> bool:
        """Whether there is a file to resume from."""
        return os.path.exists(self.path)

    def due(self, step: int) -> bool:
        """Whether it is time to write."""
        if isinstance(self.every, int):
            return step - self.written_step >= self.every
        return time.monotonic() - self.written_at >= self.every

    def save(
        self,
        runs: Sequence[tuple[State, float, nn.Module]],
        optimizer: torch.optim.Optimizer | None,
        averages: dict[str, Tensor],
    ) -> None:
        """Write one run, or several that train together. If the process dies while writing, the file has the previous state.

        Args:
            runs: of each run its state, the seconds of training so far, and the trained model.
            optimizer: of all models, or None if there is nothing to train.
            averages: moving averages of the weights.

        Raises:
            StorageError: if the file cannot be written.
            TrainingError: if the optimizer keeps a value that a file cannot store.
        """
        values, tensors = ({}, {}) if optimizer is None else pack_optimizer(optimizer)
        header = {"kind": "checkpoint", "settings": self.settings, "optimizer": values}
        sections: dict[str, dict[str, Tensor]] = {"optimizer": tensors, "average": averages}
        for k, (state, elapsed, model) in enumerate(runs):
            suffix = str(k) if k else ""
            header[f"state{suffix}"] = _state_to_json(state, elapsed)
            sections |= {f"model{suffix}": model.state_dict(), f"best{suffix}": state.best}
        flat = {f"{section}.{key}": value for section, entries in sections.items() for key, value in entries.items()}
        io.write(self.path, header, flat)
        self.written_at, self.written_step = time.monotonic(), max(state.position.step for state, _, _ in runs)

    def load(
        self, models: Sequence[nn.Module]
    ) -> tuple[list[State], dict[str, Tensor], tuple[dict[str, Any], dict[str, Tensor]]]:
        """Set the weights of the models to those in the file.

        Args:
            models: of the runs, in the order of :meth:`save`.

        Returns:
            The state of each run, the averages of the weights, and the state of the optimizer for :func:`unpack_optimizer`.

        Raises:
            TrainingError: if the run had other settings.
            StorageError: if the file is damaged or is not a checkpoint of these models.
        """
        header, tensors = io.read(self.path, "checkpoint")
        self._compare(header)
        sections: dict[str, dict[str, Tensor]] = {"optimizer": {}, "average": {}}
        states = []
        try:
            for key, value in tensors.items():
                section, name = key.split(".", 1)
                sections.setdefault(section, {})[name] = value
            for k, model in enumerate(models):
                suffix = str(k) if k else ""
                device = next((t.device for t in model.state_dict().values()), torch.device("cpu"))
                best = {name: value.to(device) for name, value in sections.get(f"best{suffix}", {}).items()}
                states.append(_state_from_json(header[f"state{suffix}"], best))
                load_weights(model, sections.get(f"model{suffix}", {}))
            optimizer = header["optimizer"], sections["optimizer"]
        except (KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
            raise StorageError(f"{self.path} is not a checkpoint of this model: {error}") from error
        self.written_step = max(state.position.step for state in states)
        return states, sections["average"], optimizer

    def _compare(self, header: dict[str, Any]) -> None:
        stored = header.get("settings")
        stored = stored if isinstance(stored, dict) else {}
        different = [key for key in self.settings if stored.get(key) != self.settings[key]]
        if different:
            named = "; ".join(f"{key} was {stored.get(key)!r} and is {self.settings[key]!r}" for key in different)
            raise TrainingError(
                f"the checkpoint {self.path} belongs to another run: {named}. Use the same settings to resume it, "
                "or delete the file, or pass resume=False or another path, to start a new run."
            )


def _state_to_json(state: State, elapsed: float) -> dict[str, Any]:
    return {
        "position": list(state.position),
        "elapsed": elapsed,
        "loss_sum": state.loss_sum,
        "loss_count": state.loss_count,
        "rank": None if state.rank is None else [json_number(number) for number in state.rank],
        "evaluations_since_best": state.evaluations_since_best,
        "history": [event.as_json() for event in state.history],
        "stopped": state.stopped,
    }


def _state_from_json(stored: dict[str, Any], best: dict[str, Tensor]) -> State:
    rank = stored["rank"]
    return State(
        position=Position(*stored["position"]),
        elapsed=float(stored["elapsed"]),
        loss_sum=float(stored["loss_sum"]),
        loss_count=int(stored["loss_count"]),
        rank=None if rank is None else (int(rank[0]), float(rank[1])),
        evaluations_since_best=int(stored["evaluations_since_best"]),
        history=[event_from_json(event) for event in stored["history"]],
        stopped=stored["stopped"],
        best=best,
    )


@torch.no_grad()
def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy weights and buffers into the model, in place, so that caches that check tensor versions notice.

    Raises:
        RuntimeError: if names or shapes differ.
    """
    model.load_state_dict(weights, strict=True)


def model_digest(model: nn.Module) -> str:
    """Hash of the architecture: the model's description, and name, shape, type and trainability of its tensors."""
    try:
        description = registry.describe(model)
    except (ConfigError, AttributeError):  # not registered, so only its tensors describe it
        description = {"class": type(model).__qualname__}
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    tensors = [[key, list(t.shape), str(t.dtype), key in trainable] for key, t in model.state_dict().items()]
    text = json.dumps([description, tensors], sort_keys=True, default=str)
    return f"{type(model).__name__} {hashlib.sha256(text.encode()).hexdigest()[:16]}"
