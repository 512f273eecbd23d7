from __future__ import annotations

import functools
import json
import math
import random
import time

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import pushforward as pf
from pushforward.errors import (
    ConfigError,
    InputError,
    PushforwardWarning,
    StorageError,
    TrainingError,
)
from pushforward.training import FitResult, TrainingEvent
from pushforward.training import run as run_module
from pushforward.training.seeds import mix

from .tiny import Items, curved, equal, gaussian, rows, silent, weights


def maximum_likelihood(x: Tensor) -> float:
    """Mean log-likelihood of x under the diagonal Gaussian fitted to it, in closed form."""
    var = x.double().var(0, correction=0)
    return float(-0.5 * (torch.log(2 * math.pi * var) + 1).sum())


class Fragile(pf.models.Flow):
    """Loss is NaN (or its gradient infinite) once a batch holds a value above 1000."""

    breaks = "loss"

    def loss(self, x, context=None, *, generator=None):
        loss = super().loss(x, context, generator=generator)
        if (x.abs() > 1000).any():
            shift = self.chain.transforms[0].shift.sum()
            return loss * math.nan if self.breaks == "loss" else loss + torch.sqrt((shift - shift.detach()).abs())
        return loss


# --- what training reaches -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", functools.partial(torch.optim.RMSprop, lr=0.05)])
def test_it_finds_the_maximum_likelihood_gaussian(optimizer):
    x = rows(400, mean=2.0, scale=0.5)
    model = gaussian()
    lr = 0.02 if optimizer == "sgd" else 0.1
    silent(model, x, validation=None, max_steps=300, optimizer=optimizer, learning_rate=lr, initialize=False, ema=None)
    assert model.log_prob(x).double().mean().item() == pytest.approx(maximum_likelihood(x), abs=2e-4)


def test_initialize_sets_the_data_dependent_state_from_all_rows():
    x = rows(400, mean=2.0, scale=0.5)
    model = gaussian()
    result = silent(model, x, validation=None, max_steps=0)
    assert model.log_prob(x).double().mean().item() == pytest.approx(maximum_likelihood(x), abs=1e-5)
    assert (result.steps, result.stopped, result.best_step) == (0, "max_steps", 0)


def test_the_weights_kept_are_those_of_the_best_evaluation():
    x, held = curved(150), curved(400, seed=1)  # 150 rows: it must overfit
    torch.manual_seed(0)
    model = pf.models.RealNVP(features=3, layers=4, hidden=(64, 64))
    result = silent(model, x, validation=held, max_steps=400, evaluate_every=20, learning_rate=3e-3, patience=None)
    seen = [event["validation"] for event in result.history]
    assert len(seen) == 21
    assert result.best_validation == max(seen)
    assert result.best_step == result.history[int(np.argmax(seen))]["step"]
    assert 0 < result.best_step < 400
    assert seen[-1] < max(seen) - 0.1
    assert model.log_prob(held).double().mean().item() == pytest.approx(max(seen), abs=1e-9)
    assert not model.training


def test_patience_counts_evaluations_since_the_best():
    x, held = curved(150), curved(400, seed=1)
    torch.manual_seed(0)
    model = pf.models.RealNVP(features=3, layers=4, hidden=(64, 64))
    result = silent(model, x, validation=held, max_steps=4000, evaluate_every=10, learning_rate=3e-3, patience=4)
    assert result.stopped == "patience"
    assert 0 < result.best_step == result.steps - 4 * 10
    assert all(event["validation"] <= result.best_validation for event in result.history[-4:])


def test_training_never_makes_a_model_worse():
    x = rows(200)
    model = gaussian()
    silent(model, x, validation=None, max_steps=0)
    before = model.log_prob(x).double().mean().item()
    result = silent(model, x, validation=x, max_steps=50, learning_rate=3.0, schedule=None)
    assert result.history[-1]["validation"] < before
    assert result.best_validation >= before - 1e-6


def test_without_held_out_rows_the_last_weights_are_kept():
    x = rows(50, mean=1.0)
    model = gaussian()
    result = silent(model, x, validation=None, max_steps=40, initialize=False, schedule=None, evaluate_every=30)
    assert (result.best_validation, result.best_step) == (None, 40)
    other = gaussian()
    silent(other, x, validation=0.001, max_steps=40, initialize=False, schedule=None)  # rounds to no row
    assert equal(weights(model), weights(other))
    assert [event["step"] for event in result.history] == [0, 30, 40]


def test_batch_norm_is_scored_with_statistics_of_the_training_rows():
    x = rows(300, 2, mean=3.0)
    torch.manual_seed(0)
    model = pf.models.MAF(features=2, layers=2, hidden=(16,), batch_norm=True)
    result = silent(model, x, validation=rows(100, 2, seed=1, mean=3.0), max_steps=60, evaluate_every=20)
    kept = weights(model)
    model.refresh(x)
    assert all(torch.allclose(kept[key], value, atol=1e-5) for key, value in weights(model).items())
    held = rows(100, 2, seed=1, mean=3.0)
    assert model.log_prob(held).double().mean().item() == pytest.approx(result.best_validation, abs=1e-4)


def test_a_context_of_any_units_is_used():
    u = rows(600, 1, mean=500.0, scale=100.0)
    x = 0.02 * u + 0.1 * rows(600, 1, seed=1)
    torch.manual_seed(0)
    model = pf.models.MAF(features=1, context=1, layers=2, hidden=(16,))
    result = silent(model, x, context=u, max_steps=400, learning_rate=1e-2)
    # Conditional entropy of N(0.02 u, 0.1^2); the marginal's is that of a standard deviation of 2.
    exact = -0.5 * math.log(2 * math.pi * math.e * 0.1**2)
    assert result.best_validation == pytest.approx(exact, abs=0.35)
    given = silent(model, x, context=u, validation=(x[:50], u[:50]), max_steps=0)
    assert given.best_validation == pytest.approx(model.log_prob(x[:50], u[:50]).double().mean().item(), abs=1e-9)


def test_integers_for_a_dequantizing_model():
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 4, (300, 2), generator=generator, dtype=torch.uint8)
    torch.manual_seed(0)
    inner = pf.models.NSF(features=2, layers=1, hidden=(16, 16))
    transforms = pf.transforms.Chain(pf.transforms.UniformDequantize(2, levels=4), pf.transforms.Logit(2), inner.chain)
    result = silent(pf.models.Flow(transforms, inner.base), x, max_steps=150, learning_rate=1e-2)
    # The truth is 2 log(1/4) = -2.77 nats, and no model does better but by chance; the bound starts well below.
    assert -3.1 < result.best_validation < -2.6


def test_double_precision():
    model = gaussian().double()
    x = rows(100).double() * 1e-3 + 1e6
    result = silent(model, x, validation=None, max_steps=5, learning_rate=1e-6)
    assert model.log_prob(x).mean().item() == pytest.approx(maximum_likelihood(x), abs=1e-3)
    assert result.steps == 5


# --- randomness ------------------------------------------------------------------------------------------------------


def trained(seed: int, data=None, **options) -> tuple[dict[str, Tensor], FitResult]:
    torch.manual_seed(0)
    model = pf.models.NSF(features=2, layers=1, hidden=(8, 8), dropout=0.2)
    torch.manual_seed(time.monotonic_ns())  # what the global state is must not matter
    x = rows(60) if data is None else data
    result = silent(model, x, seed=seed, **{"max_steps": 30, "batch_size": 16, **options})
    return weights(model), result


@pytest.mark.parametrize("kind", ["array", "dataset", "loader"])
def test_equal_seeds_give_equal_weights_and_others_do_not(kind):
    def data():
        x = rows(60)
        if kind == "array":
            return x
        items = Items(x, noise=0.1)
        return items if kind == "dataset" else DataLoader(items, batch_size=16, shuffle=True)

    held = rows(10, seed=1)
    first, second, third = (trained(seed, data(), validation=held)[0] for seed in (1, 1, 2))
    assert equal(first, second)
    assert not equal(first, third)


def test_evaluating_more_often_changes_no_step():
    few, many = (trained(0, validation=rows(10, seed=1), evaluate_every=k, patience=None) for k in (30, 3))
    if few[1].best_step == many[1].best_step:
        assert equal(few[0], many[0])
    assert few[1].history[-1]["validation"] == many[1].history[-1]["validation"]


def test_the_callers_random_state_is_untouched():
    def drawn():
        return random.random(), np.random.random(), torch.rand(()).item()  # noqa: NPY002

    model = pf.models.NSF(features=2, layers=1, hidden=(8, 8), dropout=0.2)
    state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    expected = drawn()
    random.setstate(state[0]), np.random.set_state(state[1]), torch.set_rng_state(state[2])  # noqa: NPY002
    silent(model, Items(rows(60), noise=0.1), max_steps=5)
    silent(model, rows(60), max_steps=5)
    assert drawn() == expected


def test_it_trains_under_no_grad():
    with torch.no_grad():
        one = trained(3)[0]
    assert equal(one, trained(3)[0])


# --- schedule and budget ---------------------------------------------------------------------------------------------


def test_learning_rates_follow_the_schedule():
    result = silent(gaussian(), rows(50), max_steps=8, learning_rate=0.5, evaluate_every=1)
    rates = [event["learning_rate"] for event in result.history]
    # Step s is taken with the part s/8 of the budget spent; the event after it reports its rate.
    assert rates[1:] == pytest.approx([0.25 * (1 + math.cos(math.pi * s / 8)) for s in range(8)])
    flat = silent(gaussian(), rows(50), max_steps=3, learning_rate=0.5, schedule=None, evaluate_every=1)
    assert [event["learning_rate"] for event in flat.history] == [0.5] * 4
    steep = silent(gaussian(), rows(50), max_steps=3, learning_rate=0.5, schedule=lambda p: 1 - p, evaluate_every=1)
    assert [event["learning_rate"] for event in steep.history][1:] == pytest.approx([0.5, 0.5 * 2 / 3, 0.5 / 3])


def test_sgd_step_by_step_with_clipping():
    x = torch.tensor([[3.0]])
    model = gaussian(1)
    silent(model, x, validation=None, max_steps=1, initialize=False, gradient_clip=0.5, learning_rate=0.1, ema=None,
           optimizer=functools.partial(torch.optim.SGD, lr=0.1))  # fmt: skip
    # loss = 0.5 (x - shift)^2 exp(2 s) - s at shift = s = 0: gradient (-3, 9 - 1), of norm sqrt(73), cut to 0.5
    scale = 0.1 * 0.5 / math.sqrt(73)
    assert model.chain.transforms[0].shift.item() == pytest.approx(3 * scale, rel=1e-5)
    assert model.chain.transforms[0].log_scale.item() == pytest.approx(-8 * scale, rel=1e-5)


def test_epochs_and_time():
    result = silent(gaussian(), rows(100), validation=None, batch_size=40, epochs=3)
    assert (result.steps, result.stopped) == (math.ceil(3 * 100 / 40), "epochs")
    assert result.epochs == pytest.approx(8 * 40 / 100)
    began = time.monotonic()
    result = silent(gaussian(), rows(100), max_time="0.5s", patience=None)
    assert result.stopped == "max_time"
    assert 0.5 <= result.seconds <= time.monotonic() - began + 1e-3
    assert result.history[-1]["learning_rate"] < 1e-4  # the cosine followed the clock


def test_loader_of_known_and_of_unknown_length():
    loader = DataLoader(TensorDataset(rows(50)), batch_size=20)
    result = silent(gaussian(), loader, validation=DataLoader(TensorDataset(rows(9))), epochs=2)
    assert result.steps == 6
    assert result.best_validation is not None


def test_a_callback_sees_events_and_can_stop():
    events: list[TrainingEvent] = []

    def watch(event: TrainingEvent) -> bool:
        events.append(event)
        return event.step >= 20

    result = silent(gaussian(), rows(100), max_steps=100, evaluate_every=10, callback=watch)
    assert [event.step for event in events] == [0, 10, 20]
    assert (result.stopped, result.steps) == ("callback", 20)
    assert result.history == [vars(event) for event in events]
    assert events[0].loss is None
    assert events[1].loss is not None
    assert events[2].seconds >= events[1].seconds > 0


def test_training_loss_is_the_mean_since_the_last_event():
    x = rows(30)
    model = gaussian()
    result = silent(model, x, validation=None, max_steps=4, evaluate_every=2, learning_rate=1e-12, initialize=False)
    expected = -gaussian().log_prob(x).double().mean().item()
    assert [event["loss"] for event in result.history[1:]] == pytest.approx([expected, expected], abs=1e-5)


# --- small and odd cases ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 5, 20])
def test_few_rows(count):
    torch.manual_seed(0)
    model = pf.models.MAF(features=2, layers=2, hidden=(8,), batch_norm=True)
    result = silent(model, rows(count), max_steps=10)
    assert math.isfinite(model.log_prob(rows(count)).sum().item())
    assert (result.best_validation is None) == (count < 5)


def test_nothing_to_train():
    x = rows(100, mean=4.0)
    model = pf.models.Flow(pf.transforms.Standardize(2), pf.distributions.Normal(2))
    result = silent(model, x, validation=None)
    assert (result.stopped, result.steps) == ("nothing to train", 0)
    assert model.log_prob(x).double().mean().item() == pytest.approx(maximum_likelihood(x), abs=1e-4)


def test_frozen_parameters_stay():
    model = pf.models.Flow(
        pf.transforms.Chain(pf.transforms.ActNorm(2), pf.transforms.ActNorm(2)), pf.distributions.Normal(2)
    )
    model.chain.transforms[0].requires_grad_(False)
    silent(model, rows(100, mean=2.0), max_steps=20, initialize=False, validation=None)
    assert torch.equal(model.chain.transforms[0].shift, torch.zeros(2))
    assert not torch.equal(model.chain.transforms[1].shift, torch.zeros(2))


@pytest.mark.parametrize("kind", ["numpy", "float64", "list", "pandas", "polars", "tensor data set", "data set"])
def test_kinds_of_data(kind):
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    x = rows(40)
    data = {
        "numpy": lambda: x.numpy(),
        "float64": lambda: x.double().numpy(),
        "list": lambda: x.tolist(),
        "pandas": lambda: pandas.DataFrame(x.numpy(), columns=["a", "b"]),
        "polars": lambda: polars.DataFrame(x.numpy(), schema=["a", "b"]),
        "tensor data set": lambda: TensorDataset(x),
        "data set": lambda: Items(x),
    }[kind]()
    expected = gaussian()
    silent(expected, x, max_steps=5)
    model = gaussian()
    silent(model, data, max_steps=5)
    assert equal(weights(model), weights(expected))


def test_data_are_not_changed():
    x = rows(40).numpy()
    before = x.copy()
    silent(gaussian(), x, max_steps=5)
    assert np.array_equal(x, before)


def test_bfloat16_trains_about_as_well():
    x = curved(500)
    torch.manual_seed(0)
    model = pf.models.RealNVP(features=3, layers=2, hidden=(32,))
    twin = pf.models.RealNVP(features=3, layers=2, hidden=(32,))
    twin.load_state_dict(model.state_dict())
    half = silent(model, x, max_steps=50, amp=True)
    full = silent(twin, x, max_steps=50)
    assert not equal(weights(model), weights(twin))
    assert half.best_validation == pytest.approx(full.best_validation, abs=0.05)
    assert all(value.dtype != torch.bfloat16 for value in weights(model).values())


def test_columns_beyond_float32_are_named():
    x = torch.stack([torch.linspace(0, 1, 100), torch.full((100,), 1e9)], 1).double()
    x[:, 1] += torch.linspace(0, 1, 100).square()  # no linear function of the other, of which fit warns too
    with pytest.warns(PushforwardWarning, match=r"column 1 has mean 1e\+09.*model\.double\(\)"):
        silent(gaussian(), x, max_steps=2)
    silent(gaussian().double(), x, max_steps=2)
    constant = x.clone()
    constant[:, 1] = 0.1 * 1e9
    with pytest.warns(PushforwardWarning, match=r"column 1 is 1e\+08 in 90 of 90 rows") as caught:
        silent(gaussian(), constant, max_steps=2)
    assert len(caught) == 1


@pytest.mark.parametrize("loader", [False, True])
def test_a_context_whose_digits_the_type_loses_is_warned_of(loader):
    """Days since 4713 BC, of which float32 keeps quarters."""
    rows, days = torch.randn(200, 1), 2_460_000 + torch.rand(200, 1, dtype=torch.float64)
    data = DataLoader(TensorDataset(rows, days), batch_size=50) if loader else (rows, days)
    with pytest.warns(PushforwardWarning, match=r"column 0 of the context has mean 2\.46e\+06.*model\.double\(\)"):
        pf.fit(pf.models.MAF(1, 1, layers=1, hidden=(4,)), data, validation=None, max_steps=2, progress="silent")


def test_held_out_rows_without_mass_do_not_decide():
    # A logit gives no mass to what is not in (0, 1).
    x = torch.rand(200, 1, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.1
    held = torch.cat([x[:50], torch.tensor([[2.0], [-1.0]])])
    model = pf.models.Flow(
        pf.transforms.Chain(pf.transforms.Logit(1), pf.transforms.ActNorm(1)), pf.distributions.Normal(1)
    )
    with pytest.warns(PushforwardWarning, match="2 held-out rows"):
        result = silent(
            model, x, validation=held, max_steps=100, initialize=False, learning_rate=0.05, evaluate_every=10
        )
    assert result.best_validation == -math.inf
    assert {event["outside"] for event in result.history} == {2}
    assert result.best_step > 0
    twin = pf.models.Flow(
        pf.transforms.Chain(pf.transforms.Logit(1), pf.transforms.ActNorm(1)), pf.distributions.Normal(1)
    )
    clean = silent(
        twin, x, validation=held[:50], max_steps=100, initialize=False, learning_rate=0.05, evaluate_every=10
    )
    assert clean.best_step == result.best_step
    assert equal(weights(model), weights(twin))


# --- failures --------------------------------------------------------------------------------------------------------


def fragile(breaks: str = "loss") -> Fragile:
    model = Fragile(pf.transforms.ActNorm(2), pf.distributions.Normal(2))
    model.breaks = breaks
    return model


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_stops_and_is_located(kind):
    x = rows(64)
    x[37, 1] = -5000.0
    model = fragile(kind)
    events: list[TrainingEvent] = []
    options = {"max_steps": 50, "batch_size": 8, "initialize": False, "evaluate_every": 1, "callback": events.append}
    with pytest.raises(TrainingError, match=r"largest \|input\| 5000") as caught:
        silent(model, x, validation=rows(20, seed=1), **options)
    step = int(str(caught.value).split("at step ")[1].split()[0])
    order = torch.randperm(64, generator=torch.Generator().manual_seed(mix(0, 2, 0)))
    assert step == (order == 37).nonzero().item() // 8
    assert f"epoch 0, batch {step}" in str(caught.value)
    assert events[-1].step == step
    assert f"weights of step {events[-1].best_step} again" in str(caught.value)
    assert model.log_prob(rows(20, seed=1)).double().mean().item() == pytest.approx(events[-1].best, abs=1e-9)
    assert all(torch.isfinite(value).all() for value in weights(model).values())
    assert not model.training


def test_the_loss_on_a_device_is_read_every_twenty_steps(monkeypatch):
    x = rows(64)
    x[37, 1] = -5000.0

    def run():
        broken, sound = fragile(), gaussian()
        with pytest.raises(TrainingError) as caught:
            silent(broken, x, validation=None, max_steps=50, batch_size=8, initialize=False)
        history = silent(sound, rows(64), max_steps=50, evaluate_every=7, batch_size=8).history
        return str(caught.value), weights(broken), weights(sound), [{**event, "seconds": 0.0} for event in history]

    now = run()
    monkeypatch.setattr(run_module, "check_interval", lambda device: 20)
    later = run()
    assert later[0] == now[0]  # the step is named, not the moment of the look
    assert equal(later[1], now[1])
    assert equal(later[2], now[2])
    assert later[3] == now[3]


def test_the_best_weights_are_restored_after_any_error():
    model = gaussian()

    def fail(event: TrainingEvent) -> None:
        if event.step == 20:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        silent(
            model,
            rows(100),
            validation=rows(50, seed=1),
            max_steps=50,
            evaluate_every=10,
            callback=fail,
            learning_rate=2.0,
        )
    twin = gaussian()
    result = silent(
        twin, rows(100), validation=rows(50, seed=1), max_steps=50, evaluate_every=10, learning_rate=2.0, patience=2
    )
    assert result.best_step <= 20
    assert equal(weights(model), weights(twin))


def test_nan_in_a_data_set_is_located():
    x = rows(30)
    x[11, 0] = math.nan
    with pytest.raises(InputError, match=r"step \d+ \(epoch 0, batch \d+\).*NaN"):
        silent(gaussian(), Items(x), validation=None, batch_size=10, max_steps=10, initialize=False)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"batch_size": 2.5},
        {"patience": 0},
        {"evaluate_every": 0},
        {"learning_rate": 0},
        {"learning_rate": math.nan},
        {"learning_rate": "1e-3"},
        {"weight_decay": -1},
        {"gradient_clip": 0},
        {"seed": 1.5},
        {"resume": "yes"},
        {"callback": 3},
        {"checkpoint_every": 0},
        {"checkpoint_every": 1.5},
        {"checkpoint_every": "soon"},
        {"max_time": "soon"},
        {"optimizer": "lion"},
        {"schedule": "linear"},
        {"progress": "loud"},
        {"device": "nonsense"},
        {"validation": 2},
    ],
)
def test_options_that_do_not_work(options):
    model = gaussian()
    before = weights(model)
    with pytest.raises(ConfigError, match=next(iter(options))):
        pf.fit(model, rows(10), **{"progress": "silent", **options})
    assert equal(weights(model), before)


@pytest.mark.parametrize("model", [nn.Linear(2, 2), "nsf", None, pf.models.NSF])
def test_only_models_are_trained(model):
    with pytest.raises(ConfigError, match="pushforward model"):
        pf.fit(model, rows(10))


def test_missing_and_wrong_contexts():
    model = pf.models.MAF(features=2, context=3, layers=1, hidden=(8,))
    with pytest.raises(InputError, match="context=3"):
        silent(model, rows(10))
    with pytest.raises(InputError, match=r"\(10, 3\)"):
        silent(model, rows(10), context=rows(9, 3))
    with pytest.raises(InputError, match="context=3"):
        silent(model, rows(10), context=rows(10, 3), validation=rows(5))
    with pytest.raises(InputError, match="nan"):
        silent(model, rows(10), context=torch.full((10, 3), math.nan))
    with pytest.raises(ConfigError, match="takes no context"):
        silent(gaussian(), rows(10), context=rows(10, 3))


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_log_has_a_json_object_for_each_event(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("left over from another run\n")
    result = silent(gaussian(), rows(100), max_steps=30, evaluate_every=10, log=path)
    lines = [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 10, 20, 30]
    assert lines == result.history


def test_log_that_cannot_be_written(tmp_path):
    with pytest.raises(StorageError, match="cannot write the log"):
        silent(gaussian(), rows(100), max_steps=3, log=tmp_path / "no" / "metrics.jsonl")


def test_progress_goes_to_stderr(capsys):
    pf.fit(gaussian(), rows(100), max_steps=30, evaluate_every=10)
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert lines[0].startswith("step 0/30  held-out -")
    assert lines[-1].startswith("FitResult(held-out -")
    assert len(lines) == 2  # ten seconds have not passed
    silent(gaussian(), rows(100), max_steps=3)
    assert capsys.readouterr() == ("", "")


def test_rich_bar_shows_the_same_numbers(capsys):
    result = pf.fit(gaussian(), rows(100), max_steps=30, evaluate_every=10, progress="rich")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "step 30/30" in shown.err
    assert repr(result) in shown.err.replace("\n", " ") or "FitResult" in shown.err


def test_rich_bar_stops_at_an_error(capsys):
    x = rows(64)
    x[3] = 5000.0
    with pytest.raises(TrainingError):
        pf.fit(fragile(), x, validation=None, progress="rich", max_steps=20, batch_size=8)
    capsys.readouterr()
    pf.fit(gaussian(), rows(10), progress="rich", max_steps=1)  # would fail: rich allows one live display at a time


def test_result_as_text():
    result = FitResult(120, -1.23456, 300, 12.34, 5.67, "patience", [])
    text = "FitResult(held-out -1.2346 nats at step 120 of 300, 12.3 passes in 5.7 s, stopped by patience)"
    assert repr(result) == text


def test_every_loss_is_checked_on_a_cpu():
    assert run_module.check_interval(torch.device("cpu")) == 1
    assert run_module.check_interval(torch.device("cuda")) > 1


def test_a_flag_of_numpy_stops():
    result = pf.fit(
        pf.models.NICE(2, hidden=(8,)), rows(100), max_steps=50, evaluate_every=10, progress="silent",
        callback=lambda event: np.float64(event.step) >= 20,
    )  # fmt: skip
    assert (result.stopped, result.steps) == ("callback", 20)


def test_a_loader_of_held_out_rows_without_a_batch_is_said():
    empty = DataLoader(TensorDataset(rows(5)), batch_size=64, drop_last=True)
    with pytest.raises(InputError, match="the DataLoader yields no batch"):
        pf.fit(pf.models.NICE(2, hidden=(8,)), rows(100), validation=empty, max_steps=3, progress="silent")


def test_an_ensemble_under_a_chain_is_initialized():
    torch.manual_seed(0)
    x = 5 * torch.randn(400, 2) + 100
    members = [pf.models.NSF(2, layers=2, hidden=(8, 8)) for _ in range(2)]
    model = pf.models.Flow(pf.transforms.Affine(2), pf.models.Ensemble(*members))
    result = pf.fit(model, x, max_steps=20, progress="silent")
    assert result.best_validation > -7  # a normal of deviation 5 in two columns has -6.06


def test_members_that_know_their_context_keep_it():
    torch.manual_seed(0)
    c = 5 * torch.randn(300, 1) + 100
    x = torch.cat([c + torch.randn(300, 1), torch.randn(300, 1)], 1)
    member = pf.models.MAF(2, context=1, hidden=(8,), layers=2)
    pf.fit(member, x, context=c, max_steps=50, progress="silent")
    model = pf.models.Flow(pf.transforms.Affine(2), pf.models.Ensemble(member))
    before = model.log_prob(x, c)
    pf.fit(model, x, context=c, max_steps=0, progress="silent")
    torch.testing.assert_close(model.log_prob(x, c), before)


def test_members_in_ensembles_and_products_keep_their_context():
    torch.manual_seed(0)
    c = 3 * torch.randn(200, 1) + 10
    x = torch.cat([c + torch.randn(200, 1), torch.randn(200, 1)], 1)
    member = pf.models.NICE(2, context=1, hidden=(8,))
    pf.fit(member, x, context=c, max_steps=20, progress="silent")
    inner = pf.models.Flow(pf.transforms.Affine(2), pf.models.Ensemble(member))
    nested = pf.models.Flow(pf.transforms.Affine(2), pf.models.Ensemble(inner))
    wide = pf.models.Flow(
        pf.transforms.Affine(4), pf.distributions.Product(pf.models.Ensemble(member), pf.distributions.Normal(2))
    )
    for model, rows_ in ((nested, x), (wide, torch.cat([x, x], 1))):
        before = model.log_prob(rows_, c)
        model.initialize(rows_, c)
        torch.testing.assert_close(model.log_prob(rows_, c), before)


def test_no_gradients_are_left():
    """The first backward pass of a user would add to them."""
    model = gaussian()
    silent(model, rows(100), max_steps=3)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_true_tensor_of_a_callback_stops():
    result = silent(
        gaussian(), rows(100), max_steps=50, evaluate_every=10, callback=lambda event: torch.tensor(event.step >= 20)
    )
    assert (result.stopped, result.steps) == ("callback", 20)


def test_inference_mode_is_refused():
    model = gaussian()
    with torch.inference_mode():
        with pytest.raises(ConfigError, match="no_grad"):
            silent(model, rows(100), max_steps=3)
        made = gaussian()
        x = rows(100)
    with pytest.raises(ConfigError, match="make it outside"):
        silent(made, rows(100), max_steps=3)
    assert silent(model, x, max_steps=3).steps == 3
