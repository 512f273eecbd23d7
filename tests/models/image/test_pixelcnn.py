"""PixelCNN as a model: kind, code length, context, inpainting, and real digits."""

import math

import pytest
import torch

import pushforward as pf
from pushforward.errors import ConfigError, InputError
from pushforward.likelihood import Counting, Kind
from pushforward.models import PixelCNN

TINY = {"filters": 6, "layers": 2, "first_kernel_size": 3}
PLUSPLUS = {"network": "plusplus", "filters": 8, "layers": 1, "scales": 2}


def test_kind_and_code_length():
    model = PixelCNN((1, 3, 5), levels=8, **TINY)
    x = model.sample(7, seed=0)
    result = model.evaluate(x)
    assert (result.kind, result.measure) == (Kind.EXACT, Counting(15))
    torch.testing.assert_close(result.bits_per_dim(), -model.log_prob(x) / (15 * math.log(2)))
    # Near the start every level is about equally likely: about log2(8) bits.
    assert result.bits_per_dim().mean().item() == pytest.approx(3.0, abs=0.2)


@pytest.mark.parametrize("output", ["categorical", "logistic"])
def test_terms_of_the_chain_rule_are_those_of_longer_prefixes(output):
    """log p(x_i | x_<i) = log p(x_<=i) - log p(x_<i), where prefixes are summed over all that may follow."""
    model = PixelCNN((2, 1, 2), levels=3, output=output, components=2, **TINY).double()
    grid = torch.cartesian_prod(*[torch.arange(3)] * 4).double()
    images = torch.zeros(81, 2, 1, 2, dtype=torch.float64)
    for place, index in enumerate(model.base.autoregressive_order):
        images.reshape(81, 4)[:, index] = grid[:, place]
    joint = model.log_prob(images).exp().reshape(3, 3, 3, 3)
    terms = (
        model.conditional_log_prob(images)
        .reshape(81, 4)[:, list(model.base.autoregressive_order)]
        .reshape(3, 3, 3, 3, 4)
    )
    for place in range(4):
        longer, shorter = joint, joint
        for _ in range(3 - place):
            longer = longer.sum(-1)
        for _ in range(4 - place):
            shorter = shorter.sum(-1)
        expected = (longer / shorter.unsqueeze(-1)).log()
        torch.testing.assert_close(terms[..., place].reshape(*longer.shape, -1)[..., 0], expected)


@pytest.mark.parametrize(
    "network", [{"filters": 16, "layers": 2, "first_kernel_size": 3}, PLUSPLUS], ids=["gated", "plusplus"]
)
def test_it_learns_and_completes_images(network):
    """Rows repeat the first one: after training, completions of a given row do too."""
    torch.manual_seed(0)
    first = torch.randint(0, 2, (400, 1, 1, 4))
    x = 3 * first.expand(-1, 1, 4, 4)
    model = PixelCNN((1, 4, 4), levels=4, **network)
    pf.fit(model, x, max_steps=150, batch_size=100, learning_rate=1e-2, progress="silent")
    bits = model.evaluate(x).value.mean() / math.log(2)
    assert bits > -4.5  # the truth has 4 bits
    filled = model.inpaint(x[:50], rows=1, seed=0)
    assert (filled == x[:50]).double().mean() > 0.97
    assert torch.equal(filled[:, :, :1], x[:50, :, :1].float())


@pytest.mark.parametrize(
    "network", [{"filters": 8, "layers": 2, "first_kernel_size": 3}, PLUSPLUS], ids=["gated", "plusplus"]
)
def test_the_context_chooses(network):
    torch.manual_seed(0)
    c = torch.randint(0, 2, (300, 1)).float()
    x = (3 * c).reshape(-1, 1, 1, 1).expand(-1, 1, 3, 3)
    model = PixelCNN((1, 3, 3), levels=4, context=1, **network)
    pf.fit(model, x, context=c, max_steps=100, batch_size=100, learning_rate=1e-2, progress="silent")
    drawn = model.sample(20, torch.tensor([[0.0], [1.0]]), seed=0)
    assert (drawn[:, 0] == 0).double().mean() > 0.95
    assert (drawn[:, 1] == 3).double().mean() > 0.95


def test_inpainting_is_seeded_and_checks_its_arguments():
    model = PixelCNN((1, 4, 3), levels=4, context=2, **TINY)
    x, c = torch.randint(0, 4, (5, 1, 4, 3)), torch.randn(5, 2)
    first = model.inpaint(x, 2, c, seed=1)
    assert first.shape == (5, 1, 4, 3)
    assert torch.equal(first, model.inpaint(x, 2, c, seed=1))
    assert torch.equal(first, model.inpaint(x, 2, c, generator=torch.Generator().manual_seed(1)))
    assert not torch.equal(first, model.inpaint(x, 2, c, seed=2))
    assert torch.equal(model.inpaint(x, 4, c), x.float())
    assert torch.equal(model.inpaint(x, 0, c, seed=3), model.sample((), c, seed=3))
    for rows in (-1, 5, 1.0, True):
        with pytest.raises(ConfigError, match="rows"):
            model.inpaint(x, rows, c)
    with pytest.raises(ConfigError, match="not both"):
        model.inpaint(x, 1, c, seed=1, generator=torch.Generator())
    with pytest.raises(InputError, match="context"):
        model.inpaint(x, 1)
    with pytest.raises(InputError, match="shape"):
        model.inpaint(x[:, :, :3], 1, c)
    with pytest.raises(InputError, match="integers"):
        model.inpaint(x + 0.5, 1, c)


def test_incompatible_arguments_are_refused():
    with pytest.raises(ConfigError, match="output"):
        PixelCNN((1, 4, 4), output="gaussian")
    with pytest.raises(ConfigError, match="network"):
        PixelCNN((1, 4, 4), network="rows")
    with pytest.raises(ConfigError, match="output='logistic'"):
        PixelCNN((3, 4, 4), network="plusplus")


@torch.no_grad()
def test_the_channels_of_a_pixel_depend_on_each_other_linearly():
    """PixelCNN++ of three colors (eq. 3): the green term sees red of its own pixel, blue both, red neither."""
    torch.manual_seed(0)
    model = PixelCNN((3, 2, 2), levels=16, output="logistic", components=2, **PLUSPLUS).double()
    for weight in model.parameters():
        weight.add_(0.2 * torch.randn_like(weight))
    x = torch.full((1, 3, 2, 2), 8.0, dtype=torch.float64)
    terms = model.conditional_log_prob(x)[0, :, 1, 1]
    for changed, kept in ((0, []), (1, [0]), (2, [0, 1])):
        y = x.clone()
        y[0, changed, 1, 1] = 9
        differs = model.conditional_log_prob(y)[0, :, 1, 1] != terms
        assert differs.tolist() == [c not in kept for c in range(3)]


def test_both_networks_survive_a_file(tmp_path):
    for options in ({"filters": 8, "layers": 2}, PLUSPLUS | {"dropout": 0.3, "output": "logistic"}):
        model = PixelCNN((1, 5, 3), levels=8, **options)
        pf.save(model, tmp_path / "m.safetensors")
        again = pf.load(tmp_path / "m.safetensors")
        model.eval()
        again.eval()
        assert torch.equal(again.sample(3, seed=0), model.sample(3, seed=0))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_it_beats_independent_pixels_on_real_images(real_images, name):
    train, test, independent = real_images(name)
    torch.manual_seed(0)
    model = PixelCNN((1, 14, 14), levels=16, filters=16, layers=3, first_kernel_size=5)
    pf.fit(model, train, validation=None, max_steps=1500, batch_size=64, learning_rate=3e-3, progress="silent")
    with torch.no_grad():
        bits = model.evaluate(test).bits_per_dim().mean().item()
    assert bits < 0.85 * independent


def test_pixels_to_fill_may_be_nan():
    model = PixelCNN((1, 4, 3), levels=4, **TINY)
    x = torch.randint(0, 4, (5, 1, 4, 3)).float()
    marked = x.clone()
    marked[:, :, 2:] = math.nan
    assert torch.equal(model.inpaint(marked, 2, seed=0), model.inpaint(x, 2, seed=0))
    with pytest.raises(InputError, match="integers from 0 to 3"):
        model.inpaint(marked, 3)
