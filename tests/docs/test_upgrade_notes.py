"""Every public name and argument of version 0.1 works as before, or the upgrade notes name it."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from pathlib import Path

import pushforward as pf

ROOT = Path(__file__).parents[2]
NAMES = json.loads(Path(__file__).with_name("names_of_0_1.json").read_text())  # by release/names.py
PACKAGES = {"maps": "transforms", "bases": "distributions", "measure": "likelihood", "storage": "io", "serving": "compiled",
            "detection.batch_tests": "detection.two_sample"}  # fmt: skip


def notes() -> str:
    text = (ROOT / "CHANGELOG.md").read_text()
    return text.partition("### Upgrading from 0.1")[2].partition("\n## ")[0]


def words_in_code(text: str) -> set[str]:
    return {word for code in re.findall(r"`([^`]+)`", text) for word in re.findall(r"\w+", code)}


def parameters(thing: object) -> set[str] | None:
    """Names of arguments; None where any name is taken, or none can be found."""
    try:
        found = inspect.signature(thing).parameters  # pyright: ignore
    except (TypeError, ValueError):
        return None
    return None if any(p.kind is p.VAR_KEYWORD for p in found.values()) else set(found)


def gone() -> list[tuple[str, str]]:
    """(name or argument, where it was) of all that 0.1 had and that is not there any more."""
    found = []
    for package, names in NAMES.items():
        module = importlib.import_module(".".join(filter(None, ("pushforward", PACKAGES.get(package, package)))))
        for name, facts in names.items():
            here = f"{package}.{name}"
            thing = getattr(module, name, None)
            if thing is None:
                found.append((name, here))
                continue
            known = parameters(thing)
            if known is not None and callable(thing):
                found += [(each, here) for each in facts["arguments"] if each not in known]
            if inspect.isclass(thing):
                found += [(each, here) for each in facts["methods"] if not hasattr(thing, each)]
    return found


def test_the_notes_name_all_that_is_gone() -> None:
    known = words_in_code(notes())
    assert len(known) > 100
    missing = [(name, where) for name, where in gone() if name not in known]
    assert not missing, missing


def test_there_is_something_to_name() -> None:
    """The comparison sees renamed names, arguments and methods."""
    found = {name for name, _ in gone()}
    assert {"Relation", "lr", "members", "freeze", "undo"} <= found
    assert "fit" not in found


def test_new_names_in_the_table_exist() -> None:
    """Of `old` -> `new` pairs, each new name that begins with a capital letter is a public name."""
    table = notes()
    public = {
        name
        for package in ("transforms", "distributions", "likelihood", "models", "detection", "detection.scores", "detection.martingales", "kernels",
                        "compiled", "estimators", "training", "io", "report")
        for name in importlib.import_module(f"pushforward.{package}").__all__
    }  # fmt: skip
    new = re.findall(r"-> `([A-Z]\w*[a-z]\w*)`", table)
    assert len(new) >= 12
    assert not [word for word in new if word not in public and not hasattr(pf, word)]
