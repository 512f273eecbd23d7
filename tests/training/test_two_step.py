"""Both steps on a curve whose density is known."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

import pushforward as pf
from pushforward.errors import ConfigError, InputError
from pushforward.likelihood import Kind
from pushforward.training import fit_two_step


def curve(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """x = (t, sin t, t / 2) with t normal, and its log-density on the curve: by the length of dx/dt."""
    t = torch.randn(count, 1, generator=torch.Generator().manual_seed(seed))
    density = -0.5 * t.square() - 0.5 * math.log(2 * math.pi) - 0.5 * (1.25 + t.cos().square()).log()
    return torch.cat((t, t.sin(), t / 2), 1), density[:, 0]


def test_the_density_on_a_curve():
    torch.manual_seed(0)
    model = pf.models.TwoStep(
        pf.models.AutoEncoder(3, latent=1, hidden=(32, 32)), pf.distributions.GaussianMixture(1, 5)
    )
    done = fit_two_step(
        model, curve(2000, 0)[0], autoencoder={"max_steps": 500}, density={"max_steps": 150}, learning_rate=1e-2, batch_size=128,
        progress="silent",
    )  # fmt: skip
    x, truth = curve(1000, 1)
    found = model.evaluate(x)
    middle = x[:, 0].abs() < 2  # 95% of them: the ends have few rows to learn from
    error = (found.value - truth)[middle]
    assert error.abs().mean() < 0.12
    assert abs(error.mean()) < 0.06
    assert found.residual is not None
    assert found.residual[middle].mean() < 2e-3  # the data's variance is 1.9
    assert done.injectivity.singular_ratio == 1.0
    # Samples: t is normal.
    drawn = model.sample(4000, seed=0)[:, 0]
    assert abs(drawn.mean()) < 0.1
    assert abs(drawn.std() - 1) < 0.1


def test_the_codes_are_frozen_and_white_and_both_steps_hold_out_the_same_rows():
    torch.manual_seed(0)
    x = torch.randn(200, 3)
    model = pf.models.TwoStep(pf.models.AutoEncoder(3, latent=2, hidden=(8,)), pf.models.NICE(2, layers=2, hidden=(8,)))
    model.embed.injective.fill_(True)
    held = x[:50]
    fit_two_step(model, x[50:], validation=held, max_steps=3, progress="silent")
    before = {name: value.clone() for name, value in model.autoencoder.state_dict().items()}
    codes = model.codes(x[50:])
    torch.testing.assert_close(torch.cov(codes.mT, correction=0), torch.eye(2), atol=1e-4, rtol=0)
    done = fit_two_step(model, x[50:], validation=held, autoencoder=False, density={"max_steps": 5}, progress="silent")
    assert done.autoencoder is None
    assert all(torch.equal(value, before[name]) for name, value in model.autoencoder.state_dict().items())
    assert torch.equal(model.codes(x[50:]), codes)
    again = model.check_injectivity(held)
    assert again == done.injectivity
    assert (model.kind is Kind.EXACT) is again.passed


def test_it_is_reproducible():
    x, values = torch.randn(100, 3, generator=torch.Generator().manual_seed(3)), []
    for _ in range(2):
        torch.manual_seed(0)
        model = pf.models.TwoStep(pf.models.AutoEncoder(3, latent=1, hidden=(8,)), pf.distributions.Normal(1))
        fit_two_step(model, x, max_steps=4, seed=5, progress="silent")
        values.append(model.evaluate(x).value)
    assert torch.equal(*values)


def test_errors_of_invalid_arguments():
    model = pf.models.TwoStep(pf.models.AutoEncoder(3, latent=1, hidden=(8,)), pf.distributions.Normal(1))
    with pytest.raises(ConfigError, match="TwoStep"):
        fit_two_step(pf.models.NICE(3), torch.zeros(5, 3))  # pyright: ignore
    with pytest.raises(InputError, match="two rows"):
        fit_two_step(model, torch.zeros(5, 4, 1))
    with pytest.raises(ConfigError, match="fraction"):
        fit_two_step(model, torch.zeros(5, 3), validation=1.5)
    with pytest.raises(ConfigError, match="own"):
        fit_two_step(model, torch.zeros(5, 3), checkpoint="a file")
    for wrong in ({"autoencoder": True}, {"density": False}, {"density": 5}):
        with pytest.raises(ConfigError, match="must be a dictionary of training options"):
            fit_two_step(model, torch.zeros(5, 3), **wrong)
    with pytest.raises(ConfigError, match="batch_size"):
        model.codes(torch.zeros(5, 3), batch_size=0)
    with pytest.raises(InputError, match="NaN in row"):
        fit_two_step(model, torch.full((5, 3), math.nan))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_code_wider_than_what_the_rows_span_is_refused(scale):
    """On a plane in space, and with constant columns: also at d = D. A rare column counts."""
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(3000, 2, generator=generator)
    plane = scale * flat @ torch.randn(2, 3, generator=generator)
    constant = torch.cat((scale * flat, torch.full((3000, 1), 7.0)), 1)
    rare = torch.cat((scale * flat, torch.zeros(3000, 1)), 1)
    rare[1, 2] = scale
    for rows, width, span in ((plane, 3, 2), (constant, 3, 2), (torch.ones(50, 3), 1, 0), (rare[:3], 2, 1)):
        model = pf.models.TwoStep(pf.models.AutoEncoder(3, latent=width, hidden=(8,)), pf.distributions.Normal(width))
        with pytest.raises(InputError, match=f"in {span} directions.*code of {width}"):
            fit_two_step(model, rows)
    for rows, width in ((plane, 2), (constant, 2), (rare, 3), (plane.reshape(3000, 1, 1, 3), 1)):
        shape = tuple(rows.shape[1:]) if rows.dim() > 2 else 3
        model = pf.models.TwoStep(
            pf.models.AutoEncoder(shape, latent=width, hidden=(8,)), pf.distributions.Normal(width)
        )
        done = fit_two_step(model, rows, max_steps=1, progress="silent")
        assert done.autoencoder is not None
        assert done.autoencoder.steps == 1


def test_training_again_resets_the_injectivity_flag():
    torch.manual_seed(0)
    model = pf.models.TwoStep(pf.models.AutoEncoder(3, latent=1, hidden=(8,)), pf.distributions.Normal(1)).eval()
    model.embed.injective.fill_(True)
    assert model.kind is Kind.EXACT
    pf.fit(model, torch.randn(50, 3), max_steps=1, progress="silent")
    assert model.kind is Kind.ESTIMATE


def test_constant_columns():
    torch.manual_seed(0)
    x = torch.cat((torch.randn(100, 2), torch.full((100, 1), 7.0)), 1)
    model = pf.models.TwoStep(pf.models.AutoEncoder(3, latent=2, hidden=(8,)), pf.distributions.Normal(2))
    fit_two_step(model, x, max_steps=20, progress="silent")
    found = model.evaluate(x)
    assert torch.isfinite(found.value).all()
    assert found.residual is not None
    assert torch.isfinite(found.residual).all()


def test_a_second_fit_sets_the_density_anew() -> None:
    """A kernel density keeps rows, and those of the first fit are codes of another autoencoder."""
    rng = torch.Generator().manual_seed(0)
    line = torch.linspace(0, 3, 400)[:, None] + 0.01 * torch.randn(400, 2, generator=rng)
    other = line * torch.tensor([-5.0, 5.0])
    torch.manual_seed(0)
    model = pf.models.TwoStep(
        pf.models.AutoEncoder(2, latent=1, hidden=(16,)), pf.distributions.KernelDensity(1, points=200)
    )
    for rows in (line, other):
        fit_two_step(model, rows, max_steps=60)
    fresh = pf.distributions.KernelDensity(1, points=200)
    codes = model.codes(other)
    fresh.initialize(codes)
    gap = model.density.log_prob(codes).mean() - fresh.log_prob(codes).mean()
    assert abs(gap.item()) < 0.3


def test_data_and_fractions_as_in_fit():
    t = torch.randn(60, 1, generator=torch.Generator().manual_seed(0))
    x = torch.cat((t, t.sin()), 1)

    def model():
        return pf.models.TwoStep(pf.models.AutoEncoder(2, latent=1, hidden=(8,)))

    for validation in (0, np.float32(0.2), None):
        result = fit_two_step(model(), pd.DataFrame(x.numpy()), validation=validation, max_steps=2, progress="silent")
        assert result.density.steps == 2
    assert fit_two_step(model(), x, seed=2**70, max_steps=2, progress="silent").density.steps == 2
    x[3, 1] = math.nan
    with pytest.raises(InputError, match="the training data have NaN in row 3, column 1"):
        fit_two_step(model(), x, validation=0.2, max_steps=2, progress="silent")
