"""The benchmark of networks: training resumes where it stopped, and the card combines scores as the guard does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import pushforward as pf
from benchmarks.common.results import Results
from benchmarks.networks import columns, demo_network, sets, tasks, training, training_rows
from benchmarks.networks.card import combined
from benchmarks.networks.combinations import DEFAULT


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


def test_the_card_combines_as_the_guard_does(tmp_path, short, monkeypatch):
    training.train("digits-mlp", 0, tmp_path, minutes=5)
    monkeypatch.setattr(columns, "CANDIDATES", {name: columns.CANDIDATES[name] for name in DEFAULT})
    monkeypatch.setattr(columns, "peer_scores", lambda net, rows: {})
    found = combined(columns.collect("digits-mlp", 0, tmp_path), DEFAULT, 0)
    net, rows, _ = training.load_network("digits-mlp", 0, tmp_path)
    guard = pf.NetworkGuard(net).fit(rows.train, calibration=rows.calibration[0])
    assert np.allclose(guard.anomaly_score(rows.test[0]), found["test"], rtol=1e-3)


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
