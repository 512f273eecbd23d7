"""The benchmark of networks: training resumes where it stopped, and the card combines scores as the guard does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import pushforward as pf
from benchmarks.networks import columns, sets, tasks, training
from benchmarks.networks.card import ABLATIONS, combined


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
    monkeypatch.setattr(columns, "CANDIDATES", {name: columns.CANDIDATES[name] for name in ABLATIONS["default"]})
    monkeypatch.setattr(columns, "peer_scores", lambda net, rows: {})
    found = combined(columns.collect("digits-mlp", 0, tmp_path), ABLATIONS["default"], 0)
    net, rows, _ = training.load_network("digits-mlp", 0, tmp_path)
    guard = pf.NetworkGuard(net).fit(rows.train, calibration=rows.calibration[0])
    assert np.allclose(guard.anomaly_score(rows.test[0]), found["test"], rtol=1e-3)
