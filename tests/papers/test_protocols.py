"""Parts of reproductions: protocols, and criteria that are what the claim says."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from papers.claims import cef, glow, nalisnick, reviews, survey
from papers.claims.nalisnick import _neighbors
from papers.claims.survey import Split
from papers.experiment import Experiment


def test_pixels_are_predicted_from_earlier_pixels():
    images = torch.randint(256, (1, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    near, pixel = _neighbors(images)
    assert near.shape == (1, 28, 28, 24)
    assert torch.equal(pixel[0], images[0, 0].double() / 255)
    changed = images.clone()
    changed[0, 0, 10, 12] ^= 255
    moved = (_neighbors(changed)[0] != near).any(-1)[0].nonzero().tolist()
    rows = [(10, column) for column in (13, 14, 15)]
    rows += [(row, column) for row in (11, 12, 13) for column in range(9, 16)]
    assert [tuple(pixel) for pixel in moved] == rows


@pytest.mark.parametrize("how", ["clean", "file order", "copies"])
def test_only_the_split_with_copies_leaks(how):
    rng = np.random.default_rng(0)
    rows, odd = rng.normal(size=(90, 3)), rng.normal(size=(10, 3))
    split = Split(rows, odd, how, 0)
    seen = {tuple(row) for row in split.train.tolist()}
    leaked = np.mean([tuple(row) in seen for row in split.test.tolist()])
    if how == "copies":
        assert len(split.train) + len(split.test) == 900
        assert len(split.odd) == 100
        assert leaked > 0.9
        return
    assert leaked == 0
    assert len(split.train) == len(split.test) == 45
    first = Split(rows, odd, "file order", 0).train
    assert torch.equal(first, split.train) == (how == "file order")


def quick(out: Path, **measured: object) -> Experiment:
    """An experiment that has made these measurements."""
    experiment = Experiment("toy", "quick", out, say=lambda line: None)
    experiment.measurements.values |= {key.replace("_", " "): value for key, value in measured.items()}
    return experiment


@pytest.mark.parametrize(("real", "confirmed"), [(-100.0, True), (-10.0, False)])
def test_colder_samples_must_be_likelier_than_real_images(tmp_path, monkeypatch, real, confirmed):
    monkeypatch.setattr(glow, "sample_at_temperature", lambda flow, many, t, seed: torch.full((many, 1, 2, 2), 100 * t))
    monkeypatch.setattr(Experiment, "strip", lambda self, name, rows: None)
    values = {0: real, 50: -60.0, 70: -70.0, 100: -80.0}
    flow = SimpleNamespace(evaluate=lambda x: SimpleNamespace(value=torch.tensor([values[round(x.max().item())]])))
    experiment = quick(tmp_path)
    glow._temperature(experiment, flow, torch.zeros(100, 1, 2, 2))  # pyright: ignore[reportArgumentType]
    assert experiment.findings[0].confirmed is confirmed


@pytest.mark.parametrize(("constant", "confirmed"), [(-1.0, True), (0.0, False)])
def test_likelihoods_must_fail_on_constant_images(tmp_path, constant, confirmed):
    def scores(other: float, constant: float = 0.0) -> survey.Scores:
        return {"-log p": [np.array([value]) for value in (0.0, 0.0, other, constant, 1.0)]}

    experiment = quick(tmp_path)
    survey._report_directions(experiment, scores(-1.0, constant), scores(1.0))
    assert experiment.findings[0].confirmed is confirmed


def test_tables_are_measured_again_for_further_seeds(tmp_path, monkeypatch):
    methods = ("NICE", "kNN", "isolation forest")
    monkeypatch.setattr(survey, "_areas", lambda experiment, *parts: dict.fromkeys(methods, 0.5 + parts[-1] / 10))
    tables = {"small": (np.zeros((20, 2)), np.zeros((5, 2)))}
    for seeds in (1, 3):
        experiment = Experiment("toy", "quick", tmp_path, seeds=seeds, say=lambda line: None)
        found = survey._ranks(experiment, tables)
        survey._leakage(experiment, tables, found)
        assert [area["kNN"] for area in found["small"]] == [0.5, 0.6, 0.7][:seeds]
        assert experiment.findings[1].seeds == experiment.findings[2].seeds == seeds


@pytest.mark.parametrize(("area", "confirmed"), [(0.15, True), (0.9, False)])
def test_an_ensemble_like_its_members_must_also_be_inverted(tmp_path, monkeypatch, area, confirmed):
    monkeypatch.setattr(nalisnick, "_trained", lambda *names: None)
    experiment = quick(tmp_path, members_alone=[area] * 3, ensemble=area)
    nalisnick._ensemble(experiment, {})
    assert experiment.findings[0].confirmed is confirmed


@pytest.mark.parametrize(("residual", "confirmed"), [(0.9, True), (0.7, False)])
def test_the_distance_alone_must_detect_better_than_the_density(tmp_path, monkeypatch, residual, confirmed):
    monkeypatch.setattr(cef, "train_in_phases", lambda *names, **options: None)
    monkeypatch.setattr(Experiment, "images", lambda self, name, *, train, rows: torch.zeros(rows, 1, 1, 1))
    areas = {"auroc density": 0.8, "auroc residual": residual, "auroc both": 0.85}
    experiment = quick(tmp_path, images_compared={"residual": 1.0, "principal": 1.0, **areas})
    cef._images(experiment)
    assert experiment.findings[-1].confirmed is confirmed


@pytest.mark.parametrize(
    ("splines", "affine", "seeds", "confirmed"),
    [
        ([None, 2.0, 3.0], [0.0, 1.0, 2.01], 2, False),
        ([1.0, 2.0, 3.0], [None, 1.0, 2.01], 2, True),
        ([None, 2.0, 3.0, 4.0], [0.0, None, 2.01, 3.0], 2, False),
        ([None, None, None], [0.0, 0.0, 0.0], 3, False),
    ],
)
def test_couplings_are_paired_by_seed_where_trainings_diverged(tmp_path, splines, affine, seeds, confirmed):
    experiment, whole = quick(tmp_path), {"NSF (C)": [1.0, 1.1, 1.2], "Real NVP": [0.0, 0.1, 0.21]}
    found = {"moons": {"NSF (C)": splines, "Real NVP": affine}, "rings": whole}
    reviews._report_couplings(experiment, found, "20 s", finished=True)
    assert experiment.findings[0].confirmed is confirmed
    assert experiment.findings[0].seeds == seeds
