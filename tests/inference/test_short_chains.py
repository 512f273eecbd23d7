"""Short chains of a target: what they find that importance weights cannot see."""

from __future__ import annotations

import math
import warnings
from types import SimpleNamespace

import pytest
import torch

import pushforward as pf
from pushforward import inference
from pushforward.errors import PushforwardWarning
from pushforward.inference.fit_to_target import _Search, _without_outliers, measure_fit
from pushforward.inference.short_chains import follow_target, missing_part
from pushforward.inference.targets import Target
from pushforward.transforms import Chain, Step, Transform

QUIET = {"progress": "silent"}


def bent(v):
    """x ~ N(0, 1), y ~ N(x^2, 0.3^2), normalized."""
    across = (v[:, 1] - v[:, 0].square()) / 0.3
    return -0.5 * v[:, 0].square() - 0.5 * across.square() - math.log(2 * math.pi * 0.3)


class BentInside(Transform):
    """As `bent` where x^2 is below a limit, and far away beyond: exact inside, and without mass at the rest of the target."""

    def __init__(self, limit: float) -> None:
        super().__init__(2)
        self.limit = limit

    def bend(self, first):
        return first.square() + 100.0 * (first.square() > self.limit)

    def encode(self, x, context=None, *, noise=None):
        rest = (x[:, 1] - self.bend(x[:, 0])) / 0.3
        return Step(torch.stack((x[:, 0], rest), 1), torch.full_like(rest, -math.log(0.3)))

    def decode(self, z, context=None, *, noise=None):
        return torch.stack((z[:, 0], self.bend(z[:, 0]) + 0.3 * z[:, 1]), 1)


def bent_flow(limit: float) -> pf.models.Flow:
    return pf.models.Flow(Chain(BentInside(limit)), pf.distributions.Normal(2)).eval()


def measured(flow, log_density=bent):
    """The diagnostics of a flow as it is."""
    training = SimpleNamespace(seconds=0.0, best_step=1)
    return measure_fit(flow, Target(log_density, 2), training, [], draws=10_000, restarts=0, spread=2.0, seed=0)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("limit", [2.25, 4.0])
def test_a_tail_that_the_weights_do_not_show_is_found(limit):
    """The weights are those of draws that are right, so k-hat is small; the mass beyond the limit is 13.4 or 4.6 %."""
    with pytest.warns(PushforwardWarning, match=r"% of short chains of the target from its draws end where") as said:
        fit = measured(bent_flow(limit))
    assert len(said) == 1
    lacking = math.erfc(math.sqrt(limit / 2))
    assert fit.k_hat < 0.7
    assert fit.log_evidence < -0.5 * lacking
    assert 0.3 * lacking < fit.missing < lacking + 4 * math.sqrt(lacking / 256)
    assert not fit.reliable
    assert "short chains leave it" in repr(fit)


def test_a_flow_that_lacks_nothing_has_nothing_missing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = measured(bent_flow(1e6))
    assert fit.missing == 0.0
    assert fit.reliable


def test_chains_leave_the_target_as_it_is():
    start = torch.randn(256, 3, dtype=torch.float64, generator=generator()) * torch.tensor([1e-3, 1.0, 1e4])
    width = torch.tensor([1e-3, 1.0, 1e4], dtype=torch.float64)
    target = Target(lambda v: -0.5 * (v / width).square().sum(-1), 3)
    path = follow_target(target, start, lambda x: torch.ones(len(x), dtype=torch.bool), generator())
    assert path.shape == (16, 256, 3)
    z = path[-1] / width
    assert bool((z.mean(0).abs() < 4 / 16).all())
    assert bool((z.std(0) - 1).abs().max() < 4 / math.sqrt(2 * 256))
    assert not torch.equal(path[-1], path[0])


def test_a_tried_point_may_fail_and_counts_nowhere():
    def fragile(v):
        if bool((v[:, 0] > 2).any()):
            raise ValueError("no values above 2")
        return torch.where(v[:, 0] < -2, math.nan, -0.5 * v.square().sum(-1))

    target = Target(fragile, 2)
    points = 0.5 * torch.randn(256, 2, dtype=torch.float64, generator=generator())

    def log_prob(x):
        return -0.5 * x.square().sum(-1) - math.log(2 * math.pi)

    share, path = missing_part(target, points, log_prob, math.log(2 * math.pi), generator())
    assert share == 0.0
    assert bool((path[:, :, 0].abs() <= 2).all())
    assert (target.nan_count, target.error_count, target.evaluations) == (0, 0, 0)
    with pytest.raises(ValueError, match="no values above 2"):
        target(torch.full((9, 2), 3.0))


def test_chains_end_with_their_time_and_without_points_inside():
    target = Target(lambda v: -0.5 * v.square().sum(-1), 2)
    points = torch.randn(50, 2, dtype=torch.float64, generator=generator())
    path = follow_target(target, points, lambda x: torch.ones(len(x), dtype=torch.bool), generator(), seconds=0.0)
    assert len(path) <= 2
    outside = Target(lambda v: torch.where(v[:, 0] > 100, -v[:, 0], -math.inf), 2)
    share, path = missing_part(outside, points, lambda x: x.sum(1), 0.0, generator())
    assert share == 0.0
    assert path.shape[1] == 0


def test_outliers_set_no_scale_and_most_rows_stay():
    rows = torch.randn(400, 2, dtype=torch.float64, generator=generator())
    far = torch.cat((rows, torch.tensor([[1e6, 0.0]], dtype=torch.float64)))
    assert torch.equal(_without_outliers(far), rows)
    number = torch.arange(400)
    rarely_moved = torch.stack([(number // 96 == k).double() for k in range(3)], 1)  # no interquartile range
    assert torch.equal(_without_outliers(rarely_moved), rarely_moved)


def test_several_modes_whose_normal_approximations_are_outside_the_support():
    """No chain can start there, so the flow starts at the approximation as before."""
    target = Target(lambda v: torch.where(v[:, 0] > 1, -v[:, 0], -math.inf), 2)
    search = _Search(target, None, 8, 6.0, 0, torch.device("cpu"), None)
    rows = torch.zeros(300, 2, dtype=torch.float64)
    kept = search._follow(rows, lambda u: -u.square().sum(1), several=True)
    assert kept is rows
    assert search._moved is False


def two_modes(v):
    """Half N((3, 3), 1) and half N((-3, -3), 1), normalized. Farther modes are lost by some seeds."""
    parts = [-0.5 * (v - center).square().sum(-1) - math.log(4 * math.pi) for center in (3.0, -3.0)]
    return torch.logaddexp(*parts)


@pytest.mark.filterwarnings("ignore:k-hat is")  # after 150 steps, of some seeds and processors
def test_both_modes_that_the_start_finds_are_fitted():
    fit = inference.fit_to_target(2, two_modes, objective="reverse-kl", max_steps=150, seed=0, **QUIET)
    assert fit.log_evidence == pytest.approx(0.0, abs=0.05)
    assert sorted(round(mode.mass, 1) for mode in fit.modes) == [0.5, 0.5]
    assert fit.dropped_modes == []


def test_a_run_that_starts_with_the_points_of_chains_goes_on(tmp_path):
    """It ends at step 10 of the 16 that fit these points."""

    def run(**more):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PushforwardWarning)  # so short a run fits badly
            return inference.fit_to_target(
                2,
                bent,
                max_steps=80,
                evaluate_every=10,
                checkpoint_every=5,
                draws=200,
                batch_size=64,
                seed=0,
                **QUIET,
                **more,
            )

    def stop_at_10(event):
        if event.step == 10:
            raise StopIteration

    with pytest.raises(StopIteration):
        run(checkpoint=tmp_path / "run", callback=stop_at_10)
    assert torch.equal(run(checkpoint=tmp_path / "run").draws, run().draws)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_long_banana_is_covered(seed):
    """Twice as wide as `bent`: from the curvature at the mode a flow reached two thirds of its mass (log Z -0.36 and -0.50)."""

    def banana(v):
        across = (v[:, 1] - v[:, 0].square()) / 0.316
        return -0.5 * (v[:, 0] / 2).square() - 0.5 * across.square() - math.log(2 * math.pi * 2 * 0.316)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PushforwardWarning)  # k-hat may be a little large
        fit = inference.fit_to_target(2, banana, seed=seed, **QUIET)
    assert abs(fit.log_evidence) < 0.08
