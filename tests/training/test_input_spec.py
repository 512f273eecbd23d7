from __future__ import annotations

import pytest
import torch

from pushforward.errors import InputError
from pushforward.training.input_spec import InputSpec

from .tiny import numbered


def test_context_forms():
    spec = InputSpec("Model", (1,), 2, torch.float32, torch.device("cpu"))
    own = torch.arange(6.0).reshape(3, 2)
    assert torch.equal(spec.cast(numbered(3), own)[1], own)
    assert torch.equal(spec.cast(numbered(3), own[0])[1], own[:1].expand(3, 2))
    single = InputSpec("Model", (1,), 1, torch.float32, torch.device("cpu"))
    assert single.cast(numbered(3), torch.arange(3))[1].tolist() == [[0], [1], [2]]
    for wrong in (own[:2], own[:, :1], own[None]):
        with pytest.raises(InputError, match=r"\(3, 2\)"):
            spec.cast(numbered(3), wrong)
    with pytest.raises(InputError, match="context=2"):
        spec.cast(numbered(3), None)
