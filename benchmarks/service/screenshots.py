"""Screenshots of the service's page: empty, in an incident, with a million events; on a desktop and a phone, light and dark.

    python -m benchmarks.service.screenshots pictures --store sqlite:///store.sqlite

The store must be new. Chromium and playwright are needed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa

from benchmarks.service.load import free_port, running
from pushforward import Guard
from pushforward.service.store import Store
from pushforward.service.store.eventlog import Event, append_events, event_ids
from pushforward.service.store.modelbook import register

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


def orders(n: int, seed: int) -> pa.Table:
    """Rows of a made-up shop: amounts, weights that follow from them, and countries."""
    rng = np.random.default_rng(seed)
    amount = rng.lognormal(3, 0.6, n)
    return pa.table({
        "amount": amount.round(2), "weight_kg": (0.1 * amount * rng.lognormal(0, 0.2, n)).round(2),
        "items": rng.poisson(3, n) + 1, "country": rng.choice(["NO", "SE", "DK", "FI"], n, p=[0.4, 0.3, 0.2, 0.1]),
    })  # fmt: skip


def history(url: str, guard: Path, count: int) -> None:
    """Events of a day in the store, a part of them with the p-values of normal rows."""
    store = Store(url, durable=False)
    try:
        entry = register(store, "orders", guard)
        rng, now = np.random.default_rng(0), time.time()
        for block in range(0, count, 5000):
            p = rng.integers(1, 1002, 5000) / 1001
            append_events(store, [
                Event(i, now - 86400 * (1 - (block + k) / count), "orders", "1", entry.digest, None, 1.0 - float(np.log(p[k])),
                      float(p[k]), bool(p[k] <= 0.01), None, None)
                for k, i in enumerate(event_ids(5000))
            ])  # fmt: skip
    finally:
        store.close()


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--store", required=True)
    parser.add_argument("--events", type=int, default=1_000_000)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    folder = options.folder.resolve()
    guard = folder / "orders.safetensors"
    Guard(0.01, random_state=0).fit(orders(4000, 0)).save(guard)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        sys.executable,
        "-m",
        "pushforward",
        "serve",
        str(guard),
        "--port",
        str(port),
        "--store-inputs",
        "--store",
        options.store,
    ]
    from playwright.sync_api import sync_playwright

    with contextlib.ExitStack() as stack:
        playwright = stack.enter_context(sync_playwright())
        program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])

        def take(name: str, path: str = "/") -> None:
            for device, (width, height) in SIZES.items():
                for scheme in ("light", "dark"):
                    how: dict[str, Any] = {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
                    context = browser.new_context(**how, device_scale_factor=2 if device == "phone" else 1)
                    page = context.new_page()
                    page.goto(url + path)
                    page.wait_for_load_state("load")
                    time.sleep(3)
                    page.screenshot(path=folder / f"{name}-{device}-{scheme}.png", full_page=True)
                    context.close()

        def score(rows: pa.Table) -> list[dict[str, Any]]:
            body = {"rows": rows.to_pylist(), "reasons": True}
            return httpx.post(url + "/score", json=body, timeout=60).raise_for_status().json()["rows"]

        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with running(command, url, folder, environment):
            take("empty")
            for second in range(20):
                score(orders(30, 10 + second))
                time.sleep(0.5)
            wrong = orders(60, 99)
            wrong = wrong.set_column(
                1, "weight_kg", pa.array(np.asarray(wrong["weight_kg"]) * 1000)
            )  # grams, not kilograms
            found = [score(wrong.slice(start, 10)) for start in range(0, 60, 10)]
            time.sleep(2)
            take("incident")
            take("event", f"/event/{found[-1][0]['id']}")
        history(options.store, guard, options.events)
        with running(command, url, folder, environment):
            time.sleep(5)
            take("many")
        browser.close()


if __name__ == "__main__":
    main()
