"""Names of users: shown letter for letter, and inside the picture however long they are."""

import io

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import pushforward as pf
from pushforward.detection.explanation import Reason
from pushforward.plot.axes import legend
from pushforward.plot.names import fitted

RNG = np.random.default_rng(0)
BROKEN = "price $_$"  # no formula of matplotlib
LONG = "a name of a group of rows that has fifty-six letters, "


def shown(text):
    """What matplotlib draws: it has a formula if the second value is not False."""
    written, is_formula = text._preprocess_math(text.get_text())
    assert is_formula is False
    return written


def inside(ax, artists):
    """Whether artists lie inside the figure, apart from one pixel."""
    ax.figure.canvas.draw()
    whole = ax.figure.bbox
    boxes = [artist.get_window_extent() for artist in artists]
    return all(box.x0 >= -1 and box.x1 <= whole.x1 + 1 and box.y0 >= -1 and box.y1 <= whole.y1 + 1 for box in boxes)


def test_a_dollar_is_a_letter_on_every_axis():
    x = RNG.normal(size=(9, 2))
    named = {
        "table": pf.plot.heat_map([[0.1, 0.9]], [BROKEN], [BROKEN, "c"], name=BROKEN),
        "dots": pf.plot.samples(x, names=(BROKEN, BROKEN)),
        "bars": pf.plot.samples(x[:, 0], names=[BROKEN]),
        "scores": pf.plot.scores(x[:, 0], name=BROKEN),
        "coverage": pf.plot.coverage([0.5, 0.9], [0.5, 0.9], name=BROKEN),
        "curve": pf.plot.density(torch.distributions.Normal(0.0, 1.0), names=[BROKEN]),
        "plane": pf.plot.density(pf.models.NICE(2), limits=[(-1, 1)] * 2, points=3, names=[BROKEN, BROKEN]),
    }
    for ax in named.values():
        ax.figure.savefig(io.BytesIO())
    table = named.pop("table")
    assert shown(table.get_xticklabels()[0]) == shown(table.get_yticklabels()[0]) == BROKEN
    assert shown(table.figure.axes[1].yaxis.label) == BROKEN
    for ax in named.values():
        assert shown(ax.xaxis.label) == BROKEN
    assert shown(named["dots"].yaxis.label) == shown(named["plane"].yaxis.label) == BROKEN


def test_names_of_a_legend_are_letters():
    names = ["from $5 to $10", "_normal", BROKEN, "fault"]
    groups = {name: RNG.uniform(size=20) for name in names}
    rows = {name: RNG.uniform(size=(20, 2)) for name in names}
    for ax in (pf.plot.scores(groups), pf.plot.samples(groups), pf.plot.samples(rows), pf.plot.martingale(groups),
               pf.plot.p_values(groups), pf.plot.coverage(np.linspace(0, 1, 20), groups)):  # fmt: skip
        found = [shown(text) for text in ax.get_legend().get_texts()]
        assert [name for name in found if name in names] == names
        ax.figure.savefig(io.BytesIO())
    ax = pf.plot.density(torch.distributions.Normal(0.0, 1.0), label="_$_$")
    assert [shown(text) for text in ax.get_legend().get_texts()] == ["_$_$"]


def test_a_formula_of_the_user_stays_one():
    ax = Figure().subplots()
    ax.plot([0, 1], [0, 1], label=r"$\sigma_1 = 0.5$" + 60 * " ")
    legend(ax)
    assert ax.get_legend().get_texts()[0].get_text().startswith(r"$\sigma_1 = 0.5$")
    ax = pf.plot.scores([0.0, 1.0], name="$_$")
    ax.set_xlabel(r"$\sigma$")
    assert ax.xaxis.label._preprocess_math(ax.get_xlabel()) == (r"$\sigma$", True)


@pytest.mark.parametrize(("name", "count"), [(LONG.upper(), 1), (LONG, 9)])
def test_long_names_leave_room_for_the_scores(name, count):
    groups = {f"{name}{k}": RNG.normal(k, 1, size=3000) for k in range(count)}
    ax = pf.plot.scores(groups, 0.05)
    texts = ax.get_legend().get_texts()
    assert inside(ax, [ax.get_legend()])
    for text, v in zip(texts, groups.values(), strict=False):
        share = 100 * np.mean(v >= 0.05)
        assert text.get_text().endswith(f": {share:{'.3g' if share >= 99.5 else '.2g'}} % alarms")
        assert text.get_text().startswith(name[:6])
    top = max(bar.get_window_extent().y1 for bar in ax.patches)
    box = ax.get_window_extent()
    assert (top - box.y0) / box.height > 0.5
    assert top < ax.get_legend().get_window_extent().y0


def test_names_of_columns_do_not_overlap():
    columns = [f"column with a long name {k}" for k in range(6)]
    ax = pf.plot.heat_map(RNG.random((3, 6)), ["a", "b", "c"], columns, name="value")
    ticks = ax.get_xticklabels()
    assert inside(ax, ticks)
    assert [tick.get_text() for tick in ticks] == columns
    cell = ax.get_window_extent().width / 6
    for tick in ticks:  # of lines at 45 degrees, the distance is less than that of the cells
        assert tick.get_rotation() == 45
        assert cell / np.sqrt(2) > 1.2 * tick.get_fontsize() * ax.figure.dpi / 72
    assert ax.get_window_extent().height > 3 * 0.3 * ax.figure.dpi
    ax = pf.plot.heat_map(RNG.random((2, 2)), [LONG + "0", LONG + "1"], ["a", "b"], ax=Figure().subplots())
    assert [tick.get_rotation() for tick in ax.get_xticklabels()] == [0, 0]
    assert all(len(tick.get_text()) < len(LONG) for tick in ax.get_yticklabels())
    narrow = Figure(figsize=(3, 2), layout="constrained").subplots()
    ax = pf.plot.heat_map(RNG.random((1, 3)), ["a"], ["first name", "second name", "third name"], ax=narrow)
    assert {tick.get_rotation() for tick in ax.get_xticklabels()} == {45}


def test_a_long_column_leaves_room_for_the_reasons():
    column = "a_column_of_a_table_with_a_name_of_sixty_three_letters_in_all_k"
    reasons = [
        Reason(0, column, "number", 9.0, 51234.5, (0.0, 1234.5), 0.001, ""),
        Reason(0, "b", "number", 1.0, 7.0, (2.0, 3.0), 0.5, ""),
    ]
    ax = pf.plot.explanation(reasons)
    ticks = ax.get_yticklabels()
    assert inside(ax, [*ax.texts, *ticks, ax.xaxis.label])
    assert ticks[0].get_text().startswith("a_column")
    assert ticks[0].get_text().endswith("letters_in_all_k")
    assert ticks[1].get_text() == "b"


def test_a_long_cell_stays_inside_the_picture():
    reasons = [
        Reason(0, "a", "new category", 9.0, "x" * 90, ("y" * 90,), 0.001, ""),
        Reason(0, "b", "number", 1.0, 7.0, (2.0, 3.0), 0.5, ""),
    ]
    ax = pf.plot.explanation(reasons)
    assert inside(ax, ax.texts)
    assert "…" in ax.texts[0].get_text()
    assert ax.texts[1].get_text() == "7   (usual 2 to 3)"


def test_long_texts_with_dollars_are_cut_in_an_explanation():
    column = "price in $ of a column of a table with a name of sixty-three letters"
    reasons = [
        Reason(0, column, "new category", 9.0, "from $5 to $10 " * 9, ("y" * 90,), 0.001, ""),
        Reason(0, "b", "number", 1.0, 7.0, (2.0, 3.0), 0.5, ""),
    ]
    ax = pf.plot.explanation(reasons)
    ticks = ax.get_yticklabels()
    assert inside(ax, [*ax.texts, *ticks])
    assert ticks[0].get_text().startswith("price in $")
    assert "…" in ticks[0].get_text()
    assert "\\" not in ticks[0].get_text() + ax.texts[0].get_text()


def test_a_legend_fits_a_part_of_a_figure():
    whole = Figure(figsize=(10, 4))
    left, right = whole.subfigures(1, 2)
    for part in (left, right):
        ax = part.subplots()
        pf.plot.scores({f"group {k}": RNG.normal(k, 1, size=300) for k in range(4)}, 0.05, ax=ax)
        assert inside(ax, [ax.get_legend()])
        assert ax.get_legend().get_window_extent().width <= ax.bbox.width


def test_an_escape_is_not_cut_in_two():
    for length in range(60, 80):
        cut = fitted("a" * length + r"\$" * 40, 2.0)
        assert "…" in cut
        assert cut.count("$") == cut.count(r"\$")
    assert fitted("short", 0.01) == "short"


@pytest.mark.parametrize("name", [r"$\mu$", "$x_1$", "rate in $m^2$"])
def test_a_formula_stays_a_formula(name):
    """Parameters of a posterior often have such names."""
    ax = pf.plot.samples(RNG.normal(size=(9, 2)), names=(name, "b"))
    ax.figure.savefig(io.BytesIO())
    assert ax.xaxis.label._preprocess_math(ax.xaxis.label.get_text()) == (name, True)
    assert fitted(name, 0.1) == name


def test_a_dollar_that_the_user_escaped_is_one_letter():
    ax = pf.plot.samples(RNG.normal(size=(9, 2)), names=(r"price, \$", "b"))
    assert shown(ax.xaxis.label) == "price, $"
