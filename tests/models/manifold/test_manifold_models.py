"""Models with a density on a learned manifold: their losses, their phases, and manifolds with known densities."""

import math

import pytest
import torch
from torch import Tensor

import pushforward as pf
from pushforward import distributions, transforms
from pushforward.errors import ConfigError, InputError, KindError
from pushforward.likelihood import Kind, Lebesgue, Manifold
from pushforward.models import ConformalEmbeddingFlow, ManifoldModel, RectangularFlow
from pushforward.models.manifold.base import cycle_error, project, singular_values


def rows(count: int, width: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def conformal() -> ConformalEmbeddingFlow:
    return ConformalEmbeddingFlow(3, 2, layers=2, hidden=(8,), reconstruction_weight=7.0)


def rectangular(**options) -> RectangularFlow:
    torch.manual_seed(0)
    return RectangularFlow(
        3, 2, layers=3, hidden=(8,), latent_layers=2, latent_hidden=(8,), reconstruction_weight=7.0, **options
    )


MAKERS = {
    "conformal": conformal,
    "flow": rectangular,
    "free-form": lambda: rectangular(decoder="free-form"),
}


@pytest.fixture(params=MAKERS)
def model(request) -> ManifoldModel:
    made = MAKERS[request.param]().double()
    made.initialize(2 * rows(200) + 1)
    return made


def log_volume(function, z: Tensor) -> Tensor:
    jacobian = torch.stack([torch.autograd.functional.jacobian(function, row) for row in z])
    return 0.5 * torch.linalg.slogdet(jacobian.mT @ jacobian)[1]


def test_value_is_that_of_the_change_of_variables_at_the_decoded_point(model):
    """Through the whole way from noise to data at once, by a dense Jacobian."""
    x = 2 * rows(6, seed=1) + 1
    result = model.evaluate(x)
    u = model.encode(x)
    expected = model.base.log_prob(u) - log_volume(model.decode, u)
    torch.testing.assert_close(result.value, expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(result.residual, (x - model.decode(u)).square().sum(-1))
    assert result.measure == Manifold(2, 3)


def test_joint_loss_is_likelihood_and_residual(model):
    x = rows(50, seed=1)
    result = model.evaluate(x)
    torch.testing.assert_close(model.loss(x), -result.value.mean() + 7.0 * result.residual.mean())


def touched(model: ManifoldModel, x: Tensor) -> set[str]:
    model.zero_grad(set_to_none=True)
    model.loss(x, generator=torch.Generator().manual_seed(0)).backward()
    return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}


def test_phases_train_only_the_embedding_or_only_the_flow(model):
    x = rows(50, seed=1)
    inside = {name for name, _ in model.named_parameters() if name.startswith("chain.transforms.0.")}
    model.set_phase("manifold")
    torch.testing.assert_close(model.loss(x), model.evaluate(x).residual.mean())
    assert touched(model, x) <= inside
    model.set_phase("density")
    z = model.embedding.codes(x)
    flow = model.flow.encode(z)
    torch.testing.assert_close(model.loss(x), -(flow.contribution + model.base.log_prob(flow.z)).mean())
    assert touched(model, x)
    assert not touched(model, x) & inside
    model.set_phase("joint")
    assert touched(model, x) & inside


def test_the_second_phase_standardizes_the_codes_again():
    model = rectangular().double()
    x = rows(300)
    model.initialize(x)
    scaler = next(iter(model.flow))
    before = scaler.log_scale.clone()
    with torch.no_grad():
        next(p for p in model.embedding.parameters()).mul_(3.0)
        model.embedding.transform.transforms[0].scale.mul_(0.1)
    model.initialize(x)
    assert torch.equal(scaler.log_scale, before)
    model.set_phase("density")
    model.initialize(x)
    assert not torch.equal(scaler.log_scale, before)
    torch.testing.assert_close(
        scaler.encode(model.embedding.codes(x)).z.std(0, correction=0), torch.ones(2, dtype=torch.float64)
    )


def gradients(model: RectangularFlow, x: Tensor, seed: int = 0) -> Tensor:
    model.zero_grad()
    model.loss(x, generator=torch.Generator().manual_seed(seed)).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_probes_have_the_gradient_of_the_exact_loss_in_the_mean():
    x = rows(8, seed=1)
    exact, probes = rectangular().double(), rectangular(volume="probes", probes=4000, tolerance=1e-8).double()
    probes.load_state_dict(exact.state_dict())
    wanted = gradients(exact, x)
    assert (gradients(probes, x) - wanted).norm() < 0.05 * wanted.norm()
    assert probes.solve is not None
    assert probes.solve.residual.max() <= 1e-8
    assert not torch.isclose(probes.loss(x), exact.loss(x), atol=0.1)  # its value is not the loss
    torch.testing.assert_close(probes.evaluate(x).value, exact.evaluate(x).value)


def images(**options) -> RectangularFlow:
    torch.manual_seed(0)
    return RectangularFlow((2, 4, 4), 3, layers=2, hidden=(4,), latent_layers=2, latent_hidden=(8,), **options).double()


def pixels(count: int, seed: int = 0) -> Tensor:
    return 40 * torch.randn(count, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 100


def test_images_have_a_density_on_a_surface():
    """The embedding is several scales of couplings; value and residual are in the units of the pixels."""
    model = images()
    model.initialize(pixels(100))
    for parameter in model.parameters():  # couplings are the identity at first
        parameter.data += 0.1 * torch.randn_like(parameter)
    x = pixels(4, seed=1)
    result = model.evaluate(x)
    u = model.encode(x)
    expected = model.base.log_prob(u) - log_volume(lambda row: model.decode(row).flatten(), u)
    torch.testing.assert_close(result.value, expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(result.residual, (x - model.decode(u)).square().flatten(1).sum(-1))
    assert (result.kind, result.measure) == (Kind.EXACT, Manifold(3, 32))
    back = model.decode(u)
    torch.testing.assert_close(model.decode(model.encode(back)), back)  # points of the surface are kept
    far = model.evaluate(1e6 * x)
    assert torch.isfinite(far.value).all()
    assert torch.isfinite(far.residual).all()


def test_probes_have_the_gradient_of_the_exact_loss_of_images():
    exact, probes = images(), images(volume="probes", probes=300, tolerance=1e-8)
    for model in (exact, probes):
        model.initialize(pixels(100))
    for parameter in exact.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    probes.load_state_dict(exact.state_dict())
    for model in (exact, probes):
        model.reconstruction_weight = 1e-6  # the residual has squares of gray levels, and would hide the volume
    x = pixels(3, seed=1)
    wanted = gradients(exact, x)
    assert (gradients(probes, x) - wanted).norm() < 0.05 * wanted.norm()


def test_free_networks_are_an_estimate_and_flows_exact():
    assert rectangular().kind is Kind.EXACT
    assert rectangular(decoder="free-form", volume="encoder").kind is Kind.ESTIMATE
    with pytest.raises(KindError, match="Manifold"):
        rectangular().log_prob(rows(2))


def test_noise_is_only_in_the_joint_loss():
    model = rectangular(noise=0.5).double()
    x = rows(20)
    seeds = [torch.Generator().manual_seed(k) for k in (1, 2)]
    assert model.loss(x, generator=seeds[0]) != model.loss(x, generator=seeds[1])
    model.set_phase("manifold")
    assert model.loss(x, generator=seeds[0]) == model.loss(x, generator=seeds[1])


def test_a_plane_is_found_with_its_density():
    """Gaussian data on a plane in R^3: the density on the plane is the two-dimensional one."""
    columns = torch.linalg.qr(rows(3, 2, seed=5))[0]
    codes = rows(2000, 2, seed=6) @ torch.diag(torch.tensor([2.0, 0.5], dtype=torch.float64))
    x = codes @ columns.T + 3
    truth = torch.distributions.Normal(0.0, torch.tensor([2.0, 0.5], dtype=torch.float64)).log_prob(codes).sum(-1)
    embedding = transforms.ConformalEmbedding(transforms.ConformalScale(3), transforms.OrthogonalEmbedding(3, 2))
    model = ConformalEmbeddingFlow(3, 2, embedding=embedding, flow=transforms.LULinear(2), reconstruction_weight=100.0)
    pf.fit(model, x.float(), max_steps=600, learning_rate=2e-2, validation=None, progress="silent")
    result = model.evaluate(x.float())
    assert result.residual.mean() < 1e-4
    assert (result.value - truth).mean().abs() < 0.02


def test_latent_widths_at_both_ends():
    curve = ConformalEmbeddingFlow(3, 1).double()
    assert curve.measure == Manifold(1, 3)
    free = RectangularFlow(3, 1, decoder="free-form", volume="encoder", hidden=(8,), latent_hidden=(8,))
    assert (free.measure, free.kind) == (Manifold(1, 3), Kind.ESTIMATE)
    free.loss(rows(5).float(), generator=torch.Generator().manual_seed(0)).backward()
    whole = RectangularFlow(3, 3, layers=2, hidden=(8,)).double()
    assert whole.measure == Lebesgue(3)
    x = rows(5)
    assert torch.isfinite(whole.log_prob(x)).all()
    torch.testing.assert_close(whole.decode(whole.encode(x)), x)
    full = ConformalEmbeddingFlow(2, 2).double()
    assert full.measure == Lebesgue(2)


def test_a_constant_column_is_allowed():
    x = rows(400)
    x[:, 2] = 4.0
    for make in MAKERS.values():
        model = make()
        pf.fit(model, x.float(), max_steps=5, validation=None, progress="silent")
        assert torch.isfinite(model.evaluate(x.float()).value).all()


def test_projection_and_singular_values():
    model = rectangular().double()
    x = rows(6)
    point = project(model, x)
    torch.testing.assert_close((x - point).square().sum(-1), model.evaluate(x).residual)
    torch.testing.assert_close(project(model, point), point, rtol=1e-8, atol=1e-8)
    values = singular_values(model, x)
    torch.testing.assert_close(values.log().sum(-1), -model.evaluate(x).terms["0.Injective"], rtol=1e-8, atol=1e-8)
    with pytest.raises(KindError, match="no learned manifold"):
        project(pf.models.NICE(3), x)


def test_a_manifold_that_intersects_itself_has_a_cycle_error_and_an_embedding_has_none():
    z = rows(50, 2)
    assert cycle_error(rectangular().double(), z).max() < 1e-9
    with pytest.raises(InputError, match=r"\(\*batch, 2\)"):
        cycle_error(rectangular().double(), rows(5))
    folded = rectangular(decoder="free-form").double()
    last = folded.embedding.decoder.body[0]
    with torch.no_grad():
        last.weight[:, 1] = 0.0  # the decoder does not see the second code
    error = cycle_error(folded, z)
    assert (error > 1e-3).all()
    assert (folded.evaluate(rows(5)).value == -math.inf).all()
    assert (singular_values(folded, rows(5))[:, 1] < 1e-12).all()


def test_a_manifold_that_intersects_itself_although_its_jacobian_has_full_rank():
    """An even decoder of one code: g(z) = g(-z), so the encoder can be right at one of the two only. Nothing in the number says so;
    its kind and the cycle error do."""
    folded = RectangularFlow(3, 1, decoder="free-form", hidden=(4,), latent_hidden=(8,)).double()
    first, last = folded.embedding.decoder.body[0], folded.embedding.decoder.last
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0], [-1.0], [2.0], [-2.0]]))
        first.bias.copy_(torch.tensor([0.3, 0.3, -0.5, -0.5]))
        last.weight.copy_(torch.randn(3, 2, dtype=torch.float64).repeat_interleave(2, 1))
    z = torch.linspace(0.5, 2.0, 7, dtype=torch.float64)[:, None]
    torch.testing.assert_close(folded.decode(z), folded.decode(-z))
    assert torch.isfinite(folded.evaluate(folded.decode(z)).value).all()
    assert folded.evaluate(folded.decode(z)).kind is Kind.ESTIMATE
    assert (torch.maximum(cycle_error(folded, z), cycle_error(folded, -z)) >= z[:, 0] - 1e-9).all()


@pytest.mark.parametrize("volume", ["exact", "probes"])
def test_a_code_without_effect_stops_training_with_an_error(volume):
    """J^T J is singular in every row: the loss is infinite or its solve has failed, and no NaN gets into the weights."""
    model = rectangular(decoder="free-form", volume=volume).double()
    with torch.no_grad():
        model.embedding.decoder.body[0].weight[:, 1] = 0.0
    if volume == "exact":
        with pytest.raises(pf.errors.PushforwardError, match="loss"):
            pf.fit(model, rows(40), max_steps=3, validation=None, progress="silent")
    else:
        model.loss(rows(40), generator=torch.Generator().manual_seed(0))
        assert model.solve.residual.max() > 0.1
    assert all(torch.isfinite(weight).all() for weight in model.parameters())


def test_flow_and_base_of_your_own(tmp_path):
    model = ConformalEmbeddingFlow(
        (1, 2, 2),
        2,
        embedding=transforms.ConformalEmbedding(transforms.Flatten((1, 2, 2)), transforms.OrthogonalEmbedding(4, 2)),
        flow=transforms.Chain(transforms.LULinear(2), transforms.SoftTail(2)),
        base=distributions.Logistic(2),
        phase="density",
    )
    x = torch.randn(5, 1, 2, 2)
    pf.save(model, tmp_path / "m")
    again = pf.load(tmp_path / "m")
    assert again.phase == "density"
    assert torch.equal(again.evaluate(x).value, model.evaluate(x).value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ConformalEmbeddingFlow(3, 4), "at most the number of features"),
        (lambda: ConformalEmbeddingFlow((1, 2, 2), 2), "no default embedding"),
        (lambda: ConformalEmbeddingFlow(3, 2, embedding=transforms.Pad(3, 1)), "must have the shapes"),
        (
            lambda: ConformalEmbeddingFlow(3, 2, embedding=transforms.Affine(3)),
            "needs an embedding|must have the shapes",
        ),  # pyright: ignore
        (lambda: ConformalEmbeddingFlow(3, 2, reconstruction_weight=-1.0), "reconstruction"),
        (lambda: ConformalEmbeddingFlow(3, 2, phase="second"), "phase must be 'joint'"),
        (lambda: RectangularFlow(3, 2, volume="cg"), "volume must be 'exact'"),
        (lambda: RectangularFlow(3, 2, decoder="linear"), "decoder must be"),
        (lambda: RectangularFlow(3, 2, tolerance=1.0), "tolerance"),
        (lambda: RectangularFlow(3, 2, noise=-0.1), "noise"),
        (lambda: RectangularFlow(3, 0), "latent must be"),
        (lambda: RectangularFlow(3, 4), "from 1 to 3"),
        (lambda: RectangularFlow(3, 2, decoder="free-form", standardize=False), "standardize"),
        (lambda: RectangularFlow((1, 4, 4), 2, decoder="free-form"), "reads vectors"),
        (lambda: RectangularFlow((4, 4), 2), "RectangularFlow models images"),
        (lambda: RectangularFlow((1, 6, 6), 2, scales=4), "use at most 1"),
        (lambda: RectangularFlow((1, 4, 4), 17), "from 1 to 16"),
    ],
)
def test_impossible_arguments(make, words):
    with pytest.raises(ConfigError, match=words):
        make()
