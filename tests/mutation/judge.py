"""Tries mutants: which tests may notice one, and whether one of them does."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import coverage
import pytest

from .changes import PACKAGE, Mutant

FAILED = 99
"""Exit code of a process in which pytest could not be started."""

START = 20.0
"""Processor seconds that a process may need before its first test."""

WITHOUT_CONTEXTS = {"cli", "service"}
"""Packages whose code mostly runs in processes that tests start: all tests of their folder are tried as well."""


class Reach:
    """Which tests reach a line, from a traced run, and how long each takes."""

    def __init__(self, data: Path, root: Path) -> None:
        stored = json.loads((data / "seconds.json").read_text())
        self.seconds: dict[str, float] = stored["seconds"]
        self.of = Path(stored["root"])
        self.root = root
        self.data = coverage.CoverageData(str(data / "contexts"))
        self.data.read()
        self._files: dict[str, dict[int, list[str]]] = {}

    def _lines(self, file: str) -> dict[int, list[str]]:
        if file not in self._files:
            self._files[file] = self.data.contexts_by_lineno(str(self.of / file))
        return self._files[file]

    def tests(self, mutant: Mutant, most: float) -> list[str]:
        """The tests that reach a mutant, those of its own module first, then by time, up to ``most`` processor seconds."""
        contexts = {
            name
            for line in mutant.reached((self.root / mutant.file).read_bytes())
            for name in self._lines(mutant.file).get(line, ())
        }
        shared = tuple(name.removeprefix("shared:") for name in contexts if name.startswith("shared:"))
        folder = f"tests/{mutant.package}/"
        if mutant.package in WITHOUT_CONTEXTS:
            shared = (*shared, folder)
        chosen = [name for name in self.seconds if name in contexts or (shared and name.startswith(shared))]
        stem = Path(mutant.file).stem.strip("_")

        def rank(name: str) -> tuple[bool, bool, float]:
            file = name.split("::")[0]
            return (
                not file.endswith((f"/test_{stem}.py", f"/test_service_{stem}.py")),
                not file.startswith(folder),
                self.seconds[name],
            )

        total, found = 0.0, []
        for name in sorted(chosen, key=rank):
            total += self.seconds[name]
            if found and total > most:
                break
            found.append(name)
        return found


class Chosen:
    """Plugin of pytest that runs the tests of a list, in its order."""

    def __init__(self, names: list[str]) -> None:
        self.order = {name: place for place, name in enumerate(names)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self.order), key=lambda item: self.order[item.nodeid]
        )


class FirstFailure:
    """Plugin of pytest that writes the name of the first test that fails."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def pytest_runtest_logreport(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.failed and not self.file.exists():
            self.file.write_text(report.nodeid)

    pytest_collectreport = pytest_runtest_logreport


class Copy:
    """A copy of the project in which mutants are tried, one at a time."""

    def __init__(self, root: Path, folder: Path) -> None:
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=root, capture_output=True, text=True, check=True
        )
        for name in listed.stdout.splitlines():
            if (root / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, folder / name)
        for built in (root / PACKAGE / "kernels").glob("*.so"):
            shutil.copy2(built, folder / PACKAGE / "kernels")
        self.folder = folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir()

    def run(self, arguments: list[str], plugins: list[object], limit: float, output: Path) -> int:
        """Exit code of pytest in a process of its own, which is ended after ``limit`` processor seconds."""
        process = os.fork()  # the libraries are loaded once, in the process that forks
        if not process:
            self._in_child(arguments, plugins, limit, output)
        deadline = time.monotonic() + 300 + 10 * limit
        while (
            os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None and time.monotonic() < deadline
        ):
            time.sleep(0.05)
        self._end(process)
        status = os.waitpid(process, 0)[1]
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.temporary.mkdir(exist_ok=True)
        return os.waitstatus_to_exitcode(status)

    @staticmethod
    def _end(process: int) -> None:
        """End what tests have started and not ended."""
        try:
            os.killpg(process, signal.SIGKILL)
        except ProcessLookupError:
            return

    def _in_child(self, arguments: list[str], plugins: list[object], limit: float, output: Path) -> None:
        code = FAILED
        try:
            os.setsid()
            os.chdir(self.folder)
            for what, most in ((resource.RLIMIT_CPU, int(limit)), (resource.RLIMIT_CORE, 0)):
                resource.setrlimit(what, (most, most + 5))
            descriptor = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            for standard in (1, 2):
                os.dup2(descriptor, standard)
            # With CI set, hypothesis keeps no database and takes the same examples each time.
            os.environ.update(PYTHONPATH=f"{self.folder / 'src'}:{self.folder}", OMP_NUM_THREADS="1", CI="1", TMPDIR=str(self.temporary),
                              PYTHONDONTWRITEBYTECODE="1")  # fmt: skip
            sys.dont_write_bytecode = True
            sys.path[:0] = [str(self.folder / "src"), str(self.folder)]
            for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
                del sys.modules[name]
            options = [
                "-xq",
                "-p",
                "no:cacheprovider",
                "--tb=line",
                "-m",
                "not slow",
                f"--basetemp={self.temporary}/pytest",
                "-p",
                "no:xdist",
            ]
            code = int(pytest.main([*options, *arguments], plugins=plugins))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def judge(self, mutant: Mutant, reach: Reach, most: float) -> dict[str, Any]:
        """Try one mutant: whether tests noticed it, and which one did."""
        names = reach.tests(mutant, most)
        path, failed, output = self.folder / mutant.file, self.folder / "failed", self.folder / "output"
        source, began = path.read_bytes(), time.monotonic()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        failed.unlink(missing_ok=True)
        path.write_bytes(mutant.apply(source))
        files = sorted({name.split("::")[0] for name in names})
        runs = [([*files], [Chosen(names)], sum(reach.seconds[name] for name in names))] if names else []
        runs.append((["--doctest-modules", mutant.file], [], 10.0))
        status, by = "survived", ""
        for arguments, plugins, limit in runs:
            code = self.run(arguments, [FirstFailure(failed), *plugins], START + 4 * limit, output)
            if code == FAILED:
                raise RuntimeError(f"pytest did not run: {output.read_text()}")
            if code not in (0, 5):  # 5: a file without examples
                last = (output.read_text(errors="replace").strip().splitlines() or [""])[-1][:200]
                status, by = (
                    "time-out" if code == -signal.SIGXCPU else "killed",
                    failed.read_text() if failed.exists() else last,
                )
                break
        path.write_bytes(source)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        line, old, new = mutant.lines(source)
        return {"key": mutant.key, "package": mutant.package, "file": mutant.file, "line": line, "old": old, "new": new, "status": status, "by": by,
                "tests": len(names), "cpu": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
                "seconds": round(time.monotonic() - began, 1)}  # fmt: skip


def trace(root: Path, data: Path, workers: int, arguments: list[str]) -> int:
    """Run the suite of a checkout once and record which tests reach which lines."""
    data.mkdir(parents=True, exist_ok=True)
    here = Path(__file__).resolve().parent
    env = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}:{here}:{here / 'site'}", "OMP_NUM_THREADS": "1", "CI": "1",
           "MUTATION_DATA": str(data / "part"), "MUTATION_SOURCE": str(root / PACKAGE)}  # fmt: skip
    command = [sys.executable, "-m", "pytest", "-p", "contexts", "-p", "no:cacheprovider", "-m", "not slow", "-n", str(workers), "--dist", "loadfile",
               "--no-loadscope-reorder", *(arguments or ["tests"])]  # fmt: skip
    code = subprocess.run(command, cwd=root, env=env, check=False).returncode
    combined = coverage.CoverageData(str(data / "contexts"))
    seconds: dict[str, float] = defaultdict(float)
    for part in sorted(data.glob("part.*")):
        if part.name.startswith("part.seconds."):
            for name, value in json.loads(part.read_text()).items():
                seconds[name] += value
        else:
            _add(combined, part)
        part.unlink()
    combined.write()
    (data / "seconds.json").write_text(json.dumps({"root": str(root), "seconds": seconds}))
    return code


def _add(combined: coverage.CoverageData, part: Path) -> None:
    """Add what one process measured; a process that was killed may leave a damaged file."""
    try:
        found = coverage.CoverageData(str(part))
        found.read()
        combined.update(found)
    except coverage.exceptions.DataError:
        print(f"not read, since its process was killed: {part.name}")


def load_libraries() -> None:
    """Load what tests import anyway, before the processes that try mutants are forked."""
    import pyarrow  # noqa: F401
    import scipy.stats  # noqa: F401
    import sklearn.ensemble  # noqa: F401
    import torch

    torch.set_num_threads(1)


def shares(entries: Iterable[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Numbers of mutants by package and by status, "all" last."""
    table: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for entry in sorted(entries, key=lambda entry: entry["package"]):
        table[entry["package"]][entry["status"]] += 1
    for row in list(table.values()):
        for status, count in row.items():
            table["all"][status] += count
    return table
