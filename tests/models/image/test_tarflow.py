"""TarFlow: kinds, log-determinant, noise in training only, and learning."""

import math

import pytest
import torch

import pushforward as pf
from pushforward.errors import ConfigError
from pushforward.likelihood import Counting, Kind, Lebesgue
from pushforward.models import TarFlow
from pushforward.transforms import TokenAutoregressive

TINY = {"width": 8, "layers": 1, "heads": 2}


@pytest.mark.parametrize(("shape", "patch"), [((3, 2, 2), 1), ((1, 2, 4), 2), ((1, 1, 1), 1), ((1, 3, 3), 1)], ids=str)
def test_the_log_determinant_of_a_whole_image_model(shape, patch):
    torch.manual_seed(0)
    model = TarFlow(shape, patch, None, blocks=3, **TINY).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.initialize(torch.randn(50, *shape, dtype=torch.float64) * 3 + 1)
    x = torch.randn(1, *shape, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(model.encode, x).reshape(x.numel(), x.numel())
    expected = model.base.log_prob(model.encode(x)) + torch.linalg.slogdet(jacobian)[1]
    torch.testing.assert_close(model.log_prob(x), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model.decode(model.encode(x)), x, rtol=1e-9, atol=1e-9)
    assert (model.kind, model.measure) == (Kind.EXACT, Lebesgue(x.numel()))


def test_integers_are_dequantized():
    model = TarFlow((1, 4, 4), 2, levels=8, blocks=2, **TINY)
    x = torch.randint(0, 8, (5, 1, 4, 4))
    result = model.evaluate(x)
    assert (result.kind, result.measure) == (Kind.LOWER_BOUND, Counting(16))
    assert result.bits_per_dim().shape == (5,)
    assert torch.equal(model.decode(model.encode(x)), x.float())
    assert set(model.sample(20, seed=0).unique().tolist()) <= set(range(8))


def test_blocks_alternate_their_order():
    model = TarFlow((1, 4, 4), 2, blocks=3, **TINY)
    assert [part.flip for part in model.chain if isinstance(part, TokenAutoregressive)] == [False, True, False]
    assert model.fast == "log_prob"


def test_noise_is_used_only_in_training():
    """Scores do not see it, and the loss is that of noised images: for the untrained model, in closed form."""
    model = TarFlow((1, 2, 2), 1, None, blocks=1, noise=0.5, **TINY)
    quiet = TarFlow((1, 2, 2), 1, None, blocks=1, **TINY)
    with torch.no_grad():
        for each in (model, quiet):
            for part in each.chain:
                if isinstance(part, TokenAutoregressive):
                    part.network.last.weight.zero_()  # then the block is the identity
    x = torch.randn(4000, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.log_prob(x), quiet.log_prob(x))
    difference = model.loss(x, generator=torch.Generator().manual_seed(1)) - quiet.loss(x)
    # E (x + s e)^2 / 2 - x^2 / 2 = s^2 / 2 for each coordinate
    assert difference.item() == pytest.approx(4 * 0.5**2 / 2, abs=0.05)


def test_it_learns_a_dependence_between_patches():
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(1500, 1, 1, 1, generator=generator)
    e = torch.randn(1500, 1, 2, 2, generator=generator)
    x = first + 0.3 * e
    torch.manual_seed(0)
    model = TarFlow((1, 2, 2), 1, None, blocks=2, width=16, layers=1, heads=2)
    pf.fit(model, x, max_steps=300, batch_size=200, learning_rate=5e-3, progress="silent")
    covariance = torch.ones(4, 4, dtype=torch.float64) + 0.09 * torch.eye(4, dtype=torch.float64)
    truth = torch.distributions.MultivariateNormal(torch.zeros(4, dtype=torch.float64), covariance)
    entropy = truth.entropy().item()
    fresh = truth.sample((2000,)).reshape(-1, 1, 2, 2).float()
    assert -model.log_prob(fresh).mean().item() < entropy + 0.15
    independent = 4 * 0.5 * math.log(2 * math.pi * math.e * 1.09)
    assert independent > entropy + 1.5


@pytest.mark.parametrize(
    "make",
    [lambda: TarFlow((1, 4, 4), 3), lambda: TarFlow(16), lambda: TarFlow((1, 4, 4), levels=1),
     lambda: TarFlow((1, 4, 4), blocks=0), lambda: TarFlow((1, 4, 4), noise=-1.0),
     lambda: TarFlow((1, 4, 4), width=10, heads=4), lambda: TarFlow((1, 4, 4), levels=2.5)],
)  # fmt: skip
def test_impossible_arguments(make):
    with pytest.raises(ConfigError):
        make()
