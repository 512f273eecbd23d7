"""Conformal transforms against dense Jacobians and classical geometry; embeddings against 1/2 log det J^T J."""

import math

import pytest
import torch
from torch import Tensor

from pushforward import distributions, models, transforms
from pushforward.errors import ConfigError, KindError
from pushforward.likelihood import Counting, Kind, Lebesgue, Manifold


def rows(count: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def jacobians(function, x: Tensor) -> Tensor:
    """Of each row, ``(rows, out, in)``."""
    return torch.stack([torch.autograd.functional.jacobian(function, row).reshape(-1, row.numel()) for row in x])


def log_volume(function, z: Tensor) -> Tensor:
    jacobian = jacobians(function, z)
    return 0.5 * torch.linalg.slogdet(jacobian.mT @ jacobian)[1]


def moved(module, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator))
    return module.double()


CONFORMAL = [
    transforms.ConformalScale(3),
    transforms.ConformalScale((2, 2, 3)),
    transforms.Inversion(3),
    transforms.SpecialConformal(3, spread=0.7),
    transforms.SpecialConformal(1, spread=0.7),
    transforms.PiecewiseOrthogonal(4),
    transforms.PiecewiseOrthogonal((3, 2, 1)),
    transforms.OrthogonalEmbedding(4),
    transforms.OrthogonalEmbedding((3, 1, 2)),
    transforms.Householder(3),
    transforms.Permutation(4),
    transforms.Reverse(3),
    transforms.Squeeze((1, 2, 4)),
    transforms.Flatten((2, 1, 3)),
    transforms.Inverse(transforms.Inversion(2)),
]


@pytest.mark.parametrize("layer", CONFORMAL, ids=lambda layer: type(layer).__name__)
def test_all_directions_are_stretched_alike_and_the_contribution_says_how_much(layer):
    layer = moved(layer)
    assert layer.angle_preserving
    x = rows(5, *layer.in_shape)
    jacobian = jacobians(lambda t: layer.encode(t).z, x)
    size = math.prod(layer.in_shape)
    square = torch.exp(2 * layer.encode(x).contribution / size)[:, None, None]
    torch.testing.assert_close(
        jacobian.mT @ jacobian, square * torch.eye(size, dtype=torch.float64), rtol=1e-10, atol=1e-10
    )


def test_maps_that_bend_angles_are_not_conformal():
    assert not transforms.Affine(2, scale=2.0).angle_preserving
    assert not transforms.SphereAutoregressive().angle_preserving
    with pytest.raises(ConfigError, match="Affine does not stretch"):
        transforms.ConformalEmbedding(transforms.Affine(3, scale=(1.0, 2.0, 3.0)), transforms.Pad(3, 2))


def test_a_special_conformal_map_is_an_inversion_a_shift_and_an_inversion():
    layer = transforms.SpecialConformal(3, spread=1.0, seed=4).double()
    x = rows(20, 3)
    inverted = x / x.square().sum(-1, keepdim=True) + layer.shift
    torch.testing.assert_close(layer.encode(x).z, inverted / inverted.square().sum(-1, keepdim=True))


def test_a_plane_becomes_a_sphere():
    """Of radius 1 / (2 norm(b_perp)) through the origin, b_perp the part of b across the plane."""
    layer = transforms.SpecialConformal(3).double()
    with torch.no_grad():
        layer.shift.copy_(torch.tensor([0.3, -0.2, 0.8], dtype=torch.float64))
    x = layer.decode(transforms.Pad(3, 2).decode(5 * rows(50, 2)))
    # A sphere through 0 around c is |x|^2 = 2 c.x: solve for c.
    center = torch.linalg.lstsq(2 * x, x.square().sum(-1, keepdim=True)).solution[:, 0]
    torch.testing.assert_close(x.square().sum(-1), 2 * x @ center)
    assert center.norm().item() == pytest.approx(1 / (2 * 0.8), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "layer", [transforms.Inversion(2, center=0.0), transforms.SpecialConformal(2)], ids=["inversion", "special"]
)
def test_the_pole_is_impossible_under_a_normal_and_gives_no_nan(layer, dtype):
    layer = layer.to(dtype)
    if isinstance(layer, transforms.SpecialConformal):
        with torch.no_grad():
            layer.shift.copy_(torch.tensor([0.0, 0.5]))
        pole = torch.tensor([[0.0, -2.0]], dtype=dtype)
    else:
        pole = torch.zeros(1, 2, dtype=dtype)
    step = layer.encode(pole)
    assert torch.isfinite(step.z).all()
    assert step.z.abs().max() > 1e20
    value = models.Flow(layer, distributions.Normal(2)).evaluate(pole).value
    assert value.item() < -1e30


def image_embedding() -> transforms.ConformalEmbedding:
    return transforms.ConformalEmbedding(
        transforms.ConformalScale((1, 4, 4)),
        transforms.Squeeze((1, 4, 4)),
        transforms.OrthogonalEmbedding((4, 2, 2), 3),
        transforms.ConformalScale((3, 2, 2)),
        transforms.PiecewiseOrthogonal((3, 2, 2)),
        transforms.OrthogonalEmbedding((3, 2, 2), 1),
        transforms.Flatten((1, 2, 2)),
        transforms.SpecialConformal(4, spread=0.4),
        transforms.Pad(4, 2),
    )


EMBEDDINGS = {
    "sphere": lambda: transforms.ConformalEmbedding(
        transforms.ConformalScale(3), transforms.Householder(3), transforms.SpecialConformal(3, spread=0.6), transforms.Pad(3, 2)
    ),
    "pads in the middle": lambda: transforms.ConformalEmbedding(
        transforms.SpecialConformal(5, spread=0.3), transforms.Pad(5, 4), transforms.ConformalScale(4), transforms.Inversion(4), transforms.Pad(4, 2),
        transforms.SpecialConformal(2, spread=0.5),
    ),
    "a curve": lambda: transforms.ConformalEmbedding(transforms.SpecialConformal(3, spread=0.6), transforms.Pad(3, 1), transforms.ConformalScale(1)),
    "no dimension less": lambda: transforms.ConformalEmbedding(transforms.ConformalScale(2), transforms.SpecialConformal(2, spread=0.6)),
    "plane": lambda: transforms.OrthogonalEmbedding(5, 2),
    "images": image_embedding,
}  # fmt: skip


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_contribution_is_minus_half_the_log_determinant_of_the_gram_matrix(name):
    """At the decoded point, also for rows that are not on the surface."""
    layer = moved(EMBEDDINGS[name]())
    x = rows(6, *layer.in_shape)
    step = layer.encode(x)
    torch.testing.assert_close(step.contribution, -log_volume(layer.decode, step.z), rtol=1e-9, atol=1e-9)
    back = layer.decode(step.z)
    again = layer.encode(back)
    torch.testing.assert_close(again.z, step.z, rtol=1e-9, atol=1e-9)  # a left inverse
    torch.testing.assert_close(again.contribution, step.contribution, rtol=1e-9, atol=1e-9)
    ambient, dim = math.prod(layer.in_shape), math.prod(layer.out_shape)
    if dim < ambient:
        assert layer.measure(Lebesgue(dim)) == Manifold(dim, ambient)
        torch.testing.assert_close(step.residual, (x - back).square().flatten(1).sum(-1))
        assert (again.residual < 1e-18).all()
    else:
        assert layer.measure(Lebesgue(dim)) == Lebesgue(dim)
        assert step.residual is None


def test_the_residual_of_an_orthogonal_projection_is_the_distance():
    """Least squares on the columns, by another route."""
    layer = transforms.OrthogonalEmbedding(5, 2, seed=3).double()
    x = rows(7, 5)
    columns = layer.decode(torch.eye(2, dtype=torch.float64)).T
    torch.testing.assert_close(columns.T @ columns, torch.eye(2, dtype=torch.float64))
    fitted = columns @ torch.linalg.lstsq(columns, x.T).solution
    torch.testing.assert_close(layer.encode(x).residual, (x - fitted.T).square().sum(-1))


def test_residuals_of_isometries_add_up():
    chain = transforms.Chain(
        transforms.Householder(4), transforms.Pad(4, 3), transforms.OrthogonalEmbedding(3, 2)
    ).double()
    x = rows(5, 4)
    step = chain.encode(x)
    torch.testing.assert_close(step.residual, (x - chain.decode(step.z)).square().sum(-1))
    assert chain.measure(Lebesgue(2)) == Manifold(2, 4)


def test_what_may_stand_in_front_of_a_surface():
    embedding = EMBEDDINGS["sphere"]()
    for isometry in (
        transforms.Householder(3),
        transforms.Permutation(3),
        transforms.OrthogonalEmbedding(3),
        transforms.PiecewiseOrthogonal(3),
    ):
        assert transforms.Chain(isometry, embedding).measure(Lebesgue(2)) == Manifold(2, 3)
    for stretching in (
        transforms.Affine(3),
        transforms.ConformalScale(3),
        transforms.SpecialConformal(3),
        transforms.Standardize(3),
    ):
        with pytest.raises(KindError, match="changes distances"):
            models.Flow(transforms.Chain(stretching, embedding), distributions.Normal(2))
    with pytest.raises(KindError, match="Counting"):
        embedding.measure(Counting(2))
    with pytest.raises(KindError, match=r"Manifold\(1, 2\)"):
        embedding.measure(Manifold(1, 2))


def test_mass_on_the_sphere():
    """The density behind a stereographic projection integrates to 1 over the sphere's area."""
    layer = transforms.SpecialConformal(3).double()
    with torch.no_grad():
        layer.shift.copy_(torch.tensor([0.1, 0.2, 0.5]))  # a sphere of radius 1 through 0, with its center on the axis
    model = models.Flow(transforms.ConformalEmbedding(layer, transforms.Pad(3, 2)), distributions.Normal(2)).double()
    points = layer.decode(transforms.Pad(3, 2).decode(rows(40, 2)))
    center = torch.linalg.lstsq(2 * points, points.square().sum(-1, keepdim=True)).solution[:, 0]
    count = 400
    height = -1 + (torch.arange(count, dtype=torch.float64) + 0.5) * 2 / count
    angle = (torch.arange(count, dtype=torch.float64) + 0.5) * 2 * math.pi / count
    h, a = torch.meshgrid(height, angle, indexing="ij")
    ring = (1 - h.square()).sqrt()
    unit = torch.stack((ring * a.cos(), ring * a.sin(), h), -1).reshape(-1, 3)
    result = model.evaluate(center + center.norm() * unit)
    assert (result.kind, result.measure) == (Kind.EXACT, Manifold(2, 3))
    assert (result.residual < 1e-18).all()
    cell = center.norm().square() * 4 * math.pi / count**2
    assert (result.value.exp().sum() * cell).item() == pytest.approx(1.0, abs=1e-3)


def test_scale_reads_the_data_once_and_constant_data_keep_scale_one():
    layer = transforms.ConformalScale(3).double()
    x = rows(500, 3) * torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64) + 7
    z = layer.initialize(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
    assert z.square().mean().item() == pytest.approx(1.0)
    torch.testing.assert_close(layer.initialize(100 * x), layer.encode(100 * x).z)
    still = transforms.ConformalScale(2).double()
    assert torch.equal(
        still.initialize(torch.full((5, 2), 3.0, dtype=torch.float64)), torch.zeros(5, 2, dtype=torch.float64)
    )
    assert still.log_scale.item() == 0


def test_pieces_meet_at_the_radius_and_differ():
    layer = moved(transforms.PiecewiseOrthogonal(2, radius=1.0))
    near, far = torch.tensor([[1.0, 0.9]], dtype=torch.float64), torch.tensor([[1.0, 1.1]], dtype=torch.float64)
    assert not torch.allclose(layer.encode(near).z, layer.encode(far).z, atol=0.2)
    x = rows(2000, 2)
    torch.testing.assert_close(layer.decode(layer.encode(x).z), x)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: transforms.Pad(3, 4), "from 1 to 3"),
        (lambda: transforms.Pad(3, 0), "from 1 to 3"),
        (lambda: transforms.OrthogonalEmbedding((2, 3)), "channels of images"),
        (lambda: transforms.OrthogonalEmbedding(3, 4), "from 1 to 3"),
        (lambda: transforms.PiecewiseOrthogonal(3, radius=0.0), "radius"),
        (lambda: transforms.SpecialConformal(3, spread=-1.0), "spread"),
        (lambda: transforms.Inversion(3, center=math.nan), "center"),
        (lambda: transforms.ConformalEmbedding(), "at least one"),
        (lambda: transforms.ConformalEmbedding(transforms.Pad(3, 2), transforms.Householder(3)), "must meet"),
    ],
)
def test_impossible_arguments(make, words):
    with pytest.raises(ConfigError, match=words):
        make()
