"""What programs do, counted."""

from __future__ import annotations

import pytest
import torch

from pushforward.kernels import Program


@pytest.fixture
def without_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def runs(monkeypatch) -> list[int]:
    """The number of rows of each run of a program."""
    found: list[int] = []
    run = Program.run

    def counted(self, x, context=None):
        found.append(len(x))
        return run(self, x, context)

    monkeypatch.setattr(Program, "run", counted)
    return found
