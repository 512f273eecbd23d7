"""The benchmark of networks: training resumes where it stopped, and the card combines scores as the guard does."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import pushforward as pf
from benchmarks.common.results import Results
from benchmarks.networks import (
    card,
    class_rates,
    columns,
    demo_network,
    oodeel_scores,
    sets,
    tasks,
    training,
    training_rows,
)
from benchmarks.networks.card import combined
from benchmarks.networks.combinations import DEFAULT
from pushforward.detection.network import NetworkReader, default_score


@pytest.fixture
def short(monkeypatch) -> None:
    for name in ("digits-mlp", "dev-digits-mlp"):
        monkeypatch.setitem(tasks.TASKS, name, replace(tasks.TASKS[name], epochs=4))


def test_training_resumes(tmp_path, short):
    assert training.train("digits-mlp", 0, tmp_path / "whole", minutes=5)
    while not training.train("digits-mlp", 0, tmp_path / "parts", minutes=0):
        pass
    whole, rows, accuracy = training.load_network("digits-mlp", 0, tmp_path / "whole")
    parts = training.load_network("digits-mlp", 0, tmp_path / "parts")[0]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name]), name
    assert accuracy > 0.6
    assert rows.classes == 8


def test_rows_are_disjoint_and_left_out_classes_are_unseen():
    rows = tasks.load_task(tasks.TASKS["digits-mlp"], 0)
    parts = [{row.numpy().tobytes() for row in x} for x, _ in (rows.train, rows.calibration, rows.test)]
    assert not parts[0] & parts[1]
    assert not parts[1] & parts[2]
    assert {int(label) for label in rows.train[1]} == set(range(8))
    assert len(rows.left_out) > 0
    assert {side for side, _ in sets.test_sets(tasks.TASKS["digits-mlp"], rows).values()} == {"near", "far"}
    assert all(x.shape[1:] == rows.test[0].shape[1:] for _, x in sets.development_sets(rows).values())


def test_the_weights_of_the_card_are_those_of_the_default():
    score = default_score(classifies=True, head=True, layers=True)
    weights = dict(zip(score.names, (score.weights * sum(DEFAULT.values())).tolist(), strict=True))
    assert weights == pytest.approx({name.split(" ")[0]: weight for name, weight in DEFAULT.items()})


def test_the_card_combines_as_the_guard_does(tmp_path, short, monkeypatch):
    training.train("digits-mlp", 0, tmp_path, minutes=5)
    monkeypatch.setattr(columns, "CANDIDATES", {name: columns.CANDIDATES[name] for name in DEFAULT})
    monkeypatch.setattr(columns, "peer_scores", lambda net, rows: {})
    found = combined(columns.collect("digits-mlp", 0, tmp_path), DEFAULT, 0)
    net, rows, _ = training.load_network("digits-mlp", 0, tmp_path)
    guard = pf.NetworkGuard(net).fit(rows.train, calibration=rows.calibration[0])
    assert np.allclose(guard.anomaly_score(rows.test[0]), found["test"], rtol=1e-3)


def test_few_rows_are_those_of_each_class():
    x, y = torch.arange(50.0)[:, None], torch.arange(50) % 5
    rows, labels = tasks._first_of_each(x, y, 3, torch.Generator().manual_seed(0))
    assert torch.bincount(labels).tolist() == [3] * 5
    assert torch.equal(rows[:, 0].long() % 5, labels)
    few = tasks.load_task(tasks.TASKS["dev-digits-few"], 0)
    assert torch.bincount(few.train[1]).tolist() == [40] * 7


def test_turned_images_have_the_turn_in_their_label():
    x = torch.rand(40, 1, 6, 6)
    turned, y = tasks._turned(x, torch.arange(40) % 10)
    for k in range(40):
        assert torch.equal(turned[k], x[k].rot90(int(y[k]) // 10, (1, 2)))
    assert torch.equal(y % 10, torch.arange(40) % 10)
    assert len((y // 10).unique()) == 4


def test_the_replayed_network_is_the_network(tmp_path, short):
    training.train("digits-mlp", 0, tmp_path, minutes=5)
    net, rows, _ = training.load_network("digits-mlp", 0, tmp_path)
    reader = NetworkReader(net)
    reading = reader.read(rows.test[0][:50])
    sizes = [values.shape[1] for values in reading.layers.values()] + [reading.features.shape[1]]
    replay = oodeel_scores.Replay(sizes, reader.head_module).eval()
    with torch.no_grad():
        logits = replay(oodeel_scores._side_by_side(reader, rows.test[0][:50]))
    assert torch.allclose(logits, reading.logits, atol=1e-5)
    assert oodeel_scores._input_of_the_head(net, rows.test[0][:2], reader.head) == "5"


def test_the_tables_of_the_card(tmp_path):
    results = Results(tmp_path / "results.jsonl")
    numbers = {"flagged at 95%": 0.2, "caught 1%": 0.5, "caught 5%": 0.7}
    for network in card.NETWORKS:
        for seed in (0, 1):
            for score, area in (("default", 0.9), ("oodeel VIM", 0.8), ("pytorch-ood KNN", 0.7)):
                if score != "oodeel VIM" or seed == 0:
                    sets = {key: {"auroc": area + 0.02 * seed, **numbers} for key in ("near: a", "far: b", "far: c")}
                    results.add({
                        "network": network, "seed": seed, "accuracy": 0.95, "score": score, "sets": sets, "alarms 1%": 0.01, "alarms 5%": 0.04,
                        "n calibration": 100, "n test": 100,
                    })  # fmt: skip
    shown = card.tables(results)
    assert "| default | 91.0 ± 1.4 | 91.0 ± 1.4 | 91.0 / 91.0 |" in shown
    assert "| VIM of oodeel, seed 0 | 80.0 | 80.0 |" in shown
    assert "| digits | 95.0 ± 0.0 | 91.0 ± 1.4 | 80.0 (VIM of oodeel, seed 0) |" in shown
    assert "| default | near | 50.0 ± 0.0 | 70.0 ± 0.0 | 20.0 ± 0.0 | 1.00 ± 0.00 | 4.00 ± 0.00 |" in shown


def test_training_of_the_demo_resumes(tmp_path):
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(300, 1, 28, 28, generator=generator), torch.randint(0, 10, (300,), generator=generator)
    whole = demo_network.train(3, tmp_path / "whole", rows, epochs=3)
    stopped = torch.load(tmp_path / "whole" / "demo-3.pt", weights_only=True)
    (tmp_path / "parts").mkdir()

    def stop(state, file, epoch=1):
        save(state, file)
        if state["epoch"] == epoch:
            raise KeyboardInterrupt

    save = torch.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            demo_network.train(3, tmp_path / "parts", rows, epochs=3)
    (tmp_path / "parts" / "demo-3.tmp").rename(tmp_path / "parts" / "demo-3.pt")
    parts = demo_network.train(3, tmp_path / "parts", rows, epochs=3)
    assert stopped["epoch"] == 3
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name]), name


def test_training_rows_are_measured_once(tmp_path, short, capsys):
    results = Results(tmp_path / "results.jsonl")
    for _ in range(2):
        training_rows.measure("perceptron", 0, tmp_path, results)
    assert [record["score"] for record in results.records] == list(training_rows.SCORES)
    for record in results.records:
        assert (
            record["train n new"] == record["held out n new"] + 289
        )  # the rows of eight of ten digits that are held out
        assert 0 <= record["train 0.01"] <= record["train 0.05"] < 0.4
    assert training_rows.table(results).count("perceptron on digits") == 3


def test_rates_by_class_are_even_with_a_threshold_for_each(tmp_path, monkeypatch):
    """Two classes whose scores differ by two deviations: one threshold gives all of its alarms to one of them."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 4000)
    scores = rng.normal(size=4000) + 2 * labels
    inputs = torch.nn.functional.one_hot(torch.from_numpy(labels), 2).float()
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(0))  # as the benchmark divides held-out rows
    parts = SimpleNamespace(calibration=(inputs[:2000],), test=(inputs[2000:],))
    values = {"calibration": scores[:2000][order[600:].numpy()], "test": scores[2000:]}
    for name, value in (("MOST_CALIBRATION", 2000), ("LARGEST", 2000), ("collect", lambda *_: {})):
        monkeypatch.setattr(class_rates, name, value)
    monkeypatch.setattr(class_rates, "load_network", lambda *_: (torch.nn.Identity(), parts, 1.0))
    monkeypatch.setattr(class_rates, "combined", lambda *_: values)
    results = Results(tmp_path / "rates.jsonl")
    class_rates.class_rates("net", 0, tmp_path, results)
    [record] = results.records
    assert record["shared"]["0"] < 0.005
    assert record["shared"]["1"] == pytest.approx(0.1, abs=0.02)
    assert all(rate == pytest.approx(0.05, abs=0.015) for rate in record["own"].values())
    assert record["total"] == 40
    assert record["inside"] >= 34  # of redraws that share rows, 95 % on average
    assert "| net |" in class_rates.class_table(results, {"net": "net"})
