from __future__ import annotations

import json
import math
import signal
import threading

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import pushforward as pf
from pushforward import io
from pushforward.errors import StorageError, TrainingError
from pushforward.training import TrainingEvent

from .tiny import Items, curved, equal, gaussian, rows, silent, weights

X = curved(100)


def model(width: int = 8):
    torch.manual_seed(0)
    return pf.models.NSF(features=3, layers=1, hidden=(width, width), dropout=0.1)


def stop_at(step: int):
    return lambda event: event.step >= step


BASE = {"max_steps": 40, "evaluate_every": 5, "batch_size": 16, "learning_rate": 1e-2}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


def without_seconds(history):
    return [{key: value for key, value in event.items() if key != "seconds"} for event in history]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", lambda p: torch.optim.RMSprop(p, lr=1e-3)])
def test_a_stopped_run_resumes_bitwise_equal(path, tmp_path, optimizer):
    log = tmp_path / "metrics.jsonl"
    options = {**BASE, "optimizer": optimizer}
    whole = model()
    expected = silent(whole, X, **options)
    part = model()
    assert silent(part, X, checkpoint=path, log=log, callback=stop_at(15), **options).stopped == "callback"
    with log.open("a") as file:
        file.write('{"step": 20, "torn')  # as a kill in the middle of a line leaves it
    torch.manual_seed(99)
    other = pf.models.NSF(features=3, layers=1, hidden=(8, 8), dropout=0.1)  # other weights, not to be seen
    found = silent(other, X, checkpoint=path, log=log, **options)
    assert equal(weights(other), weights(whole))
    assert without_seconds(found.history) == without_seconds(expected.history)
    assert (found.steps, found.best_step, found.stopped) == (40, expected.best_step, "max_steps")
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(0, 41, 5))


def test_without_held_out_rows(path):
    whole, part, other = model(), model(), model()
    silent(whole, X, validation=None, **BASE)
    silent(part, X, validation=None, checkpoint=path, callback=stop_at(10), **BASE)
    silent(other, X, validation=None, checkpoint=path, **BASE)
    assert equal(weights(other), weights(whole))


def test_a_finished_run_is_not_trained_again(path):
    first = model()
    before = silent(first, X, checkpoint=path, **BASE)
    events: list[TrainingEvent] = []
    second = model()
    after = silent(second, X, checkpoint=path, callback=events.append, **BASE)
    assert events == []
    assert equal(weights(first), weights(second))
    assert (after.steps, after.best_step, after.stopped) == (before.steps, before.best_step, before.stopped)
    assert after.history == before.history


def test_time_is_counted_over_all_parts_of_a_run(path):
    silent(gaussian(), rows(50), max_time=0.4, checkpoint=path, patience=None, evaluate_every=5,
           callback=lambda e: e.seconds > 0.2)  # fmt: skip
    header, _ = io.read(path, "checkpoint")
    used = header["state"]["elapsed"]
    assert used > 0.2
    result = silent(gaussian(), rows(50), max_time=0.4, checkpoint=path, evaluate_every=5, patience=None)
    assert result.stopped == "max_time"
    assert result.seconds >= 0.4
    assert result.history[-1]["learning_rate"] < result.history[0]["learning_rate"]
    assert [event["seconds"] for event in result.history] == sorted(event["seconds"] for event in result.history)


def test_resume_false_starts_again_and_true_requires_a_checkpoint(path):
    with pytest.raises(StorageError, match="no checkpoint"):
        silent(model(), X, checkpoint=path, resume=True, **BASE)
    with pytest.raises(StorageError, match="resume=True needs checkpoint="):
        silent(model(), X, resume=True, **BASE)
    silent(model(), X, checkpoint=path, callback=stop_at(20), **BASE)
    result = silent(model(), X, checkpoint=path, resume=False, callback=stop_at(5), **BASE)
    assert [event["step"] for event in result.history] == [0, 5]
    again = silent(model(), X, checkpoint=path, resume=True, **BASE)
    assert [event["step"] for event in again.history] == list(range(0, 41, 5))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learning_rate": 2e-2}, "learning_rate was 0.01 and is 0.02"),
        ({"batch_size": 17}, "batch_size was 16 and is 17"),
        ({"max_steps": 41}, "max_steps was 40 and is 41"),
        ({"max_steps": None, "epochs": 3}, "steps of all epochs was None and is"),
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"validation": 0.2}, "validation was 'ArrayRows of 10 rows' and is 'ArrayRows of 20 rows'"),
        ({"validation": None}, "validation was 'ArrayRows of 10 rows' and is None"),
        ({"optimizer": "sgd"}, "optimizer was 'adamw' and is 'sgd'"),
        ({"optimizer": torch.optim.RMSprop}, "optimizer was 'adamw' and is .*RMSprop"),
        ({"schedule": None}, "schedule was 'cosine' and is None"),
        ({"weight_decay": 0.1}, "weight_decay was 0.0 and is 0.1"),
        ({"gradient_clip": None}, "gradient_clip was 5.0 and is None"),
        ({"patience": 3}, "patience was 20 and is 3"),
        ({"amp": True}, "amp was False and is True"),
        ({"model": model(9)}, "model was 'NSF .*' and is 'NSF"),
        ({"model": model().requires_grad_(False)}, "model was"),
        ({"model": model().double()}, "model was"),
        ({"data": X + 1e-3}, "content of data was"),
        ({"data": X[:-1]}, "data was 'ArrayRows of 90 rows' and is 'ArrayRows of 89 rows'"),
        ({"data": Items(X)}, "data was 'ArrayRows of 90 rows' and is 'DatasetRows"),
    ],
)
def test_another_run_is_refused_with_the_setting_that_differs(path, change, words):
    silent(model(), X, checkpoint=path, callback=stop_at(5), **BASE)
    before = path.read_bytes()
    options = {"model": model(), "data": X, "checkpoint": path, **BASE, **change}
    with pytest.raises(TrainingError, match=f"belongs to another run: .*{words}"):
        silent(options.pop("model"), options.pop("data"), **options)
    assert path.read_bytes() == before


def test_the_same_numbers_in_another_container_are_the_same_data(path):
    silent(model(), X, checkpoint=path, callback=stop_at(5), **BASE)
    assert silent(model(), TensorDataset(X.double()), checkpoint=path, **BASE).steps == 40


@pytest.mark.parametrize("damage", ["cut", "flip", "other kind", "text"])
def test_a_damaged_checkpoint_is_refused_and_kept(path, damage):
    silent(model(), X, checkpoint=path, callback=stop_at(5), **BASE)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[:-10])
    elif damage == "flip":
        content[-100] ^= 1
        path.write_bytes(content)
    elif damage == "text":
        path.write_text("a checkpoint, surely")
    else:
        pf.save(model(), path)
    before, fresh = path.read_bytes(), model()
    untouched = weights(fresh)
    with pytest.raises(StorageError):
        silent(fresh, X, checkpoint=path, **BASE)
    assert path.read_bytes() == before
    assert equal(weights(fresh), untouched)


def test_a_path_that_cannot_be_written_is_an_error_before_the_first_step(tmp_path):
    seen: list[TrainingEvent] = []
    with pytest.raises(StorageError, match="cannot write"):
        silent(model(), X, checkpoint=tmp_path / "no" / "run.safetensors", callback=seen.append, **BASE)
    assert [event.step for event in seen] == [0]


def test_checkpoints_are_written_every_so_many_steps(path, monkeypatch):
    written = []
    write = io.write

    def counted(target, header, tensors):
        written.append(header["state"]["position"][0])
        write(target, header, tensors)

    monkeypatch.setattr(io, "write", counted)
    silent(model(), X, checkpoint=path, checkpoint_every=7, **BASE)
    assert written == [0, 7, 14, 21, 28, 35, 40]
    written.clear()
    silent(model(), X, checkpoint=path, checkpoint_every="1h", resume=False, **BASE)
    assert written == [0, 40]


def test_infinite_numbers_are_stored(path):
    held = torch.tensor([[0.5], [2.0]])  # a logit gives no mass to 2

    def logit():
        return pf.models.Flow(
            pf.transforms.Chain(pf.transforms.Logit(1), pf.transforms.ActNorm(1)), pf.distributions.Normal(1)
        )

    x = torch.rand(50, 1, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05
    options = {"validation": held, "max_steps": 10, "evaluate_every": 5, "checkpoint": path}
    with pytest.warns(pf.errors.PushforwardWarning, match="1 held-out"):
        silent(logit(), x, callback=stop_at(5), **options)
    with pytest.warns(pf.errors.PushforwardWarning, match="1 held-out"):
        result = silent(logit(), x, **options)
    assert [event["validation"] for event in result.history] == [-math.inf] * 3


@pytest.fixture
def python_handles_sigint():
    """Python's own handler, also where the shell started the tests with SIGINT ignored (a job in the background)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt(event: TrainingEvent) -> None:
    if event.step == 10:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("python_handles_sigint")
def test_ctrl_c_writes_a_checkpoint_and_restores_the_best_weights(path, capsys):
    whole = model()
    expected = silent(whole, X, **BASE)
    part = model()
    with pytest.raises(KeyboardInterrupt, match="step 10"):
        pf.fit(part, X, checkpoint=path, callback=interrupt, progress="plain", **BASE)
    assert str(path) in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not part.training
    best = max((event for event in expected.history if event["step"] <= 10), key=lambda event: event["validation"])
    _, tensors = io.read(path, "checkpoint")
    kept = {key.removeprefix("best."): value for key, value in tensors.items() if key.startswith("best.")}
    assert equal(weights(part), {key: kept[key] for key in weights(part)})
    short = model()
    assert silent(short, X, callback=stop_at(10), **BASE).best_step == best["step"]
    assert equal(weights(part), weights(short))
    other = model()
    silent(other, X, checkpoint=path, **BASE)
    assert equal(weights(other), weights(whole))


@pytest.mark.usefixtures("python_handles_sigint")
def test_a_second_ctrl_c_stops_at_once():
    def twice(event: TrainingEvent) -> None:
        if event.step == 10:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("the second one must raise")

    with pytest.raises(KeyboardInterrupt):
        silent(model(), X, callback=twice, **BASE)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_can_train():
    results = []
    thread = threading.Thread(target=lambda: results.append(silent(gaussian(), rows(50), max_steps=5)))
    thread.start()
    thread.join()
    assert results[0].steps == 5


def test_a_loader_resumes_inside_a_pass(path):
    def loader():
        return DataLoader(Items(X, noise=0.1), batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(4))

    options = {"validation": curved(20, seed=1), "max_steps": 20, "evaluate_every": 3, "learning_rate": 1e-2}
    whole, part, other = model(), model(), model()
    silent(whole, loader(), **options)
    silent(part, loader(), checkpoint=path, callback=stop_at(9), **options)
    silent(other, loader(), checkpoint=path, **options)
    assert equal(weights(other), weights(whole))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of Python 3.12, about fork beside threads
def test_persistent_workers_are_warned_of(path):
    """They keep their random state, which no checkpoint has."""
    options = {"validation": None, "max_steps": 2}

    def loader(persistent):
        return DataLoader(TensorDataset(X), batch_size=16, num_workers=1, persistent_workers=persistent)

    with pytest.warns(pf.errors.PushforwardWarning, match="persistent_workers=False"):
        silent(model(), loader(True), checkpoint=path, **options)
    silent(model(), loader(True), **options)  # without a warning, which is an error here
    silent(model(), loader(False), checkpoint=path, resume=False, **options)
