"""The API reference is complete: each public name is on one of its pages, has a docstring, and an example that runs."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import pushforward as pf

PAGES = sorted((Path(__file__).parents[2] / "docs" / "api").glob("*.md"))
ENTRY = re.compile(r"```\{api\} (\S+)\n(.*?)```", flags=re.S)
PACKAGES = [
    "pushforward", *(f"pushforward.{name}" for name in pf.__all__ if inspect.ismodule(getattr(pf, name))),
    "pushforward.estimators", "pushforward.export", "pushforward.report", "pushforward.service", "pushforward.plot", "pushforward.numerics",
    "pushforward.detection.scores", "pushforward.detection.network", "pushforward.detection.network.scores",
    "pushforward.detection.selective", "pushforward.detection.two_sample", "pushforward.detection.table",
    "pushforward.detection.explanation", "pushforward.detection.certified", "pushforward.detection.smoothing",
    "pushforward.detection.martingales", "pushforward.detection.curvature", "pushforward.models.manipulation", "pushforward.training.bayes",
]  # fmt: skip


def entries() -> list[tuple[str, str, str]]:
    """The page, module and name of each entry of the reference."""
    found = []
    for page in PAGES:
        for module, lines in ENTRY.findall(page.read_text()):
            found += [
                (page.name, module, line.partition(":")[0].strip()) for line in lines.splitlines() if line.strip()
            ]
    return found


def has_docstring(thing: Any) -> bool:
    return inspect.isclass(thing) or inspect.isroutine(thing)


def test_every_name_of_the_reference_exists() -> None:
    for page, module, name in entries():
        assert hasattr(importlib.import_module(module), name), (page, module, name)


def test_no_name_is_twice_in_the_reference() -> None:
    names = [(module, name) for _, module, name in entries()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_in_the_reference(package: str) -> None:
    documented = [(name, getattr(importlib.import_module(module), name)) for _, module, name in entries()]
    part = importlib.import_module(package)
    missing = [
        name
        for name in part.__all__
        if not inspect.ismodule(getattr(part, name))
        and not any(name == other and thing is getattr(part, name) for other, thing in documented)
    ]
    assert not missing


# What cannot be shown by a call: abstract interfaces have the examples of their subclasses, and records those of the functions that
# return them. None of these may be a function.
def test_every_public_class_and_function_has_an_example() -> None:
    without = []
    for _, module, name in entries():
        thing = getattr(importlib.import_module(module), name)
        if has_docstring(thing) and not (inspect.isclass(thing) and issubclass(thing, BaseException)):
            text = inspect.getdoc(thing) or ""
            assert text, (module, name)
            if ">>>" not in text:
                without.append(f"{module}.{name}")
    assert not without, f"{len(without)} names have no example: {without}"
