"""What `Model` itself does with noise, sample shapes, parts and draws; tests of every model are in tests/contract."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pushforward import distributions, transforms
from pushforward.errors import ConfigError, InputError, KindError, PushforwardWarning
from pushforward.likelihood import Kind
from pushforward.models import MAF, NSF, Ensemble, Flow, RealNVP

MAKERS = [lambda: RealNVP(3, 2, layers=2, hidden=(8,)), lambda: MAF(3, 2, layers=2, hidden=(8,)),
          lambda: NSF(3, 2, layers=1, hidden=(8, 8))]  # fmt: skip


class TestNoise:
    @pytest.mark.parametrize("make", MAKERS, ids=["RealNVP", "MAF", "NSF"])
    def test_one_context_serves_all_noise(self, make):
        model = make().eval()
        z, c = torch.randn(5, 3), torch.randn(2)
        expected = model.decode(z, c.expand(5, 2))
        torch.testing.assert_close(model.sample(noise=z, context=c), expected)
        torch.testing.assert_close(model.sample(5, noise=z, context=c), expected)
        torch.testing.assert_close(model.sample(noise=z, context=c.expand(5, 2)), expected)

    @pytest.mark.parametrize("make", MAKERS, ids=["RealNVP", "MAF", "NSF"])
    def test_arguments_that_do_not_fit_are_refused(self, make):
        model = make()
        z = torch.randn(5, 3)
        with pytest.raises(InputError, match="broadcast"):
            model.sample(noise=z, context=torch.zeros(4, 2))
        with pytest.raises(ConfigError, match="sample_shape"):
            model.sample(7, noise=z, context=torch.zeros(2))
        for wrong in (torch.zeros(5, 4), torch.zeros(5, 2), torch.zeros(())):
            with pytest.raises(InputError, match="noise"):
                model.decode(wrong, torch.zeros(2))
            with pytest.raises(InputError, match="noise"):
                model.sample(noise=wrong, context=torch.zeros(2))
        with pytest.raises(InputError, match="NaN"):
            model.decode(torch.full((1, 3), math.nan), torch.zeros(2))
        with pytest.raises(InputError, match="torch tensors"):
            model.decode([1.0, 2.0, 3.0], torch.zeros(2))


@pytest.mark.parametrize("shape", [-1, 2.5, (2, -1), "3", None, True, (1.0,)], ids=str)
def test_impossible_sample_shapes(shape):
    with pytest.raises(ConfigError, match="sample_shape"):
        RealNVP(2, hidden=(8,)).sample(shape)


@pytest.mark.parametrize("shape", [3, (3,), [3], torch.Size([3]), np.int64(3), (np.int64(3),)], ids=repr)
def test_sample_shapes_in_any_form(shape):
    model = RealNVP(2, hidden=(8,))
    assert model.sample(shape, seed=0).shape == (3, 2)
    assert model.distribution().sample(shape).shape == (3, 2)


@pytest.mark.parametrize("make", MAKERS, ids=["RealNVP", "MAF", "NSF"])
def test_vmap_over_rows_and_contexts(make):
    model = make().eval()
    x, c = torch.randn(4, 3), torch.randn(4, 2)
    torch.testing.assert_close(torch.vmap(model.log_prob)(x, c), model.log_prob(x, c))
    torch.testing.assert_close(torch.vmap(lambda row, given: model.decode(model.encode(row, given), given))(x, c), x)
    x.requires_grad_()
    (wanted,) = torch.autograd.grad(model.log_prob(x, c).sum(), x)
    torch.testing.assert_close(torch.vmap(torch.func.grad(model.log_prob))(x.detach(), c), wanted)


def test_seeds_are_integers_of_any_kind():
    model = Flow(transforms.UniformDequantize(2, levels=8), distributions.Uniform(2))
    x = torch.ones(1, 2)
    for seed in (np.int64(5), np.uint8(5)):
        assert torch.equal(model.sample(3, seed=seed), model.sample(3, seed=5))
        assert torch.equal(model.encode(x, seed=seed), model.encode(x, seed=5))
    assert model.sample(3, seed=1 << 70).shape == (3, 2)
    for wrong in ("a", 1.5, True):
        for call in (model.sample, lambda *, seed: model.evaluate(x, seed=seed)):
            with pytest.raises(ConfigError, match="seed must be an integer"):
                call(seed=wrong)


@pytest.mark.parametrize("context", [[[1.0, 2.0]], "12", 1.0], ids=str)
def test_a_context_is_a_tensor(context):
    with pytest.raises(InputError, match="torch tensor"):
        MAKERS[0]().log_prob(torch.zeros(1, 3), context)


def test_a_context_has_a_width():
    with pytest.raises(InputError, match="width 2"):
        MAKERS[0]().log_prob(torch.zeros(1, 3), torch.tensor(1.0))


def test_a_context_is_real():
    model, context = RealNVP(2, context=2, hidden=(8,)), torch.zeros(3, 2, dtype=torch.complex64)
    for call in (lambda: model.log_prob(torch.zeros(3, 2), context), lambda: model.sample(2, context)):
        with pytest.raises(InputError, match="a context of real numbers"):
            call()


def test_a_context_that_is_not_finite_is_named_by_its_index():
    model, context = RealNVP(2, context=2, hidden=(8,)), torch.zeros(3, 2)
    context[2, 1] = torch.nan
    with pytest.raises(InputError, match=r"NaN in its context at index \(2, 1\)"):
        model.log_prob(torch.zeros(3, 2), context)


def test_evaluate_keeps_a_graph_only_where_gradients_are_recorded():
    exact, x = RealNVP(2, hidden=(8,)), torch.zeros(3, 2)
    bound = Flow(transforms.UniformDequantize(2, 8), distributions.Normal(2))
    assert exact.evaluate(x).value.requires_grad
    assert not bound.evaluate(x, samples=2).value.requires_grad
    with torch.no_grad():
        assert not exact.evaluate(x).value.requires_grad


class TestParts:
    def test_a_model_is_a_transform_and_a_base(self):
        for chain, base in (
            (None, distributions.Normal(2)),
            (transforms.Affine(2), transforms.Affine(2)),
            ("Affine", "Normal"),
        ):
            with pytest.raises(ConfigError):
                Flow(chain, base)

    def test_chains_are_made_of_transforms(self):
        for parts in ((), ("Affine",), (transforms.Affine(2), distributions.Normal(2))):
            with pytest.raises(ConfigError, match="chain"):
                transforms.Chain(*parts)
        with pytest.raises(ConfigError, match="shape"):
            transforms.Chain(transforms.Affine(2), transforms.Affine(3))
        with pytest.raises(ConfigError, match="different widths"):
            transforms.Chain(transforms.Monotone(2, context=1), transforms.Monotone(2, context=2))
        with pytest.raises(ConfigError, match="Inverse"):
            transforms.Inverse("Affine")

    def test_nested_chains_are_one_chain(self):
        chain = transforms.Chain(
            transforms.Chain(transforms.Affine(2), transforms.Tanh(2)), transforms.Inverse(transforms.Tanh(2))
        )
        assert [type(part).__name__ for part in chain] == ["Affine", "Tanh", "Inverse"]
        assert len(chain) == 3

    @pytest.mark.parametrize("cls", [transforms.Coupling, transforms.MaskedAutoregressive, transforms.Monotone])
    def test_a_transformer_is_required(self, cls):
        with pytest.raises(ConfigError, match="transformer"):
            cls(3, "affine")

    @pytest.mark.parametrize("cls", [transforms.Coupling, transforms.MaskedAutoregressive])
    @pytest.mark.parametrize(
        "options", [{"dropout": -0.1}, {"dropout": 1.0}, {"input_bound": -1.0}, {"input_bound": 0.0}, {"hidden": 128}]
    )
    def test_networks_refuse_impossible_arguments(self, cls, options):
        with pytest.raises(ConfigError):
            cls(3, **options)

    @pytest.mark.parametrize(
        "options",
        [{"max_logit": -1.0}, {"max_logit": math.nan}, {"bias": math.inf}, {"bias": 20.5}, {"max_logit": 20.5}],
    )
    def test_gates_are_bounded(self, options):
        with pytest.raises(ConfigError, match="must be a number in"):
            transforms.GatedTransformer(**options)


class TestEnsemble:
    def test_is_the_mean_density(self):
        torch.manual_seed(0)
        members = [RealNVP(2, layers=2, hidden=(8,)).double() for _ in range(3)]
        ensemble = Ensemble(*members).double()
        x = torch.randn(7, 2, dtype=torch.float64)
        densities = torch.stack([member.log_prob(x).exp() for member in members])
        torch.testing.assert_close(ensemble.log_prob(x).exp(), densities.mean(0))

    def test_members_keep_their_own_standardization_of_the_context(self):
        torch.manual_seed(0)
        member = RealNVP(2, 1, layers=2, hidden=(8,)).double()
        x, c = torch.randn(50, 2, dtype=torch.float64), 300 + 20 * torch.randn(50, 1, dtype=torch.float64)
        with torch.no_grad():
            for parameter in member.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        member.initialize(x, c)
        model = Flow(transforms.Affine(2), Ensemble(member)).double()
        torch.testing.assert_close(model.log_prob(x, c), member.log_prob(x, c))
        a, b = model.sample((), c, seed=0), member.sample((), c, seed=0)
        assert a.shape == b.shape
        assert (a - b).abs().max() < 20

    def test_members_without_a_context_ignore_that_of_the_chain(self):
        torch.manual_seed(0)
        members, c = Ensemble(RealNVP(2, hidden=(8,)), RealNVP(2, hidden=(8,))), torch.randn(5, 1)
        model = Flow(transforms.Monotone(2, context=1), members)
        x = torch.randn(5, 2)
        model.initialize(x, c)
        step = model.chain.encode(x, model.prepare_context(c, x.shape[:1]))
        torch.testing.assert_close(model.log_prob(x, c), step.contribution + members.log_prob(step.z))
        assert model.sample(3, c, seed=0).shape == (3, 5, 2)

    def test_a_context_for_another_number_of_samples_is_refused(self):
        with pytest.raises(InputError, match="does not broadcast"):
            Ensemble(RealNVP(2, context=3, hidden=(8,))).sample((4,), torch.zeros(3, 3))

    def test_support_covers_every_member(self):
        """One member lives on the unit square and one on the plane: together they need the plane."""
        bounded = Flow(transforms.Logit(2), distributions.Normal(2))
        free = RealNVP(2, hidden=(8,))
        for members in ((bounded, free), (free, bounded)):
            assert Flow(transforms.Affine(2), Ensemble(*members)).kind is Kind.EXACT
        with pytest.warns(UserWarning, match="lower bound"):
            assert Flow(transforms.Sigmoid(2), Ensemble(bounded, free)).kind is Kind.LOWER_BOUND

    def test_refusals(self):
        with pytest.raises(ConfigError, match="at least one"):
            Ensemble()
        with pytest.raises(ConfigError, match="shape"):
            Ensemble(RealNVP(2, hidden=(8,)), RealNVP(3, hidden=(8,)))
        with pytest.raises(ConfigError, match="width"):
            Ensemble(RealNVP(2, hidden=(8,)), RealNVP(2, 1, hidden=(8,)))
        counted = Flow(transforms.Chain(transforms.UniformDequantize(2), transforms.Logit(2)), distributions.Normal(2))
        with pytest.raises(KindError):
            Ensemble(counted)


class TestTraining:
    def test_loss_and_log_prob_use_the_same_context(self):
        model = MAKERS[0]().double().eval()
        x = torch.randn(40, 3, dtype=torch.float64)
        c = torch.tensor([1e4, -1e-3]).double() + torch.tensor([10.0, 1e-4]).double() * torch.randn(40, 2).double()
        model.initialize(x, c)
        torch.testing.assert_close(model.loss(x, c), -model.log_prob(x, c).mean())
        seen = (c - model.context_mean) / model.context_scale
        torch.testing.assert_close(seen.mean(0), torch.zeros(2).double(), rtol=0, atol=1e-6)
        torch.testing.assert_close(seen.std(0, correction=0), torch.ones(2).double(), rtol=1e-3, atol=0)

    def test_a_constant_context_is_harmless(self):
        model = MAKERS[0]()
        x, c = torch.randn(10, 3), torch.full((10, 2), 7.0)
        model.initialize(x, c)
        assert torch.isfinite(model.log_prob(x, c)).all()

    @pytest.mark.parametrize("count", [1, 50, 333, 1000])
    def test_a_constant_context_keeps_scale_1(self, count):
        """Rounding of its mean is no deviation, so another value of it is not infinitely far away."""
        for value in (0.1, 1 / 3, 7.7):
            model = RealNVP(2, context=1).double()
            model.initialize(torch.randn(count, 2).double(), torch.full((count, 1), value, dtype=torch.float64))
            assert model.context_scale.tolist() == [1.0]

    def test_a_context_below_the_range_of_the_type_is_constant(self):
        model = RealNVP(2, context=1)
        x, c = torch.randn(50, 2), 1e-60 * torch.randn(50, 1, dtype=torch.float64)
        with pytest.warns(PushforwardWarning, match="vary by less"):
            model.initialize(x, c)
        assert torch.isfinite(model.log_prob(x, c)).all()

    def test_the_loss_draws_from_its_generator_only(self):
        chain = transforms.Chain(transforms.UniformDequantize(2, 4), transforms.Logit(2))
        model = Flow(chain, distributions.Normal(2))
        x = torch.randint(4, (30, 2))
        state = torch.random.get_rng_state()
        losses = [model.loss(x, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
        assert torch.equal(torch.random.get_rng_state(), state)
        assert losses[0] == losses[1] != losses[2]


class TestDraws:
    MODEL = Flow(
        transforms.Chain(transforms.UniformDequantize(1, 2), transforms.Logit(1)), distributions.Normal(1)
    ).double()

    def test_more_draws_tighten_the_bound_and_come_with_an_error(self):
        x = torch.zeros(1, 1)
        one = self.MODEL.evaluate(x, seed=3)
        many = self.MODEL.evaluate(x, samples=500, seed=3)
        assert one.stderr is None
        assert many.stderr is not None
        # The cell of 0 is (0, 1/2), whose logits are the negative half line: the truth is 1/2.
        assert many.value.item() == pytest.approx(math.log(0.5), abs=0.05)
        singles = torch.stack([self.MODEL.evaluate(x, seed=s).value for s in range(200)])
        assert singles.mean() < math.log(0.5)

    def test_an_impossible_row_stays_impossible(self):
        result = self.MODEL.evaluate(torch.tensor([[0.5], [1.0], [math.inf]]), samples=5)
        assert result.value[0] == result.value[2] == -math.inf
        assert torch.isfinite(result.value[1])
        assert result.stderr is not None
        assert not torch.isnan(result.stderr).any()


def test_default_seed_is_0():
    model = Flow(transforms.UniformDequantize(2, 8), distributions.Normal(2))
    x = torch.tensor([[3.0, 5.0]])
    assert torch.equal(model.encode(x), model.encode(x, seed=0))
    assert not torch.equal(model.encode(x), model.encode(x, seed=1))


def test_chain_rule_of_a_row_that_is_infinitely_far():
    model = NSF(3, layer="autoregressive", linear="none", layers=1, hidden=(8,))
    x = torch.tensor([[0.0, 1.0, 2.0], [0.0, math.inf, 2.0]])
    terms = model.conditional_log_prob(x)
    assert terms.shape == (2, 3)
    torch.testing.assert_close(terms.sum(-1), model.log_prob(x))
    assert terms[1].sum() == -math.inf


def test_model_dtype_follows_the_weights():
    model = RealNVP(2, hidden=(8,))
    assert model.dtype is torch.float32
    assert model.double().dtype is torch.float64
    assert Flow(transforms.Reverse(2), distributions.Logistic(2)).double().sample(1, seed=0).dtype is torch.float64


class _Double(transforms.Transform):
    """z = 2 x, with the result that a test gives."""

    def __init__(self, result) -> None:
        super().__init__(2)
        self.result = result

    def encode(self, x, context=None, *, noise=None):
        return self.result(x)

    def decode(self, z, context=None, *, noise=None):
        return z / 2


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda x: (2 * x, x.sum(-1)), r"must return Step\(z, contribution\); got a tuple"),
        (
            lambda x: transforms.Step(2 * x, torch.full_like(x, math.log(2))),
            r"contribution of shape \(2, 2\).* shape \(2,\)",
        ),
        (lambda x: transforms.Step(x[..., :1], x.new_zeros(2)), r"z of shape \(2, 1\).* must have the shape \(2, 2\)"),
    ],
    ids=["tuple", "terms", "width"],
)
def test_a_transform_of_ones_own_with_a_wrong_result_is_named(result, message):
    model = Flow(transforms.Chain(_Double(result)), distributions.Normal(2))
    with pytest.raises(ConfigError, match="_Double.encode .*" + message):
        model.log_prob(torch.zeros(2, 2))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda x: (2 * x, x.sum(-1)), r"must return Step\(z, contribution\); got a tuple"),
        (
            lambda x: transforms.Step(2 * x, torch.full_like(x, math.log(2))),
            r"contribution of shape \(2, 2\).* shape \(2,\)",
        ),
    ],
    ids=["tuple", "terms"],
)
def test_every_method_names_such_a_transform(result, message):
    model = Flow(transforms.Chain(_Double(result), transforms.Affine(2)), distributions.Normal(2))
    for call in (model.evaluate, lambda x: model.sample_and_log_prob(len(x), seed=0)):
        with pytest.raises(ConfigError, match="_Double.encode .*" + message):
            call(torch.zeros(2, 2))


def test_a_wrong_decode_of_ones_own_is_named():
    class Wider(_Double):
        def decode(self, z, context=None, *, noise=None):
            return torch.cat([z, z], -1)

    model = Flow(Wider(lambda x: transforms.Step(2 * x[..., :2], x.new_zeros(len(x)))), distributions.Normal(2))
    with pytest.raises(ConfigError, match=r"Wider.decode returned an x of shape \(3, 4\).* the shape \(3, 2\)"):
        model.sample_and_log_prob(3, seed=0)


class _Base(distributions.Distribution):
    """A standard normal whose log-density a test changes."""

    def __init__(self, result) -> None:
        super().__init__(2)
        self.result = result

    def log_prob(self, z, context=None):
        return self.result(-0.5 * z.square() - 0.5 * math.log(2 * math.pi))

    def sample(self, batch, context=None, *, generator=None):
        return torch.randn((*batch, 2), generator=generator, **self.like(generator))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda terms: terms.sum(), r"of shape \(\) for noise of shape \(2, 2\)"),
        (lambda terms: terms, r"of shape \(2, 2\)"),
        (lambda terms: terms.sum(-1, keepdim=True), r"of shape \(2, 1\)"),
        (lambda terms: float(terms.sum()), "of type float"),
    ],
    ids=["scalar", "terms", "column", "float"],
)
def test_a_base_of_ones_own_with_a_wrong_log_density_is_named(result, message):
    model = Flow(transforms.Affine(2), _Base(result))
    for call in (model.log_prob, model.evaluate, model, lambda x: model.sample_and_log_prob(len(x), seed=0)):
        with pytest.raises(ConfigError, match=rf"_Base.log_prob returned .*{message}.*the shape \(2,\)"):
            call(torch.zeros(2, 2))
    right = Flow(transforms.Affine(2), _Base(lambda terms: terms.sum(-1)))
    x = torch.randn(3, 2)
    torch.testing.assert_close(torch.vmap(right.log_prob)(x), right.log_prob(x))


class TestGradientsOfSamples:
    """A base or a transform that chooses a category passes no gradient, so none of a part of the path is given."""

    BASES = (
        lambda: distributions.GaussianMixture(2),
        lambda: distributions.MADEMixture(2, hidden=(8,)),
        lambda: Ensemble(RealNVP(2, hidden=(8,)), RealNVP(2, hidden=(8,))),
        lambda: distributions.Product(distributions.Normal(1), distributions.GaussianMixture(1)),
    )

    @pytest.mark.parametrize("make", BASES, ids=["mixture", "MADE", "ensemble", "product"])
    def test_a_base_that_chooses(self, make):
        model = Flow(RealNVP(2, hidden=(8,)).chain, make())
        name = type(model.base).__name__
        with pytest.raises(KindError, match=rf"samples of {name} carry no gradient: call sample\(\) instead"):
            model.rsample(3)
        x, log_q = model.sample_and_log_prob(3, seed=0)
        assert not x.requires_grad
        assert not log_q.requires_grad
        torch.testing.assert_close(log_q, model.log_prob(x).detach(), rtol=1e-4, atol=1e-5)
        assert torch.equal(x, model.sample(3, seed=0))
        assert model.log_prob(x).requires_grad
        assert model.rsample(noise=torch.randn(3, 2)).requires_grad  # given noise, the base chooses nothing

    def test_a_transform_that_chooses(self):
        part = transforms.Abs(2, hidden=(8,))
        model = Flow(transforms.Chain(part, transforms.Inverse(transforms.Softplus(2))), distributions.Normal(2))
        for noise in (None, torch.rand(3, 2)):
            with pytest.raises(KindError, match="samples of Abs carry no gradient"):
                model.rsample(() if noise is not None else 3, noise=noise)


def test_initialize_refuses_infinite_rows_by_their_index():
    model, rows = RealNVP(2, hidden=(8,)), torch.randn(20, 2)
    rows[4, 1] = -math.inf
    with pytest.raises(InputError, match=r"RealNVP got -inf at index \(4, 1\) \(row 4\): training rows must be finite"):
        model.initialize(rows)
    with pytest.raises(InputError, match="NaN at index"):
        model.initialize(torch.full((2, 2), math.nan))


@pytest.mark.parametrize("generator", [3, "0"])
def test_a_generator_is_one_of_torch(generator):
    with pytest.raises(ConfigError, match=r"generator must be a torch.Generator; got .* as seed="):
        RealNVP(2, hidden=(8,)).sample(3, generator=generator)


def test_parts_of_another_kind_are_refused_with_what_to_write():
    part, base = transforms.Affine(2), distributions.Normal(2)
    for wrong, message in (
        ([part], r"a list: write Chain\(\*transforms\)"),
        (transforms.Affine, r"the class Affine: write Affine\(\.\.\.\)"),
        (torch.distributions.ExpTransform(), r"write from_torch\(ExpTransform"),
        (torch.nn.Linear(2, 2), "got Linear"),
    ):
        with pytest.raises(ConfigError, match=message):
            transforms.Chain(wrong)
    normal = torch.distributions.Normal(torch.zeros(2), torch.ones(2))
    for chain, other, message in (
        (base, part, "in the wrong order"),
        (part, normal, "take the base from pushforward.distributions"),
        ([part], base, r"write Chain\(\*transforms\)"),
    ):
        with pytest.raises(ConfigError, match=message):
            Flow(chain, other)


@pytest.mark.parametrize(
    ("context", "said"),
    [
        (torch.tensor([[1.0, float("nan"), 2.0]] * 4), "NaN in its context at index"),
        (torch.zeros(6, 2), "needs a context of width 3"),
        (torch.zeros(7, 3), "does not broadcast"),
        ([[0.0, 1.0, 2.0]] * 4, "torch tensor"),
    ],
)
def test_a_context_that_initialize_refuses_sets_nothing(context, said):
    model = NSF(2, context=3)
    x, good = torch.randn(4, 2), torch.randn(4, 3) + 5
    with pytest.raises(InputError, match=said):
        model.initialize(x, context)
    assert not model.context_initialized
    model.initialize(x, good)
    torch.testing.assert_close(model.context_mean, good.mean(0))
    assert model.log_prob(x, good).isfinite().all()


def test_an_ensemble_is_made_of_models():
    for wrong in ([RealNVP(2)], 3, distributions.Normal(2)):
        with pytest.raises(ConfigError, match=r"as in Ensemble\(\*models\)"):
            Ensemble(wrong)
