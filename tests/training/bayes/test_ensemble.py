"""Deep ensembles: one architecture from several initializations."""

from __future__ import annotations

import pytest
import torch

import pushforward as pf
from pushforward.errors import ConfigError
from pushforward.training.bayes import deep_ensemble

from ..tiny import curved

OPTIONS = {"max_steps": 30, "batch_size": 50, "learning_rate": 1e-2, "progress": "silent"}


def make() -> pf.models.Model:
    return pf.models.MAF(3, layers=2, hidden=(8,), batch_norm=True)


def test_members_differ_in_weights_and_share_preprocessing():
    x = curved(300)
    state = torch.random.get_rng_state()
    posterior = deep_ensemble(make, x, 3, seed=1, **OPTIONS)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(name.endswith("mask") or name.startswith("chain.transforms.0.") for name in posterior.names)
    assert any(name.endswith("var") for name in posterior.names)  # batch norm's statistics are each member's
    values = posterior.log_likelihoods(x)
    assert (values.std(0) > 1e-3).all()
    start = make().eval()
    start.initialize(x)
    assert (values.mean(1) > start.log_prob(x).mean()).all()
    again = deep_ensemble(make, x, 3, seed=1, **OPTIONS)
    assert torch.equal(again.log_likelihoods(x), values)
    assert not torch.equal(deep_ensemble(make, x, 3, seed=2, **OPTIONS).log_likelihoods(x), values)


def test_batches_differ_too():
    """From one start, members differ by the order of their batches."""

    def same() -> pf.models.Model:
        torch.manual_seed(0)
        return make()

    posterior = deep_ensemble(same, curved(300), 2, validation=None, **OPTIONS)
    assert (posterior.log_likelihoods(curved(300)).std(0) > 0).any()


def test_a_killed_run_resumes(tmp_path):
    x, made = curved(200), []

    def dies() -> pf.models.Model:
        made.append(1)
        if len(made) == 2:
            raise KeyboardInterrupt
        return make()

    with pytest.raises(KeyboardInterrupt):
        deep_ensemble(dies, x, 2, checkpoint=tmp_path / "run", **OPTIONS)
    options, steps = OPTIONS | {"checkpoint": tmp_path / "run", "resume": True}, []
    posterior = deep_ensemble(make, x, 2, callback=lambda event: steps.append(event.step), **options)
    assert steps == [0, 25, 30]  # the second member's alone
    assert torch.equal(posterior.log_likelihoods(x), deep_ensemble(make, x, 2, **OPTIONS).log_likelihoods(x))


def test_members_must_have_one_architecture():
    widths = iter((4, 8))
    with pytest.raises(ConfigError, match="one architecture"):
        deep_ensemble(lambda: pf.models.NICE(3, hidden=(next(widths),)), curved(50), 2, **OPTIONS)
    with pytest.raises(ConfigError, match="n_members"):
        deep_ensemble(make, curved(50), 0)


def test_each_member_has_a_log(tmp_path):
    deep_ensemble(make, curved(100), 2, log=tmp_path / "log.jsonl", evaluate_every=10, **OPTIONS)
    lines = [len((tmp_path / f"log.jsonl.{k}").read_text().splitlines()) for k in range(2)]
    assert lines == [4, 4]  # steps 0, 10, 20 and 30


def test_a_model_in_place_of_a_function_is_refused():
    for wrong in (pf.models.NICE(2), 3):
        with pytest.raises(ConfigError, match="a function that makes a model"):
            deep_ensemble(wrong, torch.randn(50, 2), n_members=2, max_steps=1, progress="silent")
