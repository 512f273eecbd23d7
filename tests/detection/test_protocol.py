import numpy as np
import pytest
import torch

from pushforward.detection import protocol_check
from pushforward.errors import ConfigError, InputError

NORMAL = torch.randn(100, 3, 4, generator=torch.Generator().manual_seed(0))
ANOMALOUS = torch.randn(80, 3, 4, generator=torch.Generator().manual_seed(1)) + 2


def norm(x):
    return x.flatten(1).square().sum(1)


def failed(score, normal=NORMAL, anomalous=ANOMALOUS, **options):
    report = protocol_check(score, normal, anomalous, **options)
    assert report.passed == (not report.failures)
    if not report.passed:
        with pytest.raises(InputError, match=report.failures[0].name):
            report.require()
    return [check.name for check in report.failures]


def test_a_sound_score_passes():
    assert failed(norm) == []
    assert failed(lambda x: norm(x).numpy(), NORMAL.numpy(), ANOMALOUS.numpy()) == []
    assert failed(lambda x: torch.full((len(x),), torch.inf)) == []
    assert failed(norm, NORMAL[:1], ANOMALOUS[:1]) == []
    report = protocol_check(norm, NORMAL, ANOMALOUS)
    report.require()
    assert str(report).count("ok") == len(report.checks) == 6


def test_batch_normalization_in_training_mode_is_detected():
    """Every row is normalized by its neighbors."""
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5), torch.nn.BatchNorm1d(5))
    with torch.no_grad():
        assert "batch independence" in failed(lambda x: norm(network(x)) if len(x) > 1 else x.new_zeros(1))
        network.eval()
        assert failed(lambda x: norm(network(x))) == []


def test_scores_that_depend_on_the_order_or_on_pure_batches_are_detected():
    assert failed(lambda x: norm(x) + torch.arange(len(x))) == ["batch independence"]

    def gate(x):  # a batch that is all anomalous is condemned as a whole
        return norm(x) + 1000 * (x.mean() > 1.8)

    assert failed(gate) == ["batch independence"]


def test_noise_is_detected():
    assert "determinism" in failed(lambda x: norm(x) + torch.rand(len(x)))


def test_two_functions_for_two_sides_are_detected():
    assert failed(norm, score_anomalous=lambda x: norm(x)) == []
    assert failed(norm, score_anomalous=lambda x: norm(x) + 1) == ["one code path"]


def test_a_score_that_changes_its_input_is_detected():
    def spoil(x):
        x.mul_(1.0).clamp_(-0.5, 0.5)
        return norm(x)

    kept = NORMAL.clone()
    assert failed(spoil) == ["rows unchanged"]
    assert torch.equal(NORMAL, kept)


def test_rows_with_missing_cells_are_unchanged():
    normal = NORMAL.clone()
    normal[::3, 0, 0] = torch.nan
    assert failed(lambda x: norm(x.nan_to_num(5.0)), normal) == []
    assert failed(lambda x: norm(x.nan_to_num_(5.0)), normal) == ["rows unchanged"]


def test_scores_of_any_precision():
    assert failed(lambda x: norm(x).bfloat16()) == []


def test_nan_and_infinities():
    assert failed(lambda x: torch.where(norm(x) > 40, torch.nan, norm(x))) == ["no NaN"]
    assert failed(lambda x: torch.where(norm(x) > 40, torch.inf, norm(x))) == []
    # An infinity that comes and goes is a difference.
    assert "batch independence" in failed(lambda x: torch.full((len(x),), torch.inf if len(x) > 1 else 0.0))


def test_sides_of_different_types_or_shapes():
    assert failed(norm, NORMAL, ANOMALOUS.double()) == ["one type and shape"]
    assert failed(norm, NORMAL, ANOMALOUS[:, :2]) == ["one type and shape"]


def test_rounding_is_allowed_and_larger_differences_are_not():
    assert failed(lambda x: norm(x) * (1 + 1e-8 * len(x))) == []
    assert failed(lambda x: norm(x) * (1 + 1e-3 * len(x))) == ["batch independence"]
    assert failed(lambda x: norm(x) * (1 + 1e-3 * len(x)), tolerance=1.0) == []


def test_refusals():
    with pytest.raises(InputError, match="one number for each row"):
        protocol_check(lambda x: x.sum(), NORMAL, ANOMALOUS)
    with pytest.raises(InputError, match="at least one anomalous row"):
        protocol_check(norm, NORMAL, ANOMALOUS[:0])
    with pytest.raises(InputError, match="the normal rows must be"):
        protocol_check(norm, [["a"]], ANOMALOUS)
    with pytest.raises(ConfigError, match="rows"):
        protocol_check(norm, np.ones((3, 2)), np.ones((3, 2)), rows=0)
    with pytest.raises(InputError, match="one number for each row"):
        protocol_check(lambda x: ["a"] * len(x), NORMAL, ANOMALOUS)
    for wrong in (-1.0, np.nan, "small"):
        with pytest.raises(ConfigError, match="tolerance"):
            protocol_check(norm, NORMAL, ANOMALOUS, tolerance=wrong)
    with pytest.raises(ConfigError, match="seed must be an integer"):
        protocol_check(norm, NORMAL, ANOMALOUS, seed=1.5)
    assert protocol_check(norm, NORMAL, ANOMALOUS, seed=-1).passed
