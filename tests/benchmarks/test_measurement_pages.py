"""The tables of the documentation are those that the committed result files give."""

import re
from pathlib import Path

import pytest

from benchmarks import pages

DOCS = Path(__file__).parents[2] / "docs"


def test_the_tables_of_the_pages_are_those_of_the_result_files() -> None:
    assert len(pages.pages()) >= 13
    assert pages.differing() == [], "run python -m benchmarks.pages"


@pytest.mark.parametrize("page", sorted((DOCS / "measurements").glob("*.md")), ids=lambda path: path.stem)
def test_no_measured_table_is_typed(page: Path) -> None:
    rest = pages.MARKED.sub("", page.read_text())
    assert not re.findall(r"^\|.*", rest, re.MULTILINE), (
        "put the table between markers: see python -m benchmarks.pages --help"
    )


def test_a_changed_figure_is_found_and_written_back() -> None:
    command = "python -m benchmarks.recorded benchmarks/results/glow-time.json"
    page = f"before\n\n<!-- {command} -->\n\n| call |\n| --- |\n| 1 |\n\n<!-- end -->\n\nafter\n"
    new = pages.filled(page, {})
    assert "| log_prob | 14.1 |" in new
    assert new.startswith("before\n\n<!--")
    assert new.endswith("-->\n\nafter\n")
    assert pages.filled(new, {}) == new


def test_tables_and_lists_are_counted() -> None:
    printed = {"python -m any": "| a |\n| --- |\n\n- one\n- two\n\n| b |\n| --- |\n"}
    text = "<!-- {} of python -m any -->\n<!-- end -->"
    assert "| b |" in pages.filled(text.format("table 2"), printed)
    assert "\n- one\n- two\n" in pages.filled(text.format("list"), printed)
    with pytest.raises(LookupError, match="prints 2 blocks of the kind table"):
        pages.filled(text.format("table 3"), printed)
