"""Size and structure of the code: files, lines, functions, parameters, public names, and import cycles.

``python -m benchmarks.structure [FOLDER ...]`` prints one line per figure for the Python files below each folder (default: src).
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Figures(NamedTuple):
    """The figures of one folder."""

    files: int
    lines: int
    median_file: float
    longest_file: str
    longest_function: str
    most_parameters: str
    public_names: int
    import_cycles: int


def measure(folder: Path) -> Figures:
    """The figures of all Python files below a folder."""
    sources = {path: path.read_text() for path in sorted(folder.rglob("*.py"))}
    trees = {path: ast.parse(text) for path, text in sources.items()}
    lengths = {path: text.count("\n") for path, text in sources.items()}
    functions = [(path, node) for path, tree in trees.items() for node in _functions(tree)]
    longest_file = max(lengths, key=lambda path: lengths[path])
    by_length = max(functions, key=lambda item: _body_length(item[1]))
    by_parameters = max(functions, key=lambda item: _parameters(item[1]))
    return Figures(
        files=len(sources),
        lines=sum(lengths.values()),
        median_file=statistics.median(lengths.values()),
        longest_file=f"{lengths[longest_file]} ({longest_file.relative_to(folder)})",
        longest_function=f"{_body_length(by_length[1])} ({by_length[1].name}, {by_length[0].relative_to(folder)})",
        most_parameters=f"{_parameters(by_parameters[1])} ({by_parameters[1].name}, {by_parameters[0].relative_to(folder)})",
        public_names=sum(len(_public(tree)) for path, tree in trees.items() if path.name == "__init__.py"),
        import_cycles=len(cycles(folder, trees)),
    )


def cycles(folder: Path, trees: dict[Path, ast.Module]) -> list[list[str]]:
    """Groups of modules that import each other, also inside functions; imports for types do not count."""
    root = folder.parent if (folder / "__init__.py").exists() else folder
    names = {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in trees}
    graph = {name: _imports(trees[path], name, path.name == "__init__.py", set(names)) for name, path in names.items()}
    return [group for group in _strong_components(graph) if len(group) > 1]


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def _body_length(node: ast.FunctionDef) -> int:
    """Lines of a function's body without its docstring."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def _parameters(node: ast.FunctionDef) -> int:
    arguments = node.args
    return len(
        [a for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs) if a.arg not in ("self", "cls")]
    )


def _public(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return list(ast.literal_eval(node.value))
    return []


def _imports(tree: ast.Module, module: str, is_package: bool, names: set[str]) -> set[str]:
    """The modules of ``names`` that a module imports, without those under ``if TYPE_CHECKING``."""
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & names
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parts, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found |= {inner} if inner in names else {base} & names
    return found - {module}


def _strong_components(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = []
            while not group or group[-1] != name:
                group.append(stack.pop())
            found.append(sorted(group))

    sys.setrecursionlimit(10_000)
    for name in graph:
        if name not in index:
            visit(name)
    return found


def main() -> None:
    """Print the figures of each folder named on the command line."""
    for folder in map(Path, sys.argv[1:] or ["src"]):
        print(folder)
        for name, value in measure(folder)._asdict().items():
            print(f"  {name.replace('_', ' ')}: {value}")
        trees = {path: ast.parse(path.read_text()) for path in sorted(folder.rglob("*.py"))}
        for group in cycles(folder, trees):
            print(f"  cycle: {', '.join(group)}")


if __name__ == "__main__":
    main()
