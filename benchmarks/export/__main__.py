"""Exported guards beside the guards: equal alarms, size, and milliseconds of each runtime.

    python -m benchmarks.export run --data DIR --out export.jsonl --node NODE_MODULES
    python -m benchmarks.export table export.jsonl

DIR is the folder of the data sets. NODE_MODULES contains onnxruntime-node (``npm install --ignore-scripts onnxruntime-node``);
without it Node is left out. Each guard has one line in the file, and a guard that has one is skipped; ``--stages`` divides the work
of a guard, whose files are in ``--work``. Milliseconds are of CPU, the mean of several runs, with one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pushforward as pf
from benchmarks.common.results import Results, footer, markdown
from benchmarks.export.guards import CASES, Case
from pushforward.export import Agreement, graph_inputs

RUNNER = Path(__file__).parent / "run.mjs"
PART = 10_000


def run(data: Path, out: Path, names: list[str], rows: int, node: Path | None, work: Path, stages: int) -> None:
    """Measure the guards that the file lacks, in stages whose results are kept in a folder."""
    results = Results(out)
    for name in names:
        if results.where(guard=name):
            continue
        folder = work / name.replace(", ", "-").replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        measured = Measured(CASES[name](data, rows, folder), folder, node)
        for stage in (measured.onnx, measured.pt2, measured.guard, measured.runtime, measured.node, measured.times):
            if stages <= 0:
                return
            stages -= measured.once(stage)
        results.add({"guard": name, **measured.record})


class Measured:
    """The stages of one guard; each is done once and leaves files and a record in a folder.

    Args:
        case: the guard.
        folder: of its files.
        packages: of Node, or None.
    """

    def __init__(self, case: Case, folder: Path, packages: Path | None) -> None:
        self.case, self.folder, self.packages = case, folder, packages
        self.file = folder / "record.json"
        self.record: dict[str, Any] = json.loads(self.file.read_text()) if self.file.exists() else {}

    def once(self, stage: Callable[[], dict[str, Any]]) -> int:
        """Run a stage unless it is done; 1 if it ran."""
        done = self.record.setdefault("stages", [])
        if stage.__name__ in done:
            return 0
        self.record |= stage()
        done.append(stage.__name__)
        self.file.write_text(json.dumps(self.record))
        return 1

    def path(self, name: str) -> Path:
        return self.folder / name

    def onnx(self) -> dict[str, Any]:
        """Export."""
        start = time.process_time()
        self.case.export(self.path("guard.onnx"))
        found = {
            "inputs": self.case.what,
            "export seconds": time.process_time() - start,
            "onnx MB": megabytes(self.path("guard.onnx")),
        }
        guard = self.path("guard.safetensors")
        return found | ({"guard MB": megabytes(guard)} if guard.exists() else {})

    def pt2(self) -> dict[str, Any]:
        """Export for PyTorch."""
        self.case.export(self.path("guard.pt2"))
        return {"pt2 MB": megabytes(self.path("guard.pt2"))}

    def guard(self) -> dict[str, Any]:
        """The guard's own answers."""
        np.savez(self.path("expected.npz"), **self.case.guard.assess(self.case.rows))
        return {}

    def runtime(self) -> dict[str, Any]:
        """The answers of ONNX Runtime for Python."""
        session, feeds = self.session()
        outputs = [value.name for value in session.get_outputs()]
        expected = dict(np.load(self.path("expected.npz")))
        parts = [session.run(None, some(feeds, a, a + PART)) for a in range(0, len(expected["alarm"]), PART)]
        found = {name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(outputs)}
        agreement = Agreement.of(self.case.guard, expected, found)
        return {
            "rows": agreement.rows, "alarms": agreement.alarms, "near": agreement.near, "different": agreement.different,
            "different far": agreement.different - agreement.different_near, "score": agreement.score,
        }  # fmt: skip

    def node(self) -> dict[str, Any]:
        """The answers of ONNX Runtime for Node."""
        if self.packages is None:
            return {}
        _, feeds = self.session()
        expected = dict(np.load(self.path("expected.npz")))
        return in_node(self.case, self.path("guard.onnx"), feeds, expected, self.packages / "onnxruntime-node")

    def times(self) -> dict[str, Any]:
        """Milliseconds for 1 and for 1,000 rows."""
        record: dict[str, Any] = {}
        case, program = self.case, load_pt2(self.path("guard.pt2"))
        session, feeds = self.session()
        for count in (1, 1000):
            part, tensors, small = some(feeds, 0, count), pt2_inputs(case, feeds, count), case.rows[:count]
            record[f"guard ms {count}"] = milliseconds(lambda small=small: case.guard.assess(small))
            record[f"onnx ms {count}"] = milliseconds(lambda part=part: session.run(None, part))
            record[f"pt2 ms {count}"] = milliseconds(lambda tensors=tensors: program(*tensors))
        if isinstance(case.guard, pf.Guard) and not case.guard.reads_images:
            case.guard.compile()
            for count in (1, 1000):
                small = case.rows[:count]
                record[f"compiled ms {count}"] = milliseconds(lambda small=small: case.guard.assess(small))
        return record

    def session(self) -> tuple[Any, dict[str, np.ndarray]]:
        """ONNX Runtime with one thread, and the inputs of all rows."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(self.path("guard.onnx"), options, providers=["CPUExecutionProvider"])
        return session, inputs_of(self.case, tuple(value.name for value in session.get_inputs()))


def megabytes(path: Path) -> float:
    return path.stat().st_size / 1e6


def inputs_of(case: Case, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The inputs of the ONNX file."""
    if isinstance(case.guard, pf.Guard):
        return graph_inputs(case.guard, case.rows, names)
    return {names[0]: case.rows.numpy()}


def pt2_inputs(case: Case, feeds: dict[str, np.ndarray], count: int) -> tuple[torch.Tensor, ...]:
    """The inputs of the .pt2 file."""
    if isinstance(case.guard, pf.Guard) and not case.guard.reads_images:
        feeds = graph_inputs(case.guard, case.rows[:count], ("X",))
    return tuple(torch.from_numpy(values[:count].copy()) for values in feeds.values())


def load_pt2(path: Path) -> Callable[..., Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the inside of torch.export
        program = torch.export.load(str(path)).module()

    def call(*inputs: torch.Tensor) -> Any:
        with torch.no_grad():
            return program(*inputs)

    return call


def some(feeds: dict[str, np.ndarray], start: int, end: int) -> dict[str, np.ndarray]:
    return {name: values[start:end] for name, values in feeds.items()}


def milliseconds(call: Callable[[], Any]) -> float:
    """Mean CPU time of a call, over at least 3 calls and half a second; the clock of a process may be coarse."""
    call()
    start, count = time.process_time(), 0
    while count < 3 or time.process_time() - start < 0.5:
        call()
        count += 1
    return 1e3 * (time.process_time() - start) / count


def in_node(
    case: Case, model: Path, feeds: dict[str, np.ndarray], expected: dict[str, np.ndarray], package: Path
) -> dict[str, Any]:
    """Parity and milliseconds in Node."""
    with tempfile.TemporaryDirectory() as name:
        return _in_node(case, model, feeds, expected, package, Path(name))


def _in_node(
    case: Case, model: Path, feeds: dict[str, np.ndarray], expected: dict[str, np.ndarray], package: Path, folder: Path
) -> dict[str, Any]:
    inputs = []
    for index, (key, values) in enumerate(feeds.items()):
        about: dict[str, Any] = {"name": key, "type": str(values.dtype), "shape": list(values.shape)}
        if values.dtype == object:
            about |= {"type": "string", "text": values.tolist()}
        else:
            values.tofile(folder / f"{index}.bin")
            about["file"] = f"{index}.bin"
        inputs.append(about)
    (folder / "inputs.json").write_text(json.dumps(inputs))
    command = ["node", "--max-old-space-size=8000", str(RUNNER), str(package), str(model), str(folder), str(PART)]
    subprocess.run(command, check=True)
    kinds = {"p_value": np.float64, "alarm": np.bool_, "anomaly_score": np.float64}
    found = {key: np.fromfile(folder / f"{key}.bin", dtype=kind) for key, kind in kinds.items()}
    agreement = Agreement.of(case.guard, expected, found)
    times = json.loads((folder / "times.json").read_text())
    return {
        "node different": agreement.different, "node different far": agreement.different - agreement.different_near,
        "node ms 1": times["1"], "node ms 1000": times["1000"],
    }  # fmt: skip


def table(file: Path) -> None:
    """Print the results as Markdown."""
    records = [record for name in CASES for record in Results(file).where(guard=name)]

    def cell(record: dict[str, Any], key: str, digits: int = 1) -> str:
        return f"{record[key]:.{digits}f}" if key in record else "–"

    parity = [
        (r["guard"], r["inputs"], f"{r['rows']:,}", f"{r['alarms']:,}", f"{r['near']:,}", str(r["different"]),
         str(r["different far"]), str(r.get("node different", "–")), str(r.get("node different far", "–")), f"{r['score']:.0e}")
        for r in records
    ]  # fmt: skip
    print(markdown(("guard", "inputs", "rows", "alarms", "near the threshold", "different", "of these not near",
                    "different in Node", "of these not near", "largest difference of scores"), parity))  # fmt: skip
    print()
    runtimes = ("guard", "compiled", "onnx", "node", "pt2")
    speed = [
        (r["guard"], cell(r, "guard MB"), cell(r, "onnx MB"), cell(r, "pt2 MB"),
         *(f"{cell(r, f'{runtime} ms 1', 2)} / {cell(r, f'{runtime} ms 1000', 0)}" for runtime in runtimes))
        for r in records
    ]  # fmt: skip
    print(
        markdown(
            (
                "guard",
                "guard MB",
                "ONNX MB",
                ".pt2 MB",
                "guard ms",
                "compiled ms",
                "ONNX Runtime ms",
                "Node ms",
                ".pt2 ms",
            ),
            speed,
        )
    )
    print(footer("python -m benchmarks.export run", records))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(dest="what", required=True)
    measured = sub.add_parser("run")
    measured.add_argument("--data", type=Path, default=Path(os.environ.get("PUSHFORWARD_DATA", "data")))
    measured.add_argument("--out", type=Path, required=True)
    measured.add_argument("--guards", nargs="+", choices=CASES, default=list(CASES))
    measured.add_argument("--rows", type=int, default=100_000)
    measured.add_argument("--node", type=Path)
    measured.add_argument("--work", type=Path, default=Path("export-work"), help="folder of the files of each guard")
    measured.add_argument("--stages", type=int, default=10**6, help="stop after so many stages; the next run goes on")
    sub.add_parser("table").add_argument("file", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "table":
        table(arguments.file)
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", pf.errors.PushforwardWarning)
    run(
        arguments.data,
        arguments.out,
        arguments.guards,
        arguments.rows,
        arguments.node,
        arguments.work,
        arguments.stages,
    )


if __name__ == "__main__":
    main()
