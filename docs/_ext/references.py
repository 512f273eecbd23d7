"""The directive ``references``: the works that docstrings of public names cite, and the names that follow them."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

BLOCK = re.compile(r"```\{api\} (\S+)\n(.*?)```", re.DOTALL)
WORK = re.compile(r"((?:[A-Zv][^()\[\];:]{2,120}?)? ?(?:19|20)\d\d)[a-z]?, arXiv:? ?(\d{4}\.\d{4,5})")

NAMES = r"^(FIF|InFlow|PixelCNN\+\+|VAE|VFlow|Wasserstein autoencoder), |^MNIST of "
"""Names of methods that some docstrings write before the authors."""


def public(folder: Path) -> Iterator[tuple[str, str, Any]]:
    """Module, name and object of every public name of the reference."""
    for page in sorted(folder.glob("*.md")):
        for module, names in BLOCK.findall(page.read_text()):
            for line in names.split("\n"):
                name = line.partition(":")[0].strip()
                if name:
                    yield module, name, getattr(importlib.import_module(module), name)


def cited(text: str) -> Iterator[tuple[str, str]]:
    """Authors with year, and the number of the preprint, of each work in a docstring."""
    for authors, number in WORK.findall(" ".join(text.split())):
        yield re.sub(NAMES, "", authors.strip(" ,")).replace(" & ", " and "), number


def works(folder: Path) -> dict[str, tuple[str, list[str]]]:
    """For each preprint the authors with the year, and the roles of the names whose docstrings, or whose module's, cite it."""
    found: dict[str, tuple[str, list[str]]] = {}
    for module, name, thing in public(folder):
        if not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        home = sys.modules.get(thing.__module__)
        for text in (inspect.getdoc(thing) or "", (home.__doc__ if home else None) or ""):
            for authors, number in cited(text):
                best, names = found.get(number, ("", []))
                role = f":py:obj:`~{module}.{name}`"
                better = best if len(best) >= len(authors) else authors
                found[number] = better, names if role in names else [*names, role]
    return found


class References(SphinxDirective):
    """A definition list by authors."""

    def run(self) -> list[nodes.Node]:
        """Find the works anew, so that the page follows the docstrings."""
        self.env.note_reread()
        lines = ["```{eval-rst}"]
        for number, (authors, names) in sorted(
            works(Path(self.env.srcdir) / "api").items(), key=lambda item: item[1][0].lower()
        ):
            lines += [f"{authors}, `arXiv {number} <https://arxiv.org/abs/{number}>`__", f"    {', '.join(names)}", ""]
        return self.parse_text_to_nodes("\n".join([*lines, "```"]))


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("references", References)
    return {"parallel_read_safe": True}
