"""SGHMC on posteriors that are known."""

from __future__ import annotations

import pytest
import torch

import pushforward as pf
from pushforward.errors import ConfigError, TrainingError
from pushforward.training.bayes import sghmc

from ..tiny import curved
from .small import SHIFT, location

ROWS, WIDTH = 200, 64


def data() -> torch.Tensor:
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0)) + torch.linspace(-2, 2, WIDTH)


@pytest.mark.parametrize(("batch", "step_size", "prior"), [(ROWS, 0.05, 1.0), (20, 0.1, 0.05)])
def test_gaussian_posterior(batch: int, step_size: float, prior: float):
    """64 chains at once, with all rows and with a tenth of them, whose noise would widen the samples by half."""
    x = data()
    posterior = sghmc(
        location(WIDTH), x, 150, parameters=["shift"], burn_in=600, thin=20, step_size=step_size, batch_size=batch, prior_scale=prior,
        initialize=False, progress="silent",
    )  # fmt: skip
    precision = ROWS + 1 / prior**2
    drawn = posterior.samples()[SHIFT].double()
    assert posterior.names == (SHIFT,)
    error = (drawn.mean(0) - x.sum(0) / precision) * precision**0.5
    assert error.square().mean().sqrt() < 0.15  # of 150 independent samples: 0.08
    assert 0.94 < (drawn.var(0) * precision).mean() < 1.06  # its standard error: 0.015


def test_only_chosen_weights_move():
    x = curved(200)
    model = pf.models.NICE(3, layers=2, hidden=(8,))
    pf.fit(model, x, max_steps=20, progress="silent")
    frozen = model.chain.transforms[1].network.last.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    posterior = sghmc(model, x, 2, parameters=["last"], burn_in=10, thin=5, progress="silent")
    assert set(posterior.names) == {
        "chain.transforms.1.network.last.bias",
        "chain.transforms.2.network.last.weight",
        "chain.transforms.2.network.last.bias",
    }
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == set(posterior.names)
    assert not frozen.requires_grad
    assert all(p.requires_grad for p in model.parameters() if p is not frozen)
    assert all((stack[0] != stack[1]).any() for stack in posterior.samples().values())


def test_seeds_and_budgets():
    x = curved(100)

    def run(seed: int = 0, **options):
        torch.manual_seed(5)
        return sghmc(
            pf.models.NICE(3, layers=2, hidden=(8,)), x, 3, burn_in=7, thin=5, seed=seed, batch_size=20,
            progress="silent", **options,
        )  # fmt: skip

    steps = []
    first = run(callback=lambda event: steps.append(event.step))
    assert steps == [0, 5, 10, 15, 20, 25]  # burn-in is rounded up to 10
    assert torch.equal(first.log_likelihoods(x), run().log_likelihoods(x))
    assert not torch.equal(first.log_likelihoods(x), run(seed=1).log_likelihoods(x))
    assert len(run(callback=lambda event: event.step >= 15)) == 1
    with pytest.raises(TrainingError, match="before its first sample"):
        run(max_time=0)


def test_batch_norm_statistics_belong_to_each_sample():
    x = curved(200)
    model = pf.models.MAF(3, layers=2, hidden=(8,), batch_norm=True)
    pf.fit(model, x, max_steps=20, validation=None, progress="silent")
    for member in sghmc(model, x, 2, burn_in=10, thin=10, progress="silent"):
        before = {name: b.clone() for name, b in member.named_buffers()}
        member.refresh(x)
        for name, buffer in member.named_buffers():
            torch.testing.assert_close(buffer, before[name])


def test_data_from_a_loader():
    x = curved(60)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=20)
    model = pf.models.NICE(3, layers=2, hidden=(8,))
    assert len(sghmc(model, loader, 2, burn_in=5, thin=5, progress="silent")) == 2

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(x)

    with pytest.raises(ConfigError, match="n_rows="):
        sghmc(model, Stream(), 2, burn_in=5, thin=5, progress="silent")
    assert len(sghmc(model, Stream(), 2, n_rows=60, burn_in=5, thin=5, batch_size=20, progress="silent")) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_samples": 0}, "n_samples"),
        ({"thin": 0}, "thin"),
        ({"friction": 1.0}, "friction"),
        ({"step_size": -1.0}, "step_size"),
        ({"learning_rate": 0.1}, "learning_rate is not available in sghmc"),
        ({"max_steps": 5}, "max_steps is not available in sghmc"),
        ({"prior_scale": float("inf")}, "prior_scale"),
        ({"parameters": ["decoder"]}, "no trainable parameter under 'decoder'"),
        ({"checkpoint": "run"}, "checkpoint"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ConfigError, match=message):
        sghmc(location(2), torch.randn(20, 2), **{"n_samples": 1, "progress": "silent"} | options)


def test_the_end_of_the_time_is_no_sample(monkeypatch: pytest.MonkeyPatch):
    """The last evaluation of a run that time ends may be one step after a sample."""
    clock = iter(range(10_000))
    monkeypatch.setattr("pushforward.training.run.monotonic", lambda: float(next(clock)))
    steps: list[int] = []
    posterior = sghmc(
        location(2), torch.randn(50, 2), 50, burn_in=20, thin=20, max_time=257, progress="silent",
        callback=lambda event: steps.append(event.step),
    )  # fmt: skip
    assert steps[-1] % 20 != 0
    assert len(posterior) == steps[-1] // 20 - 1
