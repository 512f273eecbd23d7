"""The posterior of latent variables of one input, against integration over a grid."""

from __future__ import annotations

import pytest
import torch

import pushforward as pf
from pushforward.errors import InputError, KindError
from pushforward.inference import fit_to_target, latent_log_density, latent_posterior
from pushforward.models import NSF, VAE


def _vae(**options) -> VAE:
    torch.manual_seed(0)
    return VAE(3, latent=2, hidden=(8,), **options).eval()


def _integral(log_density, width: float = 8.0, points: int = 401) -> float:
    """log of the integral over the plane, by the trapezoidal rule."""
    axis = torch.linspace(-width, width, points, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        values = torch.cat([log_density(part) for part in grid.split(20_000)])
    return float(torch.logsumexp(values, 0) + 2 * torch.log(axis[1] - axis[0]))


@pytest.mark.parametrize(
    "options", [{}, {"posterior": "iaf"}, {"posterior": "nsf"}, {"standardize": False}, {"prior": 2}]
)
def test_the_evidence_is_the_integral(options):
    torch.manual_seed(1)
    if options.get("prior"):
        options = {"prior": NSF(features=2, layers=2, hidden=(8,))}
    model = _vae(**options)
    x = torch.tensor([0.5, -1.0, 2.0])
    found = latent_posterior(model, x, 20_000, seed=0)
    truth = _integral(latent_log_density(model, x))
    assert abs(found.log_evidence - truth) < 4 * found.log_evidence_error + 0.01
    assert found.bound <= found.log_evidence
    evaluated = float(model.evaluate(x[None], samples=300).value)
    assert evaluated == pytest.approx(
        found.log_evidence, abs=4 * (20_000 / 300) ** 0.5 * found.log_evidence_error + 1e-6
    )


def test_a_flow_that_is_fitted_to_one_input_is_nearer_than_the_encoder():
    model = _vae()
    x = torch.tensor([1.5, -1.0, 2.0])
    log_density = latent_log_density(model, x)
    fit = fit_to_target(2, log_density, max_steps=150, restarts=2, draws=4000, seed=0, progress="silent")
    amortized = latent_posterior(model, x, 10_000, seed=0)
    assert fit.reliable
    assert fit.ess / 4000 > amortized.ess / 10_000
    assert fit.log_evidence == pytest.approx(_integral(log_density), abs=0.02)


def test_images_contexts_and_noise():
    torch.manual_seed(0)
    images = VAE((1, 6, 6), latent=2, decoder="bernoulli", binarize=True, hidden=(16,)).eval()
    x = torch.randint(0, 256, (1, 6, 6), dtype=torch.uint8)
    first, again = (latent_posterior(images, x, 2000, seed=3) for _ in range(2))
    assert torch.equal(first.draws, again.draws)
    assert first.log_evidence == pytest.approx(_integral(latent_log_density(images, x, seed=3), points=201), abs=0.1)
    assert first.log_evidence == pytest.approx(images.evaluate(x[None], samples=4000, seed=3).value.item(), abs=0.1)
    classes = VAE(3, latent=2, context=2, hidden=(8,)).eval()
    given = [latent_posterior(classes, torch.ones(3), 100, context=torch.tensor(c)) for c in ([1.0, 0.0], [0.0, 1.0])]
    assert given[0].log_evidence != given[1].log_evidence


def test_every_draw_has_its_own_noise():
    torch.manual_seed(0)
    vae = pf.models.VAE(64, latent=2, hidden=(8,))
    model = pf.models.Flow(pf.transforms.Chain(pf.transforms.UniformDequantize(64, 4), *vae.chain), vae.base).eval()
    x = torch.randint(0, 4, (64,)).float()
    found = [latent_posterior(model, x, 20_000, seed=seed) for seed in range(3)]
    truth = model.evaluate(x[None], samples=4000, seed=5)
    for each in found:
        error = (each.log_evidence_error**2 + truth.stderr.item() ** 2) ** 0.5
        assert abs(each.log_evidence - truth.value.item()) < 4 * error + 0.02
    fixed = (
        latent_log_density(model, x, seed=0),
        latent_log_density(model, x, seed=0),
        latent_log_density(model, x, seed=1),
    )
    at = [function(torch.zeros(1, 2)) for function in fixed]
    assert torch.equal(at[0], at[1])
    assert not torch.equal(at[0], at[2])


def test_a_posterior_that_misses_the_mass_is_not_reliable():
    model = _vae()
    with torch.no_grad():
        bias = [part for part in list(model.chain)[-1].encoder.modules() if isinstance(part, torch.nn.Linear)][-1].bias
        bias[:2] = 3.0  # far from the mass of the prior,
        bias[2:4] = -3.0  # and narrow
    found = latent_posterior(model, torch.zeros(3), 4000, seed=0)
    assert not found.reliable
    assert "not reliable" in repr(found)
    assert "not reliable" in found._repr_html_()


def test_wrong_use():
    with pytest.raises(KindError, match="no posterior of latent variables"):
        latent_posterior(pf.models.NICE(features=2), torch.zeros(2))
    with pytest.raises(InputError, match="one input of shape"):
        latent_log_density(_vae(), torch.zeros(4, 3))


@pytest.mark.parametrize("z", [torch.zeros(4, 3), torch.zeros(2), [[0.0, 0.0]]])
def test_latent_variables_of_another_width_are_refused(z):
    log_density = latent_log_density(_vae(), torch.zeros(3))
    with pytest.raises(InputError, match=r"z must be a tensor of the shape \(n, 2\)"):
        log_density(z)
