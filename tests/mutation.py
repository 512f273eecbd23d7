"""Mutation testing: change one operator, constant or statement of a core file at a time, and see whether a test fails.

    python tests/mutation.py --results mutants.jsonl             # run, or continue a run that was stopped
    python tests/mutation.py --results mutants.jsonl --report    # print the table of a run

A mutant that no test notices shows a missing check, or a change without effect. Mutants are tried in a temporary copy of
the sources and tests, so the working tree is never changed.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import itertools
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path("src/pushforward")
OF_TRANSFORMS, OF_MODELS, OF_TRANSFORMERS = (
    f"tests/contract/test_{name}.py" for name in ("transforms", "models", "transformers")
)

TARGETS: dict[str, tuple[str, list[str]]] = {
    "likelihood": ("likelihood.py", [
        "tests/test_likelihood.py",
        f"{OF_MODELS} {OF_TRANSFORMS} -k 'test_kind or test_bounds or do_not_meet or test_attributes'",
    ]),
    "numerics": ("numerics/clamp.py numerics/functions.py numerics/jacobian.py numerics/noise.py numerics/roots.py numerics/running.py "
                 "numerics/splitmix.py numerics/tracing.py", [
        "tests/numerics",
        "tests/transforms/discrete tests/models/test_base.py tests/networks/test_made.py",
        f"{OF_TRANSFORMS} -k '(InvertibleResidual[ or Dequantize[ or Affine[ or Planar[ or Gaussianize[ or FreeForm) and not compiles'",
        "tests/transforms/residual",
    ]),
    "transforms/core": ("transforms/base.py transforms/chain.py transforms/inverse.py", [
        "tests/models/test_base.py tests/transforms/test_adapters.py tests/transforms/test_chain.py tests/transforms/test_reversible.py",
        f"{OF_MODELS} -k 'do_not_meet or test_kind'",
        f"{OF_TRANSFORMS} -k 'Chain[ or Inverse[ or Softplus[ or Logit[ or Reverse[ or impossible_widths'",
        "tests/models/vector/test_residual_flow.py",
    ]),
    "transforms/coupling": ("transforms/coupling/coupling.py", [
        "tests/transforms/coupling tests/transforms/test_reversible.py",
        f"{OF_TRANSFORMS} -k '[Coupling['",
    ]),
    "transforms/autoregressive": ("transforms/autoregressive/masked.py transforms/autoregressive/masked_inverse.py", [
        "tests/transforms/autoregressive",
        f"{OF_TRANSFORMS} -k '[MaskedAutoregressive['",
    ]),
    "transforms/transformers": ("transforms/transformers/base.py transforms/transformers/affine.py", [
        f"{OF_TRANSFORMERS} -k 'Transformer and (Affine or Additive or Gated)'",
        "tests/transforms/coupling tests/transforms/autoregressive",
        f"{OF_TRANSFORMS} -k 'Coupling[affine or Coupling[additive or Coupling[gated or Monotone[affine'",
        "tests/models/test_base.py tests/models/vector/test_inflow.py tests/models/vector",
    ]),
    "models/core": ("models/base.py models/flow.py models/precision.py models/row_parts.py models/sampling.py models/validation.py", [
        "tests/models/test_base.py tests/models/test_torch_distribution.py tests/models/test_row_parts.py",
        "tests/models/test_analytic.py",
        f"{OF_MODELS} -k '(RealNVP[ or MAF[ or Flow[dequantized or Flow[bounded or Flow[conditional) and not machine_code'",
        "tests/models/manifold tests/models/vector",
    ]),
    "training/trainer": ("training/trainer.py training/run.py training/strategies.py training/gradients.py", [
        "tests/training/test_fit.py",
        "tests/training/test_resume.py tests/training/test_ema.py tests/training/test_gradients.py",
        "tests/training/test_ensemble.py tests/training/test_compiled_loss.py",
    ]),
    "training/budget": ("training/budget.py", ["tests/training/test_budget.py", "tests/training/test_fit.py"]),
    "detection/calibration": ("detection/conformal/calibration.py detection/conformal/guarantees.py", [
        "tests/detection/test_calibration.py tests/detection/test_guarantees.py",
        "tests/detection/test_operating_point.py tests/detection/test_gate.py tests/detection/test_streams.py",
    ]),
    "detection/metrics": ("detection/metrics.py", ["tests/detection/test_metrics.py tests/detection/test_protocol.py"]),
    "io/file": ("io/file_format.py io/atomic.py", ["tests/io/test_model_file.py tests/io/test_atomic.py", "tests/io/test_damaged_files.py"]),
}  # fmt: skip
"""By name: the files, and the pytest runs that judge their mutants, the fastest first."""

RENAMED: dict[str, str] = {}
"""Functions and classes of today, with the names that keys keep for them, so that runs before and after a rename compare."""

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
        function = ".".join(RENAMED.get(name, name) for name in self.names) or "module"
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


def mutants(target: str, count: int, seed: int) -> list[Mutant]:
    """``count`` mutants of a target. A hash of the key ranks those of a kind, so that other changes of the file move no choice."""
    found: dict[str, list[tuple[bytes, Mutant]]] = defaultdict(list)
    ordinals: Counter[tuple[str, str]] = Counter()
    sources = {file: (ROOT / PACKAGE / file).read_bytes() for file in TARGETS[target][0].split()}
    for file, source in sources.items():
        for function, kind, start, end, new in Sites(source).found:
            ordinals[function, kind] += 1
            key = f"{target}: {function}: {kind} #{ordinals[function, kind]}"
            rank = hashlib.sha256(f"{seed} {key}".encode()).digest()
            found[kind.split()[0]].append((rank, Mutant(key, file, start, end, new)))
    ranked = {kind: iter(sorted(group, key=lambda pair: pair[0])) for kind, group in found.items()}
    chosen: dict[tuple[str, int], Mutant] = {}  # one for each place
    for kind in itertools.islice(itertools.cycle(CYCLE), 100 * count):
        for _, mutant in ranked.get(kind, ()):
            place = mutant.file, mutant.start
            if place not in chosen and _compiles(mutant.apply(sources[mutant.file])):
                chosen[place] = mutant
                break
        if len(chosen) == count:
            break
    return list(chosen.values())


def _compiles(source: bytes) -> bool:
    try:
        return compile(source, "mutant", "exec") is not None
    except SyntaxError:
        return False


class Copy:
    """A copy of sources and tests in which mutants are tried, one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("src", "tests", "papers", "benchmarks"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        (folder / "tmp").mkdir()
        # With CI set, hypothesis keeps no database and takes the same examples each time.
        self.env = {**os.environ, "PYTHONPATH": f"{folder / 'src'}:{folder}", "OMP_NUM_THREADS": "1", "CI": "1",
                    "TMPDIR": str(folder / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip

    def precompile(self, files: set[str]) -> None:
        """Write the bytecode of all but the files that will change: Python would take old bytecode of the same second."""
        subprocess.run([sys.executable, "-m", "compileall", "-q", self.folder / "src"], check=True)
        for file in files:
            path = self.folder / PACKAGE / file
            for cached in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
                cached.unlink()

    def run(self, arguments: str, limit: float) -> tuple[int, str, float]:
        """Exit code of pytest (-SIGXCPU after ``limit`` processor seconds), the first test that fails, processor seconds."""

        def restrict() -> None:
            for what, most in (
                (resource.RLIMIT_CPU, int(limit)),
                (resource.RLIMIT_AS, 16 << 30),
                (resource.RLIMIT_CORE, 0),
            ):
                resource.setrlimit(what, (most, most + 5))

        command = [sys.executable, "-m", "pytest", "-xq", "-p", "no:cacheprovider", "--tb=no", "-rfE", "-m", "not slow",
                   f"--basetemp={self.folder}/tmp/pytest", *shlex.split(arguments)]  # fmt: skip
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.Popen(command, cwd=self.folder, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True, errors="replace", start_new_session=True, preexec_fn=restrict)  # fmt: skip
        try:
            output, code = process.communicate(timeout=300 + 10 * limit)[0], process.returncode
        except subprocess.TimeoutExpired:  # it waits and computes nothing
            os.killpg(process.pid, signal.SIGKILL)
            output, code = process.communicate()[0], -signal.SIGXCPU
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        failed = re.search(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", output, re.MULTILINE)
        last = (output.strip().splitlines() or ["no output"])[-1][:200]
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return code, failed.group(1) if failed else f"exit code {code}: {last}", seconds

    def judge(self, mutant: Mutant, runs: list[str], limits: list[float]) -> dict[str, Any]:
        """Try one mutant: whether tests noticed it, and which one did."""
        path = self.folder / PACKAGE / mutant.file
        source, began = path.read_bytes(), time.monotonic()
        status, by = "survived", ""
        path.write_bytes(mutant.apply(source))
        for arguments, limit in zip(runs, limits, strict=True):
            code, failed, _ = self.run(arguments, limit)
            if code:
                status, by = ("timeout", arguments) if code == -signal.SIGXCPU else ("killed", failed)
                break
        path.write_bytes(source)
        line, old, new = mutant.lines(source)
        return {"key": mutant.key, "file": mutant.file, "line": line, "old": old, "new": new, "status": status, "by": by,
                "seconds": round(time.monotonic() - began, 1)}  # fmt: skip


def entries(results: Path) -> dict[str, dict[str, Any]]:
    """What a run has written so far, by key."""
    lines = results.read_text().splitlines() if results.exists() else []
    return {entry["key"]: entry for entry in map(json.loads, lines)}


def run(results: Path, targets: list[str], count: int, seed: int) -> None:
    """Try the mutants that the results do not have yet, one of each target in turn."""
    known = entries(results)
    chosen = [[(target, mutant) for mutant in mutants(target, count, seed)] for target in targets]
    limits: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder, results.open("a", buffering=1) as log:
        copy = Copy(Path(folder))
        copy.precompile({file for target in targets for file in TARGETS[target][0].split()})
        for target in targets:
            entry = known.get(f"{target}: unchanged")
            if entry is None or len(entry["cpu"]) != len(TARGETS[target][1]):
                judged = {arguments: copy.run(arguments, 3600) for arguments in TARGETS[target][1]}
                for arguments, (code, failed, _) in judged.items():
                    if code:
                        raise SystemExit(f"a test of {target} fails without any change ({arguments}): {failed}")
                entry = {"key": f"{target}: unchanged", "cpu": [round(cpu, 1) for *_, cpu in judged.values()]}
                log.write(json.dumps(entry) + "\n")
                print(f"{target}: passes without a change, processor seconds {entry['cpu']}", flush=True)
            limits[target] = [20 + 4 * cpu for cpu in entry["cpu"]]
        for target, mutant in (pair for turn in itertools.zip_longest(*chosen) for pair in turn if pair):
            if mutant.key not in known:
                entry = copy.judge(mutant, TARGETS[target][1], limits[target])
                log.write(json.dumps(entry) + "\n")
                print(f"{entry['status']:8} {entry['seconds']:6.1f} s  {mutant.key}", flush=True)


def report(results: Path) -> None:
    """Print how many mutants the tests noticed, and those that they did not."""
    tried = sorted((entry for entry in entries(results).values() if "status" in entry), key=lambda entry: entry["key"])
    print(f"{'target':28}{'mutants':>9}{'killed':>9}{'time-out':>9}{'survived':>9}{'noticed':>9}")
    for name in [*TARGETS, "all"]:
        by = Counter(entry["status"] for entry in tried if name in ("all", entry["key"].split(":")[0]))
        if total := by.total():
            share = (by["killed"] + by["timeout"]) / total
            print(f"{name:28}{total:9}{by['killed']:9}{by['timeout']:9}{by['survived']:9}{share:9.1%}")
    for status in ("timeout", "survived"):
        print(f"\n{status}:")
        for entry in tried:
            if entry["status"] == status:
                print(f"  {entry['key']} ({entry['file']}:{entry['line']})\n    - {entry['old']}\n    + {entry['new']}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--results", type=Path, default=Path("mutants.jsonl"), help="file with one JSON line for each mutant"
    )
    parser.add_argument("--only", nargs="+", choices=list(TARGETS), default=list(TARGETS), help="targets to run")
    parser.add_argument("--count", type=int, default=16, help="mutants of each target")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of mutants")
    parser.add_argument("--report", action="store_true", help="only print the table of what the file has")
    parser.add_argument("--list", action="store_true", help="only print the mutants that would run")
    options = parser.parse_args()
    if options.list:
        for mutant in (each for target in options.only for each in mutants(target, options.count, options.seed)):
            line, old, new = mutant.lines((ROOT / PACKAGE / mutant.file).read_bytes())
            print(f"{mutant.key} ({mutant.file}:{line})\n    - {old}\n    + {new}")
        return
    if not options.report:
        run(options.results, options.only, options.count, options.seed)
    report(options.results)


if __name__ == "__main__":
    main()
