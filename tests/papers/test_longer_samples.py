"""Samples of image flows after longer trainings: the judge, and what the findings say of made-up figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from papers.experiment import Experiment
from papers.flows import longer_samples
from papers.flows.longer_samples import Judge, Labeled, study_lengths
from pushforward.models import ImageNICE, Model
from pushforward.models.manipulation import attribute_direction

PAIR = {"left to right": (0, 1)}


def stripes(count: int, seed: int) -> Labeled:
    """Images with a bright half, on the left (class 0) or on the right (class 1)."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 60, (count, 1, 28, 28), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % 2
    images[labels == 0, :, :, :14] += 120
    images[labels == 1, :, :, 14:] += 120
    return Labeled(images, labels)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(stripes(200, 0), stripes(400, 1), 60)


def test_other_images_of_the_same_kind_are_near_and_noise_and_blends_are_far(judge: Judge):
    floor = judge.floor(PAIR)
    noise = torch.randint(0, 256, (100, 1, 28, 28), generator=torch.Generator().manual_seed(2))
    assert judge.distance(noise) > 20 * floor["other images"]
    assert floor["blend"] > 5 * floor["other images"]
    assert floor["left to right, before"] > 20 * floor["left to right, there"]
    assert floor["left to right, fraction before"] == 0.0
    assert judge.fraction(judge.others.of(1), 0, 1) == 1.0


def test_moved_images_follow_the_difference_of_mean_latents(judge: Judge):
    torch.manual_seed(0)
    model = ImageNICE(shape=(1, 28, 28), hidden=(8, 8))
    images = judge.starts.of(0)
    still, moved = judge.moved(model, (0, 1), images, (0.0, 1.0))
    assert torch.equal(still, images)
    rows = torch.cat([judge.train.of(0), judge.train.of(1)])
    direction = attribute_direction(model, rows, torch.arange(2).repeat_interleave(100))
    expected = model.decode(model.encode(images, seed=0) + direction, seed=0)
    assert torch.equal(moved, expected)
    assert judge.figures(model, PAIR, 0).keys() == {
        "bits", "T = 1.0", "T = 0.7", "path", "left to right, after", "left to right, fraction after",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("distances", "path", "verdicts"),
    [
        ({100: (9.0, 8.0, 8.5), 400: (4.0, 4.5, 4.2)}, 1.0, (True, True)),
        ({100: (9.0, 8.0, 8.5), 400: (8.9, 8.1, 8.6)}, 3.0, (False, False)),
    ],
)
def test_findings_on_figures(
    distances: dict[int, tuple[float, ...]], path: float, verdicts: tuple[bool, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):  # fmt: skip
    class Known(Judge):
        def floor(self, pairs: object) -> dict[str, float]:
            return {"other images": 1.0, "blend": 2.0}

        def figures(self, model: Model, pairs: object, seed: int) -> dict[str, float]:
            value = distances[400 if trained[-1] == 400 else 100][seed]
            return {"bits": 3.0, "T = 1.0": value, "T = 0.7": value, "path": path + 0.01 * seed}

    trained: list[int] = []

    class Counting(Experiment):
        def trained(
            self, key: str, make: object, rows: Tensor, validation: Tensor | None, *, seed: int = 0, **options: object
        ):  # pyright: ignore
            trained.append(int(str(options["max_steps"])))

            class Nothing:
                model = None

            return Nothing()

        def images(self, name: str, *, train: bool, rows: int | None = None) -> Tensor:
            return stripes(rows or 600, int(train)).images

    monkeypatch.setattr(longer_samples, "Judge", Known)
    monkeypatch.setattr(longer_samples, "_draw", lambda *args: None)
    monkeypatch.setattr(longer_samples, "load_labels", lambda name, train, folder: stripes(20_000, int(train)).labels)
    monkeypatch.setattr(Experiment, "keeps_picture", lambda self, name, models: True)
    experiment = Counting("toy", "quick", tmp_path, seeds=3, say=lambda line: None)
    study_lengths(experiment, "NICE", lambda: ImageNICE(shape=(1, 28, 28), hidden=(8, 8)))
    assert [finding.confirmed for finding in experiment.findings] == list(verdicts)
    assert "other test images 1.0" in experiment.findings[0].ours
    assert (tmp_path / "toy-longer-curves.png").exists()


def test_held_out_images_choose_the_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sets = {True: stripes(300, 0), False: stripes(300, 1)}
    monkeypatch.setattr(Experiment, "images", lambda self, name, *, train, rows=None: sets[train].images[:rows])
    monkeypatch.setattr(longer_samples, "load_labels", lambda name, train, folder: sets[train].labels)
    asked: list[str] = []
    measure = Experiment.measure

    def known(self: Experiment, key: str, function: Callable[[], object], *kept: Path) -> object:
        asked.append(key)
        return measure(self, key, (lambda: -2.0 if "rate" in key else -3.0) if "held out" in key else function, *kept)

    monkeypatch.setattr(Experiment, "measure", known)
    experiment = Experiment("toy", "smoke", tmp_path, seeds=1, say=lambda line: None)
    study_lengths(experiment, "NICE", lambda: ImageNICE(shape=(1, 28, 28), hidden=(8, 8)), rates=(1e-3, 2e-3))
    figures = [key for key in asked if key.endswith("figures")]
    assert figures == [f"samples after {length} steps, seed 0, rate 0.002, figures" for length in (2, 3)]
    assert "learning rate 0.002, of 0.001, 0.002 by held-out images after 2 steps" in experiment.findings[0].note
