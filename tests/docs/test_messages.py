"""Every message of an error says what to do or explains itself, and those that the FAQ quotes exist.

A message without a word of advice must be in ``self_explanatory_messages.txt``, where a person put it after reading it.
"""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
FAQ = FOLDER.parents[1] / "docs" / "faq.md"

SOURCE = FOLDER.parents[1] / "src" / "pushforward"
INNER = {
    "NotLowerable",
    "Unstackable",
    "ValueError",
    "OSError",
    "KeyError",
    "IndexError",
    "AttributeError",
    "MemoryError",
}
"""Errors that no user sees as they are: they are caught, or become a part of another message."""


def texts(node: ast.expr | None, constants: dict[str, ast.expr]) -> list[str]:
    """The texts that an expression may be; an f-string has ``...`` for each value."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else ["..."]
    if isinstance(node, ast.JoinedStr):
        found = [""]
        for part in node.values:
            value = part.value if isinstance(part, ast.FormattedValue) else part
            known = value is part or isinstance(value, (ast.IfExp, ast.Constant))
            inner = texts(value, constants) if known else ["..."]
            found = [a + b for a in found for b in inner]
        return found
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [a + b for a in texts(node.left, constants) for b in texts(node.right, constants)]
    if isinstance(node, ast.IfExp):
        return texts(node.body, constants) + texts(node.orelse, constants)
    if isinstance(node, ast.Name) and node.id in constants:
        return texts(constants[node.id], {})
    return ["..."]


@functools.cache
def trees() -> dict[str, ast.Module]:
    """The source, by the names of the files."""
    return {str(path.relative_to(SOURCE)): ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}


@functools.cache
def raised() -> list[tuple[str, int, str, str]]:
    """File, line, class and text of every ``raise Error("...")``; "..." alone is a text that another function makes."""
    found = []
    for file, tree in trees().items():
        constants = {
            target.id: node.value
            for node in tree.body if isinstance(node, ast.Assign)
            for target in node.targets if isinstance(target, ast.Name)
        }  # fmt: skip
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                name = ast.unparse(node.exc.func)
                message = node.exc.args[1 if name == "Refusal" else 0]
                found += [(file, node.lineno, name, text) for text in texts(message, constants)]
    return found


def strings() -> dict[str, set[str]]:
    """Every text in the source by file, for messages that are put together or given to a warning."""
    found = {}
    for file, tree in trees().items():
        nodes = [node for node in ast.walk(tree) if isinstance(node, (ast.Constant, ast.JoinedStr, ast.BinOp))]
        found[file] = {
            text.replace("...", "\N{HORIZONTAL ELLIPSIS}")
            for node in nodes
            for text in texts(node, {})
            if len(text) > 8
        }
    return found


ADVICE = re.compile(
    r": [a-z\-'\"`.A-Z]|; |\bmust\b|\bneeds?\b|\bgive\b|\buse\b|\bpass\b|\bchoose\b|\bsay\b|\bis for\b|\bexpect|\btakes?\b|\breads?\b"
    r"|at (most|least)|\btrains?\b|pip install|\bhave (the )?shape|\bare (made|drawn)|\bexist|has no\b|\bthere (is|are) no\b",
    re.IGNORECASE,
)
"""What the wanted form is, or what to do."""


def without_advice() -> list[str]:
    """The messages that only say what is wrong."""
    found = {
        text for _, _, name, text in raised() if name not in INNER and text.strip(". ") and not ADVICE.search(text)
    }
    return sorted(found)


def test_there_are_more_than_a_thousand_messages() -> None:
    assert len(raised()) > 1000


def test_a_message_says_what_to_do_or_was_read_and_explains_itself() -> None:
    kept = (FOLDER / "self_explanatory_messages.txt").read_text().splitlines()
    found = without_advice()
    assert [text for text in found if text not in kept] == [], (
        "say what to do, or add the message to the file if it explains itself"
    )
    assert [text for text in kept if text not in found] == [], "these messages are gone: remove them from the file"


@pytest.mark.parametrize(
    "wrong",
    [r"(?<!\.)\.\.(?!\.)", r"  ", r" ([,:;]|\.(?!\.))(?!\w)"],
    ids=["two periods", "two blanks", "blank before a mark"],
)
def test_no_message_has_a_slip_of_the_pen(wrong: str) -> None:
    found = [f"{file}:{line} {text}" for file, line, _, text in raised() if re.search(wrong, text)]
    assert found == []


def quoted() -> list[str]:
    """The messages of the FAQ: the terms of the definition lists in its last section."""
    section = FAQ.read_text().split("\n## Messages\n")[1]
    return re.findall(r"^`(.+)`\n: ", section, re.MULTILINE)


def test_the_messages_of_the_faq_are_in_the_source() -> None:
    terms = quoted()
    assert len(terms) > 50
    known = strings()

    def exists(term: str) -> bool:
        """Whether one text has the term, or the texts of one file have its parts."""
        pattern = re.compile(".*?".join(re.escape(part) for part in term.split("...")))
        parts = [part.strip() for part in re.split(r"\.\.\.|, ", term) if len(part.strip()) >= 8]
        return any(
            any(map(pattern.search, texts)) or all(any(part in text for text in texts) for part in parts)
            for texts in known.values()
        )

    assert [term for term in terms if not exists(term)] == []
