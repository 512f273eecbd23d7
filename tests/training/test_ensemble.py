"""Members that are trained as one end where each would have ended alone."""

from __future__ import annotations

import math
import signal

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward import models, transforms
from pushforward.errors import ConfigError, TrainingError
from pushforward.training import fit_members
from pushforward.training.stacking import Stack, Unstackable
from pushforward.training.trainer import Trainer

from .tiny import curved, rows

OPTIONS = {"max_steps": 12, "batch_size": 50, "learning_rate": 1e-2, "evaluate_every": 5, "progress": "silent"}


@pytest.fixture
def python_handles_sigint():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


FAMILIES = {
    "nice": lambda: models.NICE(3, layers=2, hidden=(8, 8)),
    "realnvp": lambda: models.RealNVP(3, layers=2, hidden=(8,)),
    "maf": lambda: models.MAF(3, layers=2, hidden=(9,)),
    "nsf": lambda: models.NSF(3, layers=2, hidden=(8, 8)),
    "nsf autoregressive": lambda: models.NSF(3, layer="autoregressive", layers=2, hidden=(8, 8)),
    "noise in front": lambda: models.Flow(
        transforms.Chain(
            transforms.Standardize(3), transforms.Jitter(3, 0.1), models.MAF(3, layers=1, hidden=(8,)).chain
        ),
        pf.distributions.Normal(3),
    ),
}


def fixed_base(location: float) -> models.Model:
    base = pf.distributions.GaussianMixture(3, 2)
    torch.nn.init.constant_(base.loc, location)
    return models.Flow(models.MAF(3, layers=1, hidden=(8,)).chain, base.requires_grad_(False))


def members(build, count: int = 3) -> list[models.Model]:
    torch.manual_seed(0)
    return [build().double() for _ in range(count)]


@pytest.mark.parametrize("build", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize(
    "extra", [{}, {"gradient_clip": 0.5, "weight_decay": 0.3, "validation": None}], ids=["", "clip"]
)
def test_each_ends_where_it_would_have_ended_alone(build, extra):
    x, options = curved(300).double(), OPTIONS | extra
    alone, together = members(build), members(build)
    expected = [pf.fit(model, x, seed=10 + k, **options) for k, model in enumerate(alone)]
    state = torch.random.get_rng_state()
    found = fit_members(together, x, seeds=[10, 11, 12], stack=True, **options)
    assert torch.equal(torch.random.get_rng_state(), state)
    for one, other in zip(alone, together, strict=True):
        for (name, mine), theirs in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
            torch.testing.assert_close(theirs, mine, rtol=1e-7, atol=1e-9, msg=name)
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine.steps, mine.stopped, mine.best_step) == (theirs.steps, theirs.stopped, theirs.best_step)
        assert len(mine.history) == len(theirs.history)
        for one, other in zip(mine.history, theirs.history, strict=True):
            assert one.keys() == other.keys()
            for key in one.keys() - {"elapsed", "seconds"}:
                assert one[key] == (other[key] if other[key] is None else pytest.approx(other[key], rel=1e-8)), key


def test_each_stops_by_itself():
    """One of two members starts where it cannot get better and stops early; the other goes on as if alone."""
    x = rows(200).double()

    def pair() -> list[models.Model]:
        torch.manual_seed(0)
        found = [models.RealNVP(2, layers=2, hidden=(4,)).double() for _ in range(2)]
        with torch.no_grad():
            for parameter in found[1].parameters():
                parameter.mul_(3.0)
        return found

    options = {
        "max_steps": 60,
        "batch_size": 20,
        "learning_rate": 3e-2,
        "evaluate_every": 2,
        "patience": 4,
        "progress": "silent",
    }
    alone, together = pair(), pair()
    expected = [pf.fit(model, x, seed=k, **options) for k, model in enumerate(alone)]
    found = fit_members(together, x, stack=True, **options)
    assert [result.steps for result in found] == [result.steps for result in expected]
    assert found[0].steps != found[1].steps
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one.log_prob(x), other.log_prob(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("builds", "extra", "reason"),
    [
        ([lambda: models.MAF(3), lambda: models.MAF(3, layers=2)], {}, "architectures differ"),
        ([lambda: models.MAF(3, dropout=0.1)] * 2, {}, "dropout"),
        ([lambda: models.MAF(3, batch_norm=True)] * 2, {}, "statistics"),
        ([lambda: models.MAF(3, components=2)] * 2, {}, "distributions with weights"),
        ([lambda: models.NSF(3, unconditional=True)] * 2, {}, "its own weights"),
        ([lambda: models.MAF(3, context=1)] * 2, {}, "context"),
        ([lambda: models.MAF(3)] * 2, {"amp": True}, "amp"),
        ([lambda: models.MAF(3)] * 2, {"optimizer": torch.optim.Adam}, "optimizer function"),
        ([lambda: models.MAF(3)], {}, "only one model"),
        ([lambda: fixed_base(0.0), lambda: fixed_base(1.0)], {}, "other fixed weights"),
    ],
)
def test_errors_say_why_models_cannot_be_stacked(builds, extra, reason):
    with pytest.raises(ConfigError, match=reason):
        fit_members([build() for build in builds], curved(60), stack=True, **OPTIONS | extra)


def test_others_are_trained_one_after_the_other():
    mixed = [models.NICE(3, layers=2, hidden=(8,)), models.MAF(3, layers=1, hidden=(8,))]
    results = fit_members(mixed, curved(100), max_time=20.0, **OPTIONS)
    assert [result.steps for result in results] == [12, 12]
    with pytest.raises(ConfigError, match="2 models and 1 seeds"):
        fit_members(mixed, curved(100), seeds=[1])
    with pytest.raises(ConfigError, match="got 1"):
        fit_members(mixed, curved(100), seeds=1)
    with pytest.raises(ConfigError, match="each of seeds must be an integer"):
        fit_members(mixed, curved(100), seeds=[1.5, 2])
    for wrong in ([], mixed[0]):
        with pytest.raises(ConfigError, match="list of at least one pushforward model"):
            fit_members(wrong, curved(100))
    with pytest.raises(ConfigError, match="stack must be"):
        fit_members(mixed, curved(100), stack="yes")


def test_a_stack_needs_something_to_train():
    with pytest.raises(Unstackable, match="no transform has anything to train"):
        Stack([models.Flow(transforms.Standardize(2), pf.distributions.Normal(2)) for _ in range(2)])


def test_each_member_takes_its_own_seed():
    x = curved(100).double()
    for seeds, own in ((None, [7, 8]), ([3, 5], [3, 5])):
        found, alone = members(FAMILIES["maf"], 2), members(FAMILIES["maf"], 2)
        fit_members(found, x, seeds=seeds, seed=7, **OPTIONS)
        for model, other, seed in zip(found, alone, own, strict=True):
            pf.fit(other, x, seed=seed, **OPTIONS)
            torch.testing.assert_close(model.log_prob(x), other.log_prob(x), rtol=1e-7, atol=1e-9)


def test_seeds_of_numpy_go_into_a_checkpoint(tmp_path):
    pair = members(FAMILIES["nice"], 2)
    results = fit_members(
        pair, curved(60).double(), seeds=np.arange(2), stack=True, checkpoint=tmp_path / "run", **OPTIONS
    )
    assert [result.steps for result in results] == [12, 12]


def test_a_context_is_passed_to_every_member():
    x = curved(80)
    pair = [models.MAF(2, context=1, layers=1, hidden=(8,)) for _ in range(2)]
    assert [result.steps for result in fit_members(pair, x[:, :2], context=x[:, 2:], **OPTIONS)] == [12, 12]
    with pytest.raises(ConfigError, match="context"):
        fit_members(pair, x[:, :2], context=x[:, 2:], stack=True, **OPTIONS)


def test_a_log_of_one_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no log"):
        fit_members(members(FAMILIES["nice"], 2), curved(50), **OPTIONS | {"log": tmp_path / "file"})


@pytest.mark.usefixtures("python_handles_sigint")
@pytest.mark.parametrize("stack", [True, False])
@pytest.mark.parametrize("ema", [None, 0.9])
def test_interrupted_members_resume_bitwise_equal(tmp_path, monkeypatch, stack, ema):
    """Ctrl-C in step 8; with early stopping one of the members ends before the others."""
    options = OPTIONS | {"max_steps": 30, "evaluate_every": 3, "patience": 2, "ema": ema, "learning_rate": 0.1}
    x, path = curved(300).double(), tmp_path / "members.safetensors"
    whole, part, other = (members(FAMILIES["realnvp"]) for _ in range(3))
    expected = fit_members(whole, x, stack=stack, **options)
    step, calls = Trainer._step, []

    def interrupted(self, *arguments):
        calls.append(None)
        if len(calls) == 8:
            signal.raise_signal(signal.SIGINT)
        return step(self, *arguments)

    monkeypatch.setattr(Trainer, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit_members(part, x, stack=stack, checkpoint=path, **options)
    monkeypatch.setattr(Trainer, "_step", step)
    with pytest.raises(TrainingError, match=r"seeds? was"):
        fit_members(members(FAMILIES["realnvp"]), x, stack=stack, checkpoint=path, seeds=[5, 6, 7], **options)
    found = fit_members(other, x, stack=stack, checkpoint=path, resume=True, **options)
    for mine, theirs in zip(other, whole, strict=True):
        assert all(torch.equal(mine.state_dict()[name], tensor) for name, tensor in theirs.state_dict().items())
    assert [(r.steps, r.best_step) for r in found] == [(r.steps, r.best_step) for r in expected]
    assert len({result.steps for result in expected}) > 1
    assert path.exists() == stack
    again = fit_members(other, x, stack=stack, checkpoint=path, **options)  # a finished run: nothing is left to do
    assert [r.steps for r in again] == [r.steps for r in expected]


def test_after_an_error_every_member_has_its_best_weights(monkeypatch):
    x, calls, losses = curved(300).double(), [], Stack.losses

    def breaks(self, batches, noise):
        calls.append(None)
        return losses(self, batches, noise) * (math.nan if len(calls) == 8 else 1)

    monkeypatch.setattr(Stack, "losses", breaks)
    trained, best = members(FAMILIES["nice"], 2), members(FAMILIES["nice"], 2)
    with pytest.raises(TrainingError, match=r"the loss is nan at step 7 .*weights of step 5 again"):
        fit_members(trained, x, stack=True, **OPTIONS)
    monkeypatch.undo()
    for k, model in enumerate(best):
        result = pf.fit(model, x, seed=k, callback=lambda event: event.step >= 5, **OPTIONS)
        assert result.best_step == 5
    for one, other in zip(trained, best, strict=True):
        assert not one.training
        torch.testing.assert_close(one.log_prob(x), other.log_prob(x), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("second", [True, False], ids=["both", "one"])
def test_fixed_weights_stay_fixed(second):
    members = [pf.models.RealNVP(2, layers=2, hidden=(8,)) for _ in range(2)]
    for member in members[: 1 + second]:
        for layer in [m for m in member.modules() if isinstance(m, torch.nn.Linear)][2:]:
            layer.requires_grad_(False)
    fixed = [[p for p in member.parameters() if not p.requires_grad] for member in members]
    before = [[p.clone() for p in own] for own in fixed]
    fit_members(members, rows(100), max_steps=10, progress="silent")
    assert all(torch.equal(p, b) for own, was in zip(fixed, before, strict=True) for p, b in zip(own, was, strict=True))
    if not second:
        with pytest.raises(ConfigError, match="other weights of each are fixed"):
            fit_members(members, rows(100), max_steps=10, progress="silent", stack=True)


def test_what_members_find_in_their_own_rows_is_not_shared():
    def member():
        chain = transforms.Chain(transforms.Standardize(2), transforms.LULinear(2))
        return models.Flow(chain, pf.distributions.KernelDensity(2, points=20))

    with pytest.raises(ConfigError, match="KernelDensity keeps what it finds"):
        fit_members([member(), member()], rows(100), max_steps=3, progress="silent", stack=True)


def test_one_loader_is_not_read_in_turns():
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(rows(64)), batch_size=16)
    members = [pf.models.NICE(2, hidden=(8,)) for _ in range(2)]
    with pytest.raises(ConfigError, match="read one DataLoader in turns"):
        fit_members(members, loader, validation=None, max_steps=3, progress="silent", stack=True)
    assert len(fit_members(members, loader, validation=None, max_steps=3, progress="silent")) == 2


def test_one_model_several_times_is_refused():
    model = pf.models.NICE(2)
    with pytest.raises(ConfigError, match="one model several times"):
        pf.training.fit_members([model] * 2, torch.randn(50, 2), max_steps=1, progress="silent")
