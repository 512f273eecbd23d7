import math

import numpy as np
import pytest
import torch
from scipy import stats

from pushforward.detection import (
    BatchTwoSampleGate,
    ConformalCalibrator,
    MMDTest,
    ProjectionKSTest,
    RandomFeatures,
    TypicalityTest,
    protocol_check,
)
from pushforward.errors import ConfigError, InputError
from pushforward.models import InFlow


def normal(count: int, seed: int, width: int = 2) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def model() -> InFlow:
    torch.manual_seed(0)
    flow = InFlow(2, hidden=(8,))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2)
    return flow.eval()


def test_scores_are_those_of_the_gate_that_the_batch_gets(model):
    gate = BatchTwoSampleGate(MMDTest(normal(200, 1)), alpha=0.05)
    fine, strange = normal(40, 5), normal(40, 3) + 2
    assert gate.p_value(fine) > 0.05 >= gate.p_value(strange)
    assert (gate.accepts(fine), gate.accepts(strange)) == (True, False)
    with torch.no_grad():
        assert torch.allclose(gate.scores(model, fine), -model.log_prob(fine).double(), atol=1e-5)
        assert torch.allclose(gate.scores(model, strange), -model.gated(0.0).log_prob(strange).double(), atol=1e-5)
        expected = strange.double().square().sum(1) / 2 + math.log(2 * math.pi)  # whatever the weights
    assert torch.allclose(gate.scores(model, strange), expected, atol=1e-5)


def test_a_gated_score_is_not_a_score_of_single_rows(model):
    """Which the check of the protocol says."""
    gate = BatchTwoSampleGate(MMDTest(normal(200, 1)))
    report = protocol_check(lambda x: gate.scores(model, x), normal(100, 2), normal(100, 3) + 2)
    assert "batch independence" in [check.name for check in report.failures]
    single = protocol_check(lambda x: -gate.single_p_values(x), normal(100, 2), normal(100, 3) + 2)
    assert single.passed


def test_the_unfair_evaluation_is_detected(model):
    """In-distribution rows that are spared the gate, as in the released code: two functions for the two sides."""
    gate = BatchTwoSampleGate(MMDTest(normal(200, 1)))
    report = protocol_check(
        lambda x: -model.log_prob(x),
        normal(100, 2),
        normal(100, 3) + 2,
        score_anomalous=lambda x: gate.scores(model, x),
    )
    assert [check.name for check in report.failures] == ["one code path"]


def test_in_distribution_batches_are_rejected_at_the_level():
    rejected = 0
    for k in range(200):
        gate = BatchTwoSampleGate(MMDTest(normal(60, 3 * k), permutations=39, seed=k), alpha=0.1)
        rejected += not gate.accepts(normal(10, 3 * k + 1))
    assert stats.binom.ppf(1e-4, 200, 0.1) <= rejected <= stats.binom.isf(1e-4, 200, 0.1)


def test_single_rows_are_conformal_with_the_kernel_mean():
    reference, rows = normal(60, 1), normal(9, 2) * 2
    gate = BatchTwoSampleGate(MMDTest(reference, bandwidth=1.0))
    found = gate.single_p_values(rows)
    for row, p in zip(rows, found, strict=True):
        pool = torch.cat((row[None], reference)).double()
        mean_kernel = torch.exp(-(torch.cdist(pool, pool) ** 2) / 2).mean(1)
        scores = (-mean_kernel).numpy()
        assert p == pytest.approx(ConformalCalibrator(scores[1:] - 1e-12).p_value(scores[:1])[0])
    assert found.tolist() == pytest.approx([gate.p_value(row[None]) for row in rows])


def test_one_outlier_in_a_hundred_is_not_detected_and_a_tenth_rejects_the_batch(model):
    gate = BatchTwoSampleGate(MMDTest(normal(400, 1)))
    batch = normal(200, 2)
    batch[:2] += 5
    assert gate.accepts(batch)
    batch[:30] += 5
    assert not gate.accepts(batch)


def test_other_tests_and_features(model):
    reference, fine, strange = normal(300, 1), normal(50, 2), 3 * normal(50, 3)
    with torch.no_grad():
        likelihood = BatchTwoSampleGate(TypicalityTest(model.log_prob(reference)), model.log_prob)
        latents = BatchTwoSampleGate(ProjectionKSTest(model.encode(reference)), model.encode)
    for gate in (likelihood, latents):
        assert (gate.accepts(fine), gate.accepts(strange)) == (True, False)
        p = gate.single_p_values(torch.cat((fine, 100 * strange)))
        assert p.shape == (100,)
        assert p[:50].mean() > 0.3 > p[50:].mean()


def test_random_features():
    features = RandomFeatures((3, 8, 10), outputs=5, seed=1)
    images = torch.randint(256, (4, 3, 8, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    values = features(images)
    assert values.shape == (4, 5)
    state = torch.random.get_rng_state()
    assert torch.equal(RandomFeatures((3, 8, 10), outputs=5, seed=1)(images), values)  # weights come from the seed
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(RandomFeatures((3, 8, 10), outputs=5, seed=2)(images), values)
    torch.set_default_dtype(torch.float64)
    try:
        other = RandomFeatures((3, 8, 10), outputs=5, seed=1)(images)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(other, values)  # and not from the default type
    x = images.double().requires_grad_()
    features.double()(x).sum().backward()
    assert x.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in features.parameters())
    with pytest.raises(ConfigError, match="at least 8"):
        RandomFeatures((1, 7, 28))
    with pytest.raises(ConfigError, match="images"):
        RandomFeatures(4)  # pyright: ignore[reportArgumentType]


def test_refusals():
    with pytest.raises(ConfigError, match="alpha"):
        BatchTwoSampleGate(MMDTest(np.zeros((3, 2))), alpha=0.0)
    with pytest.raises(InputError, match="needs a BatchTest"):
        BatchTwoSampleGate(lambda x: 0.5)  # pyright: ignore[reportArgumentType]
    gate = BatchTwoSampleGate(MMDTest(np.zeros((3, 2))))
    for bad in (np.zeros((3, 2)), torch.zeros(3), torch.zeros(0, 2)):
        with pytest.raises(InputError, match="needs a tensor of shape"):
            gate.p_value(bad)
    with pytest.raises(InputError, match="2 features"):
        gate.p_value(torch.zeros(3, 4))


@pytest.mark.parametrize("x", [torch.zeros(1, 8, 8), torch.zeros(2, 3, 8, 8), [[0.0]]])
def test_random_features_read_images_of_their_shape(x):
    with pytest.raises(InputError, match="reads a tensor of images"):
        RandomFeatures((1, 8, 8))(x)
    with pytest.raises(ConfigError, match="widths must be a tuple"):
        RandomFeatures((1, 8, 8), widths=8)  # pyright: ignore[reportArgumentType]
