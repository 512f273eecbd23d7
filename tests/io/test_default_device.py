"""Files and models on the CPU in a program whose default device is another one, such as a GPU; "meta" stands for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward.kernels import spline_reference
from pushforward.kernels.native import use_kernels


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randn(300, 2, generator=torch.Generator().manual_seed(0))


def test_a_guard_is_loaded_and_compiled(rows, tmp_path) -> None:
    guard = pf.Guard(0.1, effort="fast", density=True, n_estimators=1, max_steps=5, random_state=0).fit(rows.numpy())
    guard.save(tmp_path / "guard.safetensors")
    expected = guard.p_value(rows.numpy())
    with torch.device("meta"):
        again = pf.Guard.load(tmp_path / "guard.safetensors")
        np.testing.assert_array_equal(again.p_value(rows.numpy()), expected)
        np.testing.assert_array_equal(again.compile().p_value(rows[:1].numpy()), expected[:1])


@pytest.mark.parametrize("layer", ["coupling", "autoregressive"])
def test_a_model_is_loaded_compiled_and_drawn_from(rows, tmp_path, layer) -> None:
    model = pf.models.NSF(2, layers=2, hidden=(8,), layer=layer).eval()
    pf.save(model, tmp_path / "model.safetensors")
    drawn = model.sample(3, seed=0)
    with torch.no_grad(), torch.device("meta"):
        again = pf.load(tmp_path / "model.safetensors")
        assert torch.equal(again.log_prob(rows), model.log_prob(rows))
        assert torch.allclose(pf.compile_scorer(again)(rows), model.log_prob(rows), atol=1e-4)
        assert torch.equal(again.sample(3, seed=0), drawn)


def test_plain_splines_keep_their_knots_on_the_cpu(rows) -> None:
    spline_reference.cached_knot_map.cache_clear()
    with use_kernels("plain"), torch.no_grad():
        model = pf.models.NSF(2, layers=2, hidden=(8,)).eval()
        with torch.device("meta"):
            found = model.log_prob(rows)
        assert torch.equal(found, model.log_prob(rows))
