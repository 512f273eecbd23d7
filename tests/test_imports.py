"""Imports follow the order of the table in docs/architecture.md, and importing the library loads nothing heavy."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import pushforward

ARCHITECTURE = Path(__file__).parents[1] / "docs" / "architecture.md"
PACKAGES = re.findall(r"^\| `(\w+)` \|", ARCHITECTURE.read_text(), re.MULTILINE)
"""In import order: a package may import those before it."""
PACKAGE = Path(pushforward.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
ENTRY_POINTS = {"__init__", "__main__"}
"""The public interface and the `python -m` entry may import every package."""

HEAVY = [
    "torch",
    "numpy",
    "scipy",
    "sklearn",
    "pyarrow",
    "narwhals",
    "pandas",
    "matplotlib",
    "rich",
    "typer",
    "safetensors",
]


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


class Imports(ast.NodeVisitor):
    """What a file imports of the package, at any depth, but for types: (line, dotted name)."""

    def __init__(self, path: Path) -> None:
        self.package = ["pushforward", *path.relative_to(PACKAGE).parent.parts]
        self.found: list[tuple[int, str]] = []
        self.visit(ast.parse(path.read_text()))

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                self.visit(child)
        else:
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.found += [(node.lineno, alias.name) for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level:
            base = ".".join(self.package[: len(self.package) - node.level + 1])
            module = f"{base}.{node.module}" if node.module else base
        else:
            module = node.module or ""
        # `from pushforward import transforms` names a package, and `from pushforward.transforms import Affine` a part of one.
        self.found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]


def packages_used(path: Path) -> list[tuple[int, str]]:
    names = ((line, name.split(".")) for line, name in Imports(path).found)
    return [(line, parts[1] if len(parts) > 1 else "") for line, parts in names if parts[0] == "pushforward"]


def test_the_table_lists_every_package():
    assert {package_of(path) for path in FILES} - ENTRY_POINTS == set(PACKAGES)


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if package_of(path) not in ENTRY_POINTS],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_imports_follow_the_order(path):
    here = PACKAGES.index(package_of(path))
    for line, package in packages_used(path):
        if package in ("__version__", ""):
            continue  # the version is in the public interface, which loads nothing
        assert package in PACKAGES, f"{path.name}:{line} imports {package}, which the table does not list"
        assert PACKAGES.index(package) <= here, (
            f"{path.name}:{line}: {PACKAGES[here]} must not use {package}, which comes after it in the table"
        )


def test_imports_inside_functions_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    file = tmp_path / "transforms" / "a.py"
    file.parent.mkdir()
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from pushforward.cli import x\n"
        "def f():\n    from pushforward import models\n    import pushforward.io.file_format\n    from ..data import y\n"
    )
    assert [package for _, package in packages_used(file)] == ["models", "io", "data"]


def loaded_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after running the code."""
    script = f"{code}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    assert not loaded_after("import pushforward as pf; pf.__version__; dir(pf)") & set(HEAVY)


def test_the_first_model_imports_torch_and_little_else():
    loaded = loaded_after("import pushforward as pf; pf.models.NSF(features=2)")
    assert "torch" in loaded
    assert not loaded & {"sklearn", "pyarrow", "matplotlib", "scipy", "rich", "typer", "narwhals", "pandas"}


def test_every_public_name_is_there():
    for name in pushforward.__all__:
        assert getattr(pushforward, name) is not None
    assert set(pushforward.__all__) <= set(dir(pushforward))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pushforward.nothing


def test_every_package_can_be_imported_first():
    """No package relies on another that was imported before it: each is imported in a process with third-party modules alone."""
    script = """
        import multiprocessing, sys
        import pyarrow.dataset, scipy.stats, sklearn.mixture, sklearn.neighbors, sqlalchemy, torch, typer

        def first(package):
            assert not any(name.startswith("pushforward") for name in sys.modules)
            __import__("pushforward." + package)

        fork = multiprocessing.get_context("fork")
        for package in sys.argv[1:]:
            process = fork.Process(target=first, args=(package,))
            process.start()
            process.join()
            if process.exitcode != 0:
                sys.exit(f"{package} cannot be imported first")
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *PACKAGES]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_name_in_all_exists():
    """Every name in ``__all__`` of every module exists."""
    for path in FILES:
        tree = ast.parse(path.read_text())
        public = [
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
        ]
        if not public or (path.parent == PACKAGE and path.stem in ENTRY_POINTS):
            continue
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        module = __import__(".".join(parts).removesuffix(".__init__"), fromlist=["*"])
        assert [name for name in public[0] if not hasattr(module, name)] == [], path
        assert len(set(public[0])) == len(public[0]), path
