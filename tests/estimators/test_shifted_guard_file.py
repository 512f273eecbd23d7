"""The file of a `ShiftedGuard`: the same answers after loading, and nothing from a file that was changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier

import pushforward as pf
from pushforward import io
from pushforward.detection import ClassifierRatio
from pushforward.detection.conformal.likelihood_ratio import _default
from pushforward.errors import ConfigError, InputError, StorageError
from pushforward.estimators import ShiftedGuard


def rows(n: int, seed: int, shift: float = 0.0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, 2))
    x[:, 0] += shift
    x[::50, 1] = np.nan
    return x


def ratio(x: np.ndarray) -> np.ndarray:
    return np.exp(0.5 * x[:, 0])


@pytest.fixture(scope="module")
def guard() -> pf.Guard:
    return pf.Guard(0.05, effort="fast", random_state=0).fit(rows(600, 0))


@pytest.fixture(scope="module")
def estimated(guard) -> ShiftedGuard:
    return ShiftedGuard(guard, rows(300, 1), shifted=rows(200, 3, shift=1))


def test_known_weights(guard, tmp_path):
    x, new = rows(300, 1), rows(100, 2, shift=1)
    shifted = ShiftedGuard(guard, x, ratio)
    shifted.save(tmp_path / "s.safetensors")
    again = ShiftedGuard.load(tmp_path / "s.safetensors", weights=ratio)
    np.testing.assert_array_equal(again.p_value(new), shifted.p_value(new))
    assert again.promise == shifted.promise
    without = ShiftedGuard.load(tmp_path / "s.safetensors")
    np.testing.assert_array_equal(without.predict(new, ratio(new)), shifted.predict(new))
    with pytest.raises(
        ConfigError, match="this guard has no function of the weights: give the weights of these rows too"
    ):
        without.predict(new)
    with pytest.raises(ConfigError, match="weights must be the function"):
        ShiftedGuard.load(tmp_path / "s.safetensors", weights=np.ones(3))


def test_estimated_weights(guard, estimated, tmp_path):
    x, new, shifted = rows(300, 1), rows(100, 2, shift=1), estimated
    shifted.save(tmp_path / "s.safetensors")
    again = ShiftedGuard.load(tmp_path / "s.safetensors")
    np.testing.assert_array_equal(again.p_value(new), shifted.p_value(new))
    assert (again.promise, again.ratio_.auroc_) == (shifted.promise, shifted.ratio_.auroc_)
    assert repr(again) == repr(shifted)
    with pytest.raises(ConfigError, match="estimates its weights: pass none"):
        ShiftedGuard.load(tmp_path / "s.safetensors", weights=ratio)
    for ask in (again.p_value, again.predict):
        with pytest.raises(ConfigError, match="estimates its weights: pass none"):
            ask(new, ratio(new))
    forest = ClassifierRatio(RandomForestClassifier(5, min_samples_leaf=30, random_state=0))
    with pytest.raises(ConfigError, match="cannot store the classifier RandomForestClassifier"):
        ShiftedGuard(guard, x, shifted=rows(200, 3, shift=1), ratio=forest).save(tmp_path / "no.safetensors")
    assert not (tmp_path / "no.safetensors").exists()


def test_the_stored_classifier_is_that_of_scikit_learn():
    p, q = rows(300, 1), rows(200, 2, shift=1)
    found = ClassifierRatio(clip=1e-9).fit(p, q)
    model = _default().fit(np.concatenate((p, q)), np.repeat((0, 1), (300, 200)))
    chance = model.predict_proba(rows(50, 3, shift=2))
    np.testing.assert_allclose(found(rows(50, 3, shift=2)), chance[:, 1] / chance[:, 0] * 300 / 200, rtol=1e-10)


@pytest.mark.parametrize(
    "change",
    [
        lambda header, tensors: header.update(guard=3),
        lambda header, tensors: header["guard"]["options"].update(alpha="x"),
        lambda header, tensors: header.update(ratio=None),
        lambda header, tensors: header["ratio"].update(odds=-1.0),
        lambda header, tensors: header["ratio"].update(clip=0.7),
        lambda header, tensors: tensors.pop("calibration weights"),
        lambda header, tensors: tensors["calibration weights"].neg_(),
        lambda header, tensors: tensors["ratio.flagged"].fill_(9),
        lambda header, tensors: tensors["ratio.scale"].fill_(0),
        lambda header, tensors: tensors.update({"ratio.mean": tensors["ratio.mean"][:1]}),
        lambda header, tensors: tensors.update({"ratio.coefficients": tensors["ratio.coefficients"].float()}),
        lambda header, tensors: tensors["ratio.intercept"].fill_(float("nan")),
    ],
)
def test_a_changed_file_is_one_sentence(estimated, tmp_path, change):
    path = tmp_path / "s.safetensors"
    estimated.save(path)
    header, tensors = io.read(path)
    change(header, tensors)
    io.write(path, header, tensors)
    with pytest.raises(StorageError, match=r"does not contain a guard that pushforward wrote: \S"):
        ShiftedGuard.load(path)
    with pytest.raises(StorageError, match=r"ShiftedGuard\.load"):
        pf.Guard.load(path)


def test_weights_are_estimated_from_the_features_of_a_network() -> None:
    torch.manual_seed(0)
    net = torch.nn.Linear(2, 3)
    x, later = torch.randn(400, 2), torch.randn(100, 2) + torch.tensor([1.0, 0.0])
    guard = pf.Guard(alpha=0.05, effort="fast", random_state=0, embed=net).fit(x)
    shifted = ShiftedGuard(guard, torch.randn(400, 2), shifted=later)
    assert shifted.predict(torch.tensor([[0.0, 50.0]])) == [-1]


def test_a_shift_of_categories_is_learned(tmp_path) -> None:
    """One site sends four times as many rows as before; categories have no order."""
    sites = np.array(list("ABCDEFGH"))
    before, after = np.full(8, 1 / 8), np.where(sites == "D", 0.5, 0.5 / 7)

    def draw(n: int, seed: int, shares: np.ndarray) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        site, a = rng.choice(8, n, p=shares), rng.normal(size=n)
        return {"site": sites[site], "a": a, "b": np.where(site == 3, rng.normal(size=n), a + 0.1 * rng.normal(size=n))}

    guard = pf.Guard(0.05, effort="fast", random_state=0).fit(draw(1000, 0, before))
    shifted = ShiftedGuard(guard, draw(4000, 1, before), shifted=draw(4000, 2, after))
    one = {"site": sites, "a": np.full(8, 0.5), "b": np.full(8, 0.5)}
    np.testing.assert_allclose(shifted._estimate(one), after / before, rtol=0.25)
    rows = draw(4000, 3, after)
    assert (guard.predict(rows) < 0).mean() > 0.085
    assert (shifted.predict(rows) < 0).mean() < 0.07
    shifted.save(tmp_path / "shifted.safetensors")
    loaded = ShiftedGuard.load(tmp_path / "shifted.safetensors")
    np.testing.assert_array_equal(loaded.p_value(rows), shifted.p_value(rows))
    assert np.isfinite(loaded._estimate({**one, "site": np.array(["?"] * 8)})).all()


@pytest.mark.parametrize("cell", [np.inf, -np.inf])
def test_infinite_cells_have_no_ratio(cell: float) -> None:
    x = np.random.default_rng(0).normal(size=(20, 2))
    x[3, 1] = cell
    with pytest.raises(InputError, match="the reference rows have infinite numbers, the first in row 3"):
        ClassifierRatio().fit(x, x)
    with pytest.raises(InputError, match="have no columns"):
        ClassifierRatio().fit(x[:, :0], x[:, :0])


def test_a_ratio_of_rows_with_an_infinite_cell_is_bounded() -> None:
    ratio = ClassifierRatio().fit(rows(200, 0)[:, :1], rows(200, 1, shift=1.0)[:, :1])
    assert np.isfinite(ratio(np.array([[np.inf], [-np.inf]]))).all()
    with pytest.raises(InputError, match=r"got shape \(2,\)"):
        ratio(np.array([np.inf, 0.0]))
