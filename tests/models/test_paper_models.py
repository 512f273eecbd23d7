"""RealNVP, MAF and NSF: their parts in the papers' order, their options, and what they refuse."""

from __future__ import annotations

import math

import pytest
import torch

from pushforward.distributions import MADEMixture, Normal, Uniform
from pushforward.errors import ConfigError, InputError, KindError
from pushforward.models import MAF, NSF, RealNVP


def parts(model) -> list[str]:
    return [type(part).__name__ for part in model.chain]


def jolted(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.double().parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model.eval()


class TestRealNVP:
    def test_parts(self):
        model = RealNVP(4, couplings=2, hidden=(8,), batch_norm=True)
        assert parts(model) == ["Standardize", "Coupling", "BatchNorm", "Coupling", "BatchNorm"]
        assert [part.flip for part in model.chain if hasattr(part, "flip")] == [False, True]
        assert type(model.base) is Normal
        assert parts(RealNVP(4, couplings=1, hidden=(8,), standardize=False)) == ["Coupling"]

    def test_batch_norm_uses_the_whole_training_set_when_scoring(self):
        model = jolted(RealNVP(3, couplings=2, hidden=(8,), batch_norm=True))
        x = 5 + 2 * torch.randn(400, 3, dtype=torch.float64)
        model.initialize(x)
        model.refresh(x)
        z = x
        for part in model.chain:
            z = part.encode(z).z
            if type(part).__name__ == "BatchNorm":
                scaled = (z - part.beta) * torch.exp(-part.log_gamma)
                torch.testing.assert_close(scaled.mean(0), torch.zeros(3).double(), rtol=0, atol=1e-10)
                torch.testing.assert_close(scaled.var(0, correction=0), torch.ones(3).double(), rtol=1e-4, atol=0)

    def test_scale_is_bounded(self):
        model = RealNVP(2, couplings=1, hidden=(8,), max_log_scale=0.5, standardize=False)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(100)
        contribution = model.evaluate(torch.randn(100, 2)).terms["0.Coupling"]
        assert contribution.abs().max() <= 0.5

    @pytest.mark.parametrize("options", [{"couplings": 0}, {"max_log_scale": 0.0}, {"max_log_scale": math.nan}])
    def test_impossible_arguments(self, options):
        with pytest.raises(ConfigError):
            RealNVP(3, **options)


class TestMAF:
    def test_parts_and_alternating_order(self):
        model = MAF(3, layers=3, hidden=(8,))
        assert parts(model) == ["Standardize", *["MaskedAutoregressive"] * 3]
        assert [part.autoregressive_order for part in list(model.chain)[1:]] == [(0, 1, 2), (2, 1, 0), (0, 1, 2)]

    def test_with_two_layers_no_coordinate_keeps_a_gaussian_margin(self):
        """Under one layer z_0 depends on x_0 alone; the second, reversed, layer lifts that."""
        one, two = (jolted(MAF(3, layers=n, hidden=(32,), activation="tanh")) for n in (1, 2))
        x = torch.randn(3, dtype=torch.float64)
        assert (torch.func.jacrev(one.encode)(x)[0] != 0).tolist() == [True, False, False]
        assert (torch.func.jacrev(two.encode)(x)[0] != 0).all()

    def test_mixture_base(self):
        model = MAF(3, layers=1, hidden=(8,), components=4)
        assert isinstance(model.base, MADEMixture)
        assert model.base.components == 4

    def test_is_the_product_of_its_conditionals(self):
        """log p of one affine layer by hand: sum log N((x_i exp(s_i) + t_i); 0, 1) + s_i."""
        model = jolted(MAF(3, layers=1, hidden=(16,), standardize=False))
        x = torch.randn(5, 3, dtype=torch.float64)
        layer = next(iter(model.chain))
        t, raw = layer.network(x)
        s = raw / (1 + raw.abs() / 3)
        u = x * s.exp() + t
        expected = (-0.5 * u**2 - 0.5 * math.log(2 * math.pi) + s).sum(-1)
        torch.testing.assert_close(model.log_prob(x), expected)
        torch.testing.assert_close(model.conditional_log_prob(x), -0.5 * u**2 - 0.5 * math.log(2 * math.pi) + s)

    def test_conditionals_need_one_order(self):
        with pytest.raises(KindError, match="order"):
            MAF(3, layers=2, hidden=(8,)).conditional_log_prob(torch.zeros(1, 3))

    @pytest.mark.parametrize("options", [{"layers": 0}, {"components": -1}, {"components": 1.5}, {"layers": True}])
    def test_impossible_arguments(self, options):
        with pytest.raises(ConfigError):
            MAF(3, **options)


class TestNSF:
    def test_parts(self):
        small = {"flow_layers": 2, "hidden_features": 8, "residual_blocks": 1}
        mixed = ["Permutation", "LULinear"]
        assert parts(NSF(3, **small)) == ["Standardize", *mixed, "Coupling", *mixed, "Coupling", "LULinear"]
        assert parts(NSF(3, layer="autoregressive", **small)).count("MaskedAutoregressive") == 2
        assert parts(NSF(3, linear="permutation", **small)) == ["Standardize", *["Permutation", "Coupling"] * 2]
        assert parts(NSF(3, linear="none", **small)) == ["Standardize", "Coupling", "Coupling"]
        assert parts(NSF(1, **small)) == ["Standardize", "Monotone", "Monotone"]
        circular = NSF(3, circular=True, **small)
        assert parts(circular) == ["Permutation", "Coupling"] * 2
        assert isinstance(circular.base, Uniform)

    def test_starts_at_the_base(self):
        """Identity splines and LU layers: the untrained density is near the standard normal of standardized data."""
        model = NSF(3, flow_layers=2, hidden_features=8).double()
        x = torch.randn(200, 3, dtype=torch.float64)
        normal = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(-1)
        assert (model.log_prob(x) - normal).abs().mean() < 0.3

    def test_every_output_sees_every_input(self):
        for kind in ("coupling", "autoregressive"):
            model = jolted(NSF(4, kind=kind, flow_layers=2, hidden_features=16, activation="tanh"))
            jacobian = torch.func.jacrev(model.encode)(torch.zeros(4, dtype=torch.float64))
            assert (jacobian != 0).all()

    def test_conditionals_follow_the_order_of_the_columns(self):
        model = jolted(NSF(3, layer="autoregressive", linear="none", flow_layers=2, hidden_features=16))
        x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        terms = model.conditional_log_prob(x)
        changed = x.clone()
        changed[:, 2] += 1.0
        other = model.conditional_log_prob(changed)
        torch.testing.assert_close(other[:, :2], terms[:, :2])
        assert (other[:, 2] != terms[:, 2]).all()
        # Each term is the log of a density in its own coordinate: it integrates to 1. The points are decoded from a grid
        # of noise, which puts them where the mass is, however narrow the peaks of these random splines.
        grid = torch.linspace(-9, 9, 160_001, dtype=torch.float64)
        with torch.no_grad():
            noise = model.encode(x[:1]).repeat(len(grid), 1)
            for i in range(3):
                moved = noise.clone()
                moved[:, i] = grid
                rows = model.decode(moved)
                mass = torch.trapezoid(model.conditional_log_prob(rows)[:, i].exp(), rows[:, i])
                assert mass.item() == pytest.approx(1.0, abs=1e-4)

    def test_the_angle_pi_is_the_angle_minus_pi(self):
        model = jolted(NSF(2, circular=True, flow_layers=2, hidden_features=16))
        a = torch.tensor([[math.pi, 0.5], [0.5, math.pi]], dtype=torch.float64)
        b = torch.tensor([[-math.pi, 0.5], [0.5, -math.pi]], dtype=torch.float64)
        torch.testing.assert_close(model.log_prob(a), model.log_prob(b), rtol=1e-9, atol=1e-9)
        assert (model.log_prob(torch.tensor([[3.2, 0.0], [0.0, -3.2]])) == -math.inf).all()

    def test_order_is_drawn_once_and_kept(self):
        small = {"flow_layers": 2, "hidden_features": 8}
        a, b = NSF(6, **small), NSF(6, **small)
        permutations = [[p.permutation.tolist() for p in m.chain if hasattr(p, "permutation")] for m in (a, b)]
        assert permutations[0] == permutations[1]
        assert permutations[0][0] != permutations[0][1]

    @pytest.mark.parametrize(
        "options",
        [
            {"kind": "maf"},
            {"linear": "qr"},
            {"bins": 1},
            {"tail_bound": 0.0},
            {"flow_layers": 0},
            {"residual_blocks": 0},
            {"hidden_features": 0},
            {"features": 2.0},
            {"features": (2, 2)},
        ],
        ids=str,
    )
    def test_impossible_arguments(self, options):
        with pytest.raises(ConfigError):
            NSF(**{"features": 3, **options})


@pytest.mark.parametrize("cls", [RealNVP, MAF, NSF])
def test_vector_models_want_a_width(cls):
    for features in (0, -1, 2.5, "3", None, (2, 3)):
        with pytest.raises(ConfigError):
            cls(features)


@pytest.mark.parametrize("cls", [RealNVP, MAF, NSF])
@pytest.mark.parametrize("context", [-1, 1.5, True, "2"])
def test_impossible_contexts(cls, context):
    with pytest.raises(ConfigError, match="context"):
        cls(3, context=context)


def test_standardization_is_part_of_the_density():
    """In other units the density changes by the log of the unit, and nothing else."""
    torch.manual_seed(0)
    x = torch.randn(300, 2, dtype=torch.float64)
    unit = torch.tensor([1000.0, 0.01], dtype=torch.float64)
    a = NSF(2, flow_layers=1, hidden_features=8).double()
    b = NSF(2, flow_layers=1, hidden_features=8).double()
    b.load_state_dict(a.state_dict())
    a.initialize(x)
    b.initialize(unit * x - 7)
    difference = a.log_prob(x) - b.log_prob(unit * x - 7)
    torch.testing.assert_close(difference, unit.log().sum().expand(300), rtol=0, atol=1e-6)


def test_context_errors_name_the_widths():
    model = MAF(3, context=2, layers=1, hidden=(8,))
    with pytest.raises(InputError, match="context=2"):
        model.log_prob(torch.zeros(1, 3))
    with pytest.raises(InputError, match="width 2"):
        model.log_prob(torch.zeros(1, 3), torch.zeros(1, 5))
