"""The demo around a network: it is confidently wrong on digits, and the guard around it says so."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pushforward import plot
from pushforward.cli.show import grid
from pushforward.data import load_clothes_network, load_image_labels, load_image_sample
from pushforward.data.samples.network import CLOTHES, UNSEEN
from pushforward.detection import realized_interval
from pushforward.detection.network.examples import GuardOutput
from pushforward.estimators import NetworkGuard
from pushforward.plot.axes import new_figure

__all__ = ["run"]

ALPHA = 0.05
_CONFIDENT = 0.9


def run(output: Path, seed: int = 0) -> dict[str, float]:
    """Put a guard around the network that comes with the package, and show it 1,000 new images of clothes and 1,000 digits."""
    start = time.perf_counter()
    net = load_clothes_network()
    known, clothes, digits = (
        inputs_of(*part) for part in (("fashion-mnist", "train"), ("fashion-mnist", "test"), ("mnist", "test"))
    )
    labels, new_labels = (
        torch.from_numpy(load_image_labels("fashion-mnist", part)).long() for part in ("train", "test")
    )
    print(
        f"A network that knows ten kinds of clothes. {len(known) - UNSEEN:,} images that it was trained on fit the guard, "
        f"{UNSEEN:,} that it has not seen calibrate it. New: {len(clothes):,} images of clothes, {len(digits):,} of digits."
    )
    seen, held_out = (known[UNSEEN:], labels[UNSEEN:]), known[:UNSEEN]
    guard = NetworkGuard(net, ALPHA, seed=seed).fit(seen, calibration=held_out)
    plain = NetworkGuard(net, ALPHA, seed=seed, score="MaxSoftmax").fit(seen, calibration=held_out)
    fitted = time.perf_counter()
    new, odd = guard(clothes), guard(digits)
    confidence, odd_confidence = confidence_of(new), confidence_of(odd)
    facts = {
        "accuracy": float((new.prediction == new_labels).float().mean()),
        "confidence": float(confidence.mean()),
        "confidence on digits": float(odd_confidence.mean()),
        "confident digits": float((odd_confidence > _CONFIDENT).mean()),
        "false alarms": float(new.alarm.float().mean()),
        "detected": float(odd.alarm.float().mean()),
        "detected by confidence": float(plain(digits).alarm.float().mean()),
        "seconds": time.perf_counter() - start,
    }
    low, high = realized_interval(guard.calibrators_[None].n, len(clothes), ALPHA)
    grid(
        "Does a network that knows clothes notice digits?",
        ("", "value"),
        [
            ("accuracy of the network on new clothes", f"{facts['accuracy']:.1%}"),
            ("its mean confidence on new clothes", f"{facts['confidence']:.1%}"),
            ("its mean confidence on digits, which are no clothes", f"{facts['confidence on digits']:.1%}"),
            (f"digits on which it is more than {_CONFIDENT:.0%} sure", f"{facts['confident digits']:.1%}"),
            ("promised false-alarm rate of the guard (on average)", f"{ALPHA:.1%}"),
            ("realized false-alarm rate on new clothes", f"{facts['false alarms']:.1%}"),
            ("95 % of such guards and data realize", f"{low:.1%} to {high:.1%}"),
            ("digits that raise an alarm", f"{facts['detected']:.1%}"),
            ("the same, of a guard that uses the confidence alone", f"{facts['detected by confidence']:.1%}"),
            ("seconds to fit and calibrate", f"{fitted - start:.1f}"),
            ("seconds in total", f"{facts['seconds']:.1f}"),
        ],
    )
    sure = int(np.argmax(np.where(odd_confidence > _CONFIDENT, odd.score.numpy(), -np.inf)))
    print(f"A digit {load_image_labels('mnist')[sure]} that the network is {odd_confidence[sure]:.1%} sure is a "
          f"{CLOTHES[int(odd.prediction[sure])]}; p = {odd.p_value[sure]:.2g}:\n  {odd.reason[sure]}")  # fmt: skip
    limit = plain.calibrators_[None].score_threshold(ALPHA)
    draw(output, {"new clothes": (clothes, new), "digits": (digits, odd)}, guard, limit)
    print(f"picture: {output}")
    return facts


def inputs_of(name: str, part: str) -> Tensor:
    """Images as inputs of the network, float32 ``(n, 1, 28, 28)`` from 0 to 1."""
    return torch.from_numpy(load_image_sample(name, part))[:, None].float() / 255


def confidence_of(out: GuardOutput) -> np.ndarray:
    """The largest softmax probability of each row, ``(n,)``."""
    return out.output.softmax(1).amax(1).numpy()


def doubt_of(out: GuardOutput) -> np.ndarray:
    """log10(1 - confidence) of each row, ``(n,)``, also where the confidence is 1 in float32."""
    logits = out.output.double().sort(1).values
    return ((logits[:, :-1].logsumexp(1) - logits.logsumexp(1)) / math.log(10)).numpy()


def draw(output: Path, groups: dict[str, Any], guard: NetworkGuard, limit: float) -> None:
    """Draw some images with what the network and the guard say, and histograms of the confidence and of the guard's score.

    ``limit`` is the negative confidence at which a guard of the confidence alone raises an alarm.
    """
    figure = new_figure((14, 4.9))
    pictures, left, right = figure.subplots(1, 3, width_ratios=(1.75, 1.5, 1.5))
    columns, gap = 5, 16
    some = np.concatenate([x[: 2 * columns, 0].numpy() for x, _ in groups.values()])
    plot.images(some, ax=pictures, columns=columns, gap=gap, cmap="gray_r")
    pictures.set_ylim(len(some) // columns * (28 + gap), -1)
    said = [(out, confidence_of(out), k) for _, out in groups.values() for k in range(2 * columns)]
    for position, (out, confidence, k) in enumerate(said):
        row, column = divmod(position, columns)
        alarm = bool(out.alarm[k])
        text = f"{CLOTHES[int(out.prediction[k])]} {confidence[k]:.0%}\np {float(out.p_value[k]):.2g}{', alarm' if alarm else ''}"
        pictures.text(
            column * (28 + gap) + 14, row * (28 + gap) + 29, text, ha="center", va="top", fontsize=7.5,
            color=plot.COLORS[1] if alarm else "black",
        )  # fmt: skip
    pictures.axis("off")
    pictures.set_title("The network's answer and confidence,\nthe guard's p-value")
    doubts = {name: doubt_of(out) for name, (_, out) in groups.items()}
    plot.scores(doubts, math.log10(1 + limit), ax=left, name="log10(1 - confidence) of the network")
    left.set_title("The confidence does not tell digits apart")
    scores = {name: out.score for name, (_, out) in groups.items()}
    plot.scores(scores, guard.calibrators_[None].score_threshold(ALPHA), ax=right, name="anomaly score of the guard")
    right.set_title(f"The guard does (promised: {ALPHA:.0%} alarms of clothes)")
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=130)
