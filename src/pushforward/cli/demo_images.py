"""The demo on images: digits are as likely as clothes to a flow that was trained on clothes, and the guard detects them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from pushforward import plot
from pushforward.cli.show import grid
from pushforward.data import as_images, load_image_sample
from pushforward.detection import auroc, realized_interval
from pushforward.detection.image_score import ImageScore
from pushforward.detection.scores import Likelihood, LikelihoodPath
from pushforward.estimators import Guard
from pushforward.models import Model
from pushforward.plot.axes import new_figure

__all__ = ["run"]

ALPHA = 0.05


def run(output: Path, seed: int = 0, max_steps: int = 700) -> dict[str, float]:
    """Fit a guard to 5,000 images of clothes and score 1,000 new ones and 1,000 handwritten digits."""
    start = time.perf_counter()
    known, new, digits = (
        load_image_sample(*part) for part in (("fashion-mnist", "train"), ("fashion-mnist", "test"), ("mnist", "test"))
    )
    print(
        f"Fashion-MNIST: {len(known)} images of clothes for training. New: {len(new)} images of clothes, {len(digits)} of digits."
    )
    guard = Guard(ALPHA, random_state=seed, max_steps=max_steps).fit(known)
    fitted = time.perf_counter()
    new_result, digit_result = guard.assess(new), guard.assess(digits)
    likelihood = Likelihood(flow_of(guard))
    clothes_nats, digit_nats = (likelihood(as_images(images)).numpy() for images in (new, digits))
    facts = {
        "likelihood AUROC": auroc(clothes_nats, digit_nats),
        "AUROC": auroc(new_result["anomaly_score"], digit_result["anomaly_score"]),
        "false alarms": float(new_result["alarm"].mean()),
        "detected": float(digit_result["alarm"].mean()),
        "seconds": time.perf_counter() - start,
    }
    low, high = realized_interval(guard.calibrator_.n, len(new), ALPHA)
    grid(
        "Does a model that was trained on clothes detect digits?",
        ("", "value"),
        [
            ("AUROC of the flow's -log p", f"{facts['likelihood AUROC']:.3f}"),
            ("AUROC of the guard", f"{facts['AUROC']:.3f}"),
            ("promised false-alarm rate (on average)", f"{ALPHA:.1%}"),
            ("realized false-alarm rate on new clothes", f"{facts['false alarms']:.1%}"),
            ("95 % of such guards and data realize", f"{low:.1%} to {high:.1%}"),
            ("digits detected at that rate", f"{facts['detected']:.1%}"),
            ("seconds to fit and calibrate", f"{fitted - start:.1f}"),
            ("seconds in total", f"{facts['seconds']:.1f}"),
        ],
    )
    draw(
        output,
        guard,
        {"images": new, "nats": clothes_nats, **new_result},
        {"images": digits, "nats": digit_nats, **digit_result},
    )
    print(f"picture: {output}")
    return facts


def flow_of(guard: Guard) -> Model:
    """The flow that the score of the guard is computed from."""
    assert isinstance(guard.score_, ImageScore)
    return next(part.model for part in guard.score_.inner.modules() if isinstance(part, LikelihoodPath))


def draw(output: Path, guard: Guard, clothes: dict[str, Any], digits: dict[str, Any]) -> None:
    """Draw some images, and histograms of the likelihood and of the score of the guard."""
    figure = new_figure((12, 4.6))
    pictures, left, right = figure.subplots(1, 3, width_ratios=(1.1, 2, 2))
    some = np.concatenate([part["images"][:16] for part in (clothes, digits)])
    plot.images(some, ax=pictures, columns=4, cmap="gray_r")
    pictures.axhline(4 * 29 - 1, color="black", lw=1)
    pictures.set(title="new clothes, digits")
    groups = {"new clothes": clothes, "digits": digits}
    plot.scores({name: -part["nats"] for name, part in groups.items()}, ax=left, name="log p(image), nats")
    left.set_title("A flow trained on clothes:\ndigits are as likely or likelier")
    plot.scores({name: part["anomaly_score"] for name, part in groups.items()}, -guard.offset_, ax=right)
    right.set_title(f"The guard detects them\n(promised: {guard.alpha:.0%} alarms of clothes)")
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=130)
