import math

import pytest
import torch

import pushforward as pf
from pushforward.errors import ConfigError
from pushforward.models import ImageInFlow, InFlow
from pushforward.transforms import Coupling, GatedAffineTransformer, ImageCoupling

from ..tools import jolted


def rows(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("gate", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kind", ["vector", "channels", "board"])
def test_block_against_autograd(kind, gate):
    """Inverse and log-determinant of a coupling for each gate, by the dense Jacobian."""
    transformer = GatedAffineTransformer(gate)
    if kind == "vector":
        block, shape = Coupling(4, transformer, hidden=(8,)), (4,)
    else:
        mask = "checkerboard" if kind == "board" else "channels"
        block, shape = ImageCoupling((2, 2, 2), transformer, mask=mask, hidden=(4,)), (2, 2, 2)
    jolted(block)
    x = rows(5, *shape)
    z, contribution = block(x)
    assert torch.allclose(block.decode(z), x, atol=1e-12)
    back, same = block.decode_with_contribution(z)
    assert torch.allclose(back, x, atol=1e-12)
    assert torch.allclose(same, contribution, atol=1e-12)
    size = math.prod(shape)
    for k in range(5):
        jacobian = torch.func.jacrev(lambda t: block(t[None])[0][0])(x[k]).reshape(size, size)
        assert torch.allclose(torch.linalg.slogdet(jacobian)[1], contribution[k], atol=1e-10)
    if gate == 0:
        assert torch.equal(z, x)
        assert torch.equal(contribution, torch.zeros(5, dtype=torch.float64))
    else:
        assert contribution.abs().min() > 1e-3


def test_the_log_determinant_of_a_block_is_proportional_to_the_gate():
    """log abs det = c sum s(x_A), and x_A is the same for every c."""
    block = jolted(Coupling(4, GatedAffineTransformer(1.0), hidden=(8,)))
    x = rows(6, 4)
    whole = block(x)[1]
    for gate in (0.0, 0.25, 0.5, 1.0):
        block.transformer = GatedAffineTransformer(gate)
        assert torch.allclose(block(x)[1], gate * whole, atol=1e-12)


def test_the_log_density_by_hand():
    transformer = GatedAffineTransformer(0.5, max_log_scale=20.0)
    x = torch.tensor([3.0], dtype=torch.float64)
    raw = torch.tensor([[2.0], [0.1]], dtype=torch.float64)
    y, slope = transformer.forward(x, raw)
    s = 20 * math.tanh(0.1 / 20)
    assert y.item() == pytest.approx(3 * math.exp(0.5 * s) + 1)
    assert slope.item() == pytest.approx(0.5 * s)


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_gates_outside_are_refused(bad):
    with pytest.raises(ConfigError, match="gate must be a number in"):
        GatedAffineTransformer(bad)
    with pytest.raises(ConfigError, match="gate must be a number in"):
        InFlow(2, gate=bad)
    with pytest.raises(ConfigError, match="gate must be a number in"):
        InFlow(2, hidden=(4,)).gated(bad)


def test_other_refusals():
    for bad in (0.0, -1.0, math.inf):
        with pytest.raises(ConfigError, match="variance"):
            InFlow(2, variance=bad)
    with pytest.raises(ConfigError, match="max_log_scale"):
        InFlow(2, max_log_scale=0)
    with pytest.raises(ConfigError, match="blocks"):
        InFlow(2, blocks=0)
    with pytest.raises(ConfigError, match="ImageInFlow"):
        InFlow(None)
    with pytest.raises(ConfigError):
        ImageInFlow(shape=(1, 3, 3))  # an odd side cannot be squeezed


def test_the_closed_flow_is_the_base_density_of_the_input():
    """Vectors: N(0, v I) of the standardized row. Images: of the pixels in (0, 1), by their squared norm alone."""
    model = InFlow(3, hidden=(8,), variance=2.0)
    x = 4 * rows(50, 3).float() + 1
    model.initialize(x)
    jolted(model)
    x = x.double()
    closed = model.gated(0.0)
    mean, spread = x.mean(0), x.std(0, correction=0)
    u = (x - mean) / spread
    expected = -(u**2).sum(1) / 4 - 1.5 * math.log(2 * math.pi * 2.0) - spread.log().sum()
    assert torch.allclose(closed.log_prob(x), expected, atol=1e-5)
    assert not torch.allclose(model.log_prob(x), expected, atol=0.1)

    image = jolted(ImageInFlow(shape=(1, 4, 4), blocks=2, hidden=(4,)))
    pixels = torch.randint(256, (7, 1, 4, 4), generator=torch.Generator().manual_seed(2))
    z = image.gated(0.0).encode(pixels)
    unit = z.square().sum(1) * 1.96
    assert torch.allclose(unit, ((pixels + 0.5) / 256).flatten(1).square().sum(1).double(), atol=16 * 2 / 256)
    value = image.gated(0.0).evaluate(pixels).value
    expected = -unit / (2 * 1.96) - 8 * math.log(2 * math.pi * 1.96) - 16 * math.log(256)
    assert torch.allclose(value, expected, atol=1e-9)


def test_gated_models_share_their_weights():
    model = InFlow(2, hidden=(8,))
    half = model.gated(0.5)
    assert [id(p) for p in half.parameters()] == [id(p) for p in model.parameters()]
    assert [id(b) for b in half.buffers()] == [id(b) for b in model.buffers()]
    assert (model.gate, half.gate) == (1.0, 0.5)
    assert {part.transformer.gate for part in half.chain if isinstance(part, Coupling)} == {0.5}
    assert {part.transformer.gate for part in model.chain if isinstance(part, Coupling)} == {1.0}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2)
    x = rows(5, 2)
    same = InFlow(2, hidden=(8,), gate=0.5)
    same.load_state_dict(model.state_dict())
    assert torch.equal(same.log_prob(x), half.log_prob(x))


@pytest.mark.parametrize("gate", [0.0, 0.5, 1.0])
def test_a_gated_model_is_stored_and_inverted(gate, tmp_path):
    model = jolted(ImageInFlow(shape=(1, 4, 4), hidden=(4,))).gated(gate)
    pf.save(model, tmp_path / "m.safetensors")
    other = pf.load(tmp_path / "m.safetensors")
    pixels = torch.randint(256, (5, 1, 4, 4), generator=torch.Generator().manual_seed(3))
    assert torch.equal(other.evaluate(pixels).value, model.evaluate(pixels).value)
    assert torch.equal(other.decode(other.encode(pixels)), pixels.double())


def test_it_learns_the_moons_of_two_normals():
    """A mixture that no normal fits: the open flow gains on the closed one, which training does not touch."""
    draw = torch.Generator().manual_seed(4)
    x = torch.randn(600, 2, generator=draw)
    x[:, 1] = x[:, 0].square() + 0.2 * x[:, 1]
    torch.manual_seed(0)
    model = InFlow(2, hidden=(32,), blocks=3)
    pf.fit(model, x, validation=None, max_steps=200, learning_rate=5e-3, seed=0, progress="silent")
    with torch.no_grad():
        opened, closed = model.log_prob(x).mean(), model.gated(0.0).log_prob(x).mean()
    normal = -0.5 * 2 * math.log(2 * math.pi) - 1 - x.std(0, correction=0).log().sum()
    assert closed.item() == pytest.approx(normal.item(), abs=1e-4)
    assert opened > closed + 0.5
