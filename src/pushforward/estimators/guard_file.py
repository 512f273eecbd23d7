"""The file of a `Guard`: what it contains, and how it is read without trust."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pushforward import io
from pushforward.detection.custom_score import CustomScore
from pushforward.detection.image_columns import image_schema
from pushforward.detection.image_score import ImageScore
from pushforward.detection.input_score import InputScore
from pushforward.detection.smoothed_score import SmoothedScore
from pushforward.detection.table_score import TableScore
from pushforward.errors import ConfigError, StorageError, in_words
from pushforward.estimators.conformal_detector import PROMISE
from pushforward.estimators.guard_options import check_embedder, check_options
from pushforward.estimators.recalibration import CalibrationRecord
from pushforward.estimators.training_data import TrainingData
from pushforward.registry import UnregisteredError

if TYPE_CHECKING:
    from pushforward.estimators.guard import Guard

__all__ = ["check_writable", "describe_file", "guard_contents", "guard_from", "plain_options", "read_guard"]

_SCORES: dict[str, type[InputScore]] = {cls.reads: cls for cls in (TableScore, ImageScore)}
"""The classes of a guard's score, by the name of its inputs in a file."""


def check_writable(guard: Guard) -> None:
    """Refuse to write a file that lacks the score of the guard, unless the user knows it.

    Raises:
        ConfigError: saying what to do.
    """
    score = guard.score_
    if isinstance(score, CustomScore) and not score.describable:
        name = (
            type(score.scorer).__name__
            if not callable(score.scorer)
            else getattr(score.scorer, "__name__", "a function")
        )
        raise ConfigError(
            f"score={name} cannot be written to a file without pickle: save(path, without_score=True) writes everything else, and "
            "Guard.load(path, score=...) takes the fitted score again, guard.score_.scorer, which you keep by other means."
        )


def guard_contents(guard: Guard) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The header and the tensors of the file of a fitted guard."""
    score, tensors = guard.score_.pack("score.")
    header = {
        "kind": "guard",
        "options": _options(guard),
        "embed": guard.digest_,
        "embedded columns": guard.embedded_columns_,
        "custom": isinstance(guard.score_, CustomScore),
        "seed": guard.seed_,
        "ignored": list(guard.ignored_),
        "named": hasattr(guard, "feature_names_in_"),
        "reads": guard.score_.reads,
        "score": score,
        "calibrated": guard.calibration_.to_json(),
    }
    tensors["calibration"] = torch.from_numpy(guard.calibrator_.scores.copy())
    if guard.training_ is not None:
        header["training"], more = guard.training_.pack("training.")
        tensors |= more
    return header, tensors


def plain_options(guard: Guard) -> dict[str, Any]:
    """The options without ``embed`` and ``score``, which a file describes apart."""
    return {name: value for name, value in guard.get_params(deep=False).items() if name not in ("embed", "score")}


def _options(guard: Guard) -> dict[str, Any]:
    """The options that a file contains: those of the last fit, with the present promise; in place of a random generator the seed that it gave."""
    options = guard.options_ | {name: getattr(guard, name) for name in PROMISE}
    if not isinstance(options["random_state"], (int, np.integer, type(None))):
        options["random_state"] = guard.seed_
    return options


def read_guard(cls: type[Guard], path: str | os.PathLike[str], embed: Any, score: Any, public_key: Any) -> Guard:
    """Read a guard from a file; see :meth:`Guard.load`."""
    header, tensors = io.read(path, kind="guard", public_key=public_key)
    return guard_from(cls, header, tensors, path, embed, score)


def describe_file(
    cls: type[Guard], path: str | os.PathLike[str], public_key: Any = None
) -> tuple[Guard, dict[str, str]]:
    """The guard of a file, to say what the file contains, also where that lacks a score or a network.

    Returns:
        A guard that has all facts and cannot score what it lacks; and sentences on what the file lacks, by "score" and "network".

    Raises:
        StorageError: as for :meth:`Guard.load`.
    """
    header, tensors = io.read(path, kind="guard", public_key=public_key)
    lacks: dict[str, str] = {}
    score, embed = None, None
    if _lacks_score(header):
        name = _name_of_score(header)
        score = _Absent(name)
        lacks["score"] = f"{name}, not in this file: Guard.load(file, score=...) takes the fitted one again"
    if header.get("embed") is not None:
        header["embed"] = None
        lacks["network"] = "not in this file, which reads its features: Guard.load(file, embed=...) takes it again"
    return guard_from(cls, header, tensors, path, embed, score), lacks


class _Absent:
    """Stands for the score that a file lacks."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __call__(self, rows: Any) -> np.ndarray:
        raise ConfigError(f"this guard was read without its score, {self.__name__}: Guard.load(path, score=...).")


def guard_from(
    cls: type[Guard], header: dict[str, Any], tensors: dict[str, torch.Tensor], path: Any, embed: Any, score: Any
) -> Guard:
    """The guard of a header and tensors, which are not trusted, and which are used up.

    Args:
        cls: the class of the guard.
        header: as :func:`guard_contents` made it.
        tensors: as :func:`guard_contents` made them.
        path: of the file, for errors.
        embed: as for :meth:`Guard.load`.
        score: as for :meth:`Guard.load`.

    Raises:
        StorageError: if they are not those of a guard.
        ConfigError: as for :meth:`Guard.load`.
    """
    custom = _check_score(os.fspath(path), header, score)
    embedder = check_embedder(path, embed, header.get("embed"))
    try:
        guard = cls(**header["options"])
        if embedder is not None:
            guard.embed = guard.embedder_ = embedder
            columns = header.get("embedded columns")  # of a file without it: columns by position
            guard.embedded_columns_ = None if columns is None else list(map(str, columns))
        guard.digest_ = header.get("embed")
        check_options(guard.get_params())
        guard.options_ = plain_options(guard)
        guard.seed_ = int(header["seed"])
        guard.ignored_ = tuple(map(str, header.get("ignored", ())))
        calibration = tensors.pop("calibration")
        if calibration.dtype != torch.float64:
            raise StorageError("its calibration scores have the wrong type.")
        scores = calibration.numpy()
        kind = _kind_of_score(header["reads"]) if guard.smoothing is None else SmoothedScore
        if custom:
            guard.score_ = CustomScore.unpack(header["score"], tensors, "score.", score)
            guard.score = guard.score_.scorer
        else:
            guard.score_ = kind.unpack(header["score"], tensors, "score.")
        if isinstance(guard.score_, (ImageScore, SmoothedScore, CustomScore)) and guard.score_.shape is not None:
            guard.n_features_in_ = math.prod(guard.score_.shape)
        else:
            guard.n_features_in_ = len(guard.schema_)
            if header["named"]:
                guard.feature_names_in_ = np.asarray(guard.schema_.names, dtype=object)
        guard.calibration_ = CalibrationRecord.from_json(header.get("calibrated"), len(scores))
        guard.training_ = None  # of a file without it
        if "training" in header:
            shape = getattr(guard.score_, "shape", None)
            schema = guard.schema_ if shape is None else image_schema(shape[0])
            guard.training_ = TrainingData.unpack(header["training"], tensors, "training.", schema)
        guard._calibrate(scores)
    except UnregisteredError as error:
        raise UnregisteredError(f"{path}: {error}") from error
    except Exception as error:  # the content is not trusted; every failure means the same to the caller
        raise StorageError(f"{path} does not contain a guard that pushforward wrote: {in_words(error)}") from error
    if isinstance(guard.score_, CustomScore) and not isinstance(score, _Absent):
        guard.score_.recognize()
    return guard


def _kind_of_score(reads: Any) -> type[InputScore]:
    if not isinstance(reads, str) or reads not in _SCORES:
        raise StorageError(f"it reads {str(reads)[:40]!r}, and a guard reads {' or '.join(_SCORES)}.")
    return _SCORES[reads]


def _check_score(name: str, header: dict[str, Any], score: Any) -> bool:
    """Whether the file is of a guard with a score of the user, which is given where the file lacks it."""
    lacking = _lacks_score(header)
    if lacking and score is None:
        raise ConfigError(
            f"{name} contains a guard without its score, {_name_of_score(header)}: pass the fitted one, Guard.load(path, score=...)."
        )
    if score is not None and not lacking:
        raise ConfigError(f"{name} contains a guard with its score: leave score out.")
    return header.get("custom") is True


def _lacks_score(header: dict[str, Any]) -> bool:
    described = isinstance(header.get("score"), dict) and header["score"].get("detector") is not None
    return header.get("custom") is True and not described


def _name_of_score(header: dict[str, Any]) -> str:
    return str(header["score"].get("name"))[:80] if isinstance(header.get("score"), dict) else "a function"
