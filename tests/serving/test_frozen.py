"""A frozen model gives the model's numbers, whatever is asked of it, and leaves the model as it was."""

from __future__ import annotations

import copy
import math
import pickle
import threading
import warnings

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward import bases, maps, models
from pushforward.errors import ConfigError, InputError, PushforwardWarning
from pushforward.kernels.native import _compiler
from pushforward.maps import Chain
from pushforward.serving import Frozen, frozen

compiled = pytest.mark.skipif(_compiler() is None, reason="there is no C compiler")


def couplings(*laws: maps.Transformer, **options) -> models.Flow:
    """A flow with one coupling for each law."""
    return models.Flow(
        Chain(*(maps.Coupling(5, law, flip=k % 2 == 1, hidden=(20,), **options) for k, law in enumerate(laws))),
        bases.Normal(5),
    )


WHOLE = {
    "nice": lambda: models.NICE(5, hidden=(24, 24)),
    "realnvp": lambda: models.RealNVP(5, hidden=(24, 17), batch_norm=True),
    "realnvp context": lambda: models.RealNVP(5, context=3, hidden=(24,)),
    "maf": lambda: models.MAF(5, hidden=(40, 33)),
    "maf wide": lambda: models.MAF(20, layers=2, hidden=(150,)),
    "maf context residual": lambda: models.MAF(5, context=2, hidden=(24, 24), residual=True, batch_norm=True),
    "maf context, no hidden layer": lambda: models.MAF(3, context=2, hidden=()),
    "maf of one": lambda: models.MAF(1),
    "maf of one with context": lambda: models.MAF(1, context=2),
    "nsf": lambda: models.NSF(5, hidden_features=24, flow_layers=3, unconditional=True),
    "nsf autoregressive": lambda: models.NSF(5, context=1, kind="autoregressive", hidden_features=24, flow_layers=2),
    "nsf of one": lambda: models.NSF(1),
    "nsf double": lambda: models.NSF(4, hidden_features=16, flow_layers=2).double(),
    "householder": lambda: models.Flow(
        Chain(maps.ActNorm(4), maps.Householder(4), maps.Reverse(4), maps.Affine(4, 0.5, (1.0, -2.0, 3.0, 0.1), True)),
        bases.Normal(4, trainable=True),
    ),
    **{
        name: lambda name=name: couplings(
            maps.AffineTransformer(), maps.SplineTransformer(5), maps.AdditiveTransformer(), activation=name
        )
        for name in ("relu", "tanh", "elu", "silu", "gelu", "softplus", "leaky_relu")
    },
}
PART = {
    "logit": lambda: models.Flow(
        Chain(maps.Logit(3), maps.Standardize(3), maps.Coupling(3, hidden=(16,))), bases.Normal(3)
    ),
    "logit and context": lambda: models.Flow(
        Chain(maps.Logit(3), maps.Coupling(3, hidden=(16,), context=2)), bases.Normal(3)
    ),
    "ensemble": lambda: models.Flow(
        maps.SoftTail(4), models.Ensemble(models.NSF(4, hidden_features=16), models.MAF(4), models.NICE(4))
    ),
    "table": lambda: models.Flow(
        Chain(maps.Standardize(4).double(), maps.Cast(4), maps.Jitter(4)),
        models.Ensemble(models.MAF(4, hidden=(16,)), models.RealNVP(4, hidden=(16,))),
    ),
}
NONE = {
    "other law": lambda: models.SOS(3),
    "other base": lambda: models.MAF(3, components=2),
    "image": lambda: models.Glow((1, 4, 4), scales=1, steps=1, hidden=(8, 8)),
}


def made(build, seed: int = 0) -> models.Model:
    """The model with random weights and statistics."""
    torch.manual_seed(seed)
    model = build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        model.initialize(*rows(model, 200))
    return model.eval()


def rows(model, count: int, scale: float = 1.0):
    """Rows that the model can read, and contexts if it reads them."""
    x = torch.randn(count, *model.shape) * scale
    if isinstance(model.chain.maps[0], maps.Logit):
        x = torch.sigmoid(x)
    if not isinstance(model, models.Flow) and len(model.shape) == 3:
        x = torch.randint(0, 256, (count, *model.shape))
    return x, 2 + torch.randn(count, model.context_features) if model.context_features else None


def close(found, expected, weights: torch.dtype = torch.float64) -> None:
    """Equal to rounding in the type of the numbers, or of the weights where that is shorter."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert not found.requires_grad
    tolerance = 1e-12 if {found.dtype, weights} == {torch.float64} else 1e-5
    torch.testing.assert_close(found, expected.detach(), rtol=tolerance, atol=10 * tolerance)


@compiled
@pytest.mark.parametrize("build", WHOLE.values(), ids=WHOLE)
def test_all_of_a_flow_runs_in_the_program(build):
    model = made(build)
    score = pf.freeze(model)
    assert (score.native, score.reason) == ("all", "")
    for count in (1, 2, 4, 7, 65):
        for scale in (1.0, 30.0):
            x, context = rows(model, count, scale)
            close(score(x, context), model(x, context))
            close(score.value(x, context), model.evaluate(x, context).value)


@compiled
@pytest.mark.parametrize("build", PART.values(), ids=PART)
def test_maps_at_the_data_end_run_in_torch(build):
    model = made(build)
    score = pf.freeze(model)
    assert score.native == "part"
    assert score.reason
    for count in (1, 3, 20):
        x, context = rows(model, count)
        close(score(x, context), model(x, context), model.latent_dtype)
        expected = model.evaluate(x, context, samples=2, seed=3).value
        close(score.value(x, context, samples=2, seed=3), expected, model.latent_dtype)


@pytest.mark.parametrize("build", NONE.values(), ids=NONE)
def test_what_has_no_program_is_a_copy_in_torch_and_says_so_once(build):
    model = made(build)
    with pytest.warns(PushforwardWarning, match="frozen in plain torch operations: (there is no native|no C)"):
        score = pf.freeze(model)
    assert score.native == "none"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x, context = rows(model, 3)
        close(score(x, context), model(x, context))


def test_without_a_compiler_the_masks_are_multiplied_in_and_numbers_stay(monkeypatch):
    model = made(WHOLE["maf context residual"])
    monkeypatch.setattr("pushforward.kernels.program.library", lambda source, dtype: None)
    with pytest.warns(PushforwardWarning, match="no C compiler is at hand"):
        score = pf.freeze(model)
    assert score.native == "none"
    assert not any(hasattr(module, "mask") for module in score._plain.modules())
    x, context = rows(model, 5)
    close(score(x, context), model(x, context))


def test_plain_kernels_are_a_choice_and_no_reason_to_warn():
    with pf.use_kernels("plain"), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pf.freeze(made(WHOLE["maf"])).native == "none"


@compiled
@pytest.mark.parametrize("name", ["maf", "realnvp", "nsf", "nsf autoregressive", "maf wide"])
def test_a_row_does_not_depend_on_the_rows_beside_it(name):
    model = made(WHOLE[name])
    score = pf.freeze(model)
    x, context = rows(model, 41)
    whole = score(x, context)
    for low, high in ((0, 1), (7, 9), (3, 6), (40, 41), (1, 38)):
        part = score(x[low:high], None if context is None else context[low:high])
        torch.testing.assert_close(part, whole[low:high], rtol=1e-6, atol=1e-6)


@compiled
@pytest.mark.parametrize("build", [WHOLE["nsf"], WHOLE["maf"], PART["table"], PART["logit"]])
def test_far_infinite_and_empty(build):
    model = made(build)
    score = pf.freeze(model)
    x = rows(model, 4)[0]
    x[1, 0], x[2, 1] = math.inf, 1e20
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, expected = score(x), model(x).detach()
    assert found[1] == -math.inf
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    assert score(x[:0]).shape == (0,)
    assert score(x[0]).shape == ()
    assert score(x.reshape(2, 2, -1)).shape == (2, 2)
    close(score(x[:1].double()), model(x[:1].double()), model.latent_dtype)
    close(score(x.t().contiguous().t()[3:]), model(x[3:]), model.latent_dtype)
    x[3, 1] = math.nan
    with pytest.raises(InputError, match="row 3"):
        score(x)
    with pytest.raises(InputError, match="data of shape"):
        score(x[:, :2])
    with pytest.raises(InputError, match="torch tensors"):
        score([[1.0, 2.0]])


@compiled
def test_a_context_is_checked_as_the_model_does():
    model = made(WHOLE["realnvp context"])
    score = pf.freeze(model)
    x, context = rows(model, 3)
    close(score(x, context[0]), model(x, context[0]))  # one for all
    for wrong in (None, context[:, :2], context[:2]):
        with pytest.raises(InputError):
            score(x, wrong)
    with pytest.raises(InputError, match="takes no context"):
        pf.freeze(made(WHOLE["maf"]))(x, context)


@compiled
def test_the_model_stays_as_it_is_and_may_change_without_the_copy():
    model = made(WHOLE["maf"]).train()
    before, x = copy.deepcopy(model.state_dict()), rows(model, 3)[0]
    score = pf.freeze(model)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    found = score(x)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert torch.equal(score(x), found)


@compiled
@pytest.mark.parametrize(
    "move", [copy.deepcopy, lambda score: pickle.loads(pickle.dumps(score))], ids=["copy", "pickle"]
)
def test_it_can_be_copied_and_sent_to_another_process(move):
    model = made(WHOLE["nsf"])
    score, x = pf.freeze(model), rows(model, 3)[0]
    found = score(x)
    assert torch.equal(move(score)(x), found)


@compiled
def test_threads_may_share_it():
    model = made(WHOLE["nsf"])
    score, x = pf.freeze(model), rows(model, 64)[0]
    expected, found = score(x), [None] * 8

    def work(k: int) -> None:
        for _ in range(20):
            found[k] = torch.cat([score(part) for part in x.split(4)])

    workers = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(torch.equal(one, expected) for one in found)


@compiled
def test_several_threads_inside_give_the_same():
    model = made(WHOLE["maf wide"])
    x = rows(model, 999)[0]
    score, before = pf.freeze(model), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = score(x)
        torch.set_num_threads(2)
        assert torch.equal(score(x), one)
    finally:
        torch.set_num_threads(before)


def test_only_models_can_be_frozen():
    with pytest.raises(ConfigError, match="freeze takes a pushforward model"):
        pf.freeze(maps.Affine(2))  # pyright: ignore[reportArgumentType]
    assert isinstance(pf.freeze(made(WHOLE["nice"])), Frozen)
    assert "native" in repr(frozen.freeze(made(WHOLE["nice"])))


# Guards ---------------------------------------------------------------------------------------------------------------


@compiled
def test_a_frozen_guard_answers_as_the_guard_does():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(600, 4))
    table[:, 3] = np.round(table[:, 3])  # ties
    table[rng.random(600) < 0.05, 2] = np.nan
    guard = pf.Guard(alpha=0.05, members=2, max_steps=20, random_state=0).fit(table)
    quick = guard.freeze()
    new = rng.normal(size=(40, 4)) * 2
    new[:, 3], new[0, 0], new[1, 1] = np.round(new[:, 3]), np.inf, 1e20
    for x in (table[:80], new, new[:1], new[5:6]):
        np.testing.assert_array_equal(quick.p_value(x), guard.p_value(x))
        np.testing.assert_array_equal(quick.predict(x), guard.predict(x))
        np.testing.assert_allclose(quick.anomaly_score(x), guard.anomaly_score(x), rtol=1e-5, atol=1e-4)
    assert not guard.score_.frozen
    with pytest.raises(ConfigError, match="frozen copy"):
        quick.fit(table)


@compiled
def test_a_frozen_guard_takes_the_long_way_only_next_to_a_calibration_score(monkeypatch):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(400, 2))
    guard = pf.Guard(alpha=0.05, members=1, max_steps=10, random_state=0).fit(table)
    quick, long = guard.freeze(), []
    values = type(guard.score_)._values
    monkeypatch.setattr(type(guard.score_), "_values", lambda self, rows: long.append(len(rows)) or values(self, rows))
    quick.anomaly_score(rng.normal(size=(200, 2)))
    assert sum(long) < 20
    long.clear()
    quick.anomaly_score(table)  # the calibration rows are among them
    assert sum(long) >= guard.calibrator_.n
