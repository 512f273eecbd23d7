"""What the options of a run mean where several networks train, and what is checked before they do."""

from __future__ import annotations

import json
import time

import pytest
import torch

import pushforward as pf
from pushforward.errors import InputError
from pushforward.inference import NLE, NPE, NRE, infer, sequential

PRIOR = torch.distributions.Normal(torch.zeros(2), 1.0)
THETA = PRIOR.sample((300,))
X = THETA + 0.1 * torch.randn(300, 2)
QUICK = {"max_steps": 4, "evaluate_every": 2, "progress": "silent"}


def steps(path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_each_network_has_a_log_of_its_own(tmp_path):
    log = tmp_path / "run.jsonl"
    posterior = NPE(PRIOR, members=2).fit(THETA, X, log=log, **QUICK)
    logs = sorted(tmp_path.iterdir())
    assert [path.name for path in logs] == ["run.jsonl.0", "run.jsonl.1", "run.jsonl.2"]
    assert all(steps(path) == [0, 2, 4] for path in logs)
    best = [max(json.loads(line)["validation"] for line in path.read_text().splitlines()) for path in logs]
    assert posterior.training[0].best_validation == pytest.approx(max(best[:2]))
    assert posterior.training[1].best_validation == pytest.approx(best[2])


def test_a_single_network_writes_the_log_itself(tmp_path):
    NPE(PRIOR).fit(THETA, X, validation=None, log=tmp_path / "run.jsonl", **QUICK)
    assert steps(tmp_path / "run.jsonl") == [0, 2, 4]


def test_methods_and_rounds_have_logs_of_their_own(tmp_path):
    infer(PRIOR, THETA, X, log=tmp_path / "a", **QUICK)
    sequential(
        NLE(PRIOR, flow="maf"),
        lambda t: t + 0.1 * torch.randn(t.shape),
        torch.zeros(2),
        rounds=2,
        simulations=50,
        log=tmp_path / "b",
        **QUICK,
    )
    names = {path.name for path in tmp_path.iterdir()}
    assert {"a.npe.0", "a.npe.1", "a.nle.0", "a.nle.1", "b.0.0", "b.0.1", "b.1.0", "b.1.1"} <= names


@pytest.mark.parametrize("method", [NPE(PRIOR, members=2), NLE(PRIOR)])
def test_the_time_is_that_of_all_networks(method):
    NPE(PRIOR).fit(THETA, X, **QUICK)  # what is loaded once
    start = time.monotonic()
    posterior = method.fit(THETA, X, max_time=0.9, patience=None, progress="silent")
    assert time.monotonic() - start < 1.8
    assert all(0.2 < result.seconds < 0.7 for result in posterior.training)


def test_the_events_of_a_ratio_estimator_can_be_drawn():
    [result] = NRE(PRIOR).fit(THETA, X, max_steps=60, evaluate_every=20, progress="silent").training
    assert [event["step"] for event in result.history] == [0, 20, 40, 60]
    assert result.history[0]["loss"] is None
    assert all(event["loss"] > 0 and event["seconds"] > 0 for event in result.history[1:])
    assert result.history[-1]["best"] == result.best_validation
    assert "<" in result._repr_html_()
    pf.plot.training(result)


@pytest.mark.parametrize("rounds", [1, 3])
def test_an_observation_of_another_shape_is_refused_before_training(rounds):
    calls = []

    def simulator(theta: torch.Tensor) -> torch.Tensor:
        calls.append(len(theta))
        return theta[:, :1]

    with pytest.raises(InputError, match=r"must have the shape of a simulation, \(1,\); got \(2,\)"):
        sequential(NPE(PRIOR), simulator, torch.zeros(2), rounds=rounds, simulations=50, **QUICK)
    assert sum(calls) <= 60
    for x in (0.1, torch.tensor([0.1]), torch.tensor([[0.1]])):
        sequential(NPE(PRIOR, flow="maf"), simulator, x, rounds=1, simulations=50, **QUICK)
