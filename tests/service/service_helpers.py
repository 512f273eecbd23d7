"""What the tests of the service share: rows, and a server as a real process."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
from sqlalchemy import event

from programs import Program
from pushforward.service.store import Store


def rows_like_training(n: int, seed: int = 1) -> pa.Table:
    """Three numbers, two of them dependent, and a category; one cell in twenty is missing."""
    rng = np.random.default_rng(seed)
    amount = rng.normal(size=n)
    missing = rng.random(n) < 0.05
    return pa.table(
        {
            "amount": amount,
            "age": pa.array(rng.integers(18, 80, n).astype(float), mask=missing),
            "ratio": 0.5 * amount + 0.3 * rng.normal(size=n),
            "country": rng.choice(["NO", "SE", "DK"], n),
        }
    )


NORMAL = {"amount": 0.1, "age": 40, "ratio": 0.05, "country": "NO"}
STRANGE = {"amount": 0.1, "age": 40, "ratio": -30.0, "country": "NO"}


class Server:
    """`pushforward serve` as a process of its own."""

    def __init__(
        self, folder: Path, *arguments: str, scheme: str = "http", environment: dict[str, str] | None = None
    ) -> None:
        self.log = folder / "server.log"
        self._log = self.log.open("ab")
        self.process = Program(
            ["serve", *arguments, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            quiet=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        assert "serves" in line, f"the server did not start: {line}{self.log.read_text()}"
        self.url = line.split(" at ")[1].strip().rstrip("/")
        self.port = int(self.url.rsplit(":", 1)[1])
        self.client = httpx.Client(base_url=self.url, timeout=60, verify=False)
        self.wait_until_ready()

    def wait_until_ready(self, seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(httpx.HTTPError):
                if self.client.get("/livez", timeout=5).status_code == 200:
                    return
            time.sleep(0.1)
        raise AssertionError(f"the server was not ready in time: {self.log.read_text()}")

    def score(self, *rows: Any, **options: Any) -> list[dict[str, Any]]:
        answer = self.client.post("/score", json={"rows": list(rows), **options})
        assert answer.status_code == 200, answer.text
        return answer.json()["rows"]

    def wait_for(self, condition: Callable[[], Any], seconds: float = 30) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := condition():
                return found
            time.sleep(0.1)
        raise AssertionError("the condition did not become true in time")

    def kill(self) -> None:
        """As `kill -9` of the process and its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)
        self._close()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(60)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self._close()

    def _close(self) -> None:
        self.client.close()
        self._log.close()
        if self.process.stdout is not None:
            self.process.stdout.close()


def free_port() -> int:
    """A port that no system gives to connections, so that it stays free while a server is down."""
    for port in random.SystemRandom().sample(range(20_000, 30_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("none of 100 ports is free.")


def limit_pages(store: Store, pages: int | None) -> None:
    """Let the store be full after so many further pages; None for no limit."""
    with store.read() as connection:
        most = 2**30 if pages is None else connection.exec_driver_sql("PRAGMA page_count").scalar_one() + pages

    def set_limit(connection, record, proxy):
        connection.execute(f"PRAGMA max_page_count={most}")  # it belongs to a connection, of which a pool has several

    event.listen(store.engine, "checkout", set_limit)
