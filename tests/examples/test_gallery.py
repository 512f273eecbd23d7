"""The gallery: every example runs, draws pictures that can be read, and shows what its text says.

The examples run in this process. Training stops after a few steps, so that all take a minute or two; `make test-slow` runs
them as they are, with what their texts say as assertions.
"""

import ast
import runpy
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch

from pushforward.errors import PushforwardWarning
from pushforward.registry import _CLASSES
from pushforward.training import TrainingConfig

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*/plot_*.py"))
NAMES = [path.stem.removeprefix("plot_") for path in EXAMPLES]
STEPS = 25
"""Optimizer steps of each training in the small mode."""
NEEDS_STEPS = {"two_step_manifold": 200}
"""Examples that fail with so few steps."""

FAST = {
    "abstain": lambda s: s["confidence"].mean() > 0.95 and s["p_value"][0, 0] < 0.05 and s["out"].alarm.double().mean() < 0.09,
    "credit_reasons": lambda s: s["result"]["alarm"][[3, 7, 11]].all()
    and [s["explanation"].reasons(k)[0].column for k in (1, 2)] == ["age", "job"],
    "drift_sensor": lambda s: s["worn"].alarm_at > 1500 and not s["same"].alarm,
    "explain_thyroid": lambda s: s["explanation"].names[s["means"]["ill"].argmax()] == "TSH",
    "fdr_batch": lambda s: max(mean - 3 * error for mean, error, _ in s["results"]["select(fdr=0.1)"]) < 0.1
    and s["results"]["predict (alpha=0.05)"][0][0] > 0.5,
    "missing_values": lambda s: np.mean(s["false"]) < 0.07 and s["found"][0] > s["found"][-1],
    "promise_1000_redraws": lambda s: abs(np.mean(s["marginal"]) - 0.05) < 0.003
    and np.mean(np.array(s["pac"]) > 0.05) < 0.05 + 3 * (0.05 * 0.95 / 1000) ** 0.5,
    "risk_coverage": lambda s: s["wrong"][s["answered"]].mean() <= 0.1 < s["wrong"].mean()
    and s["sets"][np.arange(3000), s["new_y"]].mean() > 0.93,
    "save_load_signature": lambda s: (s["shares"].round(9) == [[1, 1], [0, 0], [0, 0], [1, 0]]).all(),
    "scaling_rows": lambda s: all(low <= rate <= high for rate, (low, high) in zip(s["rates"], s["bands"], strict=True)),
    "time_ordered": lambda s: 0.05 < np.mean(s["rates"]["latest rows"]) < np.mean(s["rates"]["random rows"]),
    "write_score": lambda s: np.mean(s["own"]["new healthy"] >= s["threshold"]) < 0.08,
    "write_transform": lambda s: torch.allclose(s["slope"].log().flatten(), s["part"].encode(s["x"]).contribution, atol=1e-6),
}  # fmt: skip
"""What the text of an example says of its results, whatever the training."""

FULL = FAST | {
    "angles": lambda s: np.ptp(s["model"].log_prob(s["edge"]).detach().numpy()) < 0.01,
    "bounded_density": lambda s: s["lost"] == 0 and s["free"].score_samples([[-0.01]])[0] > np.log(0.01),
    "compile_scorer": lambda s: s["difference"] < 1e-4,
    "conditional_density": lambda s: abs(
        np.mean((s["power"][:, 0] >= s["low"].numpy()) & (s["power"][:, 0] <= s["high"].numpy())) - 0.9) < 0.04,
    "earthquakes_sphere": lambda s: abs((s["density"] * np.cos(s["lat"])).sum() * np.radians(2) ** 2 - 1) < 0.01,
    "eight_schools_k_hat": lambda s: s["fit"].reliable and not s["bad"].reliable and len(s["said"]) > 0,
    "first_density": lambda s: np.diff(s["model"].log_prob(torch.tensor([[0.0, 0.75], [0.5, 0.25]])).detach())[0] < -3,
    "inpainting": lambda s: (s["filled"] - s["new"]).float().square()[:, :, 6:].mean()
    < (s["mean"] - s["new"]).square()[:, :, 6:].mean(),
    "integers": lambda s: len(s["said"]) > 0 and s["values"][0] < s["values"][1] < s["values"][2] and s["found"].kind.value == "lower bound",
    "interpolation": lambda s: s["same"].equal(s["small"][:50].float()) and s["bits"][0] < s["bits"][1],
    "map_of_flows": lambda s: len(s["families"]) == 14,
    "mixed_table": lambda s: list(s["drawn"].columns) == list(s["table"].columns),
    "paradox": lambda s: np.median(s["log_p"]["digits"]) > np.median(s["log_p"]["clothes"])
    and np.median(s["scores"]["digits"]) > -s["guard"].offset_,
    "posterior_checks": lambda s: s["report"].passed and s["covered"]["too narrow"][50] < 0.4,
    "simulator_posterior": lambda s: (s["draws"].mean(0) - s["truth"][0]).abs().max() < 0.1,
    "two_step_manifold": lambda s: s["done"].injectivity.passed and round(s["dimension"]) == 1,
    "write_model": lambda s: s["again"].log_prob(s["ring"](10, 2)).equal(s["model"].log_prob(s["ring"](10, 2))),
}  # fmt: skip
"""The same after full training."""


@pytest.fixture(autouse=True)
def around(tmp_path, monkeypatch):
    """A folder for files, no display, and afterwards no figure and no class that an example registered."""
    import matplotlib.pyplot as plt

    mpl.use("Agg", force=True)
    before = dict(_CLASSES)
    monkeypatch.chdir(tmp_path)
    yield
    plt.close("all")
    _CLASSES.clear()
    _CLASSES.update(before)


def run(path: Path, steps: int | None) -> dict[str, Any]:
    """Run an example as a program and return its names."""
    checked = TrainingConfig.__post_init__

    def few(config: TrainingConfig) -> None:
        if steps is not None:
            object.__setattr__(config, "max_steps", min(steps, config.max_steps or steps))
        checked(config)

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(TrainingConfig, "__post_init__", few)
        warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")
        if steps is not None:
            warnings.simplefilter("ignore", PushforwardWarning)  # what is not trained says so
        return runpy.run_path(str(path), run_name="__main__")


def figures(printed: str) -> list[Any]:
    import matplotlib.pyplot as plt

    found = [plt.figure(number) for number in plt.get_fignums()]
    if not found and "pip install" in printed:
        pytest.skip(printed.strip())
    assert found, "no picture"
    return found


@pytest.mark.parametrize("path", EXAMPLES, ids=NAMES)
def test_an_example_runs_and_its_pictures_can_be_read(path: Path, capsys: pytest.CaptureFixture) -> None:
    name = path.stem.removeprefix("plot_")
    scope = run(path, NEEDS_STEPS.get(name, STEPS))
    for figure in figures(capsys.readouterr().out):
        check_picture(figure)
    if name in FAST:
        assert FAST[name](scope)


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=NAMES)
def test_an_example_shows_what_its_text_says(path: Path, capsys: pytest.CaptureFixture) -> None:
    scope = run(path, None)
    for figure in figures(capsys.readouterr().out):
        check_picture(figure)
    name = path.stem.removeprefix("plot_")
    if name in FULL:
        assert FULL[name](scope)


@pytest.mark.parametrize("path", EXAMPLES, ids=NAMES)
def test_the_form_of_an_example(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < 60
    title, line, blank, *sentences = (ast.get_docstring(ast.parse(text)) or "").splitlines()
    assert title
    assert line == "=" * len(title)
    assert blank == ""
    assert len(" ".join(sentences)) > 100
    assert "# %%\n" in text


@pytest.mark.parametrize("path", EXAMPLES, ids=NAMES)
def test_a_picture_is_drawn_in_one_cell(path: Path) -> None:
    """The gallery saves the pictures of a cell at its end, so what a later cell draws would not be seen."""
    cells = [ast.parse(cell) for cell in path.read_text().split("# %%\n")]
    axes: set[str] = set()
    for cell in cells:
        used = {node.id for node in ast.walk(cell) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        made = [
            node for node in ast.walk(cell)
            if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith(("plt.subplots", "plt.figure", "plt.subplot_mosaic"))
        ]  # fmt: skip
        new = {
            name.id
            for node in made
            for name in ast.walk(node)
            if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
        }
        assert not axes & (used - new)
        axes |= new


def test_every_example_has_its_place_in_the_gallery() -> None:
    order = runpy.run_path(str(ROOT / "docs" / "_ext" / "gallery.py"))
    placed = {(section, name) for section, names in order["SECTIONS"].items() for name in names.split()}
    assert placed == {(path.parent.name, name) for path, name in zip(EXAMPLES, NAMES, strict=True)}
    assert all((ROOT / "examples" / section / "GALLERY_HEADER.rst").exists() for section in order["SECTIONS"])


def test_there_are_enough_and_every_claim_is_of_an_example() -> None:
    assert len(EXAMPLES) >= 25
    assert set(FULL) | set(NEEDS_STEPS) <= set(NAMES)


# -- pictures


def check_picture(figure: Any) -> None:
    """Axes with numbers have names, and no legend covers a curve, a bar or a point."""
    figure.canvas.draw()
    for ax in figure.axes:
        where = f"axes {ax.get_title() or ax.get_xlabel() or ax.get_ylabel()!r}"
        if ax.name == "rectilinear" and ax.axison:
            assert ax.get_xlabel() or not has_numbers(ax.xaxis), f"{where}: the x axis has no name"
            assert ax.get_ylabel() or not has_numbers(ax.yaxis), f"{where}: the y axis has no name"
        assert not covered(ax), f"the legend of {where} covers {covered(ax)}"


def has_numbers(axis: Any) -> bool:
    """Whether an axis shows numbers, and not names of groups."""
    shown = [label.get_text() for label in axis.get_ticklabels() if label.get_visible()]
    return any(any(c.isdigit() for c in text) for text in shown if not any(c.isalpha() for c in text))


def covered(ax: Any) -> list[str]:
    """What the legend of the axes covers."""
    if ax.get_legend() is None or ax.name != "rectilinear":
        return []
    box = ax.get_legend().get_window_extent()
    found = []
    for line in ax.get_lines():
        if line.get_transform() != ax.transData or not len(line.get_xdata()):
            continue  # a line across the axes, such as a threshold
        points = ax.transData.transform(
            np.column_stack([np.ravel(line.get_xdata()), np.ravel(line.get_ydata())]).astype(float)
        )
        points = points[np.isfinite(points).all(1)]
        if line.get_linestyle() not in ("None", "", " ") and len(points) > 1:  # the points between, too
            t = np.linspace(0, 1, 20)[:, None, None]
            points = (points[:-1] * (1 - t) + points[1:] * t).reshape(-1, 2)
        inside = (points > [box.x0 + 1, box.y0 + 1]).all(1) & (points < [box.x1 - 1, box.y1 - 1]).all(1)
        if inside.any():
            found.append(line.get_label())
    for patch in ax.patches:
        shape = patch.get_window_extent()
        if shape.width * shape.height > 0 and box.overlaps(shape):
            found.append(f"{patch}")
    return found


def test_what_a_legend_covers_is_found() -> None:
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    ax.plot([0, 1], [0, 1], label="rising")
    ax.legend(loc="upper right")
    ax.figure.canvas.draw()
    assert covered(ax) == ["rising"]
    ax.legend(loc="upper left")
    ax.figure.canvas.draw()
    assert covered(ax) == []
