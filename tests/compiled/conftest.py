"""What programs do, counted."""

from __future__ import annotations

import pytest
import torch
from pushforward.compiled_programs_gone import few_rows, write

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


@pytest.fixture
def writings(monkeypatch) -> list[int]:
    """One entry for each program that is written."""
    found: list[int] = []

    def counted(*given, **options):
        found.append(1)
        return write(*given, **options)

    monkeypatch.setattr(few_rows, "write", counted)
    return found
