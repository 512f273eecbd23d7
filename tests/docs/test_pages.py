"""The code on the pages runs as printed, block after block, and prints what the page shows."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [
    "index.md",
    "start/first.md",
    *sorted(str(page.relative_to(DOCS)) for folder in ("guides", "concepts") for page in (DOCS / folder).glob("*.md")),
    "reports.md",
]
TESTED_ELSEWHERE = {"guides/extending.md"}  # test_examples.py: its examples are also correct
BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", flags=re.S)


def differences(page: str) -> list[str]:
    """Run the blocks of a page in order; a line for each block that printed something else than the page says."""
    from pushforward.errors import PushforwardWarning

    scope: dict[str, object] = {"__name__": "__main__"}
    wrong = []
    for block in BLOCK.finditer((DOCS / page).read_text()):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("default", PushforwardWarning)  # some pages show what raises the score
            exec(compile(block[1], page, "exec"), scope)
        found = "\n".join(line.rstrip() for line in printed.getvalue().rstrip().split("\n"))
        if found != (block[2] or "").rstrip():
            wrong.append(f"{page} says\n{block[2]}\nand its code printed\n{found}\nin\n{block[1]}")
    return wrong


FORK = """
import os, sys, tempfile, traceback
sys.path.insert(0, sys.argv[1])
import numpy, pandas, sklearn.utils, torch, pushforward
import pushforward.estimators, pushforward.models, pushforward.training
from test_pages import differences
for page in sys.argv[2:]:
    child = os.fork()  # pages share nothing but the imports
    if not child:
        os.chdir(tempfile.mkdtemp(dir="."))
        try:
            wrong = differences(page)
        except BaseException:
            wrong = [traceback.format_exc()]
        print(*wrong, sep="\\n", flush=True)
        os._exit(bool(wrong))
    _, status = os.waitpid(child, 0)
    print("end of page", page, status, flush=True)
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the pages printed that they do not say, by page; the last word is the exit status."""
    pages = [page for page in PAGES if page not in TESTED_ELSEWHERE and "```python" in (DOCS / page).read_text()]
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(Path(__file__).parent), *pages], cwd=tmp_path_factory.mktemp("pages"),
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    found = {}
    for text, page, status in re.findall(r"(.*?)end of page (\S+) (\d+)\n", done.stdout, flags=re.S):
        found[page] = f"{text.strip()} {status}".strip()
    assert list(found) == pages, done.stderr
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if page not in TESTED_ELSEWHERE])
def test_the_code_of_a_page_prints_what_it_shows(page: str, ran: dict[str, str]) -> None:
    assert ran.get(page, "0") == "0", ran[page]


def test_every_page_with_code_is_tested() -> None:
    others = {
        "architecture.md",
        "export.md",
        "inference.md",
        "scale.md",
        "service.md",
    }  # by tests of their own, or not runnable alone
    with_code = {
        str(page.relative_to(DOCS))
        for page in DOCS.rglob("*.md")
        if "_build" not in page.parts and "gallery" not in page.parts and "```python" in page.read_text()
    }
    assert with_code <= {*PAGES, *others}
