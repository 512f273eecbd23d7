"""Bayes by Backprop against the regression that has a closed form."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pushforward as pf
from pushforward.errors import ConfigError
from pushforward.networks.masked import MaskedLinear
from pushforward.training.bayes import bayes_by_backprop
from pushforward.training.bayes.backprop import MeanField
from pushforward.training.bayes.common import choose_parameters

from ..tiny import curved
from .small import Regression, images, vae

NOISE, PRIOR = 0.5, 0.3


def mean_field(model: pf.models.Model, local: bool = True, scale: float = 0.1) -> MeanField:
    return MeanField(model, choose_parameters(model, None), 100, PRIOR, scale, local)


@pytest.mark.parametrize("local", [True, False])
def test_linear_regression(local: bool):
    """The best q has the posterior's mean, and as variances the inverse diagonal of its precision."""
    source = torch.Generator().manual_seed(0)
    mixing = torch.tensor([[1.0, 0.7, 0.0], [0.0, 0.6, 0.3], [0.0, 0.0, 1.0]])
    u = torch.randn(300, 3, generator=source) @ mixing
    x = u @ torch.tensor([[1.0], [-2.0], [0.5]]) + NOISE * torch.randn(300, 1, generator=source)
    seen = torch.cat([(u - u.mean(0)) / u.std(0, correction=0), torch.ones(300, 1)], 1).double()
    precision = seen.T @ seen / NOISE**2 + torch.eye(4) / PRIOR**2
    mean = torch.linalg.solve(precision, seen.T @ x[:, 0].double() / NOISE**2)
    posterior = bayes_by_backprop(
        pf.models.Flow(Regression(1, 3, NOISE), pf.distributions.Normal(1)), x, 500, context=u, prior_scale=PRIOR, local=local,
        initial_scale=0.03, learning_rate=3e-2, max_steps=600, progress="silent",
    )  # fmt: skip
    drawn = torch.cat([stack.flatten(1) for stack in posterior.samples().values()], 1).double()
    best = precision.diagonal() ** -0.5
    center = torch.cat([p.detach().flatten() for p in posterior.model.parameters()]).double()
    assert ((center - mean) / best).abs().max() < 0.15
    assert (drawn.std(0) / best - 1).abs().max() < 0.12  # of 500 draws: 0.03


def test_divergence_is_that_of_torch():
    field = mean_field(pf.models.NICE(2, layers=2, hidden=(4,)))
    q = [torch.distributions.Normal(p, field.scale(name)) for name, p in field.chosen.items()]
    p = torch.distributions.Normal(0.0, PRIOR)
    wanted = sum(torch.distributions.kl_divergence(each, p).sum() for each in q)
    torch.testing.assert_close(field.divergence(), wanted, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("layer", "h"),
    [
        (nn.Linear(5, 3), torch.linspace(-1, 2, 5)),
        (nn.Linear(5, 3, bias=False), torch.linspace(-1, 2, 5)),
        (MaskedLinear(torch.tensor([[1, 0, 0, 1, 1], [0, 0, 0, 0, 0]], dtype=torch.bool)), torch.linspace(-1, 2, 5)),
    ],
    ids=["linear", "no bias", "masked"],
)
def test_outputs_are_drawn_with_the_mean_and_variance_that_weights_give(layer, h):
    model = pf.models.NICE(2)
    model.layer = layer  # so that it is part of a model
    field = MeanField(model, choose_parameters(model, ["layer"]), 100, 1.0, 0.3, True)
    count, source = 20_000, torch.Generator().manual_seed(0)
    with torch.no_grad():
        drawn = field._outputs("layer", layer, h.expand(count, *h.shape), source)
        means = {name: p.clone() for name, p in layer.named_parameters()}
        weights = {name: p + 0.3 * torch.randn(count, *p.shape, generator=source) for name, p in means.items()}
        by_weights = torch.func.vmap(lambda w: torch.func.functional_call(layer, w, (h[None],))[0])(weights)
    scale = by_weights.std(0).clamp(min=1e-6)
    assert ((drawn.mean(0) - by_weights.mean(0)) / scale).abs().max() < 0.05
    assert (drawn.std(0) / scale - 1)[by_weights.std(0) > 0].abs().max() < 0.04


class Unusual(pf.transforms.Transform):
    """Uses one layer twice, one by its weights besides a call, one only by its weights, and one normally."""

    def __init__(self) -> None:
        super().__init__(2)
        self.twice, self.beside, self.weights, self.once = (nn.Linear(2, 2) for _ in range(4))

    def encode(self, x, context=None, *, noise=None):
        h = self.twice(torch.tanh(self.twice(x))) + self.beside(x) @ self.beside.weight
        h = h + x @ self.weights.weight + self.once(x)
        return pf.transforms.Step(x + 0 * h, h.sum(-1))

    def decode(self, z, context=None, *, noise=None):
        raise NotImplementedError


def test_which_layers_draw_their_outputs():
    field = mean_field(pf.models.Flow(Unusual(), pf.distributions.Normal(2)))
    assert field._find_layers(torch.randn(3, 2), None) == ["chain.transforms.0.once"]
    whole = mean_field(vae())
    assert len(whole._find_layers(images(3), None)) == 4  # two layers of the encoder, two of the decoder
    assert mean_field(pf.models.ResidualFlow(2, blocks=1, hidden=(4,)))._find_layers(torch.randn(3, 2), None) == []


def test_both_ways_have_the_same_expectation():
    model = vae()
    x = images(4)
    values = {}
    for local in (True, False):
        field, source = mean_field(model, local, scale=0.2), torch.Generator().manual_seed(0)
        with torch.no_grad():
            values[local] = torch.stack([field.loss(x, generator=source) for _ in range(400)]).double()
    error = (values[True].var() / 400 + values[False].var() / 400).sqrt()
    assert (values[True].mean() - values[False].mean()).abs() < 4 * error
    assert values[True].std() < values[False].std()  # which is why it is done
    assert not any("forward" in vars(part) for part in model.modules())


def test_chosen_weights_and_the_rest():
    x = curved(100)

    def run(seed: int = 0, **options):
        torch.manual_seed(0)
        model = pf.models.MAF(3, layers=2, hidden=(8,), batch_norm=True)
        return bayes_by_backprop(
            model, x, 2, parameters=["last"], max_steps=20, seed=seed, initialize=False, progress="silent", **options
        )

    first = run()
    assert all(".last." in name or name.endswith((".mean", ".var")) for name in first.names)
    torch.manual_seed(0)
    start = dict(pf.models.MAF(3, layers=2, hidden=(8,), batch_norm=True).named_parameters())
    assert all(not torch.equal(start[name], p) for name, p in first.model.named_parameters())  # all were trained
    assert torch.equal(first.log_likelihoods(x), run().log_likelihoods(x))
    assert not torch.equal(first.log_likelihoods(x), run(seed=1).log_likelihoods(x))
    for member in [*first, first.model]:
        before = {name: b.clone() for name, b in member.named_buffers()}
        member.refresh(x)
        for name, buffer in member.named_buffers():
            torch.testing.assert_close(buffer, before[name])


@pytest.mark.parametrize("option", ["prior_scale", "initial_scale", "n_samples", "n_rows"])
def test_errors(option):
    with pytest.raises(ConfigError, match=option):
        bayes_by_backprop(vae(), images(20), **{"n_samples": 1, option: 0, "progress": "silent"})


class Squares(pf.transforms.Transform):
    """The squared sum of a layer's outputs at several positions: an expectation in which these depend on each other."""

    def __init__(self, layer: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self.layer = layer

    def encode(self, x, context=None, *, noise=None):
        return pf.transforms.Step(x, -self.layer(x).flatten(1).sum(1).square())

    def decode(self, z, context=None, *, noise=None):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.Conv2d(1, 1, 1, bias=False), (1, 4, 4)), (nn.Linear(1, 1, bias=False), (16, 1))],
    ids=["convolution", "linear at 16 positions"],
)
def test_positions_of_a_row_share_the_weights(layer, shape):
    """Of w ~ N(1, 1/4) and sixteen ones, E (sum of w)^2 = 256 (1 + 1/4); with noise for each position it is 260."""
    nn.init.ones_(layer.weight)
    model = pf.models.Flow(Squares(layer, shape), pf.distributions.Normal(shape))
    field = MeanField(model, choose_parameters(model, None), 10**12, 1.0, 0.5, True)
    x, source = torch.ones(1, *shape), torch.Generator().manual_seed(0)
    with torch.no_grad():
        constant = -model.base.log_prob(x).mean()
        losses = torch.stack([field.loss(x, generator=source) for _ in range(4000)]) - constant
    assert losses.mean().item() == pytest.approx(320, abs=12)  # the standard error is 4
