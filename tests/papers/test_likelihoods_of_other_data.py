"""Parts of the reproduction nalisnick: flows of constant volume, other bases, and likelihoods during a training."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from papers.experiment import Experiment, UnfinishedError
from papers.other_data.constant_volume import (
    BASES,
    NORMAL,
    REFITTED,
    ImageSets,
    Variant,
    altered,
    constant_volume_flow,
    diagonal_curvature,
    measure_gaps,
    rank_correlation,
    report_summary,
    run_variant,
    swap_bases,
)
from papers.other_data.likelihood_curves import CurveModel, follow, report_curves, report_variances
from papers.other_data.photographs import follow_photographs, gray_photographs
from pushforward.distributions import Normal
from pushforward.errors import StorageError
from pushforward.models import Flow, Glow, PixelCNN
from pushforward.transforms import Affine, Chain, Flatten, UniformDequantize

TINY = {"scales": 1, "layers": 1, "hidden": (4,)}
SMALL = (1, 8, 8)


def quiet(out: Path, budget: str = "smoke", seeds: int | None = None) -> Experiment:
    return Experiment("toy", budget, out, seeds=seeds, say=lambda line: None)  # pyright: ignore[reportArgumentType]


def pixels(count: int, shape=SMALL, *, low: int = 0, high: int = 256, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (count, *shape), generator=draw, dtype=torch.uint8)


def normal_flow(scale: float) -> Flow:
    """log p(y) is that of a normal with standard deviation 1 / scale, so every curvature is -scale^2."""
    chain = Chain(UniformDequantize(SMALL, 256), Flatten(SMALL), Affine(64, scale=scale, trainable=True))
    return Flow(chain, Normal(64))


def test_the_curvature_of_a_normal_is_minus_its_precision():
    found = diagonal_curvature(normal_flow(3.0), torch.full((64,), 0.3), batch_size=48)
    assert found.shape == (64,)
    assert torch.allclose(found, torch.full((64,), -9.0, dtype=torch.float64))


def test_gaps_of_a_normal_are_predicted_exactly_by_moments_and_by_variances_alone_where_means_agree():
    test, narrow = pixels(400), pixels(400, low=96, high=160, seed=1)
    gaps = measure_gaps(constant(2.0), test, {"narrow": narrow, "dark": pixels(400, high=64, seed=2)})
    for gap in gaps.values():
        assert gap["mean"] == pytest.approx(gap["observed"], rel=1e-3)
        assert gap["constant"] == pytest.approx(gap["observed"], rel=1e-3)
        assert gap["negative"] == 1
    # Uniform gray levels: the variance changes from 1/12 to 1/(12 * 16) in each of 64 pixels.
    expected = 0.5 * 4 * 64 / 12 * (1 - 1 / 16)
    assert gaps["narrow"]["variances"] == pytest.approx(expected, rel=0.02)
    assert gaps["narrow"]["observed"] == pytest.approx(expected, rel=0.03)
    # Dark images have as small a variance, and a mean nearer to that of the base, which variances alone do not see.
    assert gaps["dark"]["variances"] == pytest.approx(expected, rel=0.02)
    assert gaps["dark"]["observed"] == pytest.approx(expected + 0.5 * 4 * 64 * (1 / 4 - 1 / 64), rel=0.03)


def constant(scale: float) -> Flow:
    """As ``normal_flow``, of coordinates (channels, height, width)."""
    chain = Chain(UniformDequantize(SMALL, 256), Affine(SMALL, scale=scale, trainable=True), Flatten(SMALL))
    return Flow(chain, Normal(64))


@pytest.mark.parametrize("base", BASES)
def test_the_volume_of_a_flow_does_not_depend_on_the_image(base):
    torch.manual_seed(0)
    flow = constant_volume_flow(SMALL, BASES[base], scales=2, layers=2, hidden=(4,))
    flow.initialize(pixels(30))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    _, volume = Flow(flow.chain[1:], flow.base).chain.encode(torch.rand(5, *SMALL))[:2]
    assert torch.allclose(volume, volume[:1].expand(5), rtol=1e-5)
    curvature = diagonal_curvature(flow, torch.zeros(SMALL))
    if base == NORMAL:  # a concave base and piecewise linear networks
        assert (curvature <= 1e-6).all()


def test_altered_images_keep_what_they_should():
    images = pixels(50)
    found = altered(images)
    assert len(found) == 6
    assert torch.equal(255 - found["inverted"], images)
    assert torch.equal(found["upside down"].flip(-2), images)
    assert torch.equal(found["shuffled pixels"].flatten(1).sort(1).values, images.flatten(1).sort(1).values)
    mean = images.double().mean(0)
    half, quarter = (found[name].double().var(0).mean() for name in ("grayed by half", "grayed by three quarters"))
    assert half / images.double().var(0).mean() == pytest.approx(1 / 4, abs=0.01)
    assert quarter / images.double().var(0).mean() == pytest.approx(1 / 16, abs=0.01)
    assert (found["grayed by half"].double().mean(0) - mean).abs().max() < 1
    assert all(each.dtype == torch.uint8 for each in found.values())


def test_rank_correlation_of_reversed_and_of_monotone_values():
    assert rank_correlation([1, 2, 3], [1, 4, 9]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [5, 4, 0]) == pytest.approx(-1)


def test_photographs_in_gray_are_the_middle_of_the_picture():
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    image[0, :, 2, 2] = torch.tensor([255, 0, 0])
    image[0, :, 29, 29] = 200
    image[0, :, 30, 30] = 255  # outside the middle
    gray = gray_photographs(image)
    assert gray.shape == (1, 1, 28, 28)
    assert (gray[0, 0, 0, 0], gray[0, 0, 27, 27]) == (76, 200)  # 0.299 * 255
    assert gray.sum() == 276


def test_a_variant_of_narrow_images_is_inverted_and_predicted(tmp_path):
    """Uniform noise as training data, and noise with a quarter of its width as other data, which must be likelier."""
    train, test, narrow = pixels(300), pixels(200, seed=1), pixels(200, low=96, high=160, seed=2)
    sets = ImageSets("noise", train[:-50], train[-50:], test, {"narrow": narrow, "dark": pixels(200, high=64, seed=3)}, "narrow")  # fmt: skip
    options = {"max_steps": 60, "batch_size": 64, "learning_rate": 1e-2}
    variant = Variant("a flow", sets, lambda: constant_volume_flow(SMALL, BASES[NORMAL], **TINY), options)
    experiment = quiet(tmp_path, "quick")
    found = run_variant(experiment, variant)
    assert [f.confirmed for f in experiment.findings][:2] == [True, True]
    assert found[0]["auroc"] < 0.01
    assert experiment.findings[0].claim.startswith("a flow: it gives narrow a higher likelihood")
    gray = found[0]["gray"]["noise"]
    assert gray == sorted(gray)
    report_summary(experiment, {"a flow": found, "another": [{**found[0], "inverted": False}]})
    assert experiment.findings[-1].confirmed
    assert "both: a flow." in experiment.findings[-1].ours
    assert "another: not inverted, predicted" in experiment.findings[-1].ours
    again = quiet(tmp_path, "quick")  # from the file of measurements, without training
    assert run_variant(again, replace(variant, make=lambda: pytest.fail("trained again")))[0] == found[0]


def test_bases_are_fitted_to_the_latents_of_trained_layers(tmp_path):
    """Sparse but large deviations are likelier than small dense ones with heavy tails, and less likely without."""
    draw = torch.Generator().manual_seed(0)
    dense = (128 + 8 * torch.randn(600, *SMALL, generator=draw)).round().to(torch.uint8)
    sparse = torch.full((200, *SMALL), 128, dtype=torch.uint8)
    sparse[:, :, 0, :2] = 20
    torch.manual_seed(0)
    flow = constant_volume_flow(SMALL, BASES[NORMAL], **TINY)
    flow.initialize(dense)
    experiment = quiet(tmp_path, "quick")
    others = {"sparse": sparse, "noise": pixels(200)}
    found = swap_bases(experiment, {"made": lambda: flow}, dense[:400], dense[400:], others, steps=150)["made"]
    assert list(found) == list(REFITTED)
    assert found["Student-t, df 1"]["auroc"] < 0.1
    assert found["normal"]["auroc"] > 0.9
    base, some = experiment.findings
    assert "layers of the made" in base.ours
    assert "of 5 pairs" in some.ours
    assert not list(tmp_path.glob("*.safetensors"))


MADE = {
    "Glow": lambda: CurveModel("Glow", lambda: Glow(SMALL, alpha=None, **TINY), {"batch_size": 8}),
    "PixelCNN++": lambda: CurveModel(
        "PixelCNN++",
        lambda: PixelCNN(SMALL, output="logistic", network="plusplus", components=2, filters=4, layers=1, dropout=0.1),
        {"batch_size": 8},
    ),
}


def made_sets() -> dict[str, torch.Tensor]:
    return {"test": pixels(20, seed=1), "traffic signs": pixels(20, high=64, seed=2), "more": pixels(20, seed=3)}


class KilledError(Exception):
    """Stands for the death of the process."""


def test_a_killed_training_repeats_no_look(tmp_path, monkeypatch):
    """Killed at the second look; the resumed run and one without interruption find the same."""
    options = {"seed": 0, "seconds": 120.0, "looks": 4, "rows": 10}
    model = MADE["PixelCNN++"]()
    trained = replace(model, options={**model.options, "checkpoint_every": 1})
    arguments = trained, pixels(60), pixels(10, seed=4), made_sets()
    whole = follow(quiet(tmp_path / "whole"), *arguments, **options)
    assert [look["minutes"] for look in whole["curve"]] == [0.0, 0.5, 1.0, 1.5, 2.0]
    looks: list[str] = []
    measure = Experiment.measure

    def spied(self, key, run, *rest):
        if "at step" in key and not self.measured(key):
            looks.append(key[-1])
            if key.endswith("2") and looks.count("2") == 1:
                raise KilledError
        return measure(self, key, run, *rest)

    monkeypatch.setattr(Experiment, "measure", spied)
    with pytest.raises(KilledError):
        follow(quiet(tmp_path), *arguments, **options)
    again = follow(quiet(tmp_path), *arguments, **options)
    assert looks == ["0", "1", "2", "2", "3", "4"]
    assert again == whole
    first = whole["curve"][0]
    assert first["bits"] != whole["curve"][-1]["bits"]
    file = tmp_path / "toy-smoke.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if "at step 3" not in json.loads(line)["key"]))
    with pytest.raises(StorageError, match="at step 3"):
        follow(quiet(tmp_path), *arguments, **options)


def test_models_that_are_finished_are_reported_when_the_time_is_over(tmp_path):
    experiment = quiet(tmp_path)
    models = {name: make() for name, make in MADE.items()}
    arguments = pixels(60), pixels(10, seed=4), made_sets(), {}
    follow_photographs(experiment, {"Glow": models["Glow"]}, *arguments)
    late = Experiment("toy", "smoke", tmp_path, say=lambda line: None, end=0.0)
    with pytest.raises(UnfinishedError, match="PixelCNN"):
        follow_photographs(late, models, *arguments)
    assert [f.claim for f in late.findings] == [f.claim for f in experiment.findings]


def test_the_criterion_of_variances(tmp_path):
    def end(**bits: float):
        return {"end": {"bits": {"test": 3.0, **bits}, "errors": dict.fromkeys(("test", *bits), 0.1)}}

    experiment = quiet(tmp_path, "long")
    variances = {"test": 2.0, "flat": 1.0, "loud": 4.0}
    for found in (end(flat=2.0, loud=4.0), end(flat=2.9, loud=4.0), end(flat=2.0, loud=2.0), end(flat=3.1, loud=3.1)):
        report_variances(experiment, MADE["Glow"](), [found], variances)
    assert [f.ours.split(";")[0] for f in experiment.findings] == [
        f"{k} of {n} clear gaps" for k, n in ((2, 2), (1, 1), (1, 2), (0, 0))
    ]
    assert [f.confirmed for f in experiment.findings] == [True, True, False, None]
    assert "flat 0.50 of the variance" in experiment.findings[0].ours


def test_the_criteria_of_curves(tmp_path):
    def run(low: float, areas: list[float]):
        bits = {"test": 3.0, "traffic signs": low}
        looks = [{"minutes": 10.0 * k, "auroc": {"traffic signs": area}} for k, area in enumerate(areas)]
        end = {"bits": bits, "errors": dict.fromkeys(bits, 0.01), "auroc": {"traffic signs": areas[-1]}}
        return {"curve": looks, "end": end, "parameters": 1, "best": 1, "steps": 2}

    experiment = quiet(tmp_path, "long")
    for low, areas in ((2.5, [0.5, 0.4, 0.3]), (2.98, [0.5, 0.4, 0.3]), (2.5, [0.5, 0.1, 0.45])):
        report_curves(experiment, MADE["Glow"](), [run(low, areas)], "traffic signs")
    assert [f.confirmed for f in experiment.findings] == [True, True, False, None, True, False]
    assert "20 minutes of training" in experiment.findings[0].note
    assert not math.isnan(np.mean([f.seconds for f in experiment.findings]))
