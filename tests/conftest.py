"""What every test gets."""

import pytest
import torch


@pytest.fixture(autouse=True)
def same_start() -> None:
    """Weights and draws of a test depend on the test alone, not on those that ran before it in the same process."""
    torch.manual_seed(0)
