"""PixelCNN as a model: kind, code length, context, inpainting, and real digits."""

import math

import pytest
import torch

import pushforward as pf
from pushforward.errors import ConfigError, InputError
from pushforward.measure import Counting, Relation
from pushforward.models import PixelCNN

TINY = {"filters": 6, "layers": 2, "first_kernel": 3}


def test_kind_and_code_length():
    model = PixelCNN((1, 3, 5), levels=8, **TINY)
    x = model.sample(7, seed=0)
    result = model.evaluate(x)
    assert (result.relation, result.measure) == (Relation.EXACT, Counting(15))
    torch.testing.assert_close(result.bits_per_dim(), -model.log_prob(x) / (15 * math.log(2)))
    # Near the start every level is about equally likely: about log2(8) bits.
    assert result.bits_per_dim().mean().item() == pytest.approx(3.0, abs=0.2)


@pytest.mark.parametrize("output", ["categorical", "logistic"])
def test_terms_of_the_chain_rule_are_those_of_longer_prefixes(output):
    """log p(x_i | x_<i) = log p(x_<=i) - log p(x_<i), where prefixes are summed over all that may follow."""
    model = PixelCNN((2, 1, 2), levels=3, output=output, components=2, **TINY).double()
    grid = torch.cartesian_prod(*[torch.arange(3)] * 4).double()
    images = torch.zeros(81, 2, 1, 2, dtype=torch.float64)
    for place, index in enumerate(model.base.places):
        images.reshape(81, 4)[:, index] = grid[:, place]
    joint = model.log_prob(images).exp().reshape(3, 3, 3, 3)
    terms = model.conditional_log_prob(images).reshape(81, 4)[:, list(model.base.places)].reshape(3, 3, 3, 3, 4)
    for place in range(4):
        longer, shorter = joint, joint
        for _ in range(3 - place):
            longer = longer.sum(-1)
        for _ in range(4 - place):
            shorter = shorter.sum(-1)
        expected = (longer / shorter.unsqueeze(-1)).log()
        torch.testing.assert_close(terms[..., place].reshape(*longer.shape, -1)[..., 0], expected)


def test_it_learns_and_completes_what_it_learned():
    """Rows repeat the first one: after training, completions of a given row do too."""
    torch.manual_seed(0)
    first = torch.randint(0, 2, (400, 1, 1, 4))
    x = 3 * first.expand(-1, 1, 4, 4)
    model = PixelCNN((1, 4, 4), levels=4, filters=16, layers=2, first_kernel=3)
    pf.fit(model, x, max_steps=150, batch_size=100, lr=1e-2, progress="silent")
    bits = model.evaluate(x).value.mean() / math.log(2)
    assert bits > -4.5  # the truth has 4 bits
    filled = model.inpaint(x[:50], rows=1, seed=0)
    assert (filled == x[:50]).double().mean() > 0.97
    assert torch.equal(filled[:, :, :1], x[:50, :, :1].float())


def test_the_context_chooses():
    torch.manual_seed(0)
    c = torch.randint(0, 2, (300, 1)).float()
    x = (3 * c).reshape(-1, 1, 1, 1).expand(-1, 1, 3, 3)
    model = PixelCNN((1, 3, 3), levels=4, context=1, filters=8, layers=2, first_kernel=3)
    pf.fit(model, x, context=c, max_steps=100, batch_size=100, lr=1e-2, progress="silent")
    drawn = model.sample(20, torch.tensor([[0.0], [1.0]]), seed=0)
    assert (drawn[:, 0] == 0).double().mean() > 0.95
    assert (drawn[:, 1] == 3).double().mean() > 0.95


def test_inpainting_is_seeded_and_refuses_what_does_not_fit():
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


def test_unknown_output():
    with pytest.raises(ConfigError, match="output"):
        PixelCNN((1, 4, 4), output="gaussian")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_it_beats_independent_pixels_on_real_images(real_images, name):
    train, test, independent = real_images(name)
    torch.manual_seed(0)
    model = PixelCNN((1, 14, 14), levels=16, filters=16, layers=3, first_kernel=5)
    pf.fit(model, train, validation=None, max_steps=1500, batch_size=64, lr=3e-3, progress="silent")
    with torch.no_grad():
        bits = model.evaluate(test).bits_per_dim().mean().item()
    assert bits < 0.85 * independent
