"""A compiled scorer returns the model's numbers for any input, and leaves the model as it was."""

from __future__ import annotations

import copy
import math
import pickle
import warnings

import pytest
import torch

import pushforward as pf
from pushforward import transforms
from pushforward.compiled import CompiledScorer, scorer
from pushforward.errors import ConfigError, InputError, PushforwardWarning, StorageError
from pushforward.kernels import Program

from .flows import NONE, PART, WHOLE, close, compiled, in_threads, made, rows


@compiled
@pytest.mark.parametrize("build", WHOLE.values(), ids=WHOLE)
def test_a_whole_flow_runs_natively(build):
    model = made(build)
    score = pf.compile_scorer(model)
    assert (score.native, score.reason) == ("all", "")
    for count in (1, 2, 4, 7, 65):
        for scale in (1.0, 30.0):
            x, context = rows(model, count, scale)
            close(score(x, context), model(x, context))
            close(score.value(x, context), model.evaluate(x, context).value)


@compiled
@pytest.mark.parametrize("build", PART.values(), ids=PART)
def test_transforms_at_the_data_end_run_in_torch(build):
    model = made(build)
    score = pf.compile_scorer(model)
    assert score.native == "part"
    assert score.reason
    for count in (1, 3, 20):
        x, context = rows(model, count)
        close(score(x, context), model(x, context), model.latent_dtype)
        expected = model.evaluate(x, context, samples=2, seed=3).value
        close(score.value(x, context, samples=2, seed=3), expected, model.latent_dtype)


@pytest.mark.parametrize("build", NONE.values(), ids=NONE)
def test_a_model_without_native_form_runs_in_torch_with_one_warning(build):
    model = made(build)
    with pytest.warns(PushforwardWarning, match="runs in torch, not natively: (there is no native|the native kernels)"):
        score = pf.compile_scorer(model)
    assert score.native == "none"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x, context = rows(model, 3)
        close(score(x, context), model(x, context))


@compiled
@pytest.mark.parametrize("build", [WHOLE["nsf"], WHOLE["maf"]])
def test_rows_at_the_end_of_the_type_are_impossible_and_not_nan(build):
    model = made(build)
    model.initialize(torch.randn(50, *model.shape))
    x, _ = rows(model, 3)
    x[0] = torch.finfo(x.dtype).max
    x[1, 0] = -torch.finfo(x.dtype).max
    found = pf.compile_scorer(model)(x)
    assert (found[:2] < -1e30).all()
    assert torch.isfinite(found[2])


def test_without_native_kernels_the_copy_has_no_masks_and_the_same_numbers(monkeypatch):
    model = made(WHOLE["maf context residual"])
    monkeypatch.setattr("pushforward.kernels.program.library", lambda source, dtype: None)
    with pytest.warns(PushforwardWarning, match="the native kernels are not installed"):
        score = pf.compile_scorer(model)
    assert score.native == "none"
    assert not any(hasattr(module, "mask") for module in score._copy.modules())
    x, context = rows(model, 5)
    close(score(x, context), model(x, context))


def test_plain_kernels_do_not_warn():
    with pf.use_kernels("plain"), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pf.compile_scorer(made(WHOLE["maf"])).native == "none"


@compiled
@pytest.mark.parametrize("name", ["maf", "realnvp", "nsf", "nsf autoregressive", "maf wide"])
def test_a_row_does_not_depend_on_other_rows(name):
    model = made(WHOLE[name])
    score = pf.compile_scorer(model)
    x, context = rows(model, 41)
    whole = score(x, context)
    for low, high in ((0, 1), (7, 9), (3, 6), (40, 41), (1, 38)):
        part = score(x[low:high], None if context is None else context[low:high])
        torch.testing.assert_close(part, whole[low:high], rtol=1e-6, atol=1e-6)


@compiled
@pytest.mark.parametrize("build", [WHOLE["nsf"], WHOLE["maf"], PART["table"], PART["logit"]])
def test_far_infinite_and_empty(build):
    model = made(build)
    score = pf.compile_scorer(model)
    x = rows(model, 4)[0]
    x[1, 0], x[2, 1] = math.inf, 1e20
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, expected = score(x), model(x).detach()
    assert found[1] == -math.inf
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    usual = x.isfinite().all(1)
    assert torch.equal(found[usual], score(x[usual]))  # an infinite row changes no digit of the others
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
    score = pf.compile_scorer(model)
    x, context = rows(model, 3)
    close(score(x, context[0]), model(x, context[0]))  # one for all
    for wrong in (None, context[:, :2], context[:2]):
        with pytest.raises(InputError):
            score(x, wrong)
    with pytest.raises(InputError, match="takes no context"):
        pf.compile_scorer(made(WHOLE["maf"]))(x, context)


@compiled
def test_the_model_does_not_change_and_may_change_afterwards():
    model = made(WHOLE["maf"]).train()
    before, x = copy.deepcopy(model.state_dict()), rows(model, 3)[0]
    score = pf.compile_scorer(model)
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
    score, x = pf.compile_scorer(model), rows(model, 3)[0]
    found = score(x)
    assert torch.equal(move(score)(x), found)


@compiled
def test_several_threads_can_use_one_scorer():
    model = made(WHOLE["nsf"])
    score, x = pf.compile_scorer(model), rows(model, 64)[0]
    expected = score(x)
    found = in_threads(lambda: torch.cat([score(part) for part in x.split(4)]))
    assert all(torch.equal(one, expected) for one in found)


@compiled
def test_several_native_threads_give_the_same_numbers():
    model = made(WHOLE["maf wide"])
    x = rows(model, 999)[0]
    score, before = pf.compile_scorer(model), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = score(x)
        torch.set_num_threads(2)
        assert torch.equal(score(x), one)
    finally:
        torch.set_num_threads(before)


@compiled
@pytest.mark.parametrize("buffer", ["permutation", "kept", "transformed"])
@pytest.mark.parametrize("place", [-1, 10**9])
def test_coordinates_that_rows_do_not_have_are_refused(buffer, place, tmp_path):
    # native code does not check them; a file that was changed can contain them, and is refused before
    model = pf.models.NSF(3, layers=2, hidden=(8,))
    part = next(part for part in model.chain if hasattr(part, buffer))
    getattr(part, buffer)[0] = place
    with pytest.raises(ConfigError, match=f"coordinate {place}, which its rows do not have: its file was changed"):
        pf.compile_scorer(model)
    pf.save(model, tmp_path / "changed.safetensors")
    with pytest.raises(StorageError, match="do not hold each of 0"):
        pf.load(tmp_path / "changed.safetensors")


def test_only_models_are_compiled():
    with pytest.raises(ConfigError, match="compile_scorer takes a pushforward model"):
        pf.compile_scorer(transforms.Affine(2))  # pyright: ignore[reportArgumentType]


@compiled
def test_the_scorer_reports_how_much_runs_natively():
    assert isinstance(pf.compile_scorer(made(WHOLE["nice"])), CompiledScorer)
    assert repr(scorer.compile_scorer(made(WHOLE["nice"]))) == "CompiledScorer(NICE, native='all')"


def test_no_samples_are_refused():
    with pytest.raises(ConfigError, match="samples"):
        CompiledScorer(pf.models.NICE(2, hidden=(8,))).value(torch.zeros(1, 2), samples=0)


@pytest.mark.parametrize(
    ("x", "context", "name"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 1), "x"),
        (torch.zeros(4, 3).double(), torch.zeros(4, 1), "x"),
        (torch.zeros(3, 4).T, torch.zeros(4, 1), "x"),
        (torch.zeros(4, 3), None, "context"),
        (torch.zeros(4, 3), torch.zeros(3, 1), "context"),
    ],
)
def test_a_program_reads_no_other_memory(x, context, name):
    program = Program(3, 1, torch.float32)
    program.normal("x", 3)
    if program.ready() is None:
        pytest.skip("the native kernels are not installed")
    assert program.run(torch.zeros(4, 3), torch.zeros(4, 1)).shape == (4,)
    with pytest.raises(InputError, match=rf"{name} of this program must be a contiguous tensor of shape \(n, \d\)"):
        program.run(x, context)
