"""Draws with a wide part: the density of the mixture, bounded weights, and tails."""

from __future__ import annotations

import math

import pytest
import torch
from torch import distributions as td

from pushforward import inference, models
from pushforward.distributions import Normal, Uniform
from pushforward.inference import reverse_kl
from pushforward.inference.proposal import weighted_draws, widen
from pushforward.transforms import Affine, Chain

QUIET = {"progress": "silent"}


def normal(x):
    return -0.5 * x.square().sum(-1)


def plain(features=2):
    """A standard normal distribution as a flow."""
    return models.Flow(Chain(Affine(features)), Normal(features)).double().eval()


def student(x):
    """Student-t with 3 degrees of freedom: the weights p / q of a normal q have infinite variance."""
    return td.StudentT(torch.full((), 3.0, dtype=x.dtype)).log_prob(x).sum(-1)


def test_log_ratios_are_those_of_the_mixture():
    target = inference.Target(student, 2)
    found = weighted_draws(plain(), target, 1000, torch.Generator().manual_seed(0))
    q = td.Independent(td.Normal(torch.zeros(2).double(), 1.0), 1).log_prob(found.points)
    squares = found.points.square().sum(1) / 5
    wide = math.lgamma(3.5) - math.lgamma(2.5) - math.log(5 * math.pi) - 3.5 * torch.log1p(squares)
    mixture = torch.logaddexp(q + math.log(0.9), wide + math.log(0.1))
    torch.testing.assert_close(found.log_ratios, student(found.points) - mixture)
    torch.testing.assert_close(found.own_log_ratios, (student(found.points) - q)[:900])


def test_the_wide_part_covers_tails_and_the_evidence_stays_right():
    target = inference.Target(student, 2)
    found = weighted_draws(plain(), target, 10_000, torch.Generator().manual_seed(0))
    weights = inference.ImportanceWeights.of(found.log_ratios)
    own = inference.ImportanceWeights.of(found.own_log_ratios)
    assert weights.k_hat < 0.7 < own.k_hat
    assert weights.log_evidence == pytest.approx(0.0, abs=5 * weights.log_evidence_error)


def test_a_bounded_base_has_no_wide_part():
    flow = models.Flow(Chain(Affine(2)), Uniform(2, 0.0, 1.0)).double().eval()
    target = inference.Target(lambda x: torch.zeros_like(x[:, 0]), 2)
    found = weighted_draws(flow, target, 100, torch.Generator().manual_seed(0))
    assert found.own == 100
    assert float(found.log_ratios.abs().max()) == 0


def test_wide_noise_stretches_a_tenth_of_the_rows():
    z = torch.randn(10_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = widen(z, torch.Generator().manual_seed(1))
    assert torch.equal(found[1000:], z[1000:])
    assert float(found[:1000].square().mean()) == pytest.approx(
        5 / 3, rel=0.2
    )  # the variance of Student-t, 5 / (5 - 2)


def test_training_ends_when_the_weights_are_nearly_equal():
    fit = inference.fit_to_target(2, lambda x: -0.5 * x.square().sum(-1), max_steps=300, progress="silent")
    assert fit.training.stopped == "converged"
    assert fit.training.steps == 0  # the Laplace approximation is exact
    assert fit.ess > 9_800


def test_other_draws_confirm_the_end_of_training(monkeypatch):
    """Ten of 36,000 draws with a weight of e^6 are what fixed draws miss by chance; here they are at every evaluation."""
    seen: dict[int, list[int]] = {}

    def draws(flow, target, count, generator):
        seen.setdefault(count, []).append(generator.initial_seed())
        found = weighted_draws(flow, target, count, generator)
        if count == 40_000:
            found.own_log_ratios[:10] += 6
        return found

    monkeypatch.setattr(reverse_kl, "weighted_draws", draws)
    fit = inference.fit_to_target(2, normal, max_steps=20, evaluate_every=10, learning_rate=1e-6, **QUIET)
    assert fit.training.stopped == "max_steps"
    assert len(seen[10_000]) == len(seen[40_000]) == 3  # steps 0, 10, 20
    assert len(set(seen[10_000])) == 1
    assert len(set(seen[40_000])) == 3


def test_the_weights_that_ended_training_are_kept(monkeypatch):
    """A bound that was larger before, by the chance of its fixed draws, does not bring earlier weights back."""
    bounds = iter([3.0, 2.0, 1.0])
    monkeypatch.setattr(reverse_kl, "lower_bound", lambda ratios: next(bounds))
    monkeypatch.setattr(reverse_kl.TargetRun, "_converged", lambda run, ratios: run.step == 20)
    fit = inference.fit_to_target(2, normal, max_steps=300, evaluate_every=10, learning_rate=1e-6, **QUIET)
    assert fit.training.stopped == "converged"
    assert fit.training.steps == fit.training.best_step == 20
    assert fit.training.best_validation == 1.0


@pytest.mark.parametrize(("above", "stopped"), [(0.5, "max_steps"), (0.01, "converged")])
def test_a_flow_with_less_evidence_than_an_earlier_bound_has_not_converged(monkeypatch, above, stopped):
    """A bound is at most log Z, so nearly equal weights whose evidence is less show that the flow has lost a part of the target."""
    bounds = iter([math.log(2 * math.pi) + above, 1.0, 1.0])
    monkeypatch.setattr(reverse_kl, "lower_bound", lambda ratios: next(bounds))
    monkeypatch.setattr(reverse_kl.TargetRun, "_equal", lambda run, *_, **options: run.step > 0)
    fit = inference.fit_to_target(2, normal, max_steps=20, evaluate_every=10, learning_rate=1e-6, **QUIET)
    assert fit.training.stopped == stopped
    assert fit.training.best_step == (0 if stopped == "max_steps" else 10)


@pytest.mark.filterwarnings("ignore::pushforward.errors.PushforwardWarning")  # a few steps only
@pytest.mark.parametrize(("far", "objective"), [(0.0, "reverse-kl"), (4.0, "fab")])
def test_the_objective_follows_from_the_number_of_modes(far, objective):
    def target(x):
        parts = torch.stack([-0.5 * (x - mean).square().sum(-1) for mean in (far, -far)])
        return parts.logsumexp(0)

    assert inference.fit_to_target(2, target, max_steps=2, **QUIET).objective == objective


@pytest.mark.filterwarnings("ignore::pushforward.errors.PushforwardWarning")
@pytest.mark.parametrize(("mass", "objective"), [(0.002, "reverse-kl"), (0.05, "fab")])
def test_a_small_second_mode_leaves_the_objective_alone(mass, objective):
    def target(x):
        large, small = (-0.5 * (x - mean).square().sum(-1) for mean in (0.0, 6.0))
        return torch.logaddexp(large, small + math.log(mass))

    starts = torch.tensor([[0.5, 0.0], [6.5, 6.0]])
    assert inference.fit_to_target(2, target, starts=starts, max_steps=2, **QUIET).objective == objective
