"""Disagreement between several predictions of one input: MC dropout and deep ensembles."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pushforward.detection.network.hooks import Hook, hooked
from pushforward.detection.network.reader import NetworkReader
from pushforward.detection.network.reading import Reading
from pushforward.detection.network.scores.base import NetworkScore, logits_of
from pushforward.errors import ConfigError
from pushforward.numerics.checks import check_choice, check_integer
from pushforward.training.seeds import mix

__all__ = ["DeepEnsemble", "MCDropout", "mutual_information"]

_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_DROPPED = -1.7580993408473766
"""What alpha dropout sets units to: the limit of SELU at minus infinity (Klambauer et al. 2017)."""


def mutual_information(log_p: Tensor) -> Tensor:
    """Mutual information of prediction and model in nats: ``H(mean p) - mean H(p)``, ``(n,)`` of ``(members, n, C)``."""
    mean = torch.logsumexp(log_p, 0) - torch.log(torch.tensor(float(len(log_p)), dtype=log_p.dtype))
    total = -(mean.exp() * mean).sum(1)
    return (total + (log_p.exp() * log_p).sum(2).mean(0)).clamp(min=0)


def disagreement(log_p: Tensor, form: str) -> Tensor:
    """A score of several predictions, see :class:`MCDropout`."""
    if form == "mutual information":
        return mutual_information(log_p)
    p = log_p.exp()
    return p.var(0).mean(1) if form == "variance" else -p.mean(0).amax(1)


class MCDropout(NetworkScore):
    """Disagreement of the predictions under several dropout masks (Gal & Ghahramani 2016, arXiv 1506.02142).

    Every pass draws one mask per dropout layer for all rows, from a fixed seed, so the score of a row does not depend on the
    batch, nor on the padding at the end of a sequence ``(n, T, D)``. Dropout that is a function call instead of a module is not seen.

    Args:
        passes: number of masks.
        form: "mutual information" (Houlsby et al. 2011), "variance" of the probabilities, averaged over classes, or "mean": minus the
            largest mean probability.
        seed: of the masks.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(600, 4), torch.arange(600) % 3
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(8, 3)).eval()
        >>> score = pf.detection.network.MCDropout(passes=5)
        >>> guard = pf.NetworkGuard(net, alpha=0.05, score=score).fit((x[:300], y[:300]), calibration=x[300:])
        >>> guard(torch.tensor([[30.0, -30.0, 30.0, 30.0]])).p_value.shape
        torch.Size([1])
    """

    needs = frozenset({"logits", "dropout"})
    cost = "several forward passes"

    def __init__(self, passes: int = 20, form: str = "mutual information", seed: int = 0) -> None:
        super().__init__()
        self.passes, self.seed = check_integer("passes", passes, 2), check_integer("seed", seed, 0)
        self.form = check_choice("form", form, ("mutual information", "variance", "mean"))

    def _score(self, reading: Reading) -> Tensor:
        reader = reading.reader
        assert reader is not None
        layers = (
            [m for m in reader.net.modules() if isinstance(m, _DROPOUT)] if isinstance(reader.net, nn.Module) else []
        )
        if not any(layer.p > 0 for layer in layers):
            raise ConfigError(
                "MCDropout needs dropout layers, and the network has none with p above 0: use DeepEnsemble."
            )
        generator, predictions = torch.Generator().manual_seed(self.seed), []
        for number in range(self.passes):
            seeds = [mix(self.seed, number, place) for place in range(len(layers))]
            with hooked([(layer, _mask(generator, seed)) for layer, seed in zip(layers, seeds, strict=True)]):
                predictions.append(
                    torch.log_softmax(logits_of(reader.read(reading.inputs, grad=reading.features.requires_grad)), 1)
                )
        return disagreement(torch.stack(predictions), self.form)


def _mask(generator: torch.Generator, seed: int) -> Hook:
    """A hook that multiplies the output of a dropout layer by one mask for all rows.

    The mask of a sequence has a generator of its own, so that more positions change neither those before them nor other layers.
    """

    calls = itertools.count()

    def hook(layer: Any, args: Any, kwargs: Any, output: Tensor) -> Tensor:
        call = next(calls)  # a layer may run at several places
        if output.is_nested:  # sequences without their padding, as of nn.TransformerEncoder
            found = output.clone()
            rows = found.unbind()  # views
            mask = masked(layer, torch.ones_like(max(rows, key=len)).unsqueeze(0), call)[0]
            for row in rows:
                row.mul_(mask[: len(row)])
            return found
        return masked(layer, output, call)

    def masked(layer: Any, output: Tensor, call: int) -> Tensor:
        shape = list(output.shape[1:])
        if not isinstance(layer, (nn.Dropout, nn.AlphaDropout)):  # these drop whole channels
            shape[1:] = [1] * len(shape[1:])
        source = torch.Generator().manual_seed(mix(seed, call)) if output.dim() == 3 else generator
        kept = torch.rand(shape, generator=source, dtype=torch.float32).to(output.device) >= layer.p
        if isinstance(layer, (nn.AlphaDropout, nn.FeatureAlphaDropout)):
            if layer.p == 1:
                return torch.zeros_like(output)
            scale = ((1 - layer.p) * (1 + layer.p * _DROPPED**2)) ** -0.5
            return scale * (torch.where(kept, output, _DROPPED) - _DROPPED * layer.p)
        return output * (kept.float() / max(1 - layer.p, 1e-12)).to(output.dtype)

    return hook


class DeepEnsemble(NetworkScore):
    """Disagreement between the network and others trained from other seeds (Lakshminarayanan et al. 2017, arXiv 1612.01474).

    Args:
        members: the other networks, with the same inputs and classes. They are not stored in a file: loading takes them again.
        form: as of :class:`MCDropout`.
        logits: the part of their output, as of the guard.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(600, 4), torch.arange(600) % 3
        >>> nets = [torch.nn.Linear(4, 3).eval() for _ in range(3)]  # trained from three seeds
        >>> score = pf.detection.network.DeepEnsemble(nets[1:])
        >>> guard = pf.NetworkGuard(nets[0], alpha=0.05, score=score).fit((x[:300], y[:300]), calibration=x[300:])
        >>> guard(x[:2]).p_value.shape
        torch.Size([2])
    """

    needs = frozenset({"logits", "members"})
    cost = "several forward passes"

    def __init__(
        self, members: Sequence[nn.Module], form: str = "mutual information", logits: str | int | None = None
    ) -> None:
        super().__init__()
        if not members:
            raise ConfigError("DeepEnsemble needs at least one other network.")
        self.form = check_choice("form", form, ("mutual information", "variance", "mean"))
        self.logits = logits
        self._readers = [NetworkReader(member, logits=logits, layers=()) for member in members]

    def networks(self) -> tuple[nn.Module, ...]:
        """The members."""
        return tuple(reader.net for reader in self._readers if isinstance(reader.net, nn.Module))

    def _score(self, reading: Reading) -> Tensor:
        others = (
            logits_of(reader.read(reading.inputs, grad=reading.features.requires_grad)) for reader in self._readers
        )
        own = [logits_of(reading), *others]
        shapes = {tuple(logits.shape) for logits in own}
        if len(shapes) != 1:
            raise ConfigError(
                f"the members of the ensemble have outputs of different shapes, {sorted(shapes)}: give networks of the same classes."
            )
        return disagreement(torch.log_softmax(torch.stack([logits.to(own[0]) for logits in own]), 2), self.form)
