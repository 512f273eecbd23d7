"""A combined score as a plain description and tensors, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pushforward import io
from pushforward.detection.network.combined import Combined
from pushforward.detection.network.default import SCORES
from pushforward.detection.network.digest import digest
from pushforward.detection.network.scores import DeepEnsemble, External, FeatureFlow, NetworkScore
from pushforward.errors import ConfigError, StorageError
from pushforward.models import RealNVP

__all__ = ["pack_score", "unpack_score"]

_MOST_PARTS = 64
_PLAIN = (bool, int, float, str, type(None))


def pack_score(score: Combined) -> tuple[list[Any], dict[str, Tensor]]:
    """The description of the parts, and all tensors by name.

    Raises:
        ConfigError: for a part that a file cannot store.
    """
    parts, tensors = [], {"score.weights": score.weights, "score.knots": score.knots, "score.excess": score.excess}
    for index, part in enumerate(score.scores):
        name = type(part).__name__
        if isinstance(part, External) or SCORES.get(name) is not type(part):
            raise ConfigError(
                f"a file cannot store {name}: build the guard again from code, or use a score of this library."
            )
        arguments = (
            {key: value for key, value in part.arguments().items() if key != "members"}
            if not isinstance(part, DeepEnsemble)
            else {"form": part.form, "logits": part.logits}
        )
        item: dict[str, Any] = {"class": name, "arguments": arguments}
        if isinstance(part, DeepEnsemble):
            item["members"] = [digest(net) for net in part.networks()]
        own = {key: getattr(part, key) for key in part._declared}
        if isinstance(part, FeatureFlow):
            assert part.flow is not None
            item["flow"], flow = io.pack(part.flow, f"score.{index}.flow.")
            tensors |= flow
        tensors |= {f"score.{index}.{key}": value for key, value in own.items()}
        parts.append(item)
    return parts, tensors


def unpack_score(description: Any, tensors: dict[str, Tensor], members: Sequence[nn.Module] = ()) -> Combined:
    """Rebuild a score from what :func:`pack_score` returned; both may come from an untrusted file.

    Raises:
        StorageError: for an unknown score, arguments that do not fit it, or tensors of other shapes.
        ConfigError: if a score needs ``members`` that were not given.
    """
    if not isinstance(description, list) or not 1 <= len(description) <= _MOST_PARTS:
        raise StorageError("its score is not a list of parts.")
    parts = [_unpack_part(item, tensors, f"score.{index}.", members) for index, item in enumerate(description)]
    score = Combined(parts)
    for name in ("weights", "knots", "excess"):
        stored = tensors[f"score.{name}"]
        if (
            stored.dtype != torch.float64
            or stored.dim() != getattr(score, name).dim()
            or not bool(torch.isfinite(stored).all())
        ):
            raise StorageError(f"its tensor {name!r} has a wrong form.")
        setattr(score, name, stored)
    wanted = (len(parts),) if score.needs_reference else (0,)
    if len(score.weights) != len(parts) or tuple(score.excess.shape) != wanted or len(score.knots) != wanted[0]:
        raise StorageError("the parts of its score do not fit each other.")
    return score


def _members(stored: Any, given: Sequence[nn.Module]) -> list[nn.Module]:
    """The networks of an ensemble, in the order of the file; files of before do not say which they were."""
    if not given:
        raise ConfigError("this guard compares an ensemble of networks: pass the others with members=.")
    if stored is None:
        return list(given)
    if not isinstance(stored, list) or len(stored) != len(given):
        count = len(stored) if isinstance(stored, list) else 0
        raise ConfigError(
            f"this guard compares {count} other networks, and members= has {len(given)}: pass all of them."
        )
    own, rest = [], list(given)
    for name in stored:
        k = next((k for k, net in enumerate(rest) if digest(net) == name), None)
        if k is None:
            raise StorageError(
                "it compares an ensemble, and the weights of members= are others than those of its networks: pass the networks with which "
                "it was fitted."
            )
        own.append(rest.pop(k))
    return own


def _unpack_part(item: Any, tensors: dict[str, Tensor], prefix: str, members: Sequence[nn.Module]) -> NetworkScore:
    name, arguments = item["class"], item["arguments"]
    cls = SCORES.get(name) if isinstance(name, str) else None
    if cls is None or cls is External or not isinstance(arguments, dict):
        raise StorageError(f"it names a score {str(name)[:60]!r} that this version does not have.")
    if not all(isinstance(value, _PLAIN) for value in arguments.values()):
        raise StorageError(f"it gives {name} arguments that are not plain values.")
    if cls is DeepEnsemble:
        arguments = {**arguments, "members": _members(item.get("members"), members)}
    part = cls(**arguments)
    for key in part._declared:
        stored, own = tensors[prefix + key], getattr(part, key)
        if stored.dtype != torch.float64 or stored.dim() != own.dim():
            raise StorageError(f"the tensor {prefix + key!r} has a wrong form.")
        setattr(part, key, stored)
    if isinstance(part, FeatureFlow):
        flow = io.unpack(item["flow"], tensors, f"{prefix}flow.")
        if not isinstance(flow, RealNVP):
            raise StorageError(f"the flow of {name} is a {type(flow).__name__}.")
        part.flow = flow.requires_grad_(False)
    part.fitted = True
    return part
