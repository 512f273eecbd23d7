"""The benchmarks of image families and of PixelCNN: every family has an entry, trains in its time, and is in the table."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # the benchmarks are not part of the package

from benchmarks.common.results import Results
from benchmarks.quality import families, pixelcnn
from pushforward.likelihood import Kind
from pushforward.training import run as training_run


@pytest.mark.parametrize("name", families.FAMILIES)
def test_a_family_models_integers_and_has_the_right_kind(name):
    model = families.FAMILIES[name]()
    assert model.shape == families.SHAPE
    assert model.measure.name == "Counting"
    assert model.measure.dim == 784
    assert model.kind is (Kind.EXACT if name.startswith("PixelCNN") else Kind.LOWER_BOUND)


def test_a_family_trains_in_its_time_and_is_measured_once(monkeypatch, tmp_path):
    monkeypatch.setattr(training_run, "monotonic", time.process_time)
    draw = torch.Generator().manual_seed(0)
    # Dark images of few levels: far from the 8 bits of an untrained model.
    images = torch.randint(4, (700, *families.SHAPE), generator=draw).to(torch.uint8)
    monkeypatch.setattr(families, "load_images", lambda name, train, folder: images if train else images[:50])
    options = SimpleNamespace(
        data=None, test=20, seeds=[0], families=["NICE"], seconds=1.5, draws=2, rates=[1e-3, 3e-3], batch=32
    )
    results = Results(tmp_path / "r.jsonl")
    families.run(options, results)
    families.run(options, Results(tmp_path / "r.jsonl"))  # finds what is there
    (record,) = Results(tmp_path / "r.jsonl").records
    assert record["steps"] > 0
    assert 2.0 < record["bits"] < 7.9  # four equal levels have 2 bits
    assert record["cpu"] < 3


def test_the_table_compares_the_best_models_on_held_out_images(tmp_path):
    results = Results(tmp_path / "r.jsonl")
    for name, batch, seed, bits, held_out in (
        ("Glow", 32, 0, 3.0, 3.1), ("Glow", 32, 1, 3.2, 3.1), ("Glow", 16, 0, 2.9, 3.3), ("NICE", 32, 0, 4.0, 4.0),
        ("PixelCNN", 32, 0, 3.05, 3.2), ("PixelCNN++", 32, 0, 2.8, 3.3), ("VAE", 32, 0, 2.0, 2.0),
    ):  # fmt: skip
        results.add({
            "kind": "families", "family": name, "seed": seed, "seconds": 1.0, "bits": bits, "error": 0.01, "rate": 1e-3, "steps": 9,
            "likelihood_kind": "EXACT" if name.startswith("PixelCNN") else "LOWER_BOUND", "parameters": 5, "validation": held_out, "batch": batch,
        })  # fmt: skip
    text = families.table(SimpleNamespace(seconds=1.0), results)
    order = [
        " | ".join(line.split(" | ")[:2]).removeprefix("| ") for line in text.splitlines() if line.startswith("| ")
    ]
    assert order[2:] == [
        "VAE | 32", "PixelCNN++ | 32", "Glow | 16", "PixelCNN | 32", "Glow | 32", "NICE | 32",
    ]  # fmt: skip
    assert "≤ 3.100 ± 0.141" in text
    assert "| 3.050 [0.010]" in text
    assert "PixelCNN in batches of 32: 0.050 bits/dim fewer than Glow in batches of 32" in text


def test_samples_with_and_without_the_cache_are_compared(monkeypatch, tmp_path):
    monkeypatch.setattr(pixelcnn, "SHAPE", (1, 5, 6))
    monkeypatch.setattr(pixelcnn, "IMAGES", 3)
    results = Results(tmp_path / "r.jsonl")
    pixelcnn.sample(SimpleNamespace(rows=3), results)
    pixelcnn.sample(SimpleNamespace(rows=3), results)  # finds what is there
    assert [record["network"] for record in results.records] == ["gated", "plusplus"]
    for record in results.records:
        assert record["equal_images"] == 3
        assert record["values"] > 20
    assert "3 of 3" in pixelcnn.sampling_table(results)
