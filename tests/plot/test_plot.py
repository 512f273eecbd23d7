"""Pictures: what is drawn equals the numbers, axes have names, legends cover no curve, and errors are sentences."""

import builtins
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from scipy.stats import betabinom, binom, norm, poisson

import pushforward as pf
from pushforward.detection import realized_interval
from pushforward.detection.explanation import Reason
from pushforward.errors import ConfigError, InputError, KindError
from pushforward.plot.axes import ink, legend

RNG = np.random.default_rng(0)


def axes():
    figure = Figure(figsize=(5, 4), layout="constrained")
    return figure.subplots()


def curve(ax, label):
    return next(line.get_xydata() for line in ax.get_lines() if line.get_label() == label)


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


# -- density


def test_a_curve_is_the_density_and_the_bars_have_its_area():
    data = RNG.normal(2, 0.5, size=3000)
    ax = pf.plot.density(torch.distributions.Normal(2.0, 0.5), data, limits=(0, 4), names=["flow, l/s"])
    drawn = curve(ax, "model")
    np.testing.assert_allclose(drawn[:, 1], norm(2, 0.5).pdf(drawn[:, 0]), rtol=1e-5)
    area = sum(bar.get_width() * bar.get_height() for bar in ax.patches)
    assert area == pytest.approx(np.mean((data >= 0) & (data <= 4)))
    assert (ax.get_xlabel(), ax.get_ylabel(), labels(ax)) == ("flow, l/s", "density", ["data", "model"])


def test_a_heat_map_is_the_density_with_rows_along_the_second_axis():
    model = pf.models.NICE(features=2)
    pf.fit(model, RNG.normal([0, 5], [1, 2], size=(500, 2)), max_steps=20, seed=0, progress="silent")
    ax = pf.plot.density(model, limits=[(-2, 2), (0, 9)], points=20)
    mesh = ax.collections[0]
    x, y = np.linspace(-2, 2, 20), np.linspace(0, 9, 20)
    expected = model.log_prob(torch.tensor([[x[3], y[15]]])).exp().item()
    assert mesh.get_array().reshape(20, 20)[15, 3] == pytest.approx(expected, rel=1e-5)
    assert ax.figure.axes[1].get_ylabel() == "density"
    assert ax.get_xlim() == (-2, 2)


def test_every_kind_of_density_is_drawn():
    data = RNG.normal(size=(300, 1))
    fitted = pf.FlowDensity(max_steps=5, random_state=0).fit(data)
    for model in (fitted, pf.models.NSF(1), lambda x: -0.5 * x.square().sum(-1)):
        assert len(pf.plot.density(model, data).get_lines()) == 1
    assert pf.plot.density(fitted).get_legend() is None
    named = pf.FlowDensity(max_steps=5, random_state=0).fit(pd.DataFrame({"flow, l/s": data[:, 0]}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # rows of a picture have no names
        assert pf.plot.density(named).get_xlabel() == "flow, l/s"
    ax = pf.plot.density(torch.distributions.Exponential(1.0), limits=(-1, 3), points=5)
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), [0, 1, np.exp(-1), np.exp(-2), np.exp(-3)], rtol=1e-6)
    two = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
    assert pf.plot.density(two, points=5).collections[0].get_array().max() == pytest.approx(1 / (2 * np.pi), rel=0.5)


def test_a_context_chooses_the_density():
    model = pf.models.MAF(features=1, context=1)
    c = torch.linspace(-1, 1, 400)[:, None]
    pf.fit(model, 3 * c + 0.1 * torch.randn(400, 1), context=c, max_steps=100, seed=0, progress="silent")
    drawn = [pf.plot.density(model, context=[value], limits=(-4, 4)).get_lines()[0] for value in (-0.8, 0.8)]
    modes = [line.get_xdata()[line.get_ydata().argmax()] for line in drawn]
    assert modes[0] < -1 < 1 < modes[1]


def test_integers_have_probabilities():
    model = pf.models.DiscreteFlow(1, categories=5)
    ax = pf.plot.density(model, RNG.integers(0, 5, 200), limits=(0, 4))
    values = curve(ax, "model")
    np.testing.assert_allclose(values[:, 0], np.arange(5))
    assert values[:, 1].sum() == pytest.approx(1, abs=1e-5)
    assert ax.get_ylabel() == "probability"
    with pytest.raises(InputError, match="at most 1000 integers"):
        pf.plot.density(model, limits=(0, 5000))


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        (torch.distributions.Poisson(3.0), poisson(3).pmf),
        (torch.distributions.Bernoulli(0.3), lambda k: np.where(k == 1, 0.3, 0.7)),
        (torch.distributions.Categorical(torch.tensor([0.2, 0.3, 0.5])), lambda k: np.array([0.2, 0.3, 0.5])[k]),
        (torch.distributions.Binomial(9, torch.tensor(0.4)), binom(9, 0.4).pmf),
    ],
)
def test_a_discrete_distribution_has_probabilities(distribution, expected):
    ax = pf.plot.density(distribution)
    at, values = curve(ax, "model").T
    np.testing.assert_array_equal(at, np.round(at))
    np.testing.assert_allclose(values, expected(at.astype(int)), rtol=1e-5)
    assert values.sum() > 0.98
    assert ax.get_ylabel() == "probability"
    outside = curve(pf.plot.density(distribution, limits=(-3, 1)), "model")
    np.testing.assert_array_equal(outside[:, 0], [-3, -2, -1, 0, 1])
    np.testing.assert_array_equal(outside[:3, 1], 0)
    np.testing.assert_allclose(outside[3:, 1], expected(np.array([0, 1])), rtol=1e-5)


def test_two_discrete_coordinates_are_a_heat_map_of_integers():
    base = torch.distributions.Poisson(torch.tensor([2.0, 4.0]))
    ax = pf.plot.density(torch.distributions.Independent(base, 1), limits=[(0, 5), (0, 9)])
    found = ax.collections[0].get_array().reshape(10, 6)
    np.testing.assert_allclose(found, np.outer(poisson(4).pmf(range(10)), poisson(2).pmf(range(6))), rtol=1e-5)
    assert ax.figure.axes[1].get_ylabel() == "probability"


def test_a_heat_map_of_many_integers_has_some_of_them():
    model = pf.models.DiscreteFlow(2, categories=300)
    ax = pf.plot.density(model, limits=[(0, 299), (0, 299)], points=30)
    mesh = ax.collections[0]
    assert mesh.get_array().size == 30 * 30
    whole = np.stack(np.meshgrid(np.arange(0, 300, 10), np.arange(0, 300, 10)), -1).reshape(-1, 2)
    with torch.no_grad():
        expected = model.log_prob(torch.from_numpy(whole)).exp()
    np.testing.assert_allclose(np.asarray(mesh.get_array()).ravel(), expected, rtol=1e-5)


def test_limits_without_data_hold_the_middle_of_the_samples():
    """A few far draws of heavy tails would leave one bright dot."""
    base = torch.distributions.StudentT(torch.tensor([1.5, 1.5]))
    ax = pf.plot.density(torch.distributions.Independent(base, 1), points=8)
    inside = torch.distributions.StudentT(1.5)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        draws = inside.sample((100_000,))
    middle = float(draws.abs().quantile(0.99))
    assert max(abs(each) for each in (*ax.get_xlim(), *ax.get_ylim())) < 2 * middle < draws.abs().max()


def test_a_bound_says_that_it_is_one():
    ax = pf.plot.density(pf.models.ResidualFlow(2, hidden=(8,)), limits=[(-1, 1), (-1, 1)], points=4)
    assert ax.figure.axes[1].get_ylabel() == "density"  # unbiased
    flow = pf.models.Flow(pf.transforms.Chain(pf.transforms.Augment(2, 3)), pf.distributions.Normal(5))
    ax = pf.plot.density(flow, limits=[(-1, 1), (-1, 1)], points=4)
    assert ax.figure.axes[1].get_ylabel() == "density (lower bound)"


def test_the_text_of_an_unusual_column_without_excess_is_orange_too():
    """A column can be outside its usual range because another one is wrong; its bar has no length to be seen."""
    rows = [
        Reason(0, "a", "number", 9.0, 5.0, (0.0, 1.0), 0.001, ""),
        Reason(0, "b", "number", 0.0, 7.0, (2.0, 3.0), 0.01, ""),
        Reason(0, "c", "number", 0.0, 2.5, (2.0, 3.0), 0.9, ""),
    ]
    ax = pf.plot.explanation(rows, ax=axes())
    colors = [text.get_color() for text in ax.texts]
    assert colors[0] == colors[1] != colors[2] == "black"
    assert [round(bar.get_width(), 6) for bar in ax.patches] == [9.0, 0.0, 0.0]
    assert "usual: 95 %" in ax.get_xlabel()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: pf.plot.density(pf.models.NICE(5)), InputError, "one or two coordinates, and this one has 5"),
        (lambda: pf.plot.density(lambda x: x), InputError, "needs data or limits"),
        (lambda: pf.plot.density(pf.models.NICE(2), limits=(0, 1)), InputError, "of each of 2"),
        (lambda: pf.plot.density(pf.models.NICE(2), limits=[(0, 1), (1, 0)]), InputError, "low below high"),
        (lambda: pf.plot.density(pf.models.NICE(2), np.zeros((4, 3))), InputError, "2 coordinates, and the data have 3"),
        (lambda: pf.plot.density(pf.models.NICE(2), [[np.nan, 1]]), InputError, "got NaN"),
        (lambda: pf.plot.density(pf.models.NICE(2), names=["a"]), InputError, "one name for each"),
        (lambda: pf.plot.density(lambda x: x, np.zeros((4, 2))), InputError, "one number for each row"),
        (lambda: pf.plot.density(pf.Guard()), InputError, "not a density"),
        (lambda: pf.plot.samples(np.zeros((3, 4))), InputError, "choose two"),
        (lambda: pf.plot.samples({}), InputError, "got none"),
        (lambda: pf.plot.samples([1, 2, np.inf, 3]), InputError, "leave out the infinite ones, 1 of 4 numbers"),
        (lambda: pf.plot.samples({"a": [[1, -np.inf]]}), InputError, "rows of 'a' must be finite"),
        (lambda: pf.plot.images([[[1, np.inf]]]), InputError, "images must be finite"),
        (lambda: pf.plot.heat_map([[1.0]], ["a"], ["b"], ax=3), ConfigError, "ax is matplotlib axes"),
        (lambda: pf.plot.images(np.zeros((3, 2, 2, 2))), InputError, "images have shape"),
        (lambda: pf.plot.p_values([0.5, 1.5]), InputError, "from 0 to 1"),
        (lambda: pf.plot.p_values(["a"]), InputError, "must be numbers"),
        (lambda: pf.plot.coverage([0.5], [0.5, 0.6]), InputError, "one fraction for each level"),
        (lambda: pf.plot.coverage([0.5], [0.5], count=0), ConfigError, "count"),
        (lambda: pf.plot.martingale([0.0], alpha=2), ConfigError, "alpha"),
        (lambda: pf.plot.training([]), InputError, "no evaluation"),
        (lambda: pf.plot.explanation([]), InputError, "no reasons"),
        (lambda: pf.plot.heat_map([[1.0]], ["a"], ["b", "c"]), InputError, "1 rows and 2 columns"),
        (lambda: pf.plot.scores([0.5], ax=3), ConfigError, "ax is matplotlib axes"),
        (lambda: pf.plot.samples(np.array([1j, 2.0])), InputError, "rows must be real numbers"),
        (lambda: pf.plot.density(lambda x: -(x[:, 0] ** 2), [1.0, np.inf]), InputError, "data must be finite: leave out"),
        (lambda: pf.plot.density(pf.models.NICE(2), names="ab"), InputError, "names must be 2, one name for each"),
        (lambda: pf.plot.images(np.full((2, 3, 3), 300)), InputError, "from 0 to 255, and these are from 300 to 300"),
        (lambda: pf.plot.heat_map([[1.0]], ["a"], ["b"], limits=(3, 1)), ConfigError, "with low not above high"),
    ],
)  # fmt: skip
def test_errors_are_sentences(call, error, words):
    with pytest.raises(error, match=words) as found:
        call()
    assert str(found.value).endswith(".")


def test_a_density_on_a_manifold_is_refused():
    model = pf.models.RectangularFlow(2, latent=1, hidden=(8,))
    with pytest.raises(KindError, match="cannot show a density on"):
        pf.plot.density(model, limits=[(0, 1), (0, 1)])


def test_without_matplotlib_the_error_names_it(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install matplotlib"):
        pf.plot.samples(np.zeros((3, 2)))


# -- samples, images, scores


def test_samples_have_a_color_for_each_group():
    x, y = RNG.normal(size=(20, 2)), RNG.normal(size=(30, 2))
    ax = pf.plot.samples({"data": torch.tensor(x, requires_grad=True), "model": y}, names=("a, m", "b, s"))
    np.testing.assert_allclose(curve(ax, "data"), x)
    np.testing.assert_allclose(curve(ax, "model"), y)
    assert len({line.get_color() for line in ax.get_lines()}) == 2
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("a, m", "b, s")
    one = pf.plot.samples(x[:, 0])
    assert sum(bar.get_width() * bar.get_height() for bar in one.patches) == pytest.approx(1)
    assert one.get_legend() is None


def test_images_keep_their_pixels_in_order():
    stack = np.arange(5 * 4, dtype=np.uint8).reshape(5, 2, 2)
    sheet = pf.plot.images(stack, columns=3).images[0].get_array()
    np.testing.assert_allclose(sheet[:2, 3:5] * 255, stack[1])
    np.testing.assert_allclose(sheet[3:, :2] * 255, stack[3])
    assert sheet.mask[:, 2].all()  # between two images
    assert sheet.mask[3:, 6:].all()  # the place of a sixth image
    color = RNG.random((2, 3, 4, 4))
    drawn = pf.plot.images(torch.tensor(color), gap=0).images[0].get_array()
    assert drawn.shape == (4, 8, 3)
    np.testing.assert_allclose(drawn[1, 5], (color[1, :, 1, 1] - color.min()) / (color.max() - color.min()))


@pytest.mark.parametrize(
    ("count", "height", "width", "columns"),
    [(6, 8, 64, 1), (6, 64, 8, 6), (40, 10, 40, 3), (12, 28, 28, 4), (16, 28, 28, 4), (2, 9, 9, 2), (7, 9, 9, 3)],
)
def test_a_sheet_is_about_as_wide_as_high(count, height, width, columns):
    ax = pf.plot.images(RNG.random((count, height, width)))
    high, wide = ax.images[0].get_array().shape
    assert (wide + 1) // (width + 1) == columns
    others = [(k * (width + 1), -(-count // k) * (height + 1)) for k in range(1, count + 1)]
    assert abs(np.log((wide + 1) / (high + 1))) <= min(abs(np.log(a / b)) for a, b in others) + 1e-9
    area = ax.figure.get_size_inches() - 0.4
    assert area[0] / area[1] == pytest.approx(wide / high, rel=0.2)


def test_shares_of_alarms_are_those_of_the_guard():
    guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(RNG.normal(size=(400, 2)))
    rows = RNG.normal(1, 1, size=(150, 2))
    ax = pf.plot.scores({"rows": guard.anomaly_score(rows)}, -guard.offset_)
    share = 100 * np.mean(guard.predict(rows) == -1)
    assert labels(ax)[0] == f"rows: {share:.2g} % alarms"
    assert sum(bar.get_width() * bar.get_height() for bar in ax.patches) == pytest.approx(1)
    infinite = pf.plot.scores([1.0, 2.0, np.inf])
    assert np.isfinite([bar.get_height() for bar in infinite.patches]).all()


# -- p-values and coverage


def test_p_values_and_their_band():
    p = RNG.uniform(size=300)
    ax = pf.plot.p_values({"new rows": p})
    drawn = curve(ax, "new rows")
    np.testing.assert_allclose(drawn[:, 1], [(p <= level).mean() for level in drawn[:, 0]])
    band = ax.collections[0].get_paths()[0].vertices
    at = band[np.isclose(band[:, 0], 0.3)][:, 1]
    np.testing.assert_allclose([at.min(), at.max()], binom.ppf([0.025, 0.975], 300, 0.3) / 300)


def test_conformal_p_values_have_the_wider_band():
    ax = pf.plot.p_values(RNG.uniform(size=500), calibration=99)
    band = ax.collections[0].get_paths()[0].vertices
    at = band[np.isclose(band[:, 0], 0.05)][:, 1]
    np.testing.assert_allclose([at.min(), at.max()], realized_interval(99, 500, 0.05), atol=1e-9)
    np.testing.assert_allclose([at.min(), at.max()], betabinom.ppf([0.025, 0.975], 500, 5, 95) / 500)
    logarithmic = pf.plot.p_values(RNG.uniform(size=500), calibration=99, log=True)
    assert logarithmic.get_xscale() == logarithmic.get_yscale() == "log"
    assert logarithmic.get_xlim()[0] == pytest.approx(0.01)


def test_coverage_as_difference():
    levels, found = np.array([0.5, 0.8, 0.9]), np.array([0.55, 0.79, 0.9])
    ax = pf.plot.coverage(levels, {"a": found}, count=100, difference=True)
    np.testing.assert_allclose(curve(ax, "a"), np.stack([levels, found - levels], 1))
    band = ax.collections[0].get_paths()[0].vertices
    at = band[np.isclose(band[:, 0], 0.8)][:, 1]
    np.testing.assert_allclose([at.min(), at.max()], binom.ppf([0.025, 0.975], 100, 0.8) / 100 - 0.8)
    assert labels(ax) == ["95 % if right", "a"]


def test_the_order_of_the_levels_of_coverage_does_not_matter():
    """Levels that fall gave a line, and a band, that go back and forth."""
    levels, found = np.array([0.9, 0.5, 0.8]), np.array([0.91, 0.55, 0.79])
    ax = pf.plot.coverage(levels, {"a": found}, count=100)
    np.testing.assert_allclose(curve(ax, "a"), [[0.5, 0.55], [0.8, 0.79], [0.9, 0.91]])
    right = pf.plot.coverage(np.sort(levels), [0.55, 0.79, 0.91], count=100)
    bands = [each.collections[0].get_paths()[0].vertices for each in (ax, right)]
    np.testing.assert_allclose(*bands)


# -- streams, training, reasons, tables


def test_the_martingale_is_in_powers_of_ten():
    monitor = pf.detection.Monitor(reference=RNG.normal(size=300), alpha=0.01)
    evidence = monitor.update(RNG.normal(1.5, 1, size=200))
    ax = pf.plot.martingale(evidence, 0.01, change_at=0)
    np.testing.assert_allclose(curve(ax, "evidence")[:, 1], evidence / np.log(10))
    level = next(line for line in ax.get_lines() if "alarm" in line.get_label()).get_ydata()[0]
    assert level == pytest.approx(2)
    first = curve(ax, "evidence")[:, 0][curve(ax, "evidence")[:, 1] >= level][0]
    assert first == monitor.alarm_at


def test_one_point_is_seen():
    """A line of one point has no length, and a band of one level no width."""
    for ax in (
        pf.plot.martingale([0.5]),
        pf.plot.coverage([0.9], [0.95], count=20),
        pf.plot.coverage([0.9], [0.95], count=20, difference=True),
    ):
        name = "evidence" if "evidence" in ax.get_ylabel() else "observed"
        line = next(line for line in ax.get_lines() if line.get_label() == name)
        assert line.get_marker() == "o"
        for band in ax.collections:
            assert np.ptp(band.get_paths()[0].vertices[:, 0]) > 0
            low, high = binom.ppf([0.025, 0.975], 20, 0.9) / 20
            assert np.ptp(band.get_paths()[0].vertices[:, 1]) == pytest.approx(high - low)
    assert pf.plot.martingale([0.5, 0.6]).get_lines()[0].get_marker() in ("", "None")


def test_training_draws_the_history():
    model = pf.models.NICE(features=2)
    result = pf.fit(model, torch.randn(300, 2), max_steps=40, evaluate_every=10, seed=0, progress="silent")
    ax = pf.plot.training(result)
    held = curve(ax, "-log p, held-out rows")
    assert [(e["step"], -e["validation"]) for e in result.history] == [tuple(row) for row in held]
    marked = next(line for line in ax.get_lines() if "kept" in line.get_label())
    assert marked.get_xdata()[0] == result.best_step


def test_text_can_be_read_on_every_color():
    import matplotlib as mpl

    def luminance(color):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    for name in ("viridis", "cividis", "Greens", "RdBu"):
        for color in mpl.colormaps[name](np.linspace(0, 1, 50)):
            other = luminance(mpl.colors.to_rgb(ink(color)))
            low, high = sorted((other, luminance(color)))
            assert (high + 0.05) / (low + 0.05) >= 4.5
    ax = pf.plot.heat_map([[1, 2], [3, 4]], ["a", "b"], ["x", "y"], form=".0f", name="counts")
    assert [text.get_text() for text in ax.texts] == ["1", "2", "3", "4"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]


# -- what all share


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_a_legend_covers_no_curve(scale):
    ax = axes()
    for k in range(5):
        ax.plot([0, 1, 2], np.array([1, 5, 9.0]) + k, label=f"a rather long name of curve {k}")
    ax.set_yscale(scale)
    mark = ax.axvline(1)
    legend(ax)
    ax.figure.canvas.draw()
    box = ax.get_legend().get_window_extent()
    tops = [ax.transData.transform((0, np.max(line.get_ydata())))[1] for line in ax.get_lines()]
    assert max(tops[:-1]) < box.y0
    assert ax.transAxes.transform((0, mark.get_ydata()[1]))[1] <= box.y0
    assert box.y1 <= ax.get_window_extent().y1 + 1


def test_axes_in_and_out_and_no_global_state():
    from matplotlib import _pylab_helpers

    before = _pylab_helpers.Gcf.get_all_fig_managers()
    ax = axes()
    assert pf.plot.samples(np.zeros((3, 2)), ax=ax) is ax
    for call in (pf.plot.samples, pf.plot.scores, pf.plot.martingale):
        assert call(np.zeros(3) + 0.5).figure.canvas is not None
    assert _pylab_helpers.Gcf.get_all_fig_managers() == before


class WithoutSupport(torch.distributions.Distribution):
    """A normal distribution of one's own, which need not say its support."""

    def __init__(self):
        super().__init__(validate_args=False)

    def sample(self, shape=()):
        return torch.randn(shape)

    def log_prob(self, value):
        return torch.distributions.Normal(0.0, 1.0).log_prob(value)


def test_a_distribution_need_not_have_a_support():
    line = pf.plot.density(WithoutSupport()).get_lines()[0]
    np.testing.assert_allclose(line.get_ydata(), norm.pdf(line.get_xdata()), rtol=1e-4)


def test_a_batch_of_distributions_is_refused():
    with pytest.raises(InputError, match="a batch of 2"):
        pf.plot.density(torch.distributions.Poisson(torch.tensor([1.0, 3.0])))


@pytest.mark.parametrize("rows", [np.full(50, 1e17), np.full(50, -1e300), 1e16 + 2.0 * np.arange(50)])
@pytest.mark.filterwarnings("error")
def test_numbers_that_hardly_differ_have_bars(rows):
    for draw in (pf.plot.samples, pf.plot.scores, lambda x: pf.plot.density(lambda y: 0 * y[:, 0], x).containers[0]):
        drawn = draw(rows)
        patches = getattr(drawn, "patches", drawn)
        width = np.array([bar.get_width() for bar in patches])
        height = np.array([bar.get_height() for bar in patches])
        assert (width > 0).all()
        assert (height * width).sum() == pytest.approx(1, abs=0.01)  # widths are few units in the last place
        patches[0].figure.canvas.draw()


def test_tensors_in_half_precision_are_numbers():
    ax = pf.plot.samples(torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16))
    assert ax.get_lines()[0].get_xydata().tolist() == [[1.0, 2.0]]


def test_an_infinite_cell_has_no_color_and_black_text():
    ax = pf.plot.heat_map([[1.0, 2.0, -np.inf, np.inf]], ["a"], list("bcde"))
    assert [text.get_color() for text in ax.texts] == ["white", "black", "black", "black"]
