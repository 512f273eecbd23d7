"""Figures of the checks of posteriors, drawn without a display."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pushforward import plot
from pushforward.plot.axes import BAND, legend, new_figure, tidy

if TYPE_CHECKING:
    from pushforward.inference.check import PosteriorCheck

__all__ = ["check_figure"]

_LEVELS = np.linspace(0, 1, 101)


def check_figure(check: PosteriorCheck) -> Any:
    """Ranks, coverage and TARP with 95 % bands, and the observation among simulations from its posterior."""
    calibration = check.calibration
    count = 3 + (check.predictive is not None)
    figure = new_figure((4 * count, 3.8))
    axes = figure.subplots(1, count)
    ranks = {
        f"parameter {k + 1}": np.searchsorted(np.sort(column), _LEVELS, side="right") / len(column)
        for k, column in enumerate(calibration.ranks.T)
    }
    panels = (
        ("SBC", ranks, "rank of the parameter"), ("coverage", calibration.coverage(_LEVELS), "promised coverage"),
        ("TARP", calibration.tarp_coverage(_LEVELS), "promised coverage"),
    )  # fmt: skip
    for ax, (name, fractions, label) in zip(axes, panels, strict=False):
        plot.coverage(_LEVELS, fractions, ax=ax, count=len(calibration.ranks), difference=True, name=label)
        if len(ranks) > 4 and name == "SBC":  # more names than a legend can hold
            ax.get_legend().remove()
        ax.set_title(f"{name}, p = {calibration.p_values[name]:.2g}", fontsize=10)
    if check.predictive is not None and check.observation is not None:
        made, observed = check.predictive.flatten(1).numpy(), check.observation.flatten().numpy()
        shown = min(made.shape[1], 20)
        low, middle, high = np.nanquantile(made[:, :shown], [0.05, 0.5, 0.95], axis=0)
        spread = np.where(high > low, high - low, 1.0)
        place, ax = np.arange(shown), axes[3]
        ax.fill_between(
            place,
            (low - middle) / spread,
            (high - middle) / spread,
            color=BAND,
            step="mid",
            label="90 % of simulations",
        )
        ax.plot(place, (observed[:shown] - middle) / spread, "k.", label="observation")
        ax.set_title(
            f"observation, p = {check.observation_p_value:.2g}; predictive, p = {check.predictive_p_value:.2g}",
            fontsize=10,
        )
        ax.set(xlabel="coordinate of the data", ylabel="distance from the median / width of the band")
        legend(tidy(ax))
    return figure
