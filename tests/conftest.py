"""Fixtures of every test."""

import pytest
import torch


@pytest.fixture(autouse=True)
def same_start() -> None:
    """Weights and draws of a test do not depend on earlier tests in the same process."""
    torch.manual_seed(0)
