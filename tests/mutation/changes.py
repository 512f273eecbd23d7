"""What can be changed in a source file: one operator, constant, branch or statement at a time."""

from __future__ import annotations

import ast
import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGE = Path("src/pushforward")
COMPARE = {ast.Lt: "< <= >=", ast.LtE: "<= < >", ast.Gt: "> >= <=", ast.GtE: ">= > <", ast.Eq: "== !=", ast.NotEq: "!= ==",
           ast.Is: "is is_not", ast.IsNot: "is_not is", ast.In: "in not_in", ast.NotIn: "not_in in"}  # fmt: skip
ARITHMETIC = {ast.Add: "+ -", ast.Sub: "- +", ast.Mult: "* /", ast.Div: "/ *", ast.FloorDiv: "// *", ast.Mod: "% *",
              ast.Pow: "** *", ast.BitAnd: "& |", ast.BitOr: "| &", ast.BitXor: "^ &", ast.LShift: "<< >>",
              ast.RShift: ">> <<", ast.MatMult: "@ *"}  # fmt: skip
CYCLE = ["compare", "constant", "arithmetic", "boolean", "remove", "compare", "constant", "arithmetic", "not", "default",
         "return"]  # fmt: skip
"""The kinds of changes in the order in which they are chosen."""


@dataclass(frozen=True)
class Mutant:
    """One change: bytes ``start`` to ``end`` of a file become ``new``. The key names no line and no path."""

    key: str
    package: str
    file: str
    start: int
    end: int
    new: str

    def apply(self, source: bytes) -> bytes:
        """The changed source, with as many lines as before."""
        lost = source.count(b"\n", self.start, self.end) * b"\n"
        return source[: self.start] + self.new.encode() + lost + source[self.end :]

    def lines(self, source: bytes) -> tuple[int, str, str]:
        """Number of the changed line, and its text before and after."""
        at = source.count(b"\n", 0, self.start)
        old, new = (text.splitlines()[at].decode().strip() for text in (source, self.apply(source)))
        return at + 1, old, new

    def reached(self, source: bytes) -> set[int]:
        """The lines that tests must reach to notice the change: those of its statement. A default value or constant that is
        evaluated at import matters to all lines of its function or file."""
        at = source.count(b"\n", 0, self.start) + 1
        tree = ast.parse(source)
        statements: list[Any] = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
        around = [node for node in statements if node.lineno <= at <= node.end_lineno]
        innermost = max(around, key=lambda node: node.lineno)
        functions = [node for node in around if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        if any(node.body[0].lineno <= at for node in functions):
            body = getattr(innermost, "body", None)
            return set(range(innermost.lineno, max(at, body[0].lineno - 1 if body else innermost.end_lineno) + 1))
        if functions:
            return set(range(functions[-1].lineno, functions[-1].end_lineno + 1))
        return set(range(1, source.count(b"\n") + 2))


class Sites(ast.NodeVisitor):
    """Collects what can be changed in a file, as (function, kind of change, start, end, new text).

    Skips docstrings, messages of errors and warnings, annotations, decorators, assertions and ``__all__``.
    """

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.begins = [0, *itertools.accumulate(map(len, source.splitlines(keepends=True)))]
        self.names: list[str] = []
        self.bound: list[set[str]] = []  # the names that each enclosing function has assigned so far
        self.found: list[tuple[str, str, int, int, str]] = []
        self.visit(ast.parse(source))

    def _span(self, node: Any) -> tuple[int, int]:
        return self.begins[node.lineno - 1] + node.col_offset, self.begins[node.end_lineno - 1] + node.end_col_offset

    def _add(self, kind: str, span: tuple[int, int], new: str) -> None:
        function = ".".join(self.names) or "module"
        self.found.append((function, kind, *span, new))

    def _operator(self, kind: str, texts: str, before: ast.AST, after: ast.AST) -> None:
        """Exchange the operator between two operands; ``texts`` lists the operator and what may replace it."""
        old, *others = (text.replace("_", " ") for text in texts.split())
        start, end = self._span(before)[1], self._span(after)[0]
        at = self.source.find(old.encode(), start, end)
        if at >= 0 and b"#" not in self.source[start:end]:
            for new in others:
                self._add(f"{kind} {old} to {new}", (at, at + len(old)), new)

    def _number(self, kind: str, node: ast.AST, value: Any) -> None:
        if isinstance(value, bool):
            changed: dict[str, Any] = {"flip": not value}
        elif isinstance(value, int):
            changed = {"+1": value + 1, "-1": value - 1}
        else:
            changed = {"sign": -value, "factor": 2 * value} if value else {"+1": 1.0}
        for name, new in changed.items():
            self._add(f"{kind} {name}", self._span(node), repr(new) if new >= 0 else f"({new!r})")

    def visit_Constant(self, node: ast.Constant, kind: str = "constant") -> None:
        if isinstance(node.value, bool | int | float):
            self._number(kind, node, node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.Lambda) -> None:
        self.names.append(getattr(node, "name", "lambda"))
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if isinstance(default, ast.Constant):
                self.visit_Constant(default, "default")
        self.bound.append({word.arg for word in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]})
        for part in node.body if isinstance(node.body, list) else [node.body]:
            self.visit(part)
        self.names.pop()
        self.bound.pop()

    visit_Lambda = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.names.append(node.name)
        for part in node.body:
            self.visit(part)
        self.names.pop()

    def _skip(self, node: ast.AST) -> None:
        """Nothing below changes."""

    visit_JoinedStr = visit_Assert = visit_MatchValue = visit_Import = visit_ImportFrom = _skip

    def _assign(self, node: Any) -> None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        union = isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.BitOr)
        if node.value is None or "__all__" in names or (union and not self.names):  # a union of types
            return
        if isinstance(node, ast.AugAssign):
            self._operator("arithmetic", ARITHMETIC[type(node.op)], node.target, node.value)
        for part in [*targets, node.value]:
            self.visit(part)
        if self.bound:
            if names <= {"self", *self.bound[-1]}:  # the names have a value without this statement too
                self._add("remove assignment", self._span(node), "pass")
            self.bound[-1] |= names

    visit_Assign = visit_AnnAssign = visit_AugAssign = _assign

    def visit_Raise(self, node: ast.Raise) -> None:
        self._add("remove raise", self._span(node), "pass")

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call) and self.bound:
            self._add("remove call", self._span(node), "pass")
        self.visit(node.value)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and getattr(node.value, "value", 0) is not None:
            self._add("return None", self._span(node.value), "None")
            self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        name = ast.unparse(node.func)
        parts = [*node.args, *(word.value for word in node.keywords)]
        for part in {"warnings.warn": [], "isinstance": parts[:1]}.get(name, [node.func, *parts]):
            self.visit(part)

    def visit_Compare(self, node: ast.Compare) -> None:
        for before, after, operator in zip([node.left, *node.comparators], node.comparators, node.ops, strict=False):
            self._operator("compare", COMPARE[type(operator)], before, after)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        texts = [side for side in (node.left, node.right) if isinstance(getattr(side, "value", None), str)]
        if not texts:  # a difference of texts fails wherever it runs, which says little
            self._operator("arithmetic", ARITHMETIC[type(node.op)], node.left, node.right)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self._operator("boolean", "and or" if isinstance(node.op, ast.And) else "or and", *node.values[:2])
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        start, inner = self._span(node)[0], node.operand
        if isinstance(node.op, ast.USub) and isinstance(inner, ast.Constant) and isinstance(inner.value, int | float):
            self._number("constant", node, -inner.value)
            return
        kind, length = ("not drop", 3) if isinstance(node.op, ast.Not) else ("arithmetic drop", 1)
        self._add(kind, (start, start + length), "")
        self.visit(inner)

    def _branch(self, node: Any) -> None:
        if isinstance(node.test, ast.Name | ast.Attribute | ast.Call) and self.names:
            start, end = self._span(node.test)
            self._add("not add", (start, end), f"(not {self.source[start:end].decode()})")
        self.generic_visit(node)

    visit_If = visit_While = visit_IfExp = _branch


def mutants(root: Path, package: str, count: int, seed: int) -> list[Mutant]:
    """``count`` mutants of the files of a package. A hash of the key ranks those of a kind, so that other changes move no choice."""
    found: dict[str, list[tuple[bytes, Mutant]]] = defaultdict(list)
    ordinals: Counter[tuple[str, str, str]] = Counter()
    sources = {file: (root / file).read_bytes() for file in files_of(root, package)}
    for file, source in sources.items():
        for function, kind, start, end, new in Sites(source).found:
            ordinals[file, function, kind] += 1
            key = f"{package}: {Path(file).stem}: {function}: {kind} #{ordinals[file, function, kind]}"
            rank = hashlib.sha256(f"{seed} {key}".encode()).digest()
            found[kind.split()[0]].append((rank, Mutant(key, package, file, start, end, new)))
    ranked = {kind: iter(sorted(group, key=lambda pair: pair[0])) for kind, group in found.items()}
    chosen: dict[tuple[str, int], Mutant] = {}  # one for each place
    for kind in itertools.islice(itertools.cycle(CYCLE), 100 * count):
        for _, mutant in ranked.get(kind, ()):
            place = mutant.file, mutant.start
            if place not in chosen and compiles(mutant.apply(sources[mutant.file])):
                chosen[place] = mutant
                break
        if len(chosen) == count:
            break
    return list(chosen.values())


def packages(root: Path) -> list[str]:
    """The packages of the library, and "core" for its loose files."""
    return ["core", *sorted(path.parent.name for path in (root / PACKAGE).glob("*/__init__.py"))]


def files_of(root: Path, package: str) -> list[str]:
    """Paths of the files of a package, from the root of the project."""
    folder = root / PACKAGE
    found: Iterable[Path] = folder.glob("*.py") if package == "core" else (folder / package).rglob("*.py")
    return sorted(str(path.relative_to(root)) for path in found if "migrations" not in path.parts)


def compiles(source: bytes) -> bool:
    """Whether the changed source is Python."""
    try:
        return compile(source, "mutant", "exec") is not None
    except SyntaxError:
        return False
