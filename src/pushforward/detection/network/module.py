"""`GuardedNetwork`: a network and its guard as one module, for torch.export."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pushforward.detection.network.combined import Combined
from pushforward.detection.network.reader import NetworkReader
from pushforward.detection.network.scores import External
from pushforward.errors import ConfigError

__all__ = ["GuardedNetwork", "require_one_pass"]


class GuardedNetwork(nn.Module):
    """A module from inputs to (the network's output, p-values, alarms), without any state of the guard outside its tensors.

    Args:
        reader: of the network.
        score: fitted.
        classes: number of classes; 1 for a network that does not classify.
        calibration: ascending calibration scores by class; one list under None for all classes together.
        levels: the p-value of an alarm, by class.

    Raises:
        ConfigError: for a score that runs the network again or is not of this library.
    """

    def __init__(
        self,
        reader: NetworkReader,
        score: Combined,
        classes: int,
        calibration: dict[int | None, Tensor],
        levels: dict[int | None, float],
    ) -> None:
        super().__init__()
        require_one_pass(score)
        assert isinstance(reader.net, nn.Module)
        self.net, self.score, self.classes = reader.net, score, classes
        self._reader, self._levels = reader, levels
        self._groups = list(calibration)
        for index, scores in enumerate(calibration.values()):
            self.register_buffer(f"calibration_{index}", scores)

    def forward(self, *inputs: Any) -> tuple[Any, Tensor, Tensor]:
        """The network's output, the p-value and the alarm of each row."""
        reading = self._reader.read(inputs[0] if len(inputs) == 1 else inputs, grad=None)
        if self.classes < 2:
            reading.logits = None
        scores = self.score(reading).contiguous()
        p = torch.ones_like(scores)
        alarm = torch.zeros_like(scores, dtype=torch.bool)
        for index, group in enumerate(self._groups):
            sorted_scores = self.get_buffer(f"calibration_{index}")
            count = len(sorted_scores)
            own = (count - torch.searchsorted(sorted_scores, scores) + 1).double() / (count + 1)
            if group is None:
                return reading.output, own, own <= self._levels[group]
            assert reading.logits is not None
            here = torch.nan_to_num(reading.logits).argmax(1) == group
            p, alarm = torch.where(here, own, p), torch.where(here, own <= self._levels[group], alarm)
        return reading.output, p, alarm


def require_one_pass(score: Combined) -> None:
    """Check that a score can be traced with its network, and prepare it.

    Raises:
        ConfigError: for a score that runs the network again, reads maps, or is not of this library.
    """
    for part in score.scores:
        if part.cost != "one forward pass" or isinstance(part, External) or "maps" in part.needs:
            raise ConfigError(f"{type(part).__name__} cannot be exported: use scores of one forward pass.")
    score.prepare()
