"""A posterior is a sequence of models that takes the memory of its samples."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

import pushforward as pf
from pushforward import io
from pushforward.errors import ConfigError, InputError, StorageError
from pushforward.likelihood import Kind
from pushforward.training.bayes import Posterior

from .small import SHIFT, images, location, vae

NAMES = ("chain.transforms.0.decoder.last.weight", "chain.transforms.0.decoder.last.bias")


def jolted(model: pf.models.Model, draws: int, names: tuple[str, ...], size: float) -> Posterior:
    """Samples around the model's own weights."""
    source = torch.Generator().manual_seed(1)
    known = dict(model.named_parameters())
    return Posterior.of(
        model,
        {
            name: known[name].detach() + size * torch.randn(draws, *known[name].shape, generator=source)
            for name in names
        },
    )


def tensors(model: torch.nn.Module) -> list[Tensor]:
    return [t for _, t in itertools.chain(model.named_parameters(), model.named_buffers())]


def test_members_have_their_own_values_in_common_memory():
    model = vae().eval()
    before = copy.deepcopy(model.state_dict())
    posterior = jolted(model, 3, NAMES, 0.5)
    members = list(posterior)
    assert len(posterior) == 3
    assert [type(member) for member in members] == [type(model)] * 3
    for i, member in enumerate(members):
        state = member.state_dict()
        for name, value in before.items():
            wanted = posterior.samples()[name][i] if name in NAMES else value
            assert torch.equal(state[name], wanted)
        assert all(isinstance(p, torch.nn.Parameter) and p.requires_grad for p in member.parameters())
    storages = {t.untyped_storage().data_ptr() for member in members for t in tensors(member) if t.numel()}
    own = {t.untyped_storage().data_ptr() for t in [*tensors(model), *posterior.samples().values()] if t.numel()}
    assert storages <= own
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(posterior[-1].state_dict()[NAMES[0]], members[2].state_dict()[NAMES[0]])
    with pytest.raises(IndexError):
        posterior[3]


def test_log_likelihoods_are_those_of_models_with_these_weights():
    posterior, x = jolted(vae(), 3, NAMES, 0.5), images(7)
    found = posterior.log_likelihoods(x, samples=4, seed=5, batch_size=3)
    assert found.shape == (3, 7)
    assert found.dtype is torch.float64
    for i in range(3):
        other = vae().eval()
        state = dict(posterior.model.state_dict())
        other.load_state_dict(state | {name: stack[i] for name, stack in posterior.samples().items()})
        with torch.no_grad():
            wanted = other.evaluate(x, samples=4, seed=5).value.double()
        torch.testing.assert_close(found[i], wanted, rtol=1e-5, atol=1e-5)


def test_predictive_is_the_mean_of_the_probabilities():
    posterior, x = jolted(vae(), 4, NAMES, 0.5), images(5)
    wanted = np.log(np.exp(posterior.log_likelihoods(x).numpy()).mean(0))
    found = posterior.predictive(x)
    np.testing.assert_allclose(found.value.numpy(), wanted, rtol=1e-12)
    assert found.kind is Kind.LOWER_BOUND
    assert found.bits_per_dim().shape == (5,)
    assert jolted(location(2), 2, (SHIFT,), 1.0).predictive(torch.zeros(1, 2)).kind is Kind.EXACT
    residual = pf.models.ResidualFlow(2, blocks=1, hidden=(4,))
    name = next(name for name, _ in residual.named_parameters())
    assert jolted(residual, 2, (name,), 0.1).predictive(torch.zeros(1, 2)).kind is Kind.ESTIMATE


def test_a_posterior_of_a_flow_becomes_a_mixture():
    posterior, x = jolted(location(2), 3, (SHIFT,), 1.0), torch.randn(6, 2)
    mixture = pf.models.Ensemble(*posterior)
    torch.testing.assert_close(mixture.log_prob(x).double(), posterior.predictive(x).value, rtol=1e-6, atol=1e-6)


def test_contexts_belong_to_their_rows():
    model = pf.models.MAF(2, context=1, hidden=(8,))
    posterior = jolted(model, 2, tuple(n for n, _ in model.named_parameters())[:2], 0.5)
    x, context = torch.randn(5, 2), torch.randn(5, 1)
    whole = posterior.log_likelihoods(x, context, batch_size=2)
    rows = [posterior.log_likelihoods(x[i : i + 1], context[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(whole, torch.cat(rows, 1), rtol=1e-5, atol=1e-5)
    shared = posterior.log_likelihoods(x, context[0])
    torch.testing.assert_close(shared[:, :1], whole[:, :1], rtol=1e-5, atol=1e-5)


def test_monte_carlo_noise_is_not_a_spread_of_the_weights():
    """The std score of K importance samples (Glazunov and Zarras 2022, with independent noise for each model): identical
    models have spread 0 with common noise whatever K, and with noise of their own one that measures K."""
    model, x = vae(), images(50, seed=4)
    with torch.no_grad():
        model.chain.transforms[0].decoder.last.weight.mul_(2)  # so that z matters
    same, near = jolted(model, 5, NAMES, 0.0), jolted(model, 5, NAMES, 0.02)

    def spread(posterior: Posterior, samples: int, common: bool) -> float:
        return posterior.log_likelihoods(x, samples=samples, common=common).std(0).mean().item()

    counts = (1, 10, 100)
    own = [spread(same, k, common=False) for k in counts]
    assert [spread(same, k, common=True) for k in counts] == [0.0] * 3
    assert own[0] > 3 * own[1] > 6 * own[2] > 0
    few, some, truth = (spread(near, k, common=True) for k in counts)
    assert abs(some - truth) < 0.1 * truth
    assert few < 4 * truth
    assert spread(near, 1, common=False) > 10 * truth


def test_trimmed_keeps_what_differs():
    model = location(2)
    posterior = Posterior(model, 4, (SHIFT, "chain.transforms.0.log_scale"))
    for k in range(2):
        with torch.no_grad():
            model.chain.transforms[0].shift.fill_(float(k))
        posterior.record(k)
    short = posterior.trimmed(2)
    assert short.names == (SHIFT,)
    assert torch.equal(short.samples()[SHIFT], torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    assert len(Posterior(model, 3, ("chain.transforms.0.log_scale",)).trimmed(2)) == 2  # all alike: still two models


def test_through_a_file(tmp_path):
    posterior, x = jolted(vae(), 3, NAMES, 0.5).double(), images(5)
    posterior.save(tmp_path / "p.safetensors")
    again = Posterior.load(tmp_path / "p.safetensors")
    assert again.names == posterior.names
    assert torch.equal(again.log_likelihoods(x), posterior.log_likelihoods(x))
    with pytest.raises(StorageError, match=r"Posterior\.load"):
        pf.load(tmp_path / "p.safetensors")
    pf.save(posterior.model, tmp_path / "m.safetensors")
    with pytest.raises(StorageError, match="contains a model"):
        Posterior.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["arguments"].update(n_samples=60_000),
        lambda d: d["arguments"].update(n_samples=2),
        lambda d: d["arguments"].update(names=["chain.transforms.0.nothing"]),
        lambda d: d["arguments"].update(names=[SHIFT, SHIFT]),
        lambda d: d["arguments"].update(model=3),
        lambda d: d.update(d["arguments"]["model"]),
    ],
)
def test_files_with_false_descriptions_are_refused(change, tmp_path):
    description, parts = io.pack(jolted(location(2), 3, (SHIFT,), 1.0))
    change(description)
    io.write(tmp_path / "p", {"kind": "posterior", "posterior": description}, parts)
    with pytest.raises(StorageError):
        Posterior.load(tmp_path / "p")


def test_errors():
    with pytest.raises(ConfigError, match="no parameter or buffer"):
        Posterior(location(2), 2, ("scale",))
    with pytest.raises(ConfigError, match="n_samples must be an integer of at least 1"):
        Posterior(location(2), 0, ())
    with pytest.raises(ConfigError, match="pushforward model"):
        Posterior(torch.nn.Linear(1, 1), 1, ())  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"must have shape \(2, 2\); got \(2, 3\)"):
        Posterior.of(location(2), {SHIFT: torch.zeros(2, 3)})
    with pytest.raises(ConfigError, match="n_samples must be an integer of at least 1"):
        Posterior.of(location(2), {SHIFT: torch.zeros(0, 2)})
    for wrong in ([[0.0, 0.0]], torch.tensor(1.0)):
        with pytest.raises(ConfigError, match="must be a tensor"):
            Posterior.of(location(2), {SHIFT: wrong})
    with pytest.raises(ConfigError, match=r"must have the type torch\.float32"):
        Posterior.of(location(2), {SHIFT: torch.zeros(2, 2, dtype=torch.float64)})
    with pytest.raises(InputError, match=r"\(n, 2\)"):
        jolted(location(2), 2, (SHIFT,), 1.0).log_likelihoods(torch.zeros(3))


def test_a_slice_is_a_list_of_models():
    posterior = jolted(location(3), 4, (SHIFT,), 0.1)
    some = posterior[1:3]
    assert isinstance(some, list)
    x = torch.zeros(2, 3)
    for model, k in zip(some, (1, 2), strict=True):
        assert torch.equal(model.log_prob(x), posterior[k].log_prob(x))
    assert torch.equal(posterior[-1].log_prob(x), posterior[3].log_prob(x))
    with pytest.raises(IndexError, match="4 samples"):
        posterior[4]


def test_a_batch_size_below_one_is_refused():
    posterior = pf.training.bayes.deep_ensemble(
        lambda: pf.models.NICE(1, hidden=(4,)), torch.randn(50, 1), n_members=2, max_steps=1, progress="silent"
    )
    for wrong in (-5, 0, 2.5):
        with pytest.raises(ConfigError, match="batch_size must be an integer of at least 1"):
            posterior.predictive(torch.zeros(4, 1), batch_size=wrong)


def test_contexts_are_read_like_rows():
    model = pf.models.RealNVP(2, context=1, layers=1, hidden=(4,))
    posterior, x, c = Posterior(model, 1, ()), torch.randn(5, 2), torch.randn(5, 1)
    expected = posterior.log_likelihoods(x, c)
    for context in (c.numpy(), c.tolist()):
        assert torch.equal(posterior.log_likelihoods(x.numpy(), context), expected)
