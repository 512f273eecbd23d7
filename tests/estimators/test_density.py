"""`FlowDensity`: units, file, options."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch.utils.data import DataLoader, TensorDataset

import pushforward as pf
from pushforward.errors import ConfigError, InputError, StorageError
from pushforward.estimators import FlowDensity
from pushforward.estimators.validation import NotFittedError


def test_density_is_in_the_units_of_x() -> None:
    x = 1e9 + 1000 * np.random.default_rng(0).normal(size=(2000, 2))
    density = FlowDensity("realnvp", max_steps=200, random_state=0).fit(x)
    new = 1e9 + 1000 * np.random.default_rng(1).normal(size=(2000, 2))
    truth = stats.norm(1e9, 1000).logpdf(new).sum(1).mean()
    assert density.score_samples(new).mean() == pytest.approx(truth, abs=0.05)
    assert density.score(new) == pytest.approx(density.score_samples(new).sum())
    drawn = density.sample(2000, random_state=0)
    np.testing.assert_allclose(drawn.mean(0), 1e9, atol=150)
    np.testing.assert_allclose(drawn.std(0), 1000, rtol=0.15)


def test_file_round_trip(tmp_path) -> None:
    x = np.random.default_rng(0).normal(size=(100, 2))
    density = FlowDensity("maf", model_options={"layers": 2, "hidden": (16,)}, max_steps=5, random_state=0).fit(x)
    density.save(tmp_path / "d.safetensors")
    again = FlowDensity.load(tmp_path / "d.safetensors")
    np.testing.assert_array_equal(again.score_samples(x), density.score_samples(x))
    with pytest.raises(StorageError, match="FlowDensity"):
        from pushforward.io import load

        load(tmp_path / "d.safetensors")


@pytest.mark.parametrize(
    "options", [{"model": "glow"}, {"model_options": {"depth": 3}}, {"max_time": "soon"}, {"learning_rate": -1.0}]
)
def test_impossible_options(options: dict) -> None:
    with pytest.raises(ConfigError):
        FlowDensity(**options).fit(np.zeros((30, 2)))


@pytest.mark.parametrize(
    "x",
    [
        np.full((30, 2), np.nan),
        np.ma.masked_less(np.arange(60.0).reshape(30, 2), 3),
        np.full((30, 2), np.inf),
        np.zeros(3),
        np.zeros((1, 2)),
        [["a"]] * 30,
    ],
)
def test_unreadable_tables(x) -> None:
    with pytest.raises(InputError):
        FlowDensity(max_steps=5).fit(x)


@pytest.fixture(scope="module")
def bounded() -> FlowDensity:
    """Fitted to a Beta(2, 3) share of 10, an exponential, minus an exponential from 5, and a normal column."""
    return FlowDensity(
        "nsf", model_options={"layers": 2, "hidden": (32, 32)}, max_steps=500, learning_rate=4e-3,
        random_state=0,
        bounds=[(0, 10), (0.1, None), (None, 5.0), None],
    ).fit(bounded_rows(4000, 0))  # fmt: skip


def bounded_rows(rows: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    columns = 10 * rng.beta(2, 3, rows), 0.1 + rng.exponential(2.0, rows), 5 - rng.exponential(1.0, rows)
    return np.column_stack([*columns, rng.normal(size=rows)])


def test_bounds_give_the_density_in_the_units_of_x(bounded) -> None:
    new = bounded_rows(2000, 1)
    truth = (
        stats.beta(2, 3, 0, 10).logpdf(new[:, 0])
        + stats.expon(0.1, 2).logpdf(new[:, 1])
        + stats.expon(0, 1).logpdf(5 - new[:, 2])
        + stats.norm.logpdf(new[:, 3])
    )
    # No density has a larger mean than the true one; the difference is the error of a short training.
    assert truth.mean() - 0.15 < bounded.score_samples(new).mean() < truth.mean() + 0.03


@pytest.mark.parametrize(("column", "value"), [(0, -0.01), (0, 10.01), (1, 0.0999), (1, -5.0), (2, 5.001)])
def test_nothing_leaks_outside_the_bounds(bounded, column: int, value: float) -> None:
    row = np.array([[5.0, 1.0, 3.0, 0.0]])
    assert np.isfinite(bounded.score_samples(row)).all()
    row[0, column] = value
    assert bounded.score_samples(row) == -np.inf


def test_mass_is_one_between_bounds() -> None:
    x = np.random.default_rng(0).beta(2, 3, size=(500, 1))
    density = FlowDensity("nsf", bounds=[(0, 1)], max_steps=30, random_state=0).fit(x)
    middle = (np.arange(20_000) + 0.5) / 20_000
    assert np.exp(density.score_samples(middle[:, None])).mean() == pytest.approx(1.0, abs=1e-3)


def test_samples_are_strictly_inside_and_have_a_density(bounded) -> None:
    x = bounded.sample(5000, random_state=1)
    assert ((x[:, 0] > 0) & (x[:, 0] < 10) & (x[:, 1] > 0.1) & (x[:, 2] < 5)).all()
    assert np.isfinite(bounded.score_samples(x)).all()
    np.testing.assert_allclose(x[:, 0].mean(), 4.0, atol=0.2)


def test_bounds_travel_in_the_file(bounded, tmp_path) -> None:
    bounded.save(tmp_path / "d.safetensors")
    again = FlowDensity.load(tmp_path / "d.safetensors")
    np.testing.assert_array_equal(again.score_samples(bounded_rows(20, 2)), bounded.score_samples(bounded_rows(20, 2)))
    assert again.bounds == [[0.0, 10.0], [0.1, None], [None, 5.0], None]


def test_bounds_by_name() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(bounded_rows(100, 0)[:, 1:3], columns=["a", "b"])
    density = FlowDensity("nice", bounds={"a": (np.float64(0.0), np.inf)}, max_steps=5, random_state=0).fit(frame)
    assert density.score_samples(pandas.DataFrame({"a": [-1.0, 1.0], "b": [0.0, 0.0]}))[0] == -np.inf
    with pytest.raises(ConfigError, match="'c', which the table does not have: it has a, b"):
        FlowDensity(bounds={"c": (0, 1)}).fit(frame)
    with pytest.raises(ConfigError, match="columns have no names"):
        FlowDensity(bounds={"c": (0, 1)}).fit(frame.to_numpy())


@pytest.mark.parametrize("bounds", [[(0, 1)], [(1, 0), None], [(0, "b"), None], "ab", [(0, 1, 2), None], 3])
def test_impossible_bounds(bounds) -> None:
    with pytest.raises(ConfigError, match="bound"):
        FlowDensity(bounds=bounds).fit(np.random.default_rng(0).uniform(0.1, 0.9, (30, 2)))


def test_training_rows_outside_or_on_a_bound_are_refused() -> None:
    x = np.random.default_rng(0).uniform(0.1, 0.9, (30, 2))
    with pytest.raises(InputError, match=r"outside the bounds.*column 1, with bounds 0.5 and inf: give wider bounds"):
        FlowDensity(bounds=[None, (0.5, None)]).fit(x)
    x[7, 0] = 0.0
    with pytest.raises(InputError, match=r"1 of 30 rows .* on an end of .* 0 at row 7, column 0"):
        FlowDensity(bounds=[(0, 1), None]).fit(x)


def test_columns_of_angles_are_not_standardized() -> None:
    x = np.random.default_rng(0).vonmises([3.0, 0.5], 4.0, (300, 2))  # the first is on both sides of pi
    options = {"circular": True, "layers": 2, "hidden": (8,)}
    density = FlowDensity(model_options=options, max_steps=20, random_state=0).fit(x)
    ends = density.score_samples([[-np.pi, 0.5], [np.pi, 0.5]])
    assert ends[0] == pytest.approx(ends[1], abs=1e-3)
    middle = (np.arange(200) + 0.5) / 200 * 2 * np.pi - np.pi
    grid = np.stack(np.meshgrid(middle, middle), -1).reshape(-1, 2)
    assert np.exp(density.score_samples(grid)).sum() * (2 * np.pi / 200) ** 2 == pytest.approx(1, abs=1e-3)
    assert np.abs(density.sample(200, random_state=0)).max() <= np.pi


def test_an_angle_beside_bounded_and_far_numbers() -> None:
    rng = np.random.default_rng(0)
    angle = rng.vonmises(3.0, 4.0, 400)  # on both sides of pi
    x = np.stack([np.exp(np.cos(angle) + rng.normal(size=400)), angle, 1e9 + np.sin(angle) + rng.normal(size=400)], 1)
    options = {"circular": (1,), "layers": 2, "hidden": (8,)}
    density = FlowDensity(model_options=options, bounds=[(0, None), None, None], max_steps=20, random_state=0).fit(x)
    ends = density.score_samples([[1.0, -np.pi, 1e9], [1.0, np.pi, 1e9]])
    assert ends[0] == pytest.approx(ends[1], abs=1e-3)
    assert (density.score_samples([[1.0, 3.2, 1e9], [-1.0, 0.0, 1e9]]) == -np.inf).all()
    drawn = density.sample(200, random_state=0)
    assert (drawn[:, 0] > 0).all()
    assert np.abs(drawn[:, 1]).max() <= np.pi
    assert 0.5 < drawn[:, 2].std() < 3  # float32 alone has steps of 64 there


@pytest.mark.parametrize(
    "make",
    [
        lambda x: torch.tensor(x, requires_grad=True),
        lambda x: torch.tensor(x).bfloat16(),
    ],
)
def test_tensors_that_numpy_does_not_read(make) -> None:
    x = make(np.random.default_rng(0).normal(size=(100, 2)))
    estimator = FlowDensity(max_steps=2, random_state=0).fit(x)
    np.testing.assert_array_equal(estimator.score_samples(x), estimator.score_samples(x.detach().double().numpy()))


@pytest.mark.parametrize("cells", ["x", pd.Timestamp("2024-01-01"), pd.Interval(0, 1)])
def test_a_column_without_numbers_is_named(cells) -> None:
    frame = pd.DataFrame({"a": np.arange(50.0), "b": [cells] * 50})
    with pytest.raises(InputError, match=r"column 'b' has no numbers: .* X\.drop\(columns=\['b'\]\)"):
        FlowDensity().fit(frame)


@pytest.mark.parametrize("wrap", [DataLoader, TensorDataset, iter])
def test_what_holds_rows_one_by_one_is_named(wrap) -> None:
    with pytest.raises(InputError, match="give its rows as one array or tensor"):
        FlowDensity().fit(wrap(torch.zeros(50, 2)))


def test_nothing_is_named() -> None:
    with pytest.raises(InputError, match="X is None: give a data frame"):
        FlowDensity().fit(None)


@pytest.mark.parametrize(("cell", "word"), [(np.nan, "NaN"), (np.inf, r"infinity \(inf\)")])
def test_a_cell_that_is_not_finite_is_named(cell: float, word: str) -> None:
    x = np.random.default_rng(0).normal(size=(30, 2))
    x[8, 1] = cell
    for data, name in ((x, "1"), (torch.as_tensor(x), "1"), (pd.DataFrame(x, columns=["a", "b"]), "'b'")):
        with pytest.raises(InputError, match=f"X has {word} in row 8, column {name} .*drop such rows"):
            FlowDensity(max_steps=2).fit(data)


def test_complex_numbers_are_two_columns() -> None:
    with pytest.raises(
        InputError, match=r"Complex data not supported: give the real and the imaginary parts as columns"
    ):
        FlowDensity(max_steps=2).fit(np.ones((9, 2)) * 1j)


def test_sample_weight_moves_the_density() -> None:
    x = np.random.default_rng(0).normal(size=(2000, 2))
    weights = np.exp(x[:, 0])  # of exp(x) N(x; 0, 1): a normal distribution of mean 1
    density = FlowDensity("realnvp", max_steps=200, random_state=0).fit(x, sample_weight=weights)
    mean = density.sample(5000, random_state=0).mean(0)
    assert abs(mean[0] - 1) < 0.2
    assert abs(mean[1]) < 0.2
    with pytest.raises(InputError, match="one number of at least 0 for each of the 2000 rows"):
        density.fit(x, sample_weight=[1.0])


def test_one_number_as_sample_weight_is_none() -> None:
    x = np.random.default_rng(0).normal(size=(50, 2))
    one, other = (FlowDensity("nice", max_steps=5, random_state=0).fit(x, sample_weight=w) for w in (2.0, None))
    np.testing.assert_array_equal(one.score_samples(x), other.score_samples(x))


@pytest.mark.parametrize("weight", [-1.0, 0, math.nan, math.inf])
def test_one_number_as_sample_weight_is_positive(weight) -> None:
    with pytest.raises(ConfigError, match="sample_weight must be positive"):
        FlowDensity("nice", max_steps=5).fit(np.zeros((9, 2)), sample_weight=weight)


def test_a_density_takes_at_least_one_step() -> None:
    with pytest.raises(ConfigError, match="max_steps must be an integer of at least 1"):
        FlowDensity("nice", max_steps=0).fit(np.zeros((9, 2)))


@pytest.mark.parametrize("wrong", [{"sample_weight": [-1.0] * 60}, {"X": np.zeros((60, 3))}, {"max_time": "soon"}])
def test_a_fit_that_fails_leaves_the_density_as_it_was(wrong: dict) -> None:
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 2)), columns=["a", "b"])
    bounds = {"a": (-9, 9), "b": (-9, 9)}
    density = FlowDensity("nice", bounds=bounds, max_steps=5, random_state=0)
    arguments = {"X": table, "sample_weight": None} | {k: v for k, v in wrong.items() if k != "max_time"}
    with pytest.raises((ConfigError, InputError)):
        density.set_params(max_time=wrong.get("max_time")).fit(**arguments)
    with pytest.raises(NotFittedError):
        density.score_samples(table)
    before = density.set_params(max_time=None).fit(table).score_samples(table)
    with pytest.raises((ConfigError, InputError)):
        density.set_params(max_time=wrong.get("max_time")).fit(**arguments)
    np.testing.assert_array_equal(density.score_samples(table), before)
    assert list(density.feature_names_in_) == ["a", "b"]


def test_an_interrupted_fit_has_the_weights_that_its_message_names(monkeypatch) -> None:
    def interrupted(model, *args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt("interrupted at step 3; the model has the weights of step 2")

    monkeypatch.setattr("pushforward.estimators.density.fit", interrupted)
    x = np.random.default_rng(0).normal(size=(60, 2))
    density = FlowDensity("nice", random_state=0)
    with pytest.raises(KeyboardInterrupt):
        density.fit(x)
    assert not density.model_.training
    assert density.n_features_in_ == 2


def test_the_file_of_a_density_of_a_random_generator_has_the_seed(tmp_path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 2))
    density = FlowDensity("nice", max_steps=5, random_state=np.random.RandomState(3)).fit(x)
    density.save(tmp_path / "d.safetensors")
    again = FlowDensity.load(tmp_path / "d.safetensors")
    np.testing.assert_array_equal(again.score_samples(x), density.score_samples(x))
    np.testing.assert_array_equal(again.fit(x).score_samples(x), density.score_samples(x))


@pytest.mark.parametrize("random_state", ["a", 1.5, np.random.default_rng(0)])
@pytest.mark.parametrize("estimator", [FlowDensity, pf.Guard])
def test_a_random_state_of_another_type_is_refused(estimator, random_state) -> None:
    with pytest.raises(ConfigError, match="random_state must be None, an integer or a numpy"):
        estimator(random_state=random_state).fit(np.random.default_rng(0).normal(size=(60, 2)))


@pytest.mark.parametrize("circular", [True, (1,)])
def test_angles_outside_their_domain_are_named(circular):
    """Degrees, and angles from 0 to 2 pi: beside other numbers the error was one of training, about outliers."""
    x = np.random.default_rng(0).uniform(-3, 3, size=(100, 2))
    x[7, 1] = 4.0
    density = pf.FlowDensity(model_options={"circular": circular}, max_steps=2, random_state=0)
    with pytest.raises(
        InputError, match=r"1 of 100 rows have an angle .* is 4 at row 7, column 1: angles are in radians"
    ):
        density.fit(x)
    x[7, 1] = np.float32(np.pi)
    density.fit(x)
