"""The benchmarks of promises: that what is attacked is the guard's own score, and that they run and resume."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # the benchmarks are no part of the package

from benchmarks.common.results import Results  # noqa: E402
from benchmarks.quality import certified, selective  # noqa: E402
from pushforward.detection.projected_mixture import ProjectedMixture  # noqa: E402


def test_the_attacked_score_is_the_mixtures():
    rows = np.random.default_rng(0).uniform(size=(200, 20))
    base = ProjectedMixture.fit(rows, 0.1, directions=5, components=2)
    x = torch.tensor(rows[:9], requires_grad=True)
    found = certified.differentiable_score(base)(x)
    assert found.detach().numpy() == pytest.approx(base.score(rows[:9]))
    (gradient,) = torch.autograd.grad(found.sum(), x)
    moved = rows[:9].copy()
    moved[:, 3] += 1e-6
    assert gradient[:, 3].numpy() == pytest.approx(
        (base.score(moved) - base.score(rows[:9])) / 1e-6, rel=1e-3, abs=1e-3
    )


def test_the_attack_finds_the_lowest_point_of_a_ball():
    rows = np.full((3, 4), 0.5)
    lowest = certified.attack(
        rows, 0.2, lambda x: (x**2).sum(1), lambda x: (x**2).sum(1), 0, steps=50, restarts=2, tries=2
    )
    assert lowest == pytest.approx(np.full(3, (1 - 0.2) ** 2), abs=1e-3)  # from a norm of 1 straight to the origin
    corner = certified.attack(rows, 5.0, lambda x: x.sum(1), lambda x: x.sum(1), 0, steps=50)
    assert corner == pytest.approx(np.zeros(3), abs=1e-6)  # pixels stay in their range


def fake_images(name, *, train, folder=None):
    draw = torch.Generator().manual_seed(len(name) + train)
    count = 700 if train else 120
    bright = 1.0 if name == "fashion-mnist" else 0.6
    return (bright * 255 * torch.rand(count, 1, 6, 6, generator=draw)).to(torch.uint8)


def test_certificates_run_and_resume(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(certified, "load_images", fake_images)
    monkeypatch.setattr(certified, "STEPS", 20)
    out = tmp_path / "found.jsonl"
    arguments = f"--out {out} --train 600 --test 60 --images 3 --steps 10 --sigmas 0.3 --radii 0.1".split()
    certified.main(arguments)
    first = out.read_text()
    certified.main(arguments)
    assert out.read_text() == first
    record = Results(out).where(part="radius", sigma=0.3)[0]
    assert record["broken"] == 0
    assert record["certified_0.05"] <= record["attacked_0.05"]
    assert "certified at 5 %" in capsys.readouterr().out


def test_promises_run_and_resume(monkeypatch, tmp_path, capsys):
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=1500)
    logits = 3 * np.eye(4)[labels] + rng.normal(size=(1500, 4))
    monkeypatch.setattr(selective, "network_logits", lambda *_: (logits, labels))
    out = tmp_path / "found.jsonl"
    arguments = f"--out {out} --rows 500 --redraws 3".split()
    selective.main(arguments)
    first = out.read_text()
    selective.main(arguments)
    assert out.read_text() == first
    assert len(Results(out).where(promise="LAC")) == 3
    text = capsys.readouterr().out
    assert "3 of 3" in text
    assert "no temperature" in text
