"""What ``torch.compile`` of the oldest supported PyTorch can read."""

import re
from pathlib import Path

import pytest

import pushforward

SOURCE = Path(pushforward.__file__).parent


@pytest.mark.parametrize("package", ["networks", "transforms", "distributions", "models", "numerics", "kernels"])
def test_traced_packages_compare_types_with_tuples(package: str) -> None:
    """PyTorch 2.6 fails at ``isinstance(x, A | B)``: "Unexpected type in sourceless builder types.UnionType"."""
    found = [
        f"{path.relative_to(SOURCE)}: {line.strip()}"
        for path in (SOURCE / package).rglob("*.py")
        for line in path.read_text().splitlines()
        if re.search(r"\b(isinstance|issubclass)\([^()]*\|", line)
    ]
    assert not found
