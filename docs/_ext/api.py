"""The directive ``api``: a table of public names with their first sentences, then each of them in full.

```{api} pushforward.models
NSF
MAF
```
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections import Counter
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

# Methods that scikit-learn adds to every estimator; its own pages describe them.
INHERITED = "set_fit_request, set_predict_request, set_score_request, set_transform_request, get_metadata_routing"


def described(module: str, entry: str, thing: Any, text: str) -> list[str]:
    """The directive of autodoc for a name; a value that has no docstring is described by the text beside its name."""
    if inspect.isclass(thing) and issubclass(thing, BaseException):
        lines = [f".. autoclass:: {module}.{entry}", "   :show-inheritance:"]
    elif inspect.isclass(thing):
        lines = [
            f".. autoclass:: {module}.{entry}",
            "   :members:",
            f"   :exclude-members: {INHERITED}",
            "   :show-inheritance:",
        ]
    elif inspect.isroutine(thing):
        lines = [f".. autofunction:: {module}.{entry}"]
    else:
        lines = [f".. py:data:: {entry}", f"   :module: {module}", "", f"   {text}"]
    return [*lines, ""]


class Api(SphinxDirective):
    """List and document names of one module, one a line; ``NAME: text`` for a value without a docstring."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Hand the names to autosummary and autodoc."""
        name = self.arguments[0]
        module = importlib.import_module(name)
        texts = dict(line.strip().partition(":")[::2] for line in self.content if line.strip())
        things = {entry: getattr(module, entry) for entry in texts}
        listed = [entry for entry, thing in things.items() if inspect.isclass(thing) or inspect.isroutine(thing)]
        lines = [f".. currentmodule:: {name}", ""]
        if listed:
            lines += [".. autosummary::", "   :nosignatures:", "", *(f"   {entry}" for entry in listed), ""]
        for entry, thing in things.items():
            lines += described(name, entry, thing, texts[entry].strip())
        self.env.note_dependency(module.__file__ or "")
        return self.parse_text_to_nodes("\n".join(["```{eval-rst}", *lines, "```"]))


def escape_bars(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings write absolute values as |x|, which is a substitution in reStructuredText; code stays as it is."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            lines[number] = re.sub(r"``.*?``|(\|)", lambda found: "\\|" if found[1] else found[0], line)


def mend_source_links(app: Sphinx, env: Any) -> None:
    """Keep the links of a source page that lead to a name of the reference.

    viewcode remembers one package for all names of a module, and a name may be documented as that of another package.
    """
    objects = env.get_domain("py").objects
    modules = getattr(env, "_viewcode_modules", {})
    for module, entry in modules.items():
        if entry:
            code, tags, used, _ = entry
            owners = Counter(full[: -len(name) - 1] for name in used for full in objects if full.endswith(f".{name}"))
            ours = {owner: count for owner, count in owners.items() if module.startswith(owner)}
            owner = max(ours, key=ours.__getitem__, default=module)
            kept = {name: objects[f"{owner}.{name}"].docname for name in used if f"{owner}.{name}" in objects}
            modules[module] = code, tags, kept, owner


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("api", Api)
    app.connect("env-updated", mend_source_links)
    app.connect("autodoc-process-docstring", escape_bars)
    return {"parallel_read_safe": True}
