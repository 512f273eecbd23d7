"""Checks of the options of `Guard`, and the score that they describe."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from pushforward.detection.custom_score import fit_custom_score
from pushforward.detection.image_score import IMAGE_TRAINING, fit_image_score
from pushforward.detection.input_score import InputScore
from pushforward.detection.network import Embedder
from pushforward.detection.scorers import check_scorer
from pushforward.detection.smoothed_score import fit_smoothed_score, smoothing_options
from pushforward.detection.table import EFFORTS
from pushforward.detection.table_density import KINDS
from pushforward.detection.table_score import TABLE_TRAINING, fit_table_score
from pushforward.errors import ConfigError, StorageError
from pushforward.estimators.fit_checkpoint import checkpointed
from pushforward.estimators.ignored_columns import check_ignore
from pushforward.numerics.checks import check_choice, check_integer, check_number, check_positive
from pushforward.training.progress import make_reporter

__all__ = ["check_embedder", "check_image_options", "check_options", "fit_score"]


def check_options(options: Mapping[str, Any]) -> None:
    """Check the parameters of a guard.

    Args:
        options: ``guard.get_params()``.

    Raises:
        ConfigError: for an impossible one; it names the parameter.
    """
    check_number("alpha", options["alpha"], 0, 1)
    check_number("delta", options["delta"], 0, 1)
    check_number("validation", options["validation"], 0, 1, closed="left")
    check_choice("guarantee", options["guarantee"], ("marginal", "pac"))
    check_choice("effort", options["effort"], tuple(EFFORTS))
    if not isinstance(options["density"], bool):
        raise ConfigError(f"density must be True or False; got {options['density']!r}.")
    if options["model"] not in (*KINDS, "glow"):
        raise ConfigError(f"model must be one of {', '.join(KINDS)}, or 'glow' for images; got {options['model']!r}.")
    for name in ("n_estimators", "n_draws", "max_steps", "batch_size"):
        check_integer(name, options[name], optional=name in ("max_steps", "batch_size"))
    calibration = options["calibration"]
    refusal = ConfigError(f"calibration must be a positive fraction or number of rows; got {calibration!r}.")
    try:
        check_positive("calibration", calibration, optional=True)
    except ConfigError:
        raise refusal from None
    if calibration is not None and calibration > 1 and calibration != int(calibration):
        raise refusal
    check_number("max_contamination", options["max_contamination"], 0, 0.25, closed="both")
    check_ignore(options["ignore"])
    for name in ("strict", "store_rows"):
        if not isinstance(options[name], bool):
            raise ConfigError(f"{name} must be True or False; got {options[name]!r}.")
    check_positive("learning_rate", options["learning_rate"], optional=True)
    check_positive("jitter", options["jitter"], zero=True)
    if not isinstance(options["exportable"], bool):
        raise ConfigError(f"exportable must be True or False; got {options['exportable']!r}.")
    if options["smoothing"] is not None:
        smoothing_options(options["smoothing"])
        if options["exportable"]:
            raise ConfigError(
                "a guard with smoothing cannot be exported, because its noise is a cryptographic hash of each row, which other "
                "runtimes do not have: leave out exportable or smoothing."
            )
        if options["embed"] is not None:
            raise ConfigError(
                "smoothing with embed would certify changes of the features and not of the inputs: use one of them."
            )
    if options["score"] is not None:
        _check_own_score(options)
    if options["embed"] is not None and not callable(options["embed"]):
        raise ConfigError(f"embed must be a network, a function or an Embedder; got {type(options['embed']).__name__}.")


_OWN = {"density": False, "smoothing": None, "exportable": False, "strict": False, "max_time": None}
"""Options of the score that a guard fits itself, with the values that leave it alone."""


def _check_own_score(options: Mapping[str, Any]) -> None:
    check_scorer(options["score"])
    if given := [name for name, value in _OWN.items() if options[name] != value]:
        raise ConfigError(f"{given[0]} is an option of the score that a guard fits itself: leave it or score= out.")
    if options["effort"] == "thorough":
        raise ConfigError(
            "effort='thorough' trains flows beside the score that a guard fits itself: leave it or score= out."
        )


_OF_TABLES: dict[str, tuple[Any, str]] = {
    "max_contamination": (0.0, "leave anomalies out of the images yourself"),
    "strict": (False, "leave it out"),
    "ignore": (None, "leave it out"),
    "density": (False, "train a density of images with pf.fit"),
    "store_rows": (True, "the file of a guard of images always contains some of them"),
    "effort": ("default", "use max_steps or max_time"),
    "n_estimators": (5, "leave it out"),
    "n_draws": (4, "leave it out"),
    "jitter": (0.05, "leave it out"),
}
"""Options that a guard of images does not have: their defaults, and what to do instead."""


def check_image_options(options: Mapping[str, Any]) -> None:
    """Check that no option of tables was given with images, where it would do nothing.

    Raises:
        ConfigError: naming the option.
    """
    for name, (default, instead) in _OF_TABLES.items():
        if options[name] != default:
            raise ConfigError(f"{name} is an option for tables, and these are images: {instead}.")


def check_embedder(path: str | os.PathLike[str], embed: Any, digest: Any) -> Embedder | None:
    """The embedder for a guard that is read from a file; None for a guard without one.

    Args:
        path: of the file, for errors.
        embed: what the caller gave.
        digest: what the file contains: None without an embedder, "" for a function.

    Raises:
        ConfigError: if it is missing, or given for a guard without one.
        StorageError: if its weights are others.
    """
    name = os.fspath(path)
    if digest is None:
        if embed is not None:
            raise ConfigError(f"{name} contains a guard without embed, which reads tables or images: leave embed out.")
        return None
    if embed is None:
        raise ConfigError(
            f"{name} contains a guard of a network's features, without the network: give it to Guard.load(path, embed=...). The command "
            "line and the service have no network for it."
        )
    embedder = embed if isinstance(embed, Embedder) else Embedder(embed)
    if embedder.digest != digest:
        raise StorageError(
            f"{name} was fitted on the features of another network: the weights of this one, or its preparation of inputs, "
            "differ, so the calibration does not fit it."
        )
    return embedder


def fit_score(
    rows: Any,
    options: Mapping[str, Any],
    seed: int,
    max_time: float | None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> InputScore:
    """Fit the score of tables or of images; an option of training that is None is the default of the kind of data.

    Args:
        rows: a tensor of images, a pyarrow table or a float64 matrix.
        options: ``guard.get_params()``.
        seed: of weights and training.
        max_time: seconds, or None.
        checkpoint: folder of checkpoints, or None.
    """
    if options["score"] is not None:
        return fit_custom_score(rows, options["score"], seed)
    if options["smoothing"] is not None:
        chosen: dict[str, Any] = {"seed": seed} | smoothing_options(options["smoothing"])
        return fit_smoothed_score(rows, **chosen)
    images = isinstance(rows, torch.Tensor)
    names = ("max_steps", "batch_size", "learning_rate")
    given = {name: options[name] for name in names if options[name] is not None}
    if max_time is not None:
        given["max_time"] = max_time
    progress = "auto" if options["verbose"] else "silent"
    config = replace(IMAGE_TRAINING if images else TABLE_TRAINING, seed=seed, progress=progress, **given)
    config = checkpointed(config, checkpoint, options, images)
    if images:
        return fit_image_score(
            rows, options["validation"], kind=options["model"], exportable=options["exportable"], config=config
        )
    return fit_table_score(
        rows, options["validation"], effort=options["effort"],
        density=options["density"] or options["effort"] == "thorough", kind=options["model"],
        n_estimators=options["n_estimators"], n_draws=options["n_draws"], jitter=options["jitter"],
        exportable=options["exportable"], strict=options["strict"], contamination=options["max_contamination"],
        store_rows=options["store_rows"], config=config,
        note=make_reporter(progress).note,
    )  # fmt: skip
