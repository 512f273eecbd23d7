"""The warning about networks whose output for an input depends on the other inputs of its batch."""

from __future__ import annotations

from typing import Any

import torch

from pushforward.detection.network.reader import NetworkReader
from pushforward.detection.network.reading import Reading, first_tensor, length
from pushforward.errors import InputError, warn_caller

__all__ = ["warn_of_batch_effect"]

_SPREAD, _NORM = 0.05, 0.02  # of the features' spread and norm; the rounding of half precision is below


def warn_of_batch_effect(reader: NetworkReader, inputs: Any, reading: Reading) -> None:
    """Warn if the features or logits of the first or the last two inputs of a batch are others when these two are read alone, and of a
    network that changes its inputs in place.

    Args:
        reader: of the network.
        inputs: the batch.
        reading: of the batch.
    """
    rows = length(inputs)
    if rows < 3:
        return
    for first in (0, rows - 2):
        place = torch.arange(rows)
        mask = (place >= first) & (place < first + 2)  # two, since of one some networks have no statistics
        pair = reading.rows(mask).inputs
        try:
            alone = reader.read(pair)
        except InputError:  # a network of batches of one form, or parts that are not one for each input
            return
        before, after = (first_tensor(part) for part in (reading.rows(mask).inputs, pair))
        if before is not None and after is not None and not torch.equal(before.nan_to_num(), after.nan_to_num()):
            warn_caller(
                "the network changes its inputs in place, so it changes your data, and inputs that the guard reads more than once give other "
                "numbers: let the network begin with a copy, such as x = x.clone()."
            )
            return
        for name in ("features", "logits"):
            together, single = getattr(reading, name), getattr(alone, name)
            if together is None or single is None or len(single) != 2 or single.shape[1:] != together.shape[1:]:
                continue
            together = together.detach().double()
            spread = (together - together.mean(0)).square().sum(1).mean().sqrt()
            own = together[first : first + 2]
            allowed = torch.maximum(_SPREAD * spread, _NORM * own.norm(dim=1))
            if ((single.detach().double() - own).norm(dim=1) > allowed).any():
                warn_caller(
                    f"the {name} of an input are others in a batch of 2 than in one of {rows}: the network is random, or reads the other inputs of the batch, "
                    "as BatchNorm with track_running_stats=False does. P-values then hold only in batches of the size of the calibration rows': make the "
                    "network give each input its own output."
                )
                return
