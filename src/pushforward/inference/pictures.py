"""Figures of the checks of posteriors, drawn without a display."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pushforward.inference.check import PosteriorCheck

__all__ = ["check_figure"]

_LEVELS = np.linspace(0, 1, 101)


def check_figure(check: PosteriorCheck) -> Any:
    """Ranks, coverage and TARP with 95 % bands, and the observation among simulations from its posterior."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    calibration = check.calibration
    count = 3 + (check.predictive is not None)
    figure = Figure(figsize=(4 * count, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, count)
    ranks = [np.searchsorted(np.sort(column), _LEVELS, side="right") / len(column) for column in calibration.ranks.T]
    _uniform_panel(axes[0], ranks, len(calibration.ranks), f"SBC, p = {calibration.p_values['SBC']:.2g}", "rank")
    for axis, values, name in (
        (axes[1], calibration.coverage(_LEVELS), "coverage"), (axes[2], calibration.tarp_coverage(_LEVELS), "TARP"),
    ):  # fmt: skip
        _uniform_panel(axis, [values], len(calibration.ranks), f"{name}, p = {calibration.p_values[name]:.2g}", "level")
    if check.predictive is not None and check.observation is not None:
        made, observed = check.predictive.flatten(1).numpy(), check.observation.flatten().numpy()
        shown = min(made.shape[1], 20)
        low, middle, high = np.quantile(made[:, :shown], [0.05, 0.5, 0.95], axis=0)
        spread = np.where(high > low, high - low, 1.0)
        place = np.arange(shown)
        axes[3].fill_between(
            place, (low - middle) / spread, (high - middle) / spread, alpha=0.3, step="mid", label="90 % of simulations"
        )
        axes[3].plot(place, (observed[:shown] - middle) / spread, "k.", label="observation")
        axes[3].set_title(
            f"observation, p = {check.observation_p_value:.2g}; predictive, p = {check.predictive_p_value:.2g}",
            fontsize=9,
        )
        axes[3].set_xlabel("coordinate of the data")
        axes[3].legend(fontsize=8)
    return figure


def _uniform_panel(axis: Any, curves: list[Any], count: int, title: str, label: str) -> None:
    """Distribution functions minus the diagonal, with the pointwise 95 % band of a uniform sample."""
    from scipy.stats import binom

    low, high = (binom.ppf(q, count, _LEVELS) / count - _LEVELS for q in (0.025, 0.975))
    axis.fill_between(_LEVELS, low, high, color="0.85", label="95 % if right")
    for curve in curves:
        axis.plot(_LEVELS, curve - _LEVELS, linewidth=1)
    axis.set_title(title, fontsize=9)
    axis.set_xlabel(label)
    axis.set_ylabel("fraction below, minus the diagonal")
    axis.legend(fontsize=8)
