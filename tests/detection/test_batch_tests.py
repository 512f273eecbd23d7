import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from pushforward.detection import BatchTest, ConformalCalibrator, MMDTest, ProjectionKSTest, TypicalityTest
from pushforward.detection.two_sample import median_distance, mmd, mmd_squared, projections
from pushforward.errors import ConfigError, InputError

MAKE = {
    "typicality": lambda rows, **more: TypicalityTest(rows[:, 0], **more),
    "ks, reference": lambda rows, **more: ProjectionKSTest(rows, directions=8, **more),
    "ks, normal": lambda rows, **more: ProjectionKSTest(rows, against="normal", directions=8, **more),
    "mmd": MMDTest,
    "mmd, fixed": lambda rows, **more: MMDTest(rows, bandwidth=1.5, **more),
}


def batch_of(kind, rows):
    return rows[:, 0] if kind == "typicality" else rows


def p_value(kind, reference, batch, **more):
    return MAKE[kind](reference, **more).p_value(batch_of(kind, batch))


def subset_statistic(kind, test, pool, member):
    """The statistic of one subset by its plain definition."""
    inside, rest = pool[member], pool[~member]
    if kind == "typicality":
        return abs(inside[:, 0].mean() - pool[:, 0].mean())
    if kind.startswith("ks"):
        distances = []
        for w in test.weights.T:
            against = "norm" if kind == "ks, normal" else None
            if against:
                distances.append(stats.kstest(inside @ w, "norm").statistic)
            else:  # to the pool, of which the subset is a part: a fixed multiple of the distance to the rest
                distance = stats.ks_2samp(inside @ w, rest @ w).statistic
                distances.append(distance * len(rest) / len(pool))
        return np.mean(distances)
    s = test.bandwidth or median_distance(pool)

    def k(a, b):
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / (2 * s * s)).mean()

    return k(inside, inside) + k(rest, rest) - 2 * k(inside, rest)


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("n", [1, 3, 8])
@pytest.mark.parametrize("ties", [False, True])
def test_statistics_by_their_definition(kind, n, ties, monkeypatch):
    """In strips of a few rows too."""
    monkeypatch.setattr(mmd, "_CHUNK", 40)
    monkeypatch.setattr(projections, "_CHUNK", 30)
    rng = np.random.default_rng(n)
    pool = rng.normal(size=(20, 3))
    if ties:
        pool = pool.round()
    test = MAKE[kind](pool[n:])
    subsets = np.stack([rng.choice(20, n, replace=False) for _ in range(6)]) if n > 1 else np.arange(20)[:, None]
    found = test._statistics(batch_of(kind, pool).reshape(20, -1), subsets)
    for value, places in zip(found, subsets, strict=True):
        member = np.isin(np.arange(20), places)
        assert value == pytest.approx(subset_statistic(kind, test, pool, member), abs=1e-12)


@pytest.mark.parametrize("kind", MAKE)
def test_all_subsets_of_a_small_pool_are_exact(kind, monkeypatch):
    """With every subset of 2 of 6, P(p <= a) is exactly floor(15 a)/15 or less, over all splits of the pool."""
    pool = np.random.default_rng(1).normal(size=(6, 2))
    pairs = list(itertools.combinations(range(6), 2))
    p = []
    for own in pairs:
        order = [*own, *sorted(set(range(6)) - set(own))]
        again = [[order.index(i) for i in pair] for pair in pairs if pair != own]
        monkeypatch.setattr(BatchTest, "_subsets", lambda *_, again=again: np.array([[0, 1], *again]))
        p.append(p_value(kind, pool[order[2:]], pool[order[:2]]))
    if kind != "ks, reference":  # distances of ranks tie in so small a pool; all others occur once each
        assert sorted(p) == pytest.approx(np.arange(1, 16) / 15)
    for k in range(1, 16):
        assert np.sum(np.array(p) <= k / 15 + 1e-9) <= k


@pytest.mark.parametrize("kind", MAKE)
def test_a_single_row_gets_a_conformal_p_value(kind):
    rng = np.random.default_rng(2)
    reference, row = rng.normal(size=(30, 2)), rng.normal(size=(1, 2))
    test = MAKE[kind](reference)
    pool = np.concatenate([row, reference])
    scores = [subset_statistic(kind, test, pool, np.arange(31) == i) for i in range(31)]
    assert test.p_value(batch_of(kind, row)) == ConformalCalibrator(scores[1:]).p_value(scores[:1])[0]


@pytest.mark.parametrize("kind", MAKE)
def test_size(kind):
    check_size(kind, runs=250, permutations=19)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MAKE)
def test_size_of_many(kind):
    check_size(kind, runs=2000, permutations=99)


def check_size(kind, runs, permutations):
    """Rejections at 5%, each run with a reference of its own, within the binomial's range on both sides; and at other sizes."""
    rng = np.random.default_rng(3)
    p = np.array(
        [
            p_value(kind, rng.normal(size=(40, 3)), rng.normal(size=(n, 3)), permutations=permutations, seed=k)
            for k, n in zip(range(runs), itertools.cycle((2, 5, 20)))
        ]
    )
    assert p.min() >= 1 / (1 + permutations)
    for alpha in (0.05, 0.5):
        assert (p <= alpha + 1e-9).sum() <= stats.binom.isf(1e-4, runs, alpha)
    # No ties: the p-values are uniform on 1/(P + 1), ..., 1, and the test is not timid either.
    assert (p <= 0.05 + 1e-9).sum() >= stats.binom.ppf(1e-4, runs, 0.05)


@pytest.mark.parametrize("kind", MAKE)
def test_the_level_is_kept_with_ties(kind):
    rng = np.random.default_rng(4)
    rejected = sum(
        p_value(kind, rng.integers(0, 2, (20, 2)), rng.integers(0, 2, (4, 2)), permutations=19, seed=k) <= 0.1 + 1e-9
        for k in range(200)
    )
    assert rejected <= stats.binom.isf(1e-4, 200, 0.1)


def power(kind, n, shift, runs=40):
    rng = np.random.default_rng(5)
    rejected = 0
    for k in range(runs):
        reference, batch = rng.normal(size=(100, 3)), rng.normal(size=(n, 3)) + shift
        rejected += p_value(kind, reference, batch, permutations=39, seed=k) <= 0.05 + 1e-9
    return rejected / runs


@pytest.mark.parametrize("kind", MAKE)
def test_power_grows_with_the_batch(kind):
    rates = [power(kind, n, 0.8) for n in (1, 5, 30)]
    assert rates[0] < rates[1] + 0.1
    assert rates[1] < rates[2]
    assert power(kind, 30, 0.8, runs=200) > 0.9  # with 40 runs the standard error is 4 %
    assert power(kind, 30, 0.0) < 0.25


def test_the_power_of_typicality_is_that_of_a_mean():
    """Mean of n normals shifted by d against N normals: two-sided z-test with spread sqrt(1/n + 1/N)."""
    n, reference, shift = 10, 200, 0.8
    rng = np.random.default_rng(6)
    rejected = sum(
        TypicalityTest(rng.normal(size=reference), permutations=199, seed=k).p_value(rng.normal(size=n) + shift) <= 0.05
        for k in range(400)
    )
    z = shift / math.sqrt(1 / n + 1 / reference)
    expected = stats.norm.sf(1.96 - z) + stats.norm.cdf(-1.96 - z)
    assert rejected / 400 == pytest.approx(expected, abs=0.08)  # three standard errors are 0.07


def test_typicality_does_not_detect_an_equal_mean():
    """A batch whose mean likelihood matches passes, which another test sees."""
    rng = np.random.default_rng(7)
    reference, batch = rng.normal(size=(1000, 1)), 3 * rng.normal(size=(60, 1))
    batch -= batch.mean() - reference.mean()
    assert TypicalityTest(reference[:, 0]).p_value(batch) > 0.5
    assert MMDTest(reference).p_value(batch) == 1 / 200


def test_typicality_of_the_paper():
    rng = np.random.default_rng(8)
    reference = rng.normal(size=2000) + 7
    test = TypicalityTest(reference, permutations=4000)
    assert test.entropy == pytest.approx(7, abs=0.1)
    for n in (1, 4, 25):  # |N(0, 1/n)| has its 95% quantile at 1.96/sqrt(n)
        assert test.threshold(n, 0.05) == pytest.approx(1.96 / math.sqrt(n), rel=0.1)
    batch = rng.normal(size=25) + 7.5
    assert test.statistic(batch) == pytest.approx(abs(batch.mean() - reference.mean()))
    assert (test.bootstrap_p_value(batch) <= 0.05) == (test.statistic(batch) >= test.threshold(25, 0.05))
    assert test.bootstrap_p_value(np.full(5, 99.0)) == 1 / 4001


def test_mmd_in_torch_is_the_same_and_has_gradients():
    rng = np.random.default_rng(9)
    pool = rng.normal(size=(30, 4))
    test = MMDTest(pool[10:], bandwidth=2.0)
    x = torch.tensor(pool[:10], requires_grad=True)
    value = mmd_squared(x, torch.tensor(pool[10:]), 2.0)
    assert value.item() == pytest.approx(test._statistics(pool, np.arange(10)[None])[0], abs=1e-12)
    assert torch.autograd.gradcheck(lambda rows: mmd_squared(rows, torch.tensor(pool[10:]), 2.0), x)
    assert mmd_squared(x, x, 1.0).item() == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(InputError, match=r"give torch\.as_tensor"):
        mmd_squared(pool, x, 1.0)  # pyright: ignore[reportArgumentType]
    for other in (x[:, :2], x[0], x[:0]):
        with pytest.raises(InputError, match=r"shapes \(n, d\) and \(m, d\)"):
            mmd_squared(x, other, 1.0)
    with pytest.raises(ConfigError, match="bandwidth"):
        mmd_squared(x, x, 0.0)


@pytest.mark.parametrize("ties", [False, True])
def test_single_rows_at_once_equal_a_loop(ties, monkeypatch):
    rng = np.random.default_rng(10)
    reference, rows = rng.normal(size=(50, 3)), 2 * rng.normal(size=(12, 3))
    if ties:
        reference, rows = reference.round(), rows.round()
    for bandwidth in (None, 1.3):
        test = MMDTest(reference, bandwidth=bandwidth)
        monkeypatch.setattr(mmd, "_CHUNK", 170)
        found = test.single_p_values(rows)
        assert found.tolist() == [test.p_value(row[None]) for row in rows]


def test_far_from_zero_nothing_cancels():
    rng = np.random.default_rng(13)
    reference, batch = rng.normal(size=(40, 2)), rng.normal(size=(6, 2))
    near = MMDTest(reference, bandwidth=1.0)
    far = MMDTest(reference + 2.0**26, bandwidth=1.0)  # squares are 2^52, and their differences would be off by 1
    pool = np.concatenate([batch, reference])
    places = np.arange(6)[None]
    assert far._statistics(pool + 2.0**26, places) == pytest.approx(near._statistics(pool, places), abs=1e-6)
    assert np.array_equal(far.single_p_values(batch + 2.0**26), near.single_p_values(batch))


def test_features_beyond_all_scales_are_refused_and_get_no_p_value():
    with pytest.raises(InputError, match="too large"), np.errstate(all="ignore"):
        MMDTest(np.full((5, 2), 1e200)).p_value([[-1e200, 1e200], [1.0, 2.0]])
    with pytest.raises(InputError, match="too large"), np.errstate(all="ignore"):
        MMDTest([0.0, 1.0, 1e200], bandwidth=1.0).single_p_values([0.5])


def test_the_median_distance():
    assert median_distance(np.array([[0.0], [1.0], [10.0]])) == 9.0
    assert median_distance(np.zeros((5, 2))) == 1.0
    assert median_distance(np.zeros((1, 2))) == 1.0
    rng = np.random.default_rng(11)  # the distance of two normals in d dimensions is near sqrt(2 d)
    assert median_distance(rng.normal(size=(5000, 100))) == pytest.approx(math.sqrt(200), rel=0.02)


@pytest.mark.parametrize("kind", MAKE)
def test_the_same_batch_gets_the_same_answer(kind):
    rng = np.random.default_rng(12)
    reference, batch = rng.normal(size=(40, 3)), rng.normal(size=(7, 3))
    test = MAKE[kind](reference, seed=1)
    first = test.p_value(batch_of(kind, batch))
    test.p_value(batch_of(kind, batch + 1))  # another one between changes nothing
    assert test.p_value(batch_of(kind, batch)) == first == p_value(kind, reference, batch, seed=1)
    assert test.p_value(torch.tensor(batch_of(kind, batch))) == first


def test_refusals():
    rows = np.zeros((5, 2))
    for bad in (
        None,
        "a",
        [],
        np.zeros((2, 2, 2)),
        [[1.0, np.nan]],
        [[np.inf, 0.0]],
        [[True, False]],
        [[1.0], [1.0, 2.0]],
    ):
        with pytest.raises(InputError, match="the reference rows"):
            MMDTest(bad)
        with pytest.raises(InputError, match="the batch"):
            MMDTest(rows).p_value(bad)
    with pytest.raises(InputError, match="must have 2 features"):
        MMDTest(rows).p_value(np.zeros((3, 4)))
    with pytest.raises(InputError, match="one number for each row"):
        TypicalityTest(rows)
    for bad in (0, 1.5, True):
        with pytest.raises(ConfigError, match="permutations"):
            MMDTest(rows, permutations=bad)
        with pytest.raises(ConfigError, match="directions"):
            ProjectionKSTest(rows, directions=bad)
    for bad in (-1, 1.5, None):
        with pytest.raises(ConfigError, match="seed"):
            MMDTest(rows, seed=bad)
    for bad in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="bandwidth"):
            MMDTest(rows, bandwidth=bad)
    with pytest.raises(ConfigError, match="against"):
        ProjectionKSTest(rows, against="uniform")
    with pytest.raises(ConfigError, match="alpha"):
        TypicalityTest(rows[:, 0]).threshold(5, 0.0)
    with pytest.raises(ConfigError, match="size"):
        TypicalityTest(rows[:, 0]).threshold(0)


def test_distances_do_not_depend_on_the_origin() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)), 0.5 + rng.normal(size=(50, 3))
    near = mmd_squared(torch.tensor(x), torch.tensor(y), 1.5).item()
    for offset in (1e4, 1e8):
        assert mmd_squared(torch.tensor(x + offset), torch.tensor(y + offset), 1.5).item() == pytest.approx(
            near, rel=1e-6
        )
        assert median_distance(x + offset) == pytest.approx(median_distance(x), rel=1e-6)
    moved = mmd_squared(torch.tensor(x + 4096).float(), torch.tensor(y + 4096).float(), 1.5).item()
    assert moved == pytest.approx(near, rel=0.01)  # the rows themselves are rounded
    whole = torch.arange(6).reshape(3, 2)
    assert mmd_squared(whole, whole + 1, 1.0).item() == pytest.approx(
        mmd_squared(whole.float(), whole + 1.0, 1.0).item()
    )
    assert median_distance(np.zeros((0, 2))) == 1.0
    same = torch.tensor(x).float()
    assert mmd_squared(same, same[torch.randperm(60, generator=torch.Generator().manual_seed(0))], 1.5).item() >= 0


def test_equal_pairs_do_not_decide_the_scale() -> None:
    """In a column of many zeros most pairs are equal; the test must not depend on the unit."""
    rng = np.random.default_rng(0)
    reference = np.where(rng.random((1000, 1)) < 0.75, 0.0, rng.exponential(size=(1000, 1)))
    batch = np.where(rng.random((1000, 1)) < 0.75, 0.0, 3 * rng.exponential(size=(1000, 1)))
    found = [MMDTest(unit * reference).p_value(unit * batch) for unit in (1.0, 1e5, 1e-9)]
    assert max(found) <= 0.01
    assert median_distance(np.array([[0.0]] * 9 + [[2.0]])) == 2.0


@pytest.mark.parametrize("kind", MAKE)
def test_the_order_of_a_batch_does_not_matter(kind) -> None:
    rng = np.random.default_rng(3)
    reference, batch = rng.normal(size=(60, 3)), rng.normal(0.3, 1, size=(25, 3))
    test = MAKE[kind](reference)
    assert len({test.p_value(batch_of(kind, rng.permutation(batch))) for _ in range(10)}) == 1


@pytest.mark.parametrize("kind", MAKE)
def test_the_place_in_a_large_pool_does_not_matter(kind) -> None:
    """If the statistic knew which rows come first, those of the batch, it would not be exchangeable."""
    rng = np.random.default_rng(4)
    pool, order = rng.normal(size=(1200, 1 if kind == "typicality" else 2)), rng.permutation(1200)
    subsets = np.stack((np.arange(20), np.arange(500, 520)))
    test = MAKE[kind](pool)
    moved = test._statistics(pool[order], np.argsort(order)[subsets])
    assert moved == pytest.approx(test._statistics(pool, subsets), rel=1e-9)


def test_equal_rows_of_several_columns_are_equal() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rows = np.exp(rng.normal(3, 1, (400, 3))) * (rng.random((400, 1)) < 0.15)
        assert median_distance(rows) > 1


@pytest.mark.parametrize("bad", [np.array([[0.0, np.nan], [1.0, 2.0]]), np.array([["a", "b"], ["c", "d"]])])
def test_distances_of_bad_rows_are_refused(bad) -> None:
    with pytest.raises(InputError, match="the rows"):
        median_distance(bad)
    with pytest.raises(InputError, match="must be finite"):
        mmd_squared(torch.tensor([[np.nan, 0.0]]), torch.zeros(2, 2), 1.0)
