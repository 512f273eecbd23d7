"""Write llms.txt (the titles and first sentences of all pages) and llms-full.txt (their text) beside the built pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

SKIPPED = ("gallery/sg_execution_times", "sg_execution_times", "genindex", "search", "references")


def order(app: Sphinx) -> list[str]:
    """The pages in the order of the table of contents."""
    found: list[str] = []

    def visit(page: str) -> None:
        if page in found:
            return
        found.append(page)
        for child in app.env.toctree_includes.get(page, []):
            visit(child)

    visit(app.config.root_doc)
    return [page for page in found if page not in SKIPPED]


def summary(tree: nodes.document) -> str:
    """The beginning of a page: whole sentences of its first paragraph."""
    paragraph = next((node for node in tree.findall(nodes.paragraph) if not isinstance(node.parent, nodes.entry)), None)
    text = paragraph.astext().replace("\n", " ") if paragraph is not None else ""
    sentences = re.split(r"(?<=[.:?]) (?=[A-Z])", text)
    found = sentences[0]
    for sentence in sentences[1:]:
        if len(found) + len(sentence) > 200:
            break
        found += " " + sentence
    return found


def write(app: Sphinx, error: Exception | None) -> None:
    """Write both files; called when the build has ended."""
    if error is not None or app.builder.name not in ("html", "dirhtml"):
        return
    root = app.config.root_doc
    short = [f"# {app.config.project}\n", f"> {summary(app.env.get_doctree(root))}\n", "## Pages\n"]
    full: list[str] = []
    for page in order(app):
        tree = app.env.get_doctree(page)
        address = app.builder.get_target_uri(page)
        if page != root:
            short.append(f"- [{app.env.titles[page].astext()}]({address}): {summary(tree)}")
        source = Path(app.env.doc2path(page))
        # The reference is made of docstrings, which the source of the page does not contain.
        text = tree.astext() if page.startswith("api/") or source.suffix != ".md" else source.read_text()
        full.append(f"<!-- {address} -->\n\n{text.strip()}\n")
    out = Path(app.outdir)
    (out / "llms.txt").write_text("\n".join(short) + "\n")
    (out / "llms-full.txt").write_text("\n\n".join(full))


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True}
