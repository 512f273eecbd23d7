"""What the pages say about the library itself."""

import re
from pathlib import Path

import pushforward

ROOT = Path(__file__).parents[2]


def test_the_citations_name_this_version() -> None:
    page = re.search(r"version = \{(.+)\}", (ROOT / "docs" / "about.md").read_text())
    file = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert page is not None
    assert file is not None
    assert page[1] == file[1] == pushforward.__version__


def test_the_glossary_is_in_the_order_of_the_alphabet() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text().split(":::{glossary}\n")[1]
    terms = re.findall(r"^(\S.*)\n  ", text, re.MULTILINE)
    assert len(terms) > 30
    assert terms == sorted(terms, key=str.lower)
