"""The lowest versions that pyproject.toml allows, as constraints of pip: ``make lowest`` tests with them.

PyTorch has none, because its lowest version is a download of gigabytes where no build for CPUs is offered.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

LEFT_OUT = {"torch"}
PARTNERS = ("pyparsing<3.3",)
"""Limits of what the lowest versions need themselves: newer versions warn (matplotlib 3.8), and the tests turn warnings into errors."""


def lowest() -> list[str]:
    """``name==version`` for each dependency that is needed without extras."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    found = []
    for line in project["dependencies"]:
        name, version = re.fullmatch(r"([\w-]+)>=([\d.]+)(?:,<\d+)?", line).groups()  # pyright: ignore
        if name not in LEFT_OUT:
            found.append(f"{name}=={version}")
    return found


if __name__ == "__main__":
    print("\n".join((*lowest(), *PARTNERS)))
