"""Pictures in axes that have one already, and of more groups than there are colors."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import pushforward as pf

RNG = np.random.default_rng(0)
NORMAL = torch.distributions.Normal


def axes():
    return Figure(figsize=(5, 4), layout="constrained").subplots()


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def highest(ax):
    """Where the legend begins, in units of the y axis."""
    ax.figure.canvas.draw()
    return ax.transData.inverted().transform((0, ax.get_legend().get_window_extent().y0))[1]


def test_a_second_density_is_inside_the_axes_and_below_the_legend():
    x = RNG.normal(size=200)
    ax = pf.plot.density(NORMAL(0.0, 0.8), x, label="wide")
    pf.plot.density(NORMAL(0.0, 0.2), x, ax=ax, label="narrow")
    peak = 1 / (0.2 * np.sqrt(2 * np.pi))
    assert peak < highest(ax) < 2 * peak
    assert ax.get_ylim()[0] == 0
    assert labels(ax) == ["data", "wide", "narrow"]
    assert [line.get_color() for line in ax.get_lines()] == list(pf.plot.COLORS[:2])


def test_a_second_martingale_has_its_color_and_one_level():
    ax = pf.plot.martingale({"one": np.linspace(0, 2, 50)}, change_at=10)
    pf.plot.martingale({"two": np.linspace(0, 30, 50)}, ax=ax, change_at=10)
    assert 30 / np.log(10) < highest(ax)
    assert labels(ax) == ["one", "alarm (alpha = 0.01)", "change", "two"]
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert len(lines) == len(ax.get_lines()) == 4
    assert lines["one"].get_color() != lines["two"].get_color()
    assert lines["change"].get_ydata()[1] < 1  # below the legend


def test_marks_at_two_places_have_one_name():
    ax = pf.plot.scores({"one": RNG.normal(size=99)}, 2.0)
    pf.plot.scores({"two": RNG.normal(0, 0.1, size=99)}, 2.0, ax=ax)
    pf.plot.scores({"three": RNG.normal(size=99)}, 1.0, ax=ax)
    assert [line.get_xdata()[0] for line in ax.get_lines()] == [2.0, 1.0]
    assert [name.split(":")[0] for name in labels(ax)] == ["one", "alarm", "two", "three"]
    colors = {to_hex(bar.get_facecolor()) for bar in ax.patches}
    assert colors == {color.lower() for color in pf.plot.COLORS[:3]}
    assert max(bar.get_height() for bar in ax.patches) < highest(ax)


def test_p_values_have_one_band():
    ax = pf.plot.p_values({"one": RNG.uniform(size=99)})
    pf.plot.p_values({"two": RNG.uniform(size=99)}, ax=ax)
    assert labels(ax) == ["95 % if uniform", "one", "two"]
    assert len(ax.collections) == 1
    assert [line.get_color() for line in ax.get_lines()] == ["black", *pf.plot.COLORS[:2]]


def test_two_trainings_and_two_coverages_have_their_colors():
    def history(size):
        return [{"step": k, "loss": size / k, "validation": -size / k} for k in (1, 2, 3)]

    ax = pf.plot.training(history(9), ax=pf.plot.training(history(2)))
    assert highest(ax) > 9
    assert len({line.get_color() for line in ax.get_lines()}) == 4
    ax = pf.plot.coverage([0.5, 0.9], {"one": [0.5, 0.9]}, count=50)
    pf.plot.coverage([0.5, 0.9], {"two": [0.4, 0.8]}, ax=ax, count=50)
    assert labels(ax) == ["95 % if right", "one", "two"]
    assert len({line.get_color() for line in ax.get_lines()}) == 3


def test_limits_of_the_user_stay():
    ax = axes()
    ax.set_ylim(-1, 4)
    for name in ("one", "two", "three"):
        pf.plot.martingale({name: np.linspace(0, 3, 9)}, ax=ax)
    assert highest(ax) == pytest.approx(4, rel=0.1)  # one legend is above them, not three
    ax.set_ylim(-2, 20)
    pf.plot.martingale({"four": np.linspace(0, 3, 9)}, ax=ax)
    assert ax.get_ylim()[0] == -2
    assert highest(ax) == pytest.approx(20, rel=0.1)


def test_axes_with_a_common_scale_hold_both_curves():
    left, right = Figure(figsize=(8, 4), layout="constrained").subplots(1, 2, sharey=True)
    pf.plot.density(NORMAL(0.0, 0.8), ax=left, label="wide")
    pf.plot.density(NORMAL(0.0, 0.2), ax=right, label="narrow")
    assert highest(right) > 1 / (0.2 * np.sqrt(2 * np.pi))
    assert left.get_ylim() == right.get_ylim()


def test_cleared_axes_begin_with_the_first_color():
    ax = pf.plot.martingale([0.0, 1.0])
    ax.clear()
    pf.plot.martingale([0.0, 9.0], ax=ax)
    assert ax.get_lines()[0].get_color() == pf.plot.COLORS[0]
    assert 9 / np.log(10) < highest(ax)


def test_ten_groups_can_be_told_apart():
    rows = {f"digit {k}": RNG.normal(k, 1, size=(20, 2)) for k in range(10)}
    one = {key: v[:, 0] for key, v in rows.items()}
    dots = {(line.get_color(), line.get_marker()) for line in pf.plot.samples(rows).get_lines()}
    assert len(dots) == 10
    for ax in (pf.plot.samples(one), pf.plot.scores(one)):
        assert len({(to_hex(bar.get_facecolor()), bar.get_hatch()) for bar in ax.patches}) == 10
    ax = pf.plot.p_values({key: RNG.uniform(size=9) for key in rows})
    assert len({(line.get_color(), line.get_linestyle()) for line in ax.get_lines()}) == 11  # and the diagonal
    ax = pf.plot.martingale(one)
    assert len({(line.get_color(), line.get_linestyle()) for line in ax.get_lines()}) == 11  # and the alarm
    ax = pf.plot.coverage([0.5, 0.9], {key: [0.5, 0.9] for key in rows})
    assert len({(line.get_color(), line.get_linestyle()) for line in ax.get_lines()}) == 11
