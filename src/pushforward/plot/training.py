"""The picture of a training run."""

from __future__ import annotations

from typing import Any

from pushforward.errors import InputError
from pushforward.plot.axes import GRAY, LINES, legend, mark, new_axes, tidy, turns

__all__ = ["training"]


def training(result: Any, *, ax: Any = None) -> Any:
    """Draw the loss on training rows and the negative log-likelihood of held-out rows at each evaluation.

    Args:
        result: what ``pf.fit`` returned, or its ``history``.
        ax: matplotlib axes; new ones by default.

    Returns:
        The axes.

    Raises:
        InputError: for a run without an evaluation.
        ConfigError: without matplotlib.

    Example:
        >>> import torch, pushforward as pf
        >>> model = pf.models.NICE(features=2)
        >>> result = pf.fit(model, torch.randn(500, 2), validation=0.1, max_steps=60, seed=0, progress="silent")
        >>> ax = pf.plot.training(result)
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('optimizer steps', 'nats')
    """
    history = getattr(result, "history", result)
    loss, held = (
        [(event["step"], sign * float(event[key])) for event in history if event[key] is not None]
        for key, sign in (("loss", 1.0), ("validation", -1.0))
    )
    finite = [[(step, value) for step, value in part if abs(value) < float("inf")] for part in (loss, held)]
    if not any(finite):
        raise InputError("there is no evaluation to draw: train for more steps.")
    ax = tidy(new_axes(ax))
    names = ("loss, training rows", "-log p, held-out rows")
    for part, (color, turn), name in zip(finite, turns(ax, 2), names, strict=True):
        if part:
            style = {"color": color, "linestyle": LINES[turn]}
            ax.plot(*zip(*part, strict=True), marker=".", linewidth=1.6, label=name, **style)
    best = getattr(result, "best_step", None)
    if best is not None and held:
        mark(ax, best, "weights that were kept", color=GRAY, linewidth=1.2, linestyle=":")
    ax.set(xlabel="optimizer steps", ylabel="nats")
    legend(ax)
    return ax
