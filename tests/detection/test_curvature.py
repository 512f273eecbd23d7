"""The second-order gap where it is exact, the two terms, and graying."""

import math

import pytest
import torch

from pushforward import distributions, models, transforms
from pushforward.detection.curvature import (
    graying,
    likelihood_terms,
    mixture_log_likelihood,
    second_order_gap,
)
from pushforward.detection.without_preprocessing import WithoutPreprocessing
from pushforward.errors import ConfigError, InputError, KindError


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_exact_for_one_by_one_convolutions_on_gaussian_data():
    """log p(x) = -||W x||^2 / 2 + c at every pixel (sec. 5, eq. 5): both the sample's gap and the population's."""
    shape, count = (3, 4, 4), 4000
    flow = models.Flow(
        transforms.Chain(
            transforms.InvertibleConv1x1(shape, seed=1),
            transforms.InvertibleConv1x1(shape, form="free"),
            transforms.Flatten(shape),
        ),
        distributions.Normal(48),
    ).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.3 * normal(*parameter.shape, seed=5))
    w = torch.eye(3, dtype=torch.float64)
    for conv in list(flow.chain)[:2]:
        assert isinstance(conv, transforms.InvertibleConv1x1)
        w = conv.matrix_and_log_det()[0].detach() @ w
    mix_p, mix_q = normal(3, 3, seed=2), 0.5 * normal(3, 3, seed=3)
    mean_p, mean_q = torch.tensor([0.5, 0.0, -0.5]).double(), torch.tensor([0.2, 0.1, 0.0]).double()

    def draw(mix: torch.Tensor, mean: torch.Tensor, seed: int) -> torch.Tensor:
        return torch.einsum("ij,njhw->nihw", mix, normal(count, *shape, seed=seed)) + mean[:, None, None]

    gap = second_order_gap(flow, draw(mix_p, mean_p, 6), draw(mix_q, mean_q, 7))
    assert gap.predicted == pytest.approx(gap.observed, rel=1e-9)

    def moment(mix: torch.Tensor, mean: torch.Tensor) -> float:
        return -0.5 * 16 * torch.trace(w.mT @ w @ (mix @ mix.mT + torch.outer(mean, mean))).item()

    truth = moment(mix_q, mean_q) - moment(mix_p, mean_p)
    assert abs(gap.predicted - truth) < 4 * gap.error
    assert gap.error < 0.05 * abs(truth)
    assert gap.error == pytest.approx(gap.observed_error)


def test_separate_terms_of_a_gaussian():
    """At y0 = 0 with mean m: g = 0, so all is second order; at y0 = m the gradient of N(0, I) is -m."""
    flow = models.Flow(transforms.Affine(2, trainable=True), distributions.Normal(2)).double()
    p, q = normal(500, 2, seed=0) + 1.0, 0.3 * normal(400, 2, seed=1)
    truth = -0.5 * ((q**2).sum(1).mean() - (p**2).sum(1).mean()).item()
    at_zero = second_order_gap(flow, p, q, at=torch.zeros(2))
    assert at_zero.first == 0
    assert at_zero.second == pytest.approx(truth)
    at_mean = second_order_gap(flow, p, q)
    mean, spread = p.mean(0), lambda x: ((x - p.mean(0)) ** 2).sum(1).mean()
    assert at_mean.first == pytest.approx(-(mean * (q.mean(0) - mean)).sum().item())
    assert at_mean.second == pytest.approx(-0.5 * (spread(q) - spread(p)).item())
    assert at_mean.predicted == pytest.approx(at_mean.observed) == pytest.approx(truth)


def test_against_the_dense_hessian():
    torch.manual_seed(0)
    flow = models.RealNVP(3, layers=2, hidden=(8,), activation="tanh").double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    p, q = normal(300, 3, seed=0), 0.5 * normal(200, 3, seed=1) + 0.3
    at = p.mean(0)
    hessian = torch.autograd.functional.hessian(lambda y: flow.log_prob(y[None])[0], at)
    assert isinstance(hessian, torch.Tensor)
    point = at.clone().requires_grad_()
    (slope,) = torch.autograd.grad(flow.log_prob(point[None])[0], point)
    cov = [((x - at).mT @ (x - at)) / len(x) for x in (p, q)]
    gap = second_order_gap(flow, p, q)
    assert gap.first == pytest.approx((slope @ (q.mean(0) - at)).item())
    assert gap.second == pytest.approx(0.5 * torch.trace(hessian @ (cov[1] - cov[0])).item())
    assert gap.observed == pytest.approx((flow.log_prob(q).mean() - flow.log_prob(p).mean()).item())


def test_an_additive_flow_is_concave_everywhere():
    """Constant volume and a log-concave base: fewer variance means likelier, whatever the weights (sec. 5.2)."""
    for seed in range(3):
        torch.manual_seed(seed)
        flow = models.NICE(3, hidden=(8,), prior="normal").double()
        with torch.no_grad():
            for parameter in flow.parameters():
                parameter.add_(0.5 * torch.randn_like(parameter))
        x = normal(200, 3, seed=seed)
        assert second_order_gap(flow, x, x.mean(0) + 0.5 * (x - x.mean(0))).second > 0
        terms = likelihood_terms(flow, x)
        assert terms.volume.std() < 1e-12


def test_the_terms_add_up():
    torch.manual_seed(0)
    model = models.Glow((1, 4, 4), scales=1, layers=2, hidden=(4, 4), levels=8)
    x = torch.randint(8, (10, 1, 4, 4))
    terms = likelihood_terms(model, x, batch_size=4)
    torch.testing.assert_close(terms.total, model.evaluate(x).value.double(), rtol=1e-6, atol=1e-4)
    affine = models.Flow(transforms.Affine(2, scale=(2.0, 3.0), trainable=True), distributions.Normal(2))
    torch.testing.assert_close(
        likelihood_terms(affine, torch.zeros(1, 2)).volume, torch.tensor([math.log(6.0)]).double()
    )


def test_graying():
    x = normal(50, 3, seed=0)
    torch.testing.assert_close(graying(x, 0.25, 2.0).var(0), 0.75**2 * x.var(0))
    assert torch.equal(graying(x, 0.0, 2.0), x)
    assert torch.equal(graying(x, 1.0, x.mean(0)), x.mean(0).expand_as(x))
    pixels = torch.tensor([[0, 10, 255]], dtype=torch.uint8)
    assert graying(pixels, 0.5, 100).tolist() == [[50, 55, 178]]  # 177.5 to the even one
    with pytest.raises(ConfigError, match="amount"):
        graying(x, 1.5, 0.0)


def test_mixture():
    members = [
        models.Flow(transforms.Affine(1, shift=s, trainable=True), distributions.Normal(1)).double()
        for s in (-1.0, 2.0)
    ]
    x = normal(7, 1, seed=0)
    laws = [torch.distributions.Normal(-s, 1.0) for s in (-1.0, 2.0)]
    expected = torch.stack([law.log_prob(x[:, 0]).exp() for law in laws]).mean(0).log()
    torch.testing.assert_close(mixture_log_likelihood(members, x, batch_size=3), expected)
    with pytest.raises(KindError, match="measure"):
        mixture_log_likelihood([models.NICE(2), models.ImageNICE(shape=(1, 1, 2))], torch.zeros(1, 2))
    with pytest.raises(ConfigError, match="at least one"):
        mixture_log_likelihood([], x)


def test_models_without_curvature_are_refused():
    with pytest.raises(KindError, match="dequantization"):
        x = torch.zeros(2, 1, 4, 4)
        second_order_gap(models.PixelCNN((1, 4, 4), levels=4, filters=4, layers=1), x, x)
    image = models.ImageNICE(shape=(1, 2, 2), hidden=(4,), levels=4)
    x = torch.zeros(2, 1, 2, 2)
    with pytest.raises(InputError, match="none"):
        second_order_gap(image, x, x[:0])
    assert second_order_gap(image, x, x).observed == 0


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # torch's own, of gates under vmap
@pytest.mark.parametrize(
    "model",
    [
        lambda: models.TarFlow((1, 4, 4), 2, blocks=2, layers=1, width=8, heads=2),
        lambda: models.FlowPlusPlus((1, 4, 4), layers=(1, 1, 1), components=2, hidden=(8,)),
    ],
    ids=["TarFlow", "FlowPlusPlus"],
)
def test_models_with_attention_have_a_second_order(model):
    """Against the Hessian of function transforms, which does not use the fused kernel."""
    x = torch.randint(256, (20, 1, 4, 4), generator=torch.Generator().manual_seed(0)).float()
    flow = model()
    flow.initialize(x)
    flow.double().eval()
    gap = second_order_gap(flow, x, x[:5])
    inner = WithoutPreprocessing(flow)
    with torch.no_grad():
        y = inner.preprocess(x.double())[0]
    hessian = torch.func.hessian(lambda row: inner(row[None])[0])(y.mean(0)).reshape(y[0].numel(), y[0].numel())
    step = (y - y.mean(0)).flatten(1)
    bent = 0.5 * torch.einsum("ni,ij,nj->n", step, hessian, step)
    assert gap.second == pytest.approx((bent[:5].mean() - bent.mean()).item(), rel=1e-4, abs=1e-6)
