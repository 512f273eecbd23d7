"""Training steps of a compiled loss: the same loss, and bitwise equal resumed runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import partial

import pytest
import torch

import pushforward as pf
from pushforward.errors import ConfigError, InputError, TrainingError
from pushforward.training.compiled_loss import CompiledLoss, why_not_compilable
from pushforward.training.gradients import gradients
from pushforward.training.sources import Batch

from .tiny import curved, equal, silent, weights

X = curved(200)
BASE = {"max_steps": 12, "evaluate_every": 4, "batch_size": 16, "learning_rate": 1e-2}
compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
quiet = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # inside torch's own compiler


@pytest.fixture
def traced(monkeypatch):
    """Tracing and its graph, but no machine code, which takes long."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


@pytest.fixture
def only_traced(monkeypatch):
    """Tracing without a graph of the backward pass."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))


@pytest.fixture
def broken(monkeypatch):
    """A compiler that fails at its first use, as real ones do."""

    def fails(*args):
        raise RuntimeError("no machine code today\nand a long story")

    monkeypatch.setattr(torch, "compile", lambda function, **options: fails)


def nice(**options):
    torch.manual_seed(0)
    return pf.models.NICE(features=3, hidden=(8,), layers=2, **options)


def one_coupling():
    torch.manual_seed(0)
    chain = pf.transforms.Chain(pf.transforms.Standardize(3), pf.transforms.Coupling(3, hidden=(4,)))
    return pf.models.Flow(chain, pf.distributions.Normal(3))


def grads(model, x, context=None, loss_function=None):
    noise = torch.Generator().manual_seed(3)
    used = [p for p in model.parameters() if p.requires_grad]
    loss, norm = gradients(
        model, used, Batch(x, context, 0, 0), noise=noise, clip=None, amp=False, loss_function=loss_function
    )
    return loss, norm, [p.grad for p in used]


def coupling_spline():
    return pf.models.NSF(3, layers=2, hidden=(8, 8)), X, None


def autoregressive_with_context():
    return pf.models.MAF(3, layers=2, hidden=(8,), context=2), X, torch.randn(len(X), 2)


def dequantized():
    x = torch.randint(0, 4, (64, 3)).float()
    chain = pf.transforms.Chain(
        pf.transforms.UniformDequantize(3, levels=4), pf.transforms.Logit(3), pf.transforms.Coupling(3, hidden=(8,))
    )
    return pf.models.Flow(chain, pf.distributions.Normal(3)), x, None


def images():
    return (
        pf.models.Glow((1, 4, 4), scales=1, layers=2, hidden=(8, 8)),
        torch.randint(0, 256, (32, 1, 4, 4)).float(),
        None,
    )


@quiet
@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("make", [coupling_spline, autoregressive_with_context, dequantized, images])
def test_loss_and_gradients_are_those_of_the_model(make):
    torch.manual_seed(0)
    model, x, context = make()
    model.double().initialize(x.double(), context if context is None else context.double())
    x, context = x.double(), context if context is None else context.double()
    model.train()
    loss, norm, wanted = grads(model, x, context)
    found = grads(model, x, context, CompiledLoss(model))
    torch.testing.assert_close((loss, norm, wanted), found, rtol=1e-9, atol=1e-11)
    assert norm > 0


@quiet
@pytest.mark.usefixtures("only_traced")
def test_each_model_has_its_own_count_of_graphs():
    for width in range(3, 13):  # torch stops at eight graphs of one piece of code
        model = pf.models.Flow(pf.transforms.ActNorm(width), pf.distributions.Normal(width)).train()
        x = torch.randn(5, width)
        torch.testing.assert_close(CompiledLoss(model)(x), model.loss(x))


@quiet
@pytest.mark.usefixtures("only_traced")
def test_batches_of_many_sizes_are_not_all_compiled(monkeypatch):
    model = one_coupling().train()
    compiled, seen = CompiledLoss(model), []
    graph = compiled.graph
    monkeypatch.setattr(compiled, "graph", lambda z, *others: seen.append(len(z)) or graph(z, *others))
    for rows in (*range(20, 32), 21, 30):
        torch.testing.assert_close(compiled(X[:rows]), model.loss(X[:rows]))
    assert seen == [20, 21, 22, 23, 21]


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=[pytest.mark.slow, compiler])])
def test_a_stopped_compiled_run_resumes_bitwise_equal(backend, tmp_path, monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    path, middle = tmp_path / "run.safetensors", tmp_path / "middle.safetensors"

    def keep(event):
        if event.step == 8:
            shutil.copyfile(path, middle)  # as if the process had been killed at this moment

    whole = one_coupling()
    expected = silent(whole, X, compile=True, checkpoint=path, checkpoint_every=4, callback=keep, **BASE)
    torch._dynamo.reset()
    part, seen = one_coupling(), []
    resumed = silent(part, X, compile=True, checkpoint=middle, callback=lambda event: seen.append(event.step), **BASE)
    assert resumed.steps == expected.steps == 12
    assert min(seen) > 4  # it did not start again
    assert equal(weights(part), weights(whole))
    plain = one_coupling()
    silent(plain, X, compile=False, **BASE)
    torch.testing.assert_close(weights(plain), weights(whole), rtol=1e-3, atol=1e-4)


def test_a_checkpoint_belongs_to_a_compiled_run_or_another(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    path = tmp_path / "run.safetensors"
    silent(nice(), X, compile=True, checkpoint=path, callback=lambda event: event.step >= 4, **BASE)
    with pytest.raises(TrainingError, match="compile was True and is False"):
        silent(nice(), X, checkpoint=path, **BASE)


def test_nothing_compiles_unless_asked_to(monkeypatch):
    """Even with the longest budget."""
    monkeypatch.setattr(torch, "compile", lambda *args, **options: pytest.fail("torch.compile was called"))
    options = BASE | {"max_steps": 10**7, "batch_size": 64}
    assert silent(nice(), X, callback=lambda event: event.step >= 4, **options).stopped == "callback"


def test_checks_of_distributions_stay_on():
    """PyTorch's compiler turns them off once in a process, so this needs one of its own."""
    code = """
import functools, torch
import pushforward as pf
torch.compile = functools.partial(torch.compile, backend="eager")
model = pf.models.NICE(features=3, hidden=(8,), layers=2)
pf.fit(model, torch.randn(100, 3), max_steps=3, compile=True, progress="silent")
try:
    torch.distributions.Normal(0.0, -1.0)
except ValueError as error:
    print("refused")
"""
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "refused\n"


def test_the_user_is_told_that_compiling_takes_long(monkeypatch, capsys):
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    pf.fit(nice(), X, compile=True, progress="plain", **BASE)
    assert (
        "compiling the training loss, which takes a few seconds for each of 3 transforms\n" in capsys.readouterr().err
    )


@pytest.mark.usefixtures("broken")
def test_compile_true_raises_on_failure():
    model = nice()
    before = weights(model)
    with pytest.raises(
        ConfigError, match=r"loss of this NICE could not be compiled .no machine code today.*compile=False"
    ):
        silent(model, X, compile=True, initialize=False, **BASE)
    assert equal(weights(model), before)


@pytest.mark.usefixtures("broken")
def test_errors_of_data_are_not_reported_as_errors_of_the_compiler():
    class Bad(torch.utils.data.Dataset):
        def __len__(self):
            return 64

        def __getitem__(self, index):
            return torch.full((3,), float("nan"))

    with pytest.raises(InputError, match="NaN"):
        silent(nice(), Bad(), validation=None, initialize=False, compile=True, **BASE)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: pf.models.VAE(3, latent=2, hidden=(8,)), "VAE defines its own loss"),
        (lambda: pf.models.Flow(pf.transforms.Standardize(3), pf.distributions.Normal(3)), "nothing to train"),
        (lambda: pf.models.Flow(pf.transforms.Chain(pf.transforms.Coupling(3), reversible=True), pf.distributions.Normal(3)), "reversible"),
        (lambda: pf.models.Flow(pf.transforms.Chain(pf.transforms.BatchNorm(3), pf.transforms.Coupling(3)), pf.distributions.Normal(3)),
         "BatchNorm draws noise, estimates or keeps statistics"),
        (lambda: pf.models.ResidualFlow(3), "draws noise, estimates"),
    ],
)  # fmt: skip
def test_errors_say_why_a_loss_cannot_be_compiled(make, reason):
    model = make()
    assert reason in (why_not_compilable(model) or "")
    with pytest.raises(ConfigError, match=f"cannot be compiled because .*{reason}.*: use compile=False"):
        silent(model, X, compile=True, **BASE)


@pytest.mark.parametrize("value", [None, "auto", 1.5, 1])
def test_other_values_are_refused(value):
    with pytest.raises(ConfigError, match="compile must be True or False; got"):
        silent(nice(), X, compile=value, **BASE)
