import pytest
import torch

from papers.experiment import Experiment
from papers.flows.residual_classifiers import (
    BOTH,
    CLASSES,
    DENSITY,
    PLAIN,
    Digits,
    Found,
    compare_purposes,
    plain_blocks,
)
from pushforward.models import IResNet


@pytest.mark.parametrize(("shape", "scales", "width"), [((6,), 1, 6), ((1, 8, 8), 2, 64)])
def test_a_plain_network_keeps_the_number_of_coordinates(shape, scales, width):
    rows = torch.randint(17, (20, *shape), generator=torch.Generator().manual_seed(0))
    network = plain_blocks(rows, (8, 8), 2, scales)
    assert network(rows.float()).shape == (20, width)
    rows = rows.float()
    assert torch.allclose(network[0](rows).mean(0), torch.zeros(()), atol=1e-5)


@pytest.mark.parametrize(
    ("right", "good"), [((0.96, 0.965, 0.968), True), ((0.96, 0.971, 0.96), False), ((0.96, 0.96, 0.975), False)]
)
def test_a_network_for_both_is_as_good_within_a_point(right, good):
    found = Found(right={purpose: [value, value] for purpose, value in zip((BOTH, CLASSES, PLAIN), right, strict=True)})
    assert found.as_good() is good


def test_networks_learn_what_they_are_trained_for(tmp_path):
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 2
    rows = torch.randn(400, 2, generator=draw) * 0.3 + 2.0 * labels[:, None]

    def bits(model):
        with torch.no_grad():
            return -model.log_prob(rows[200:]).mean().item()

    found = compare_purposes(
        Experiment("toy", "quick", tmp_path, seeds=1, say=lambda line: None), "toy",
        Digits(rows[:200], labels[:200], rows[200:], labels[200:]), lambda: IResNet(2, blocks=2, hidden=(16,), log_det="exact"),
        lambda: plain_blocks(rows[:200], (16,), 2), bits, steps=120, batch_size=64, learning_rate=1e-2,
    )  # fmt: skip
    assert min(found.right[purpose][0] for purpose in (BOTH, CLASSES, PLAIN)) > 0.95
    assert set(found.right) == {BOTH, CLASSES, PLAIN}
    assert set(found.bits) == {BOTH, DENSITY}
    normal = torch.distributions.MultivariateNormal(rows[:200].mean(0), torch.cov(rows[:200].mT))
    assert found.bits[DENSITY][0] < -normal.log_prob(rows[200:]).mean().item()
