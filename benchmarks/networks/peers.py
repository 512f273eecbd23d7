"""Detectors of pytorch-ood with their default settings, as scores of a guard."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from torch import nn

from benchmarks.networks.tasks import Rows
from pushforward.detection import network as scores
from pushforward.detection.network import NetworkReader

__all__ = ["peer_scores"]


def peer_scores(net: nn.Module, rows: Rows) -> dict[str, Callable[[], Any]]:
    """Makers of scores by the name in the card; none where pytorch-ood is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pytorch_ood import detector as peers
    except ImportError:
        return {}
    reader = NetworkReader(net, layers=())
    reader.read(rows.train[0][:2])
    head = reader.head_module
    assert head is not None
    weight, bias, width = head.weight.detach(), head.bias.detach(), head.in_features
    external = scores.External
    made: dict[str, Callable[[], Any]] = {
        "MaxSoftmax": lambda: external(peers.MaxSoftmax(None)),
        "MaxLogit": lambda: external(peers.MaxLogit(None)),
        "EnergyBased": lambda: external(peers.EnergyBased(None)),
        "Entropy": lambda: external(peers.Entropy(None)),
        "GEN": lambda: external(peers.GEN(None)),
        "KLMatching": lambda: external(peers.KLMatching(None)),
        "OpenMax": lambda: external(peers.OpenMax(None)),
        "Mahalanobis": lambda: external(peers.Mahalanobis(None)),
        "RMD": lambda: external(peers.RMD(None)),
        "GMM": lambda: external(peers.GMM(None, reg=1e-4)),
        "KNN": lambda: external(peers.KNN(None)),
        "ViM": lambda: external(peers.ViM(None, width // 2, weight, bias)),
        "SHE": lambda: external(peers.SHE(None, head)),
        "NNGuide": lambda: external(peers.NNGuide(None, head)),
        "fDBD": lambda: external(peers.fDBD(None, head)),
        "NCI": lambda: external(peers.NCI(None, head)),
        "DICE": lambda: external(peers.DICE(None, weight, bias, 0.7)),
    }
    return {f"pytorch-ood {name}": make for name, make in made.items()}
