"""`Guard.compile`: the same p-values and alarms for few rows, in less time."""

import copy
import pickle
import warnings

import numpy as np
import pytest

import pushforward as pf
from pushforward.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore::pushforward.errors.PushforwardWarning")  # where no kernels were built


def rows(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(n, 4))
    table[:, 3] = np.round(table[:, 3])  # ties
    table[rng.random(n) < 0.05, 2] = np.nan
    return table


@pytest.fixture(scope="module")
def guard() -> pf.Guard:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"density": True, "n_estimators": 2, "max_steps": 20}
        return pf.Guard(alpha=0.05, random_state=0, **options).fit(rows(600, 0))


def test_p_values_and_alarms_are_the_same(guard):
    new = np.random.default_rng(1).normal(size=(40, 4)) * 2
    new[:, 3], new[0, 0], new[1, 1] = np.round(new[:, 3]), np.inf, 1e20
    fast = copy.deepcopy(guard).compile()
    for x in (rows(600, 0)[:80], new, new[:1], new[5:6]):
        np.testing.assert_array_equal(fast.p_value(x), guard.p_value(x))
        np.testing.assert_array_equal(fast.predict(x), guard.predict(x))
        np.testing.assert_allclose(fast.anomaly_score(x), guard.anomaly_score(x), rtol=1e-9)
        np.testing.assert_allclose(fast.log_prob(x), guard.log_prob(x), rtol=1e-5, atol=1e-4)
    assert fast.anomaly_score(rows(1, 0)).shape == (1,)


def test_only_rows_near_a_calibration_score_are_scored_in_a_full_batch(monkeypatch):
    table = np.random.default_rng(0).normal(size=(400, 2))
    guard = pf.Guard(alpha=0.05, random_state=0).fit(table).compile()
    in_full = []
    pool = type(guard.score_.pool)
    score = pool.score

    def watched(self, rows, **options):
        if not options:
            in_full.append(len(rows))
        return score(self, rows, **options)

    monkeypatch.setattr(pool, "score", watched)
    guard.anomaly_score(np.random.default_rng(1).normal(size=(200, 2)))
    assert sum(in_full) < 20
    in_full.clear()
    guard.anomaly_score(table)  # the calibration rows are among them
    assert sum(in_full) >= guard.calibrator_.n


def test_it_compiles_in_place_and_returns_the_guard(guard):
    other = copy.deepcopy(guard)
    assert other.compile() is other
    assert other.score_._compiled
    assert not guard.score_._compiled


@pytest.mark.parametrize(
    "move", [copy.deepcopy, lambda guard: pickle.loads(pickle.dumps(guard))], ids=["copy", "pickle"]
)
def test_a_compiled_guard_can_be_copied_and_sent_to_another_process(guard, move):
    fast, x = copy.deepcopy(guard).compile(), rows(5, 3)
    np.testing.assert_array_equal(move(fast).anomaly_score(x), fast.anomaly_score(x))


def test_fit_and_files_do_not_keep_the_compiled_scorer(guard, tmp_path):
    fast = copy.deepcopy(guard).compile()
    fast.save(tmp_path / "fast.safetensors")
    guard.save(tmp_path / "guard.safetensors")
    assert (tmp_path / "fast.safetensors").read_bytes() == (tmp_path / "guard.safetensors").read_bytes()
    again = pf.Guard.load(tmp_path / "fast.safetensors")
    np.testing.assert_array_equal(again.anomaly_score(rows(9, 2)), guard.anomaly_score(rows(9, 2)))
    assert fast.fit(rows(600, 0)).score_._compiled is False


def test_only_fitted_guards_of_tables_compile():
    with pytest.raises(pf.errors.PushforwardError, match="not fitted"):
        pf.Guard().compile()
    images = np.random.default_rng(0).integers(0, 255, size=(200, 4, 4)).astype(np.uint8)
    with pytest.raises(ConfigError, match="images"):
        pf.Guard(alpha=0.1, max_steps=3, random_state=0).fit(images).compile()
