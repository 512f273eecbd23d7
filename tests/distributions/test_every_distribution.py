"""Properties of every base: shapes, far inputs, gradients, seeds, types, row independence, construction from a file."""

import math

import pytest
import torch
from torch import Size

from pushforward.distributions import (
    Categorical,
    ConditionalNormal,
    Distribution,
    GaussianMixture,
    Logistic,
    MADEMixture,
    Normal,
    PixelCNN,
    Product,
    StudentT,
    Uniform,
    VonMises,
)
from pushforward.errors import ConfigError, InputError, KindError
from pushforward.likelihood import REAL, Kind, Lebesgue
from pushforward.registry import build, describe, names, registered
from pushforward.transforms import GaussianLikelihood

MAKE = {
    "normal": lambda: Normal(3),
    "normal, learned": lambda: Normal(3, trainable=True),
    "logistic": lambda: Logistic(3),
    "uniform": lambda: Uniform(3, -2.0, 3.0),
    "student": lambda: StudentT(3),
    "student, learned": lambda: StudentT(3, df=2.5, trainable_df=True),
    "von mises": lambda: VonMises(3, concentration=4.0),
    "von mises, learned": lambda: VonMises(3, concentration=4.0, trainable=True),
    "mixture": lambda: GaussianMixture(3, components=4),
    "made": lambda: MADEMixture(3, components=4, hidden=(16,)),
    "made, context": lambda: MADEMixture(3, components=4, hidden=(16,), context=2),
    "conditional": lambda: ConditionalNormal(3, context=2, hidden=(16,)),
}
REALS = [name for name in MAKE if MAKE[name]().support == REAL]
SHAPES = {
    "normal": lambda s: Normal(s, trainable=True),
    "logistic": Logistic,
    "uniform": Uniform,
    "student": StudentT,
    "von mises": VonMises,
    "mixture": lambda s: GaussianMixture(s, components=3),
    "conditional": lambda s: ConditionalNormal(s, context=2),
}


@pytest.fixture(params=MAKE, ids=str)
def base(request) -> Distribution:
    torch.manual_seed(1)
    return MAKE[request.param]()


def context_of(base: Distribution, batch: tuple[int, ...]) -> torch.Tensor | None:
    if not base.context:
        return None
    return torch.randn(*batch, base.context, generator=torch.Generator().manual_seed(5), dtype=base.anchor.dtype)


def test_every_registered_base_has_a_case():
    here = {"distributions." + type(make()).__name__ for make in MAKE.values()}
    ours = {name for name in names("distributions.") if registered(name).__module__.startswith("pushforward.")}
    # These count, live on the sphere or on part of space, or are made of others, and have tests of their own.
    elsewhere = {
        "Categorical",
        "HalfNormal",
        "KernelDensity",
        "PixelCNN",
        "Product",
        "SortedNormal",
        "UniformSphere",
        "VonMisesFisher",
    }
    assert here == ours - {f"distributions.{name}" for name in elsewhere}


def test_shapes_kind_and_seed(base):
    assert (base.measure, base.kind) == (Lebesgue(3), Kind.EXACT)
    for batch in [(), (4,), (2, 5), (0,)]:
        context = context_of(base, batch)
        z = base.sample(Size(batch), context, generator=torch.Generator().manual_seed(3))
        again = base.sample(Size(batch), context, generator=torch.Generator().manual_seed(3))
        assert z.shape == (*batch, 3)
        assert torch.equal(z, again)
        assert bool(base.support.contains(z).all())
        value = base.log_prob(z, context)
        assert value.shape == batch
        assert bool(torch.isfinite(value).all())


def test_samples_without_a_generator_follow_the_global_seed(base):
    context = context_of(base, (4,))
    torch.manual_seed(8)
    first = base.sample(Size((4,)), context)
    torch.manual_seed(8)
    assert torch.equal(first, base.sample(Size((4,)), context))


def test_one_context_serves_a_batch(base):
    context = context_of(base, ())
    z = base.sample(Size((2, 4)), context, generator=torch.Generator().manual_seed(3))
    assert z.shape == (2, 4, 3)
    assert base.log_prob(z, context).shape == (2, 4)


@pytest.mark.parametrize("make", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("shape", [(2, 3, 4), (5,)])
def test_image_shapes(make, shape):
    base = make(shape)
    context = context_of(base, (6,))
    z = base.sample(Size((6,)), context, generator=torch.Generator().manual_seed(0))
    assert z.shape == (6, *shape)
    assert base.log_prob(z, context).shape == (6,)
    assert base.measure == Lebesgue(math.prod(shape))


def test_float64(base):
    base = base.double()
    context = context_of(base, (4,))
    z = base.sample(Size((4,)), context, generator=torch.Generator().manual_seed(3))
    assert z.dtype == torch.float64
    value = base.log_prob(z, context)
    assert value.dtype == torch.float64
    single = base.float().log_prob(z.float(), None if context is None else context.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", REALS)
@pytest.mark.parametrize("far", [1e2, 1e6, 1e12, 1e15, -1e15])
def test_far_inputs_have_finite_density_and_gradients(name, far):
    base = MAKE[name]()
    z = torch.tensor([[far, 0.0, 0.0], [0.0, far, 0.5], [far, far, -far]], requires_grad=True)
    context = context_of(base, (3,))
    value = base.log_prob(z, context)
    assert bool(torch.isfinite(value).all())
    assert bool((value < -10.0).all())
    wanted = [z, *base.parameters()]
    for gradient in torch.autograd.grad(value.sum(), wanted, allow_unused=True):
        assert gradient is None or bool(torch.isfinite(gradient).all())
    assert bool((torch.autograd.grad(base.log_prob(z, context)[2], z)[0][2].sign() == -z[2].sign()).all())


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("far", [1e20, -1e20, 1e30, 3e38, math.inf, -math.inf])
def test_farther_inputs_are_never_nan_and_change_no_other_row(name, far):
    base = MAKE[name]()
    z = torch.tensor([[0.1, far, 0.0], [0.1, 0.2, 0.3]])
    context = context_of(base, (2,))
    value = base.log_prob(z, context)
    assert not bool(torch.isnan(value).any())
    assert value[0] < -50.0
    if math.isinf(far):
        assert value[0] == -math.inf
    alone = base.log_prob(z[1:], None if context is None else context[1:])
    torch.testing.assert_close(value[1:], alone)


@pytest.mark.parametrize("name", ["mixture", "made", "conditional"])
def test_an_infinite_row_leaves_finite_gradients(name):
    base = MAKE[name]()
    z = torch.tensor([[math.inf, 0.0, 0.0], [1e30, 0.0, -1e30], [0.1, 0.2, 0.3]])
    value = base.log_prob(z, context_of(base, (3,)))
    for gradient in torch.autograd.grad(value.sum(), list(base.parameters()), allow_unused=True):
        assert gradient is None or bool(torch.isfinite(gradient).all())


def test_nan_stays_nan(base):
    z = torch.tensor([[math.nan, 0.0, 0.0]])
    assert bool(torch.isnan(base.log_prob(z, context_of(base, (1,)))).all())


def test_gradient_against_differences(base):
    base = base.double()
    context = context_of(base, (4,))
    z = base.sample(Size((4,)), context, generator=torch.Generator().manual_seed(3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: base.log_prob(z, context), (z,))


def test_terms_add_up_and_read_no_later_coordinate(base):
    context = context_of(base, (4,))
    z = base.sample(Size((4,)), context, generator=torch.Generator().manual_seed(3))
    if isinstance(base, GaussianMixture):
        with pytest.raises(KindError, match="has no log_prob_terms"):
            base.log_prob_terms(z, context)
        return
    terms = base.log_prob_terms(z, context)
    assert terms.shape == z.shape
    torch.testing.assert_close(terms.sum(-1), base.log_prob(z, context))
    if base.autoregressive_order == "any":
        moved, rest = z.clone(), slice(1, None)
        moved[:, 0] = 0.25
    else:
        assert base.autoregressive_order == tuple(range(z.shape[-1]))
        moved, rest = z.clone(), slice(0, -1)
        moved[:, -1] = 0.25
    assert torch.equal(base.log_prob_terms(moved, context)[:, rest], terms[:, rest])
    far = z.clone()
    far[:, -1] = math.inf
    torch.testing.assert_close(base.log_prob_terms(far, context).sum(-1), base.log_prob(far, context))


def test_has_rsample_is_right(base):
    context = context_of(base, (4,))
    if context is not None:
        context.requires_grad_()
    z = base.sample(Size((4,)), context, generator=torch.Generator().manual_seed(3))
    inputs = [*base.parameters(), *([] if context is None else [context])]
    assert z.requires_grad == (base.has_rsample and bool(inputs))
    if z.requires_grad:
        for gradient in torch.autograd.grad(z.square().sum(), inputs):
            assert bool(torch.isfinite(gradient).all())
            assert bool((gradient != 0).any())


def test_rows_do_not_depend_on_each_other(base):
    context = context_of(base, (6,))
    z = base.sample(Size((6,)), context, generator=torch.Generator().manual_seed(3)).detach()
    whole = base.log_prob(z, context)
    for k in range(6):
        alone = base.log_prob(z[k : k + 1], None if context is None else context[k : k + 1])
        torch.testing.assert_close(alone, whole[k : k + 1])


def test_description_state_and_meta(base):
    description = describe(base)
    with torch.device("meta"):
        empty = build(description)
    assert all(t.is_meta for t in (*empty.parameters(), *empty.buffers()))
    empty.load_state_dict(base.state_dict(), assign=True)
    context = context_of(base, (4,))
    z = torch.rand(4, 3)
    assert torch.equal(empty.log_prob(z, context), base.log_prob(z, context))
    assert describe(empty) == description


def test_a_missing_or_wrong_context_is_refused(base):
    if not base.context:
        return
    with pytest.raises(InputError, match="needs a context"):
        base.log_prob(torch.zeros(4, 3))
    with pytest.raises(InputError, match="width 2"):
        base.sample(Size((4,)), torch.zeros(4, 5))


def test_bases_without_a_context_ignore_one(base):
    if base.context:
        return
    z = torch.rand(4, 3)
    assert torch.equal(base.log_prob(z, torch.zeros(4, 7)), base.log_prob(z))
    assert base.sample(Size((4,)), torch.zeros(7)).shape == (4, 3)


def test_compiles_as_one_graph(base):
    context = context_of(base, (4,))
    z = torch.rand(4, 3)
    compiled = torch.compile(base.log_prob, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(z, context), base.log_prob(z, context))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Normal(0),
        lambda: Uniform(2, 1.0, 1.0),
        lambda: Uniform(2, 0.0, math.inf),
        lambda: StudentT(2, df=0.0),
        lambda: StudentT(2, df=math.nan),
        lambda: VonMises(2, concentration=0.0),
        lambda: VonMises(2, concentration=math.inf),
        lambda: GaussianMixture(2, components=0),
        lambda: GaussianMixture(2, max_log_scale=0.0),
        lambda: MADEMixture(2, components=-1),
        lambda: MADEMixture((2, 3)),  # type: ignore[arg-type]
        lambda: ConditionalNormal(2, context=0),
        lambda: ConditionalNormal(2, context=1, max_log_scale=math.nan),
    ],
)
def test_impossible_arguments_are_refused(make):
    with pytest.raises(ConfigError, match="got"):
        make()


@pytest.mark.parametrize("name", ["made, context", "conditional"])
@pytest.mark.parametrize("batch", [(), (1,), (5,), (4, 1)], ids=str)
def test_a_context_for_another_batch_is_refused(name, batch):
    """Four contexts once gave four samples with the same noise where one sample was asked for."""
    with pytest.raises(InputError, match=r"context of shape \(4, 2\) does not broadcast to the batch"):
        MAKE[name]().sample(Size(batch), torch.zeros(4, 2))
    assert MAKE[name]().sample(Size((3, 4)), torch.zeros(4, 2)).shape == (3, 4, 3)


@pytest.mark.parametrize("name", [name for name in MAKE if "mixture" not in name and "made" not in name])
@pytest.mark.parametrize("shape", [(5, 1), (5, 4), (3, 1)], ids=str)
def test_terms_of_another_event_shape_are_refused(name, shape):
    """Broadcasting once gave terms for (5, 1) without a word."""
    base = MAKE[name]()
    with pytest.raises(InputError, match=r"reads data of shape \(\*batch, 3\)"):
        base.log_prob_terms(torch.zeros(shape), context_of(base, (shape[0],)))


@pytest.mark.parametrize(
    ("base", "shape"),
    [
        (Product(Normal(2), Logistic(1)), (5, 4)),
        (PixelCNN((1, 2, 1), GaussianLikelihood(), filters=4, layers=1), (5, 1, 1, 2)),
    ],
    ids=["product", "pixels"],
)
def test_terms_of_another_event_shape_are_refused_by_compound_bases(base, shape):
    with pytest.raises(InputError, match="reads data of shape"):
        base.log_prob_terms(torch.zeros(shape))


def test_a_category_that_is_nan_stays_nan():
    z = torch.tensor([[[1.0, 0.0, 0.0], [0.0, math.nan, 1.0]], [[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]])
    value = Categorical(2, 3).log_prob(z)
    assert math.isnan(value[0])
    assert value[1] == -math.inf
