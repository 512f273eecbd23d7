"""Markdown tables of the records."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.common.results import markdown
from benchmarks.speed.accuracy import ERRORS
from benchmarks.speed.cases import WORKS
from benchmarks.speed.devices import CPU
from benchmarks.speed.growth import exponents
from benchmarks.speed.libraries import EAGER, NAMES, VARIANTS, adapter
from benchmarks.speed.records import device_of

__all__ = ["ALONE", "TABLES", "Record", "fastest_peer", "ratio", "report", "versus"]

Record = dict[str, Any]
ALONE = "one flow alone"
"""Name of the entry that an ensemble is compared with."""


def report(records: Sequence[Record], parts: Sequence[str] | None = None) -> str:
    """The tables of some parts (of all there are), newest reading of each case, with the commands and machines.

    Each device has its own tables, under its name if there is another than the CPU.
    """
    newest: dict[str, dict[str, dict[str, Record]]] = {}
    for record in records:
        if record["part"] in (parts or TABLES):
            newest.setdefault(device_of(record), {}).setdefault(record["part"], {})[record["case"]] = record
    sections = []
    for name, found in newest.items():
        sections += [] if newest.keys() == {CPU.title} else [f"# {name}"]
        sections += [make(list(found[part].values())) for part, make in TABLES.items() if part in found]
    shown = [record for found in newest.values() for part in found.values() for record in part.values()]
    return "\n\n".join([*sections, notes(shown, records)]) + "\n"


def columns(records: Sequence[Record]) -> list[str]:
    """All libraries, and the variants that were run."""
    run = {name for record in records for name in record["readings"]}
    return [name for name in NAMES if name in run or name not in VARIANTS]


def ratio(theirs: Record, ours: Record) -> float | None:
    """How many times longer theirs takes: the median over the rounds of both of the ratio within the round."""
    pairs = list(zip(theirs.get("seconds", ()), ours.get("seconds", ()), strict=False))
    return statistics.median(a / b for a, b in pairs) if pairs else None


def fastest_peer(readings: dict[str, Record]) -> str | None:
    """The peer in eager torch with the smallest median."""
    peers = [name for name in EAGER if readings.get(name, {}).get("seconds")]
    return min(peers, key=lambda name: statistics.median(readings[name]["seconds"]), default=None)


def versus(readings: dict[str, Record], other: str | None) -> float | None:
    """How many times longer another library takes than pushforward."""
    return ratio(readings[other], readings["pushforward"]) if other in readings and "pushforward" in readings else None


def time_tables(records: Sequence[Record]) -> str:
    """Milliseconds of every library in every case, and pushforward's ratios; ensembles have their own table."""
    plain = [record for record in records if ALONE not in record["readings"]]
    names = columns(records)
    head = ["case", *names, "fastest torch peer", "it / ours", "flowjax / ours", "ours / floor"]
    rows = []
    for record in plain:
        readings = record["readings"]
        peer, to_floor = fastest_peer(readings), versus(readings, "floor")
        rows.append([
            record["case"], *(milliseconds(readings.get(name)) for name in names), peer or "–",
            times(versus(readings, peer)), times(versus(readings, "flowjax")), figure(1 / to_floor if to_floor else None),
        ])  # fmt: skip
    parts = ["## Milliseconds per call", markdown(head, rows), *summary_lines(plain)] if rows else []
    grouped = []
    for record in (record for record in records if ALONE in record["readings"]):
        readings = record["readings"]
        one, every = readings[ALONE], readings.get("pushforward", {})
        cells = map(milliseconds, (one, every, readings.get("floor")))
        grouped.append([record["case"], *cells, times(ratio(every, one))])
    if grouped:
        head = ["ensemble", "one flow", "all", "floor of all", "all / one"]
        parts += ["## Ensembles: milliseconds per training step", markdown(head, grouped)]
    return "\n\n".join(parts)


def summary_lines(records: Sequence[Record]) -> list[str]:
    """One line for each work: mean, best and worst ratio over the cases."""
    lines = []
    for work in WORKS:
        found = [record for record in records if f"/{work}@" in record["case"]]
        for title, pick in (("the fastest torch peer", fastest_peer), ("flowjax", lambda _: "flowjax")):
            factors = {r["case"]: f for r in found if (f := versus(r["readings"], pick(r["readings"]))) is not None}
            if factors:
                mean = math.exp(statistics.fmean(map(math.log, factors.values())))
                least, most = min(factors, key=factors.__getitem__), max(factors, key=factors.__getitem__)
                lines.append(
                    f"- {work}: pushforward is {times(mean)} as fast as {title} (geometric mean, {len(factors)} cases): from "
                    f"{times(factors[least])} ({least}) to {times(factors[most])} ({most})."
                )
    slowest: dict[str, float] = {}
    for record in records:
        for name, reading in record["readings"].items():
            slowest[name] = max(slowest.get(name, 0.0), reading.get("first", 0.0))
    first = ", ".join(f"{name} {figure(seconds)}" for name, seconds in slowest.items() if seconds)
    return ["\n".join([*lines, f"- slowest first call (which may compile), s: {first}."])]


def memory_table(records: Sequence[Record]) -> str:
    names = columns(records)
    head = ["case", *names]
    rows = [[r["case"], *(cell(r["readings"].get(name), "above") for name in names)] for r in records]
    return "## Peak memory of a call, MiB above the model, its gradients and its optimizer\n\n" + markdown(head, rows)


def accuracy_table(records: Sequence[Record]) -> str:
    names = [name for name in columns(records) if name != "floor"]
    rows = []
    for record in records:
        cells = []
        for name in names:
            errors = record["readings"].get(name, {}).get("errors")
            cells.append(" · ".join(error(errors[key]) for key in ERRORS) if errors else "–")
        rows.append([record["case"], *cells])
    legend = "; ".join(f"**{name}**: {meaning}" for name, meaning in ERRORS.items())
    return f"## Accuracy\n\nIn each cell {legend}.\n\n" + markdown(["flow", *names], rows)


def import_table(records: Sequence[Record]) -> str:
    readings = records[-1]["readings"]
    torch = readings.get("floor", {})
    rows = []
    for name in (name for name in NAMES if name in readings):
        reading, process = readings[name], readings[name].get("process")
        rows.append([
            f"`{adapter(name).IMPORT}`", figure(statistics.median(reading["seconds"]) if process else None),
            figure(ratio(reading, torch)), figure(statistics.median(process) if process else None),
        ])  # fmt: skip
    return "## Import\n\n" + markdown(["statement", "s", "/ torch alone", "peak MiB"], rows)


def growth_table(records: Sequence[Record]) -> str:
    """Exponents of time and memory, and the smallest and the largest reading that they were fitted through."""
    rows = []
    for record in records:
        readings = {int(size): reading for size, reading in record["readings"].items() if reading.get("seconds")}
        sizes = sorted(readings)
        if len(sizes) < 2:
            continue
        cells = []
        for costs in (
            [statistics.median(readings[size]["seconds"]) * 1e3 for size in sizes],
            [readings[size].get("above") or 0.0 for size in sizes],
        ):
            fitted = exponents(sizes, costs)
            cells += [f"{figure(costs[0])} – {figure(costs[-1])}"]
            cells += [f"{value:.2f}" for value in fitted] if fitted else ["–", "–"]
        kind, work, quantity = record["case"].split("/")
        rows.append([kind, work, f"{quantity} {sizes[0]} – {sizes[-1]}", *cells])
    head = ["flow", "work", "varied"]
    head += ["ms", "exponent of ms", "ms, last step", "MiB", "exponent of MiB", "MiB, last step"]
    return "## How cost grows\n\n" + markdown(head, rows)


def notes(shown: Sequence[Record], records: Sequence[Record]) -> str:
    """Differences between the libraries, and where and how the readings were made."""
    names = {name for record in shown for name in record["readings"]}
    used = [name for name in NAMES if name in names and name not in VARIANTS]
    lines = (
        ["## Differences between the libraries", *(f"- **{name}** {adapter(name).START}." for name in used), ""]
        if used
        else []
    )
    if names & VARIANTS.keys():
        lines.insert(
            -1,
            "- **pushforward-plain** is pushforward without its native kernels, in cases that use them; **pushforward-compiled** scores "
            "by `pf.compile_scorer(model)`; **pushforward-graph** launches each call as one CUDA graph, which needs fixed shapes and "
            "fixed memory of the inputs.",
        )
    runs = {record["id"]: record for record in records if record["part"] == "run"}
    lines += [
        "Made by `python -m benchmarks.speed`, one process for each library, interleaved; medians, and ratios within rounds:",
    ]
    for run in (runs[key] for key in dict.fromkeys(record["run"] for record in shown) if key in runs):
        versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
        lines.append(
            f"- {run['id']}: {machine_text(run)}, {run['system']}, Python {run['python']}, {versions}; {run['threads']} threads, "
            f"{run['rounds']} rounds, {run['steps']} training steps before, {timing(run)}; load {run['load']} at the start."
        )
    return "\n".join(lines)


def machine_text(run: Record) -> str:
    """The machine of a run."""
    card = "" if device_of(run) == CPU.title else f"{device_of(run)} (CUDA {run['cuda']}) beside "
    return f"{card}{run['machine']}"


def timing(run: Record) -> str:
    """The clock of a run, and on a GPU its precision of float32 products."""
    if device_of(run) == CPU.title:
        return f"{run['clock']} time"
    tf32 = ", ".join(f"{'with' if used else 'without'} TF32 in {where}" for where, used in run["tf32"].items())
    return (
        f"time between CUDA events around each call (flowjax: until its result was there); torch {tf32}, its defaults; JAX with its "
        "default, which is TF32 if the device has it"
    )


def figure(value: float | None) -> str:
    """Three significant digits, without an exponent."""
    if value is None:
        return "–"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value and math.isfinite(value) else 0
    return f"{value:,.{min(digits, 4)}f}"


def times(value: float | None) -> str:
    return "–" if value is None else f"{figure(value)}×"


def error(value: float | None) -> str:
    return "–" if value is None else f"{value:.0e}" if math.isfinite(value) else f"**{value}**"


def milliseconds(reading: Record | None) -> str:
    if not reading or not reading.get("seconds"):
        return "failed" if reading and "Error" in reading.get("note", "") else "–"
    return figure(statistics.median(reading["seconds"]) * 1e3)


def cell(reading: Record | None, key: str) -> str:
    return figure(reading.get(key)) if reading else "–"


TABLES = {
    "time": time_tables, "memory": memory_table, "accuracy": accuracy_table, "import": import_table, "growth": growth_table,
}  # fmt: skip
"""The parts of a run, and how their records are shown."""
