"""A network and its guard as one graph: the network's outputs, then p-value, alarm and score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pushforward.detection.network.combined import Combined
from pushforward.detection.network.module import require_one_pass
from pushforward.detection.network.reader import NetworkReader
from pushforward.detection.network.scores import MaxSoftmax
from pushforward.errors import ConfigError
from pushforward.graphs.graph import OUTPUTS, Graph, Promise, unique_names, unit_of

__all__ = ["NetworkGraph", "network_graph"]


class NetworkGraph(nn.Module):
    """From the network's inputs to a dictionary of its outputs, p-values, alarms and scores.

    Args:
        reader: of the network.
        score: fitted.
        classes: number of classes; 1 for a network that does not classify.
        promises: by predicted class; one under None for all classes together.
    """

    rounding = 1e-6
    """Relative difference below which two scores are equal: networks compute in float32."""

    def __init__(
        self, reader: NetworkReader, score: Combined, classes: int, promises: Mapping[int | None, Promise]
    ) -> None:
        super().__init__()
        require_one_pass(score)
        assert isinstance(reader.net, nn.Module)
        self.net, self.score, self.classes = reader.net, score, classes
        self._reader, self.groups = reader, list(promises)
        self.promises = nn.ModuleList(promises.values())

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """The outputs of each row."""
        reading = self._reader.read(inputs[0] if len(inputs) == 1 else inputs, grad=None)
        if self.classes < 2:
            reading.logits = None
        score = self.score(reading).contiguous()
        p, alarm = self.promises[0](score)
        if self.groups != [None]:
            assert reading.logits is not None
            predicted = torch.nan_to_num(reading.logits).argmax(1)
            for group, promise in zip(self.groups[1:], self.promises[1:], strict=True):
                own, raised = promise(score)
                here = predicted == group
                p, alarm = torch.where(here, own, p), (here & raised) | (alarm & ~here)
        return named(reading.output) | {"p_value": p, "alarm": alarm, "anomaly_score": score}


def named(output: Any) -> dict[str, Tensor]:
    """The tensors that a network returned: "output", or names for several.

    Raises:
        ConfigError: for something else.
    """
    if isinstance(output, Tensor):
        return {"output": output}
    if isinstance(output, Mapping):
        found = {str(name): value for name, value in output.items() if isinstance(value, Tensor)}
    elif isinstance(output, (tuple, list)):
        found = {f"output_{index}": value for index, value in enumerate(output) if isinstance(value, Tensor)}
    else:
        found = {}
    if not found:
        raise ConfigError(f"a network that returns {type(output).__name__} cannot be exported; it must return tensors.")
    return {(f"output.{name}" if name in OUTPUTS else name): value for name, value in found.items()}


def network_graph(
    reader: NetworkReader,
    score: Combined,
    classes: int,
    calibration: Mapping[int | None, np.ndarray],
    levels: Mapping[int | None, float],
    example: tuple[Tensor, ...],
    inputs: Sequence[str],
    facts: Mapping[str, Any],
) -> Graph:
    """The graph of the guard of a network.

    Args:
        reader: of the network.
        score: fitted.
        classes: number of classes; 1 for a network that does not classify.
        calibration: ascending scores by predicted class, or under None.
        levels: p-value at or below which there is an alarm, by class.
        example: inputs of a few rows.
        inputs: name of each input.
        facts: metadata.

    Raises:
        ConfigError: for a score that runs the network again, reads maps or is not of this library, or a network whose
            output is not of tensors.
    """
    # a largest softmax is near 1, and 1 minus it has all its digits
    origin = -1.0 if not score.needs_reference and isinstance(score.scores[0], MaxSoftmax) else 0.0
    promises = {
        group: Promise(scores, levels[group], NetworkGraph.rounding, origin=origin, unit=unit_of(scores, origin))
        for group, scores in calibration.items()
    }
    module = NetworkGraph(reader, score, classes, promises)
    with torch.no_grad():
        outputs = tuple(module(*example))
    return Graph(module.eval(), example, unique_names(inputs, outputs), outputs, dict(facts), part=0)
