"""Speed, memory and accuracy of pushforward compared with other flow libraries and with the bare matrix products.

    pip install -e '.[bench]'
    python -m benchmarks.speed                          # time, memory, accuracy and import: runs missing cases
    python -m benchmarks.speed time --cases 'nsfc-*' 'maf-d63-h512/sample@512' --rounds 5 --threads 1
    python -m benchmarks.speed time --clock cpu --threads 1     # ratios on a busy machine
    python -m benchmarks.speed --device cuda            # the same on a GPU, with CUDA graphs where they can be captured
    python -m benchmarks.speed growth                   # how cost grows with D, depth, batch and bins, with exponents
    python -m benchmarks.speed growth --clock cpu --threads 1 --rounds 3 --visit 0.05 --steps 5 --picture docs/growth.png    # several minutes
    python -m benchmarks.speed --profile nsfc-d63-h128/log_prob@512     # the operations that take the time
    python -m benchmarks.speed --table                  # only the tables of existing readings

Readings are appended to --out as JSON lines, so a stopped run resumes; the tables and pictures are written beside it (.md, .png),
and the output of the libraries (.log). A library that is not installed is skipped with a message. Use an idle machine: on shared
cores other work makes a short call ten times slower.

On a GPU calls are timed between CUDA events, memory is that of torch's tensors, and records and pictures have the name of the device.
This is tested with a simulated device; see docs/measurements.md for what was run on a GPU.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks.speed.cases import CASES, ENSEMBLES, named
from benchmarks.speed.devices import device
from benchmarks.speed.libraries import NAMES, missing
from benchmarks.speed.pictures import draw
from benchmarks.speed.profiling import profile
from benchmarks.speed.records import Readings, device_of, load, read
from benchmarks.speed.report import TABLES, Record, report
from benchmarks.speed.runner import Settings
from benchmarks.speed.suite import Suite


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark with the arguments of a command line."""
    options = parser().parse_args(arguments)
    if options.list:
        print(*(case.name for case in (*CASES, *ENSEMBLES)), sep="\n")
        return
    settings = Settings(
        threads=options.threads, rounds=options.rounds, visit=options.visit, most=options.most, limit=options.limit,
        steps=options.steps, clock=options.clock, log=options.out.with_suffix(".log"), device=options.device,
    )  # fmt: skip
    where = device(options.device, options.clock)
    if not options.table:
        where.check(options.clock)
    if options.profile:
        case = named(options.profile)
        print(profile(case, options.libraries[0], settings.threads, settings.training(case), where))
        return
    if not options.table:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        reasons = {name: missing(name) for name in options.libraries}
        if options.libraries != list(
            NAMES
        ):  # with all libraries, those that do not run on the device are skipped silently
            reasons |= {name: f"{name}: {where.refused[name]}." for name in reasons if name in where.refused}
        print(*filter(None, dict.fromkeys(reasons.values())), sep="\n")
        libraries = [name for name, reason in reasons.items() if reason is None]
        if load() and load()[0] > 0.5:
            print(f"The machine is busy (load {load()[0]}): times will be too long and ratios inaccurate.")
        suite = Suite(settings, Readings(options.out, settings, libraries), libraries, options.cases)
        parts = options.parts or [part for part in TABLES if part != "growth"]
        if not any(part == "import" or suite.chosen(part) for part in (options.parts or ["time"])):
            raise SystemExit(f"no case matches {' '.join(options.cases)}: --list prints the names.")
        for part in parts:
            suite.run(part)
    show(options.out, list(read(options.out)) if options.out.exists() else [], options.parts, options.picture)


def show(out: Path, records: Sequence[Record], parts: Sequence[str], picture: Path | None = None) -> None:
    """Write the tables and pictures of all readings, and print the tables of some parts."""
    if not records:
        raise SystemExit(f"{out} has no readings: run without --table first, or give another file by --out.")
    out.with_suffix(".md").write_text(report(records))
    pictures = []
    for name in dict.fromkeys(map(device_of, records)):
        pictures += draw(
            [record for record in records if device_of(record) == name], out.with_suffix(".png"), picture, name
        )
    print("\n" + report(records, parts))
    print(f"written: {', '.join(map(str, (out, out.with_suffix('.md'), *pictures)))}")


def device_name(name: str) -> str:
    """The value of --device, checked."""
    try:
        device(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return name


def part_name(part: str) -> str:
    """An argument that names a part, checked."""
    if part not in TABLES:
        raise argparse.ArgumentTypeError(f"there is no part {part!r}; the parts are {', '.join(TABLES)}")
    return part


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("parts", nargs="*", type=part_name, metavar="PART",
                      help=f"one of {', '.join(TABLES)}; by default all but growth")  # fmt: skip
    made.add_argument(
        "--cases", nargs="+", default=["*"], metavar="PATTERN", help="names of cases or flows, with * and ?"
    )
    made.add_argument("--list", action="store_true", help="print the names of all cases")
    made.add_argument("--libraries", nargs="+", default=list(NAMES), choices=NAMES, metavar="LIBRARY",
                      help=", ".join(NAMES))  # fmt: skip
    made.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    made.add_argument("--rounds", type=int, default=9, help="rounds of timing for each library")
    made.add_argument("--visit", type=float, default=0.3, help="seconds of each round")
    made.add_argument("--most", type=float, default=30.0, help="most seconds for one library and case")
    made.add_argument("--limit", type=float, default=600.0, help="most seconds to wait for one reply of a library")
    made.add_argument("--steps", type=int, default=100, help="training steps before measuring; a fifth for wide flows")
    made.add_argument("--clock", choices=("wall", "cpu"), default="wall",
                      help="wall time, or CPU time for a busy machine")  # fmt: skip
    made.add_argument("--device", type=device_name, default="cpu", metavar="DEVICE", help="cpu, cuda or cuda:1")
    made.add_argument("--out", type=Path, default=Path("runs/speed.jsonl"))
    made.add_argument("--profile", metavar="CASE", help="profile a case of the first of --libraries instead")
    made.add_argument("--picture", type=Path, help="file for the picture of growth; by default beside --out")
    made.add_argument("--table", action="store_true", help="print the tables of existing readings and run nothing")
    return made


if __name__ == "__main__":
    main()
