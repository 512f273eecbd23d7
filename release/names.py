"""The public names and arguments of an earlier commit, for the test that the upgrade notes are complete.

``python release/names.py 34301c3 > tests/docs/names_of_0_1.json`` wrote the names of version 0.1: those in ``__all__`` of each
package, with the arguments of functions and constructors and the public methods of classes. The sources are parsed and not run.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys

ROOT = "src/pushforward/"
INTERNAL = {"cli", "experiments", "experiments.papers", "data.samples", "numerics", "programs"}
"""Packages that users did not import: commands, reproductions, and what carries out the public packages."""


def git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout


def exported(tree: ast.Module) -> list[str]:
    """The names in ``__all__``."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return sorted(ast.literal_eval(node.value))
    return []


def arguments(function: ast.FunctionDef) -> list[str]:
    """The names of the arguments."""
    given = function.args
    return [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs) if a.arg not in ("self", "cls")]


def described(node: ast.ClassDef | ast.FunctionDef) -> dict[str, list[str]]:
    """Arguments of the constructor or function, and public methods."""
    if isinstance(node, ast.FunctionDef):
        return {"arguments": arguments(node), "methods": []}
    methods = {part.name: part for part in node.body if isinstance(part, ast.FunctionDef)}
    fields = [
        part.target.id for part in node.body if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
    ]
    fields = [name for name in fields if not name.startswith("_")]
    made = arguments(methods["__init__"]) if "__init__" in methods else []
    if any("dataclass" in ast.unparse(each) for each in node.decorator_list):
        made = fields
    return {"arguments": made, "methods": sorted(name for name in methods if not name.startswith("_"))}


def names_of(commit: str) -> dict[str, dict[str, dict[str, list[str]]]]:
    """Package, name, then what :func:`described` says of it."""
    files = [line for line in git("ls-tree", "-r", "--name-only", commit, ROOT).splitlines() if line.endswith(".py")]
    trees = {name: ast.parse(git("show", f"{commit}:{name}")) for name in files}
    defined: dict[str, list[tuple[str, ast.ClassDef | ast.FunctionDef]]] = {}
    for name, tree in trees.items():
        for node in tree.body if not name.startswith(f"{ROOT}cli/") else ():
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                defined.setdefault(node.name, []).append((name, node))
    found: dict[str, dict[str, dict[str, list[str]]]] = {}
    for name, tree in trees.items():
        module = name.removeprefix(ROOT).removesuffix(".py").replace("/", ".").removesuffix("__init__").strip(".")
        public = name.endswith("__init__.py") or "." not in module  # packages, and modules beside them
        if not public or module in INTERNAL or module.startswith(("_", "cli")):
            continue
        folder = name.rpartition("/")[0] + "/"
        for each in exported(tree):
            nodes = sorted(defined.get(each, []), key=lambda pair: not pair[0].startswith(folder))
            entry = described(nodes[0][1]) if nodes else {"arguments": [], "methods": []}
            found.setdefault(module, {})[each] = entry
    return found


if __name__ == "__main__":
    json.dump(names_of(sys.argv[1]), sys.stdout, indent=None, separators=(",", ":"), sort_keys=True)
    print()
