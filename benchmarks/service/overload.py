"""Minutes of load at more than twice what `pushforward serve` can score: memory, status codes, and the time after it.

    python -m benchmarks.service.overload guard.safetensors --minutes 10

The guard must read rows of numbers. First the capacity is measured with 64 clients that wait for their answers. Then 400 clients
pause between requests so long that they offer twice as much, with a short queue; for a minute they do not pause at all; and at
last one client sends one row at a time again. `wrk` is the client.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.service.load import free_port, running
from pushforward import Guard

COUNTS = """
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init(args) ok = 0; shed = 0; other = 0; told = 0 end
function response(status, headers, body)
  if status == 200 then ok = ok + 1
  elseif status == 429 then
    shed = shed + 1
    if headers['retry-after'] or headers['Retry-After'] then told = told + 1 end
  else other = other + 1 end
end
done = function(summary, latency, requests)
  local a, b, c, d = 0, 0, 0, 0
  for _, thread in ipairs(threads) do
    a, b, c, d = a + thread:get('ok'), b + thread:get('shed'), c + thread:get('other'), d + thread:get('told')
  end
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d %d %d\\n", a, b, c, d, e.connect + e.read + e.write + e.timeout, summary.duration,
    latency:percentile(50), latency:percentile(99)))
end
"""


def send(url: str, script: Path, clients: int, seconds: float) -> dict[str, float]:
    """Load for so many seconds; counts of answers, and latencies of all of them in milliseconds."""
    command = [
        "wrk",
        "-t",
        "1",
        "-c",
        str(clients),
        "-d",
        f"{seconds:.0f}s",
        "--timeout",
        "30s",
        "-s",
        str(script),
        url,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search("RESULT " + r"(\d+) " * 7 + r"(\d+)", done.stdout)
    if found is None:
        raise RuntimeError(done.stdout + done.stderr)
    ok, shed, other, told, errors, micros, p50, p99 = map(int, found.groups())
    return {"ok": ok, "shed": shed, "with_retry_after": told, "other": other, "errors": errors, "seconds": micros / 1e6,
            "p50_ms": p50 / 1000, "p99_ms": p99 / 1000}  # fmt: skip


def resident(pid: int) -> float:
    """Memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # pyright: ignore[reportOptionalSubscript]


def main() -> None:
    """Run the phases and print one JSON line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("guard", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=400)
    parser.add_argument("--rows", type=int, default=20, help="rows of a request under overload")
    parser.add_argument("--queue", type=int, default=2000, help="rows that may wait")
    parser.add_argument("--durability", default="fast")
    options = parser.parse_args()
    guard = options.guard.resolve()
    columns = Guard.load(guard).n_features_in_
    values = np.random.default_rng(0).normal(size=(options.rows, columns)).round(3)
    with tempfile.TemporaryDirectory() as temporary:
        folder, port = Path(temporary), free_port()
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "pushforward", "serve", f"guard={guard}", "--port", str(port), "--durability",
                   options.durability, "--queue", str(options.queue), "--store", f"sqlite:///{folder}/s.sqlite"]  # fmt: skip
        scripts = {}
        for rows in {1, options.rows}:
            body = {
                "inputs": [
                    {"name": "x", "shape": [rows, columns], "datatype": "FP64", "data": values[:rows].ravel().tolist()}
                ]
            }
            scripts[rows] = folder / f"{rows}.lua"
            scripts[rows].write_text(
                f"wrk.method = 'POST'\nwrk.body = [[{json.dumps(body)}]]\nwrk.headers['content-type'] = 'application/json'\n{COUNTS}"
            )
        paced = folder / "paced.lua"
        with running(command, url, folder, {**os.environ, "OMP_NUM_THREADS": "1"}) as process:
            target = url + "/v2/models/guard/infer"

            def phase(name: str, clients: int, rows: int, seconds: float, script: Path | None = None) -> float:
                """Send, print, and return the answered requests a second."""
                memory: list[float] = []
                ended = threading.Event()

                def watch() -> None:
                    while not ended.wait(1):
                        memory.append(resident(process.pid))

                watcher = threading.Thread(target=watch)
                watcher.start()
                try:
                    found = send(target, script or scripts[rows], clients, seconds)
                finally:
                    ended.set()
                    watcher.join()
                third = max(1, len(memory) // 3)
                rate = {
                    "rows_per_second": round(rows * found["ok"] / found["seconds"]),
                    "offered_rows_per_second": round(rows * (found["ok"] + found["shed"]) / found["seconds"]),
                    "mib_first_third": round(max(memory[:third], default=0)),
                    "mib_last_third": round(max(memory[-third:], default=0)),
                    "load_average": round(os.getloadavg()[0], 1),
                }
                print(json.dumps({"phase": name, "clients": clients, "rows": rows, **found, **rate}), flush=True)
                return found["ok"] / found["seconds"]

            phase("before", 1, 1, 10)
            capacity = phase("capacity", 64, options.rows, 30)
            pause = 1000 * options.clients / (2 * capacity)
            paced.write_text(
                scripts[options.rows].read_text() + f"function delay() return {2 * pause:.0f} * math.random() end\n"
            )
            phase("twice the capacity", options.clients, options.rows, 60 * options.minutes, paced)
            phase("without a pause", options.clients, options.rows, min(60, 60 * options.minutes))
            time.sleep(2)
            phase("after", 1, 1, 10)


if __name__ == "__main__":
    main()
