"""A run on disk: everything that decides how it goes on, in one file that is replaced in one step."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pushforward import io, registry
from pushforward.errors import ConfigError, StorageError, TrainingError
from pushforward.training.optim import pack_optimizer, unpack_optimizer
from pushforward.training.result import TrainingEvent, plain_number, restored
from pushforward.training.sources import Position

__all__ = ["Checkpoint", "State", "load_weights", "model_digest"]


@dataclass
class State:
    """A run between two steps. No generator state: seeds follow from the step."""

    position: Position = field(default_factory=Position)
    elapsed: float = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    rank: tuple[int, float] | None = None
    """Of the best weights: minus the held-out rows without likelihood, then the mean of the others."""
    waited: int = 0
    """Evaluations since the best."""
    history: list[TrainingEvent] = field(default_factory=list)
    stopped: str | None = None
    """Why the run ended, if it did."""
    best: dict[str, Tensor] = field(default_factory=dict)
    """The best weights."""


class Checkpoint:
    """Writes a run to a file and reads it back.

    Args:
        path: of the file.
        every: steps (an integer) or seconds (a float) between two writings.
        settings: what must be the same for a run to go on, JSON types.
    """

    def __init__(self, path: str | os.PathLike[str], every: int | float, settings: dict[str, Any]) -> None:
        self.path = os.path.expanduser(os.fspath(path))
        self.every = every
        self.settings = json.loads(json.dumps(settings))
        self.written_at = time.monotonic()
        self.written_step = 0

    def exists(self) -> bool:
        """Whether there is a run to go on with."""
        return os.path.exists(self.path)

    def due(self, step: int) -> bool:
        """Whether it is time to write."""
        if isinstance(self.every, int):
            return step - self.written_step >= self.every
        return time.monotonic() - self.written_at >= self.every

    def save(
        self,
        state: State,
        elapsed: float,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        average: dict[str, Tensor],
    ) -> None:
        """Write the run: the file holds the old run or the new one, whatever happens.

        Raises:
            StorageError: if it cannot be written.
            TrainingError: if the optimizer keeps what a file cannot hold.
        """
        plain, tensors = ({}, {}) if optimizer is None else pack_optimizer(optimizer)
        header = {
            "kind": "checkpoint",
            "settings": self.settings,
            "optimizer": plain,
            "state": {
                "position": list(state.position),
                "elapsed": elapsed,
                "loss_sum": state.loss_sum,
                "loss_count": state.loss_count,
                "rank": None if state.rank is None else [plain_number(part) for part in state.rank],
                "waited": state.waited,
                "history": [event.plain() for event in state.history],
                "stopped": state.stopped,
            },
        }
        parts = {"model": model.state_dict(), "best": state.best, "optimizer": tensors, "average": average}
        flat = {f"{part}.{key}": value for part, entries in parts.items() for key, value in entries.items()}
        io.write(self.path, header, flat)
        self.written_at, self.written_step = time.monotonic(), state.position.step

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer | None) -> tuple[State, dict[str, Tensor]]:
        """Bring model and optimizer to where the run was, and return the rest of it and the average of the weights.

        Raises:
            TrainingError: if the run had other settings.
            StorageError: if the file is damaged or no checkpoint.
        """
        header, tensors = io.read(self.path, "checkpoint")
        self._compare(header)
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}, "average": {}}
        device = next((t.device for t in model.state_dict().values()), torch.device("cpu"))
        try:
            for key, value in tensors.items():
                part, name = key.split(".", 1)
                parts[part][name] = value
            kept = header["state"]
            rank = kept["rank"]
            state = State(
                position=Position(*kept["position"]),
                elapsed=float(kept["elapsed"]),
                loss_sum=float(kept["loss_sum"]),
                loss_count=int(kept["loss_count"]),
                rank=None if rank is None else (int(rank[0]), float(rank[1])),
                waited=int(kept["waited"]),
                history=[restored(event) for event in kept["history"]],
                stopped=kept["stopped"],
                best={name: value.to(device) for name, value in parts["best"].items()},
            )
            load_weights(model, parts["model"])
        except (KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
            raise StorageError(f"{self.path} is no checkpoint of this model: {error}") from error
        if optimizer is not None:
            unpack_optimizer(optimizer, header["optimizer"], parts["optimizer"])
        self.written_step = state.position.step
        return state, parts["average"]

    def _compare(self, header: dict[str, Any]) -> None:
        stored = header.get("settings")
        stored = stored if isinstance(stored, dict) else {}
        different = [key for key in self.settings if stored.get(key) != self.settings[key]]
        if different:
            named = "; ".join(f"{key} was {stored.get(key)!r} and is {self.settings[key]!r}" for key in different)
            raise TrainingError(
                f"the checkpoint {self.path} belongs to another run: {named}. Use the same settings to go on with "
                "it, or resume=False or another path to begin anew."
            )


@torch.no_grad()
def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy weights and buffers into the model, in place (so that caches keyed on versions notice).

    Raises:
        RuntimeError: if names or shapes differ.
    """
    model.load_state_dict(weights, strict=True)


def model_digest(model: nn.Module) -> str:
    """Hash of a model's architecture: its description, and names, shapes, types and trainability of its tensors."""
    try:
        description = registry.describe(model)
    except (ConfigError, AttributeError):  # not registered: the names and shapes of its weights must do
        description = {"class": type(model).__qualname__}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    tensors = [[key, list(t.shape), str(t.dtype), key in trained] for key, t in model.state_dict().items()]
    text = json.dumps([description, tensors], sort_keys=True, default=str)
    return f"{type(model).__name__} {hashlib.sha256(text.encode()).hexdigest()[:16]}"
