"""Load on `pushforward serve` beside MLServer, which serve the same guard on the same machine in one run.

    python -m benchmarks.service.load guard.safetensors --mlserver-python VENV/bin/python --seconds 10

The guard must read rows of numbers. Each client sends one row a request by the Open Inference Protocol; `wrk` is the client.
The servers run one after the other in each round, so that other work on the machine affects them alike.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np

from pushforward import Guard

HERE = Path(__file__).parent
REPORT = """
done = function(summary, latency, requests)
  io.write(string.format("RESULT %d %d %d %d %d %d\\n", summary.requests, summary.duration, summary.errors.status +
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    latency:percentile(50), latency:percentile(95), latency:percentile(99)))
end
"""


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(command: list[str], url: str, folder: Path, environment: dict[str, str]):
    """A server as a process of its own, ready to answer; it is stopped at the end of the block."""
    log = (folder / "log").open("ab")
    process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise RuntimeError((folder / "log").read_text()[-2000:])
            with contextlib.suppress(OSError):
                if urllib.request.urlopen(url + "/v2/health/ready", timeout=5).status == 200:
                    break
            time.sleep(0.2)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        log.close()


def pushforward(guard: Path, folder: Path, port: int, durability: str) -> list[str]:
    """The command that serves a guard with pushforward."""
    return [sys.executable, "-m", "pushforward", "serve", f"guard={guard}", "--port", str(port), "--durability", durability,
            "--store", f"sqlite:///{folder}/{durability}.sqlite"]  # fmt: skip


def mlserver(guard: Path, folder: Path, port: int, python: str, workers: int) -> list[str]:
    """The command that serves a guard with MLServer; its settings are written to the folder."""
    settings = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port(), "host": "127.0.0.1",
                "parallel_workers": workers, "debug": False, "logging_settings": None, "use_structured_logging": False}  # fmt: skip
    model = {"name": "guard", "implementation": "mlserver_runtime.GuardRuntime", "parameters": {"uri": str(guard)},
             "max_batch_size": 256, "max_batch_time": 0.002}  # fmt: skip
    (folder / "settings.json").write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))
    (folder / "model-settings.json").write_text(json.dumps(model))
    return [python, "-c", "from mlserver.cli import main; main()", "start", str(folder)]


def load(url: str, script: Path, clients: int, seconds: int) -> list[float]:
    """Requests a second, errors, and the latencies at 50, 95 and 99 % in milliseconds."""
    command = ["wrk", "-t", "1", "-c", str(clients), "-d", f"{seconds}s", "--timeout", "30s", "-s", str(script), url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)", done.stdout)
    if found is None:
        raise RuntimeError(done.stdout + done.stderr)
    requests, micros, errors, *latencies = map(int, found.groups())
    return [requests / (micros / 1e6), errors, *(value / 1000 for value in latencies)]


def cpu_seconds(group: int) -> float:
    """CPU time of all processes of a group so far; unlike rows a second it does not depend on other work on the machine."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            fields = stat.read_text().rsplit(")", 1)[1].split()
            if int(fields[2]) == group:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure every server in turn, and print one line for each reading and a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("guard", type=Path)
    parser.add_argument("--mlserver-python", required=True)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    options = parser.parse_args()
    guard = options.guard.resolve()
    columns = Guard.load(guard).n_features_in_
    body = {"inputs": [{"name": "x", "shape": [1, columns], "datatype": "FP64",
                        "data": np.random.default_rng(0).normal(size=columns).round(3).tolist()}]}  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE), environment.get("PYTHONPATH", "")])
    results: dict[tuple[str, int], list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for round_number in range(options.rounds):
            for name in (
                "MLServer",
                "pushforward, none",
                "pushforward, fast",
                "pushforward, strict",
            ):
                folder = Path(temporary, f"{round_number}-{name.replace(', ', '-')}")
                folder.mkdir()
                port = free_port()
                url = f"http://127.0.0.1:{port}"
                if name.startswith("MLServer"):
                    command = mlserver(guard, folder, port, options.mlserver_python, 0)
                else:
                    command = pushforward(guard, folder, port, name.rsplit(" ", 1)[1])
                script = folder / "post.lua"
                script.write_text(
                    f"wrk.method = 'POST'\nwrk.body = [[{json.dumps(body)}]]\n"
                    f"wrk.headers['content-type'] = 'application/json'\n{REPORT}"
                )
                with running(command, url, folder, environment) as process:
                    target = url + "/v2/models/guard/infer"
                    load(target, script, 4, 2)  # warm up
                    for clients in options.clients:
                        begin = cpu_seconds(process.pid)
                        found = load(target, script, clients, options.seconds)
                        found.append(1000 * (cpu_seconds(process.pid) - begin) / max(1.0, found[0] * options.seconds))
                        results.setdefault((name, clients), []).append(found)
                        print(json.dumps({"server": name, "clients": clients, "round": round_number,
                                          "rows_per_second": round(found[0], 1), "errors": found[1],
                                          "p50_ms": found[2], "p95_ms": found[3], "p99_ms": found[4], "cpu_ms_per_row": round(found[5], 3),
                                          "load_average": round(os.getloadavg()[0], 1)}), flush=True)  # fmt: skip
    print(
        "\n| server | clients | rows/s | p50 ms | p95 ms | p99 ms | errors |\n| --- | --- | --- | --- | --- | --- | --- |"
    )
    for (name, clients), rounds in sorted(results.items(), key=lambda item: (item[0][1], item[0][0])):
        middle, errors = np.median(rounds, axis=0), sum(found[1] for found in rounds)
        spread = f"{min(f[0] for f in rounds):.0f}–{max(f[0] for f in rounds):.0f}"
        print(
            f"| {name} | {clients} | {middle[0]:.0f} ({spread}) | {middle[2]:.1f} | {middle[3]:.1f} | {middle[4]:.1f} | {errors:.0f} |"
        )


if __name__ == "__main__":
    main()
