"""Detectors of oodeel 0.4 with their default settings, on the same networks and rows.

oodeel needs no TensorFlow for networks of PyTorch, but it asks for NumPy 1, so it has an environment of its own: ``pip install --no-deps
oodeel faiss-cpu`` beside PyTorch, scikit-learn, pandas, seaborn, plotly, datasets and tqdm.
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

__all__ = ["available", "oodeel_scores"]

_BATCH = 250


def available() -> bool:
    """Whether oodeel can be imported."""
    try:
        import oodeel.methods  # noqa: F401  # pyright: ignore
    except ImportError:
        return False
    return True


def oodeel_scores(
    net: nn.Module,
    train: tuple[Tensor, Tensor],
    parts: dict[str, Tensor],
    which: str = "all",
    known: Container[str] = (),
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """The scores of every detector by part, with the name in the card.

    Args:
        net: a trained network.
        train: rows on which detectors are fitted.
        parts: inputs by name.
        which: "one pass": those without a gradient of the input; "gradient": the others; "all".
        known: names that are left out.
    """
    from oodeel import methods  # pyright: ignore

    reader = NetworkReader(net)
    reader.read(train[0][:2])
    last = _input_of_the_head(net, train[0][:2], reader.head)
    inner = [name for name in reader.layers if name != last]
    rows = DataLoader(TensorDataset(*train), batch_size=_BATCH)
    one_pass: dict[str, tuple[Callable[[], Any], list[str]]] = {
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
        "DKNN, layers": (methods.DKNN, [*inner, last]),
        "VIM, layers": (methods.VIM, [*inner, last]),
        "Gram, layers": (lambda: methods.Gram(), [*inner, last]),
    }
    gradient: dict[str, tuple[Callable[[], Any], list[str]]] = {
        "RMDS, layers": (methods.RMDS, [*inner, last]),
        "RMDS": (methods.RMDS, [last]),
        "Mahalanobis": (methods.Mahalanobis, [last]),
        "ODIN": (methods.ODIN, []),
        "SHE": (methods.SHE, [last]),
        "Mahalanobis, layers": (methods.Mahalanobis, [*inner, last]),
    }
    makers = {"one pass": one_pass, "gradient": gradient, "all": one_pass | gradient}[which]
    for name, (make, layers) in makers.items():
        if f"oodeel {name}" in known:
            continue
        torch.manual_seed(0)
        detector = make()
        detector.fit(copy.deepcopy(net), fit_dataset=rows, feature_layers_id=layers, head_layer_id=reader.head)
        found = {
            key: np.concatenate([np.asarray(detector.score(part)[0], float).ravel() for part in x.split(_BATCH)])
            for key, x in parts.items()
        }
        yield (
            f"oodeel {name}",
            {key: np.nan_to_num(values, posinf=1e300, neginf=-1e300) for key, values in found.items()},
        )


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
