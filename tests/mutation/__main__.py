"""The command line, see the docstring of the package."""

import argparse
import json
import multiprocessing
import tempfile
from pathlib import Path
from typing import Any

from . import __doc__ as description
from . import judge
from .changes import Mutant, mutants, packages

ROOT = Path(__file__).resolve().parents[2]


def entries(results: Path) -> dict[str, dict[str, Any]]:
    """What a run has written so far, by key."""
    return (
        {entry["key"]: entry for entry in map(json.loads, results.read_text().splitlines())} if results.exists() else {}
    )


def work(waiting: Any, root: Path, data: Path, results: Path, most: float) -> None:
    """Try the mutants of a queue until it is empty."""
    reach = judge.Reach(data, root)
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder, results.open("a", buffering=1) as log:
        copy = judge.Copy(root, Path(folder))
        while (mutant := waiting.get()) is not None:
            entry = copy.judge(mutant, reach, most)
            log.write(json.dumps(entry) + "\n")
            print(f"{entry['status']:8} {entry['seconds']:6.1f} s  {mutant.key}", flush=True)


def run(options: argparse.Namespace) -> None:
    """Try the mutants that the results do not have yet, one of each package in turn."""
    known = entries(options.results)
    only = (
        {key for key, entry in entries(options.survivors).items() if entry["status"] == "survived"}
        if options.survivors
        else None
    )
    chosen: list[Mutant] = []
    for package in options.only or packages(options.root):
        chosen += mutants(options.root, package, options.count, options.seed)
    place = {mutant.key: index for index, mutant in enumerate(chosen)}
    chosen.sort(key=lambda mutant: (place[mutant.key] % options.count, place[mutant.key]))
    judge.load_libraries()
    forked = multiprocessing.get_context("fork")
    waiting = forked.SimpleQueue()
    workers = [
        forked.Process(target=work, args=(waiting, options.root, options.data, options.results, options.most))
        for _ in range(options.workers)
    ]
    for worker in workers:
        worker.start()
    for mutant in chosen:
        if mutant.key not in known and (only is None or mutant.key in only):
            waiting.put(mutant)
    for _ in workers:
        waiting.put(None)
    for worker in workers:
        worker.join()


def report(results: Path) -> None:
    """Print how many mutants the tests noticed, and those that they did not."""
    found = entries(results)
    print(f"| {'package':16} | mutants | noticed | survived | share |\n| --- | ---: | ---: | ---: | ---: |")
    for package, row in judge.shares(found.values()).items():
        total, survived = sum(row.values()), row["survived"]
        print(f"| {package:16} | {total:7} | {total - survived:7} | {survived:8} | {1 - survived / total:5.1%} |")
    for entry in sorted(found.values(), key=lambda entry: entry["key"]):
        if entry["status"] == "survived":
            print(
                f"\n{entry['key']} ({entry['file']}:{entry['line']}, {entry['tests']} tests)\n    - {entry['old']}\n    + {entry['new']}"
            )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutation", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["trace", "list", "run", "report"])
    parser.add_argument(
        "--root", type=lambda text: Path(text).resolve(), default=ROOT, help="the checkout; this one by default"
    )
    parser.add_argument(
        "--data", type=lambda text: Path(text).resolve(), default=Path("contexts"), help="folder of a trace"
    )
    parser.add_argument(
        "--results", type=Path, default=Path("mutants.jsonl"), help="file with one JSON line for each mutant"
    )
    parser.add_argument("--survivors", type=Path, help="try only the mutants that survived in this file of results")
    parser.add_argument("--only", nargs="+", help="packages")
    parser.add_argument("--count", type=int, default=32, help="mutants of each package")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of mutants")
    parser.add_argument("--most", type=float, default=240.0, help="processor seconds of tests for one mutant")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--tests", nargs="+", default=[], help="of `trace`: what pytest runs")
    options = parser.parse_args()
    if options.command == "trace":
        raise SystemExit(judge.trace(options.root, options.data, options.workers, options.tests))
    if options.command == "list":
        for mutant in (
            each
            for package in options.only or packages(options.root)
            for each in mutants(options.root, package, options.count, options.seed)
        ):
            line, old, new = mutant.lines((options.root / mutant.file).read_bytes())
            print(f"{mutant.key} ({mutant.file}:{line})\n    - {old}\n    + {new}")
        return
    if options.command == "run":
        run(options)
    report(options.results)


if __name__ == "__main__":
    main()
