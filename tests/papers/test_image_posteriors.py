"""The comparison of posteriors on images: two moments of one training, gains, and what is reported."""

import math
from pathlib import Path

import pytest
import torch

from papers.autoencoders.image_posteriors import (
    CPU_SECONDS,
    Scores,
    Setting,
    _report,
    _report_rival,
    _rival,
    _steps,
    _trained,
    gain,
)
from papers.experiment import Experiment


class KilledError(Exception):
    """Stands for the death of the process."""


def noise(count: int, seed: int) -> torch.Tensor:
    return torch.randint(256, (count, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def setting(**options) -> Setting:
    return Setting(
        train=noise(40, 0), held_out=noise(8, 1), test=noise(6, 2), samples=3,
        vae={"width": 4, "latent": 2, "blocks": (1, 1), "free_bits": 0.1}, every=2,
        options={"batch_size": 8, "learning_rate": 1e-3, "ema": 0.9, "schedule": None, "patience": None, "evaluate_every": 2} | options,
    )  # fmt: skip


def quiet(out: Path, budget: str = "long", seeds: int | None = None) -> Experiment:
    return Experiment("toy", budget, out, seeds=seeds, say=lambda line: None)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("died_at", [2, 4, 6])
def test_a_killed_training_goes_on_to_the_same_scores(tmp_path, monkeypatch, died_at):
    whole = _trained(quiet(tmp_path / "whole"), setting(), "diagonal", 0, shorter=4, steps=8)
    train = Experiment.trained

    def dying(self, *args, callback, **options):
        def both(event):
            callback(event)
            if event.step == died_at:
                raise KilledError

        return train(self, *args, callback=both, **options)

    monkeypatch.setattr(Experiment, "trained", dying)
    often = setting(checkpoint_every=1)
    with pytest.raises(KilledError):
        _trained(quiet(tmp_path), often, "diagonal", 0, shorter=4, steps=8)
    monkeypatch.setattr(Experiment, "trained", train)
    again = _trained(quiet(tmp_path), often, "diagonal", 0, shorter=4, steps=8)
    assert again[:2] == whole[:2]
    assert again[2]["curve"] == whole[2]["curve"]


def test_gains_have_an_error_over_images_for_one_seed_and_over_seeds_for_several():
    one = gain([Scores([], [-1.0, -2.0, -3.0])], [Scores([], [-2.0, -4.0, -6.0])])
    assert one == (2.0, pytest.approx(1 / math.sqrt(3)))
    better, worse = (
        [Scores([], [-1.0, -1.0]), Scores([], [0.0, -4.0])],
        [Scores([], [-2.0, -2.0]), Scores([], [-9.0, -5.0])],
    )
    assert gain(better, worse) == (3.0, pytest.approx(2.0))


@pytest.mark.parametrize(("more", "confirmed"), [(2.0, True), (1.1, False), (0.9, False), (-5.0, False)])
def test_a_gain_above_a_nat_by_two_standard_errors_confirms(tmp_path, more, confirmed):
    experiment = quiet(tmp_path)
    worse = [Scores([-110.0] * 6, [-100.0 - k for k in range(6)])]
    better = [Scores([-109.0] * 6, [-100.0 - k + more + 0.2 * (-1) ** k for k in range(6)])]
    found = {moment: {"IAF": better, "diagonal": worse} for moment in ("steps", "time")}
    curve = [[0, -500.0], *([step, -100 - 1e5 / step] for step in range(1000, 8001, 1000))]
    facts = {
        kind: {"steps": steps, "parameters": 7, "best_step": 4, "curve": curve[: 1 + steps // 1000]}
        for kind, steps in (("diagonal", 8000), ("IAF", 6000))
    }
    _report(experiment, setting(), found, facts, 6000)
    at_steps, at_time = experiment.findings
    assert at_steps.confirmed is at_time.confirmed is confirmed
    bits = -more / (192 * math.log(2))
    assert f"{bits:+.4f} bits/dim, {more:+.1f} ± 0.1 nats" in at_steps.ours
    assert "6,000 steps of both" in at_steps.note
    assert f"at diagonal {1000 * CPU_SECONDS / 8000:.0f}, IAF {1000 * CPU_SECONDS / 6000:.0f} ms a step" in at_time.note
    course = [
        f"{(100 + 1e5 / step) / (192 * math.log(2)):.3f} after {minutes} min"
        for step, minutes in ((1000, 12), (2000, 25), (8000, 100))
    ]
    assert f"diagonal {', '.join(course)}; IAF" in at_time.note
    assert "other seeds may differ" in at_time.note


def test_steps_of_equal_time_are_multiples_of_the_interval_of_evaluations(tmp_path, monkeypatch):
    monkeypatch.setattr(Experiment, "time_limit", lambda self, *args, long, **options: {"max_steps": long + 1})
    assert _steps(quiet(tmp_path), setting(), "IAF") == CPU_SECONDS // 2 * 2


@pytest.mark.parametrize(("bits", "confirmed"), [(1.0, False), (1.95, True)])
def test_the_likelihood_is_compared_with_that_of_the_autoregressive_model_of_another_report(tmp_path, bits, confirmed):
    experiment, unit = quiet(tmp_path), 192 * math.log(2)
    assert _rival(experiment, setting()) is None
    other = Experiment("nalisnick", "long", tmp_path, say=lambda line: None)
    key = "PixelCNN++ of photographs 0"
    for step, minutes in ((5, 10.0), (10, 20.0)):
        other.measure(f"{key} at step {step}", lambda minutes=minutes: {"minutes": minutes})
    curve = [[0, -9 * unit], [5, -3 * unit], [10, -2 * unit]]
    other.measure(key, lambda: {"curve": curve, "parameters": 1234, "steps": 10})
    other.measure(f"{key} at the end", lambda: {"bits": {"CIFAR-10": bits}})
    rival = _rival(quiet(tmp_path), setting())
    assert rival is not None
    assert rival.curve == [(10.0, pytest.approx(3.0)), (20.0, pytest.approx(2.0))]
    _report_rival(experiment, setting(), [Scores([], [-2 * unit, -2 * unit])], rival)
    (finding,) = experiment.findings
    assert finding.confirmed is confirmed
    assert finding.ours == f"2.000 bits/dim, and PixelCNN++ {bits:.3f}"
    assert "100 and 20 minutes of CPU time" in finding.note
    assert _rival(quiet(tmp_path, "quick"), setting()) is None
