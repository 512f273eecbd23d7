"""FunnelFlow: widths, kinds, what its terms say, and a known density that it finds with fewer latent coordinates."""

from __future__ import annotations

import math

import pytest
import torch

from papers.claims.funnels import ring
from pushforward.errors import ConfigError, PushforwardWarning
from pushforward.likelihood import Counting, Kind, Lebesgue
from pushforward.models import NSF, FunnelFlow, ImageFunnelFlow
from pushforward.training import fit
from pushforward.transforms import ConvFunnel, Coupling, Funnel, ImageFunnel, MaskedAutoregressive, Slice

TINY = {"hidden": (8,), "bins": 4}


def funnels(model: FunnelFlow) -> list[tuple[int, int]]:
    kinds = (Funnel, ImageFunnel, ConvFunnel, Slice)
    return [(math.prod(part.in_shape), math.prod(part.out_shape)) for part in model.chain if isinstance(part, kinds)]


@pytest.mark.parametrize("kind", ["coupling", "mlp"])
def test_the_base_is_narrow_and_the_density_is_not(kind):
    model = FunnelFlow(7, latent=3, funnel=kind, layers=3, funnel_layer=1, **TINY)
    assert (model.kind, model.measure) == (Kind.EXACT, Lebesgue(7))
    assert model.base.shape == (3,)
    x = torch.randn(5, 7)
    assert model.log_prob(x).shape == (5,)
    assert model.encode(x).shape == (5, 3)
    assert model.decode(model.encode(x)).shape == (5, 7)
    z = torch.randn(5, 3)
    torch.testing.assert_close(model.encode(model.decode(z)), z, rtol=1e-4, atol=1e-4)


def test_widths():
    assert funnels(FunnelFlow(7, **TINY)) == [(7, 3)]
    assert funnels(FunnelFlow(7, latent=1, funnel="mlp", layers=3, **TINY)) == [(7, 5), (5, 3), (3, 1)]
    assert funnels(FunnelFlow(7, latent=7, **TINY)) == []
    assert funnels(FunnelFlow(1, **TINY)) == []
    assert funnels(ImageFunnelFlow(shape=(1, 8, 8), layers=1, scales=3, **TINY)) == [(64, 32), (32, 16)]
    assert funnels(ImageFunnelFlow(shape=(1, 8, 8), funnel="conv", layers=1, scales=2, **TINY)) == [(64, 16)]
    after = [
        part.in_shape
        for part in FunnelFlow(7, latent=3, layers=4, funnel_layer=1, **TINY).chain
        if isinstance(part, Coupling)
    ]
    assert after == [(7,), (3,), (3,)]
    late = FunnelFlow(7, latent=3, layers=4, **TINY).chain
    assert [part.in_shape for part in late if isinstance(part, (Coupling, Funnel))] == [(7,)] * 4
    assert isinstance([part for part in late if isinstance(part, (Coupling, Funnel))][-1], Funnel)


def test_the_decoder_has_as_many_spline_layers_as_asked_for():
    def splines(**options) -> int:
        chain = FunnelFlow(5, latent=2, layers=2, **TINY, **options).chain
        return sum(isinstance(part, MaskedAutoregressive) for part in chain.modules())

    assert splines() == splines(decoder_layers=3) == 0
    assert splines(decoder="spline") == 1
    assert splines(decoder="spline", decoder_layers=3) == 3
    assert splines(decoder="spline", decoder_layers=2, funnel="mlp") == 4


@pytest.mark.parametrize(("kind", "latent"), [("coupling", 1), ("coupling", 4), ("mlp", 2)])
def test_constant_columns(kind, latent):
    torch.manual_seed(0)
    x = torch.cat((torch.randn(200, 3), torch.full((200, 1), 7.0)), 1)
    model = FunnelFlow(4, latent=latent, funnel=kind, layers=2, **TINY)
    with pytest.warns(PushforwardWarning, match="column 3 is 7 in 180 of 180 rows"):
        fit(model, x, max_steps=20, progress="silent")
    with torch.no_grad():
        for rows in (x, x + torch.tensor([0.0, 0.0, 0.0, 1.0])):
            assert torch.isfinite(model.log_prob(rows)).all()
    assert torch.isfinite(model.sample(50, seed=0)).all()


def test_without_a_funnel_it_is_the_neural_spline_flow():
    torch.manual_seed(0)
    funnel = FunnelFlow(4, latent=4, layers=2, **TINY)
    plain = NSF(4, layers=2, **TINY)
    plain.load_state_dict(funnel.state_dict())
    x = torch.randn(5, 4)
    torch.testing.assert_close(funnel.log_prob(x), plain.log_prob(x))


def test_images_are_a_bound_on_counting():
    for kind, width in (("coupling", 32), ("conv", 16)):
        model = ImageFunnelFlow(shape=(1, 8, 8), funnel=kind, layers=1, levels=8, **TINY)
        x = torch.randint(0, 8, (3, 1, 8, 8))
        model.initialize(x)
        result = model.evaluate(x)
        assert (result.kind, result.measure) == (Kind.LOWER_BOUND, Counting(64))
        assert model.base.shape == (width,)
        drawn = model.sample(2, seed=0)
        assert torch.equal(drawn, drawn.round())


def test_the_terms_include_the_dropped_coordinates():
    model = FunnelFlow(5, latent=2, layers=2, funnel_layer=1, **TINY)
    terms = model.evaluate(torch.randn(3, 5)).terms
    assert [name.split(".")[1] for name in terms if "Funnel" in name] == ["Funnel"]
    assert "base" in terms


def test_it_finds_a_density_near_a_circle():
    """From 8 coordinates to 2; the truth is known exactly, and a normal of the same mean and covariance is far below."""
    train, _ = ring(4000, 0)
    test, truth = ring(2000, 1)
    torch.manual_seed(0)
    model = FunnelFlow(8, latent=2, layers=3, funnel_layer=1, bins=6, hidden=(32,))
    model.initialize(train)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        optimizer.zero_grad()
        model.loss(train[torch.randint(len(train), (256,), generator=generator)]).backward()
        optimizer.step()
    with torch.no_grad():
        gap = truth.mean().item() - model.log_prob(test).mean().item()
    gaussian = torch.distributions.MultivariateNormal(train.mean(0), torch.cov(train.T))
    plain = truth.mean().item() - gaussian.log_prob(test).mean().item()
    assert plain > 1.0
    assert -0.05 < gap < 0.5


def test_the_ring_has_its_stated_density():
    """Its mean over the ring's own samples of q / p is 1 for a density q inside."""
    rows, log_density = ring(100_000, 0)
    q = torch.distributions.Normal(torch.tensor([1.0, 0.0, *[0.0] * 6]), 0.04)
    ratio = (q.log_prob(rows).sum(-1).double() - log_density).exp()
    error = (ratio.std() / math.sqrt(len(ratio))).item()
    assert abs(ratio.mean().item() - 1) < 4 * error
    assert error < 0.05


def test_arguments_that_do_not_fit_are_refused():
    for make, match in (
        (lambda: FunnelFlow(3, latent=4), "at most"),
        (lambda: FunnelFlow(3, latent=0), "latent"),
        (lambda: FunnelFlow(3, funnel="conv"), "funnel"),
        (lambda: ImageFunnelFlow(shape=(1, 4, 4), funnel="mlp"), "funnel"),
        (lambda: FunnelFlow(3, transformer="cubic"), "transformer"),
        (lambda: FunnelFlow(3, decoder="flow"), "decoder"),
        (lambda: FunnelFlow(3, decoder="spline", decoder_layers=0), "decoder_layers"),
        (lambda: ImageFunnelFlow(shape=(1, 6, 4)), "scales"),
        (lambda: FunnelFlow(None), "ImageFunnelFlow"),
    ):
        with pytest.raises(ConfigError, match=match):
            make()
