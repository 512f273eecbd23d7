"""The file of a `Guard`: what it contains, and how it is read without trust."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pushforward import io
from pushforward.detection.image_columns import image_schema
from pushforward.detection.image_score import ImageScore
from pushforward.detection.input_score import InputScore
from pushforward.detection.smoothed_score import SmoothedScore
from pushforward.detection.table_score import TableScore
from pushforward.errors import StorageError
from pushforward.estimators.guard_options import check_embedder, check_options
from pushforward.estimators.recalibration import CalibrationRecord
from pushforward.estimators.training_data import TrainingData

if TYPE_CHECKING:
    from pushforward.estimators.guard import Guard

__all__ = ["guard_contents", "read_guard"]

_SCORES: dict[str, type[InputScore]] = {cls.reads: cls for cls in (TableScore, ImageScore)}
"""The classes of a guard's score, by the name of its inputs in a file."""


def guard_contents(guard: Guard) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The header and the tensors of the file of a fitted guard."""
    score, tensors = guard.score_.pack("score.")
    header = {
        "kind": "guard",
        "options": {name: value for name, value in guard.get_params(deep=False).items() if name != "embed"},
        "embed": None if guard.embed is None else guard.embedder_.digest,
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


def read_guard(cls: type[Guard], path: str | os.PathLike[str], embed: Any, public_key: Any) -> Guard:
    """Read a guard from a file; see :meth:`Guard.load`."""
    header, tensors = io.read(path, kind="guard", public_key=public_key)
    embedder = check_embedder(path, embed, header.get("embed"))
    try:
        guard = cls(**header["options"])
        if embedder is not None:
            guard.embed = guard.embedder_ = embedder
        check_options(guard.get_params())
        guard.seed_ = int(header["seed"])
        guard.ignored_ = tuple(map(str, header.get("ignored", ())))
        scores = tensors.pop("calibration").numpy()
        kind = _SCORES[header["reads"]] if guard.smoothing is None else SmoothedScore
        guard.score_ = kind.unpack(header["score"], tensors, "score.")
        if isinstance(guard.score_, (ImageScore, SmoothedScore)) and guard.score_.shape is not None:
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
        return guard._calibrate(scores)
    except Exception as error:  # the content is not trusted; every failure means the same to the caller
        raise StorageError(f"{path} does not contain a guard that pushforward wrote: {error}") from error
