"""The folder of checkpoints with which a stopped `Guard.fit` goes on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pushforward.errors import ConfigError, StorageError
from pushforward.io.files import expanded
from pushforward.training import TrainingConfig

__all__ = ["checkpointed", "remove_checkpoint", "trains"]

_IMAGES = "flow.safetensors"
_NAMES = (_IMAGES, "flows-*.safetensors*")
"""Files of a folder: of the flow of images, and of each group of flows of a table."""


def trains(options: Mapping[str, Any], images: bool) -> bool:
    """Whether the score has flows, whose training a checkpoint can continue.

    Args:
        options: ``guard.get_params()``.
        images: whether the score is of images.
    """
    if options.get("score") is not None or options["smoothing"] is not None:
        return False
    return images or options["density"] or options["effort"] == "thorough"


def checkpointed(
    config: TrainingConfig, folder: str | os.PathLike[str] | None, options: Mapping[str, Any], images: bool
) -> TrainingConfig:
    """The options of training with a checkpoint in this folder, which is made.

    Args:
        config: options of the flows' training.
        folder: None for no checkpoint.
        options: ``guard.get_params()``.
        images: whether the score is of images.

    Raises:
        ConfigError: for a table with ``max_time``, whose fit depends on a clock and so cannot be repeated.
        StorageError: if the folder cannot be made.
    """
    if folder is None or not trains(options, images):
        return config
    if config.max_time is not None and not images:
        raise ConfigError(
            "a table with max_time has no checkpoint, because what is fitted depends on the clock: leave one of them out."
        )
    path = expanded(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make the folder {path} for checkpoints: {error.strerror or error}.") from error
    return replace(config, checkpoint=path / _IMAGES if images else path)


def remove_checkpoint(folder: str | os.PathLike[str]) -> None:
    """Delete the checkpoints of a fit that is done, and the folder if nothing else is in it."""
    path = expanded(folder)
    for name in _NAMES:
        for file in path.glob(name):
            file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        path.rmdir()
