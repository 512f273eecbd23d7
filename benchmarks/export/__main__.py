"""Exported guards beside the guards: equal alarms, size, and milliseconds of each runtime.

    python -m benchmarks.export run --data DIR --out export.jsonl --node NODE_MODULES
    python -m benchmarks.export table export.jsonl

DIR is the folder of the data sets. NODE_MODULES contains onnxruntime-node (``npm install --ignore-scripts onnxruntime-node``);
without it Node is left out. Each guard has one line in the file, and a guard that has one is skipped. Milliseconds are of CPU,
the smallest of several runs, with one thread.
"""

from __future__ import annotations

import argparse
import copy
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


def run(data: Path, out: Path, names: list[str], rows: int, node: Path | None) -> None:
    """Measure the guards that the file lacks."""
    results = Results(out)
    for name in names:
        if results.where(guard=name):
            continue
        case = CASES[name](data, rows)
        results.add({"guard": name, **measure(case, node)})


def measure(case: Case, node: Path | None) -> dict[str, Any]:
    """Parity on all rows, sizes, and milliseconds for 1 and for 1,000 rows."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        onnx, pt2 = Path(folder, "guard.onnx"), Path(folder, "guard.pt2")
        start = time.process_time()
        case.export(onnx)
        record: dict[str, Any] = {"inputs": case.what, "export seconds": time.process_time() - start}
        case.export(pt2)
        record |= {"onnx MB": onnx.stat().st_size / 1e6, "pt2 MB": pt2.stat().st_size / 1e6}
        if isinstance(case.guard, pf.Guard):
            case.guard.save(Path(folder, "guard.safetensors"))
            record["guard MB"] = Path(folder, "guard.safetensors").stat().st_size / 1e6
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        feeds = inputs_of(case, tuple(value.name for value in session.get_inputs()))
        outputs = [value.name for value in session.get_outputs()]
        expected = case.guard.assess(case.rows)
        parts = [session.run(None, some(feeds, a, a + PART)) for a in range(0, len(expected["alarm"]), PART)]
        found = {name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(outputs)}
        agreement = Agreement.of(case.guard, expected, found)
        record |= {
            "rows": agreement.rows, "alarms": agreement.alarms, "near": agreement.near, "different": agreement.different,
            "different far": agreement.different - agreement.different_near, "score": agreement.score,
        }  # fmt: skip
        program = load_pt2(pt2)
        for count in (1, 1000):
            part, tensors = some(feeds, 0, count), pt2_inputs(case, feeds, count)
            small = case.rows[:count]
            record[f"guard ms {count}"] = milliseconds(lambda small=small: case.guard.assess(small))
            record[f"onnx ms {count}"] = milliseconds(lambda part=part: session.run(None, part))
            record[f"pt2 ms {count}"] = milliseconds(lambda tensors=tensors: program(*tensors))
        if isinstance(case.guard, pf.Guard) and not case.guard.reads_images:
            compiled = copy.deepcopy(case.guard).compile()
            for count in (1, 1000):
                small = case.rows[:count]
                record[f"compiled ms {count}"] = milliseconds(lambda small=small: compiled.assess(small))
        if node is not None:
            record |= in_node(case, onnx, feeds, expected, node / "onnxruntime-node", Path(folder))
    return record


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
    """The smallest CPU time of at most 20 runs and about two seconds."""
    call()
    spent: list[float] = []
    while len(spent) < 3 or (sum(spent) < 2000 and len(spent) < 20):
        start = time.process_time_ns()
        call()
        spent.append((time.process_time_ns() - start) / 1e6)
    return min(spent)


def in_node(
    case: Case, model: Path, feeds: dict[str, np.ndarray], expected: dict[str, np.ndarray], package: Path, folder: Path
) -> dict[str, Any]:
    """Parity and milliseconds in Node."""
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
    command = ["node", "--max-old-space-size=8000", str(RUNNER), str(package), str(model), str(folder), str(PART), "10"]
    subprocess.run(command, check=True)
    kinds = {"p_value": np.float64, "alarm": np.bool_, "anomaly_score": np.float64}
    found = {key: np.fromfile(folder / f"{key}.bin", dtype=kind) for key, kind in kinds.items()}
    agreement = Agreement.of(case.guard, expected, found)
    times = json.loads((folder / "times.json").read_text())
    return {
        "node different": agreement.different, "node different far": agreement.different - agreement.different_near,
        "node ms 1": min(times["1"]), "node ms 1000": min(times["1000"]),
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
    sub.add_parser("table").add_argument("file", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "table":
        table(arguments.file)
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", pf.errors.PushforwardWarning)
    run(arguments.data, arguments.out, arguments.guards, arguments.rows, arguments.node)


if __name__ == "__main__":
    main()
