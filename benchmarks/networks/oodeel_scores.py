"""Detectors of oodeel 0.4 on the same networks and rows.

oodeel needs no TensorFlow for networks of PyTorch, but it asks for NumPy 1, so it has an environment of its own: ``pip install --no-deps
oodeel faiss-cpu`` beside PyTorch, scikit-learn, pandas, seaborn, plotly, datasets and tqdm.

Detectors that read pooled layers, features or logits run on readings that were made once, through :class:`Replay`; this changes no score,
since oodeel averages maps over positions too. Its Mahalanobis, RMDS and SHE change inputs along a gradient by default (eps=0.0014): they
run without that here (eps=0), and, where ``--oodeel gradient`` was measured, as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from pushforward.detection.network import NetworkReader

__all__ = ["Replay", "oodeel_scores"]

_BATCH = 250


class Replay(nn.Module):
    """A network whose input is what another network showed: its inner layers and its features, side by side.

    Args:
        sizes: of the inner layers and, last, of the features.
        head: the last linear layer.
    """

    def __init__(self, sizes: list[int], head: nn.Linear) -> None:
        super().__init__()
        self.sizes = sizes
        self.inner = nn.ModuleList(nn.Identity() for _ in sizes[:-1])
        self.features, self.head = nn.Identity(), copy.deepcopy(head)

    def forward(self, x: Tensor) -> Tensor:
        *inner, features = x.split(self.sizes, 1)
        for module, values in zip(self.inner, inner, strict=True):
            module(values)
        return self.head(self.features(features))


def oodeel_scores(
    net: nn.Module, train: tuple[Tensor, Tensor], parts: dict[str, Tensor], which: str, known: Container[str] = ()
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """The scores of every detector by part, with the name in the card.

    Args:
        net: a trained network.
        train: rows on which detectors are fitted.
        parts: inputs by name.
        which: "replayed": those that read pooled layers; "gradient": those with a gradient of the input.
        known: names that are left out.
    """
    from oodeel import methods  # pyright: ignore

    reader = NetworkReader(net)
    reader.read(train[0][:2])
    head = reader.head_module
    assert head is not None
    if which == "replayed":
        rows = {key: _side_by_side(reader, x) for key, x in {"": train[0], **parts}.items()}
        shown = reader.read(train[0][:2])
        sizes = [values.shape[1] for values in shown.layers.values()] + [head.in_features]
        net, train, parts = Replay(sizes, head).eval(), (rows.pop(""), train[1]), rows
        inner, last, name = [f"inner.{k}" for k in range(len(sizes) - 1)], "features", "head"
    else:
        last, name = _input_of_the_head(net, train[0][:2], reader.head), reader.head
        inner = [layer for layer in reader.layers if layer != last]
    makers: dict[str, dict[str, tuple[Callable[[], Any], list[str]]]] = {
        "replayed": {
            "MLS": (methods.MLS, []),
            "MSP": (lambda: methods.MLS(output_activation="softmax"), []),
            "Energy": (methods.Energy, []),
            "Energy, ReAct": (lambda: methods.Energy(use_react=True), []),
            "Energy, SCALE": (lambda: methods.Energy(use_scale=True), []),
            "Energy, ASH": (lambda: methods.Energy(use_ash=True), []),
            "Entropy": (methods.Entropy, []),
            "GEN": (methods.GEN, []),
            "DKNN": (methods.DKNN, [last]),
            "VIM": (methods.VIM, [last]),
            "Mahalanobis, eps=0": (lambda: methods.Mahalanobis(eps=0), [last]),
            "RMDS, eps=0": (lambda: methods.RMDS(eps=0), [last]),
            "SHE, eps=0": (lambda: methods.SHE(eps=0), [last]),
            "DKNN of layers": (methods.DKNN, [*inner, last]),
            "VIM of layers": (methods.VIM, [*inner, last]),
            "Mahalanobis of layers, eps=0": (lambda: methods.Mahalanobis(eps=0), [*inner, last]),
            "RMDS of layers, eps=0": (lambda: methods.RMDS(eps=0), [*inner, last]),
        },
        "gradient": {
            "ODIN": (methods.ODIN, []),
            "RMDS of layers": (methods.RMDS, [*inner, last]),
            "Mahalanobis": (methods.Mahalanobis, [last]),
            "RMDS": (methods.RMDS, [last]),
            "SHE": (methods.SHE, [last]),
            "Gram of layers": (methods.Gram, [*inner, last]),
        },
    }
    loader = DataLoader(TensorDataset(*train), batch_size=_BATCH)
    for label, (make, layers) in makers[which].items():
        if f"oodeel {label}" in known:
            continue
        torch.manual_seed(0)
        detector = make()
        detector.fit(copy.deepcopy(net), fit_dataset=loader, feature_layers_id=layers, head_layer_id=name)
        found = {
            key: np.concatenate([np.asarray(detector.score(part)[0], float).ravel() for part in x.split(_BATCH)])
            for key, x in parts.items()
        }
        yield (
            f"oodeel {label}",
            {key: np.nan_to_num(values, nan=1e300, posinf=1e300, neginf=-1e300) for key, values in found.items()},
        )


def _side_by_side(reader: NetworkReader, x: Tensor) -> Tensor:
    readings = [reader.read(part) for part in x.split(_BATCH)]
    return torch.cat([torch.cat([*one.layers.values(), one.features], 1) for one in readings])


def _input_of_the_head(net: nn.Module, x: Tensor, head: str | None) -> str:
    """The name of the module whose output the last linear layer reads."""
    outputs: dict[str, Tensor] = {}
    read: list[Tensor] = []
    handles = [
        module.register_forward_hook(lambda m, i, out, name=name: outputs.__setitem__(name, out))
        for name, module in net.named_modules()
    ]
    handles.append(net.get_submodule(head or "").register_forward_pre_hook(lambda m, inputs: read.append(inputs[0])))
    try:
        with torch.no_grad():
            net(x)
    finally:
        for handle in handles:
            handle.remove()
    return next(name for name in reversed(outputs) if outputs[name] is read[0] or torch.equal(outputs[name], read[0]))
