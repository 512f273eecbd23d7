"""The quality benchmarks of scores: every score has a cost, and the attacked score is the guard's own."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pushforward import registry
from pushforward.detection import pgd
from pushforward.detection.image_score import IMAGE_TRAINING, fit_image_score
from pushforward.training import run as training_run

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # the benchmarks are not part of the package

from benchmarks.common.results import Results  # noqa: E402
from benchmarks.quality import attacks, images, ood, peers, ready_made, score_costs  # noqa: E402
from benchmarks.quality.data import Split  # noqa: E402


def test_every_registered_score_has_a_cost():
    assert set(score_costs.CASES) == {name.removeprefix("scores.") for name in registry.names("scores.")}


def test_extra_memory_is_the_growth_during_a_call():
    def take():
        block = np.ones(5_000_000)  # 38 MiB, touched
        return block.sum()

    assert 30 < score_costs.extra_memory(take) < 60
    assert score_costs.extra_memory(lambda: None) < 10


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ((0.9, 1.0, 1.1), "ahead"), ((-0.9, -1.0, -1.1), "behind"), ((0.5, 1.0, 1.5), "level"),  # 17.3, -17.3 and 3.5 standard errors
        ((0.0, 0.0, 0.0), "level"), ((0.1, 0.9, 1.0, 1.1, 1.2), "ahead"),  # the last: 4.5 of four degrees of freedom
    ],
)  # fmt: skip
def test_a_library_is_ahead_if_a_paired_t_test_says_so(gains, verdict):
    # Two-sided at 5 %: 4.30 and 2.78 standard errors with three and five pairs.
    ours, theirs = dict(enumerate(gains)), dict.fromkeys(range(9), 0.0)
    assert peers.difference(ours, theirs).split()[-1] == verdict


def blobs(count: int, seed: int) -> torch.Tensor:
    """Smooth images of 8 x 8, integers."""
    draw = torch.Generator().manual_seed(seed)
    place = 7 * torch.rand(count, 2, 1, 1, generator=draw)
    row, column = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    apart = (row - place[:, 0]).square() + (column - place[:, 1]).square()
    noise = 4 * torch.rand(count, 8, 8, generator=draw)
    return (220 * torch.exp(-apart / 8) + noise).round().to(torch.uint8)[:, None]


@pytest.fixture(scope="module")
def guard():
    score = fit_image_score(
        blobs(300, 0), blobs(200, 1), config=replace(IMAGE_TRAINING, max_steps=3, progress="silent")
    )
    return SimpleNamespace(score_=score)


def test_the_attacked_score_is_that_of_the_guard(guard):
    score = attacks.guard_score(guard, blobs(100, 2))
    x = torch.cat((blobs(6, 3), torch.randint(256, (3, 1, 8, 8), generator=torch.Generator().manual_seed(0))))
    with torch.no_grad():
        assert torch.allclose(score(x.float()), guard.score_(x), rtol=1e-4, atol=1e-3)


def test_attacks_lower_the_true_score(guard):
    x = blobs(8, 4).flip(0) // 2 + 60
    score = attacks.guard_score(guard, blobs(100, 2))
    moved = pgd(lambda y: -score(y), x, budget=8, steps=10, random_start=False)
    assert moved.dtype is torch.uint8
    assert (moved.int() - x.int()).abs().max() <= 8
    assert (guard.score_(moved) < guard.score_(x) - 0.1).all()


def test_wilson_interval():
    assert attacks.interval(0.5, 100) == "50 [40, 60]"  # 0.404 to 0.596
    assert attacks.interval(0.0, 100) == "0 [0, 4]"  # 0.037
    assert attacks.interval(1.0, 100) == "100 [96, 100]"


def test_a_run_that_diverged_is_counted_and_not_averaged():
    assert images.spread([1.0, math.nan, 3.0]) == "2.000 ± 1.414 (1 of 3 diverged)"
    assert images.spread([math.inf]) == "– (1 of 1 diverged)"
    assert images.spread([1.0, 2.0], 1) == "1.5 ± 0.7"


def test_the_curve_is_read_from_its_file(tmp_path):
    results = Results(tmp_path / "r.jsonl")
    for steps, area in ((100, 0.6), (10, 0.5)):
        for score in ("guard", "-log p"):
            results.add({
                "train": "cifar10", "seed": 0, "kind": "curve", "steps": steps, "other": "gtsrb", "score": score, "auroc": area,
                "low": area - 0.01, "high": area + 0.01, "alarms 1%": 0.01, "alarms 5%": 0.05, "nats": -9.0, "fit seconds": 2.0 * steps,
            })  # fmt: skip
    rows = [line for line in ood.curve_table(results).splitlines() if line.startswith("| guard")]
    assert [row.split(" | ")[1:5] for row in rows] == [
        ["10", "20", "", "50.0 [49.0, 51.0]"],
        ["100", "200", "", "60.0 [59.0, 61.0]"],
    ]


def test_a_library_is_represented_by_its_better_flow_on_validation_rows(tmp_path):
    """A flow that did not train is not a result."""
    results = Results(tmp_path / "r.jsonl")
    for library, flow, validation, test in (
        ("pushforward", "spline", 2.0, 1.0),
        ("pushforward", "affine", 1.0, 9.0),  # better on test rows, which choose nothing
        ("zuko", "spline", math.nan, 5.0),
        ("zuko", "affine", 0.0, 0.5),
    ):
        key = {"set": "protein", "library": library, "flow": flow, "seed": 0, "seconds": 1.0}
        results.add(key | {"validation": validation, "test": test, "steps": 3})
    options = SimpleNamespace(sets=["protein"], libraries=["pushforward", "zuko"], seconds=1.0, seeds=1)
    text = ready_made.table(options, results)
    assert "**1.00 (spline)**" in text
    assert "0.50 (affine)" in text


def test_our_own_flows_train_within_their_time(monkeypatch):
    draw = torch.Generator().manual_seed(0)
    parts = [torch.randn(count, 3, generator=draw) for count in (600, 100, 100)]
    monkeypatch.setattr(training_run, "monotonic", time.process_time)
    start = time.process_time()
    found = ready_made.train("pushforward", "affine", Split("normal", *parts, offset=0.0), 0.5, 0)
    assert time.process_time() - start < 10
    assert found["steps"] > 0
    assert -7 < found["test"] < -3.5  # the truth is -4.26


def test_views_keep_the_turns_apart():
    from benchmarks.quality import contrastive

    x = torch.linspace(-1, 1, 8).expand(3, 1, 8, 8)
    turns = contrastive.turned(x)
    assert turns.shape == (12, 1, 8, 8)
    torch.testing.assert_close(turns[6:9], x.flip((2, 3)))
    views = contrastive.view(x, torch.Generator().manual_seed(0))
    assert views.abs().max() <= 1
    assert (views[:, :, :, -1] > views[:, :, :, 0]).all()  # moved and scaled a little, not turned
    network = contrastive.train(torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8), 0.3, 0)
    memory = [torch.nn.functional.normalize(network(x)[0], dim=1)] * contrastive.TURNS
    assert contrastive.parts(network, memory, torch.zeros(5, 1, 8, 8, dtype=torch.uint8)).shape == (5, 4, 2)
