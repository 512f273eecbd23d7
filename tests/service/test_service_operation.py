"""Operation of real servers: reload, drain, overload, access, workers, kill -9."""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import pytest
from pyarrow import csv
from service_helpers import NORMAL, STRANGE, Server, rows_like_training

from pushforward import Guard
from pushforward.cli import main
from pushforward.errors import ConfigError, StorageError
from pushforward.service import ServiceSettings
from pushforward.service.server import prepare, serve
from pushforward.service.store import Store
from pushforward.service.store.audit import verify

READ, ADMIN = "read-token-0123456789", "admin-token-0123456789"


class Load:
    """Clients that score in threads and note every answer."""

    def __init__(self, server: Server, clients: int = 4, path: str = "/score") -> None:
        self.answers: list[tuple[int, dict]] = []
        self.errors: list[str] = []
        self._server, self._path = server, path
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        with httpx.Client(base_url=self._server.url, timeout=30) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post(self._path, json={"rows": [NORMAL]})
                    self.answers.append((answer.status_code, answer.json()))
                except httpx.HTTPError as error:
                    self.errors.append(repr(error))
                    if self._stop.wait(0.05):
                        return

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    @property
    def versions(self) -> list[str]:
        return [body["model_version"] for status, body in self.answers if status == 200]


def test_reload_under_load_is_atomic_and_a_damaged_file_changes_nothing(start, guard_file, other_guard_file, tmp_path):
    file = tmp_path / "orders.safetensors"
    shutil.copy(guard_file, file)
    server = start(file, "--durability", "strict")
    load = Load(server)
    time.sleep(0.5)
    file.write_bytes(other_guard_file.read_bytes()[:-50])
    answer = server.client.post("/v2/repository/models/orders/load")
    assert answer.status_code == 409
    assert "goes on" in answer.json()["error"]
    shutil.copy(other_guard_file, file)
    answer = server.client.post("/v2/repository/models/orders/load")
    assert answer.status_code == 200, answer.text
    assert answer.json()["version"] == "2"
    assert server.client.post("/score", json=[NORMAL]).json()["model_version"] == "2"
    time.sleep(0.3)
    assert server.client.post("/v2/repository/models/orders/versions/1/activate").status_code == 200
    assert server.client.post("/score", json=[NORMAL]).json()["model_version"] == "1"
    assert server.client.post("/score", json=[NORMAL], params={"version": "2"}).json()["model_version"] == "2"
    answer = server.client.post("/v2/repository/models/orders/versions/1/unload")
    assert answer.status_code == 409
    assert "activate another one first (loaded: 2)" in answer.json()["error"]
    assert server.client.post("/v2/repository/models/orders/versions/2/unload").status_code == 200
    assert server.client.post("/score", json=[NORMAL], params={"version": "2"}).status_code == 404
    load.stop()
    assert load.errors == []
    assert {status for status, _ in load.answers} == {200}
    assert set(load.versions) == {"1", "2"}
    assert server.client.post("/v2/repository/models/absent/load").status_code == 404
    assert server.client.post("/v2/repository/models/orders/unload").status_code == 200
    assert server.client.get("/v2/health/ready").status_code == 503
    assert server.client.post("/score", json=[NORMAL]).status_code == 404
    log = server.log.read_text()
    for version in (1, 2):
        for what in ("loaded", "activated", "unloaded"):
            count = 2 if (version, what) == (1, "activated") else 1
            assert log.count(f"INFO pushforward.service model orders, version {version}: {what}") == count, log
    assert log.count("model orders: its file was refused") == 1


def test_sigterm_ends_a_service_that_reads_csv(start, guard_file):
    """pyarrow handles signals while it reads, and would take the one that is for the server."""
    server = start(guard_file, "--durability", "none")
    file = io.BytesIO()
    csv.write_csv(rows_like_training(1000), file)  # small enough to be read by the main thread
    statuses, stopped = set(), threading.Event()

    def send() -> None:
        with httpx.Client(base_url=server.url, timeout=20) as client:
            while not stopped.is_set():
                try:
                    answer = client.post("/score", content=file.getvalue(), headers={"content-type": "text/csv"})
                    statuses.add(answer.status_code)
                except httpx.HTTPError:  # the service is gone
                    return

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        server.wait_for(lambda: statuses)
        time.sleep(1)
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(20)
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    assert 200 in statuses
    assert statuses <= {200, 503}


WHILE_CSV_IS_READ = """
import asyncio, os, signal, threading, types
import pyarrow as pa
from pyarrow import csv
from pushforward.service.app import _note_signals

received = []
signal.signal(signal.SIGTERM, lambda *_: received.append(1))

async def main():
    _note_signals(types.SimpleNamespace(draining=asyncio.Event()))
    body = b"a,b\\n" + b"1.5,2.5\\n" * 2_000_000
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    for _ in range(50):
        csv.read_csv(pa.BufferReader(body), read_options=csv.ReadOptions(use_threads=False))
        if received:
            return

asyncio.run(main())
print(len(received))
"""


def test_the_server_gets_a_sigterm_that_comes_while_csv_is_read():
    found = subprocess.run([sys.executable, "-c", WHILE_CSV_IS_READ], capture_output=True, text=True, timeout=120)
    assert found.stdout == "1\n", found.stderr


def test_sigterm_answers_what_was_accepted_and_seals_the_chain(start, guard_file, tmp_path):
    server = start(guard_file, "--durability", "fast")
    bodies = [[NORMAL] * 300 for _ in range(10)]
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        tasks = [pool.submit(httpx.post, f"{server.url}/score", json=body, timeout=60) for body in bodies]
        time.sleep(0.4)
        server.process.send_signal(signal.SIGTERM)
        answers = []
        for task in tasks:
            try:
                answers.append(task.result(60))
            except httpx.HTTPError:  # a connection that came after the signal
                continue
    server.process.wait(60)
    accepted = [answer for answer in answers if answer.status_code == 200]
    assert accepted
    assert {answer.status_code for answer in answers} <= {200, 503}
    ids = {row["id"] for answer in accepted for row in answer.json()["rows"]}
    store = Store(f"sqlite:///{tmp_path / 'pushforward-events.sqlite'}")
    with store.read() as connection:
        stored = set(connection.exec_driver_sql("SELECT id FROM events").scalars())
    report = verify(store)
    store.close()
    assert ids <= stored  # "fast" loses nothing where the process ends in order
    assert report.valid
    assert report.sealed == report.entries


def test_overload_is_refused_with_a_time_and_then_it_is_normal_again(start, guard_file):
    server = start(guard_file, "--queue", "40", "--max-rows", "40", "--durability", "none")
    body = json.dumps({"rows": [NORMAL] * 20}).encode()

    def one(client: httpx.Client) -> httpx.Response:
        return client.post("/score", content=body, headers={"content-type": "application/json"})

    limits = httpx.Limits(max_connections=24)
    with (
        httpx.Client(base_url=server.url, timeout=60, limits=limits) as client,
        concurrent.futures.ThreadPoolExecutor(24) as pool,
    ):
        answers = list(pool.map(lambda _: one(client), range(300)))
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 429}
        shed = [answer for answer in answers if answer.status_code == 429]
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in shed)
        time.sleep(0.5)
        assert one(client).status_code == 200
        assert "pushforward_queue_length 0.0" in client.get("/metrics").text


def test_slow_bodies_end_with_408(start, guard_file):
    import socket

    server = start(guard_file, "--timeout", "2")
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"POST /score HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
        assert connection.recv(1000).startswith(b"HTTP/1.1 408")
    server.score(NORMAL)


ROUTES = {  # method, path: the weakest role that is let in
    ("GET", "/livez"): "nobody",
    ("GET", "/readyz"): "nobody",
    ("GET", "/ping"): "nobody",
    ("GET", "/v2/health/live"): "nobody",
    ("GET", "/v2/health/ready"): "nobody",
    ("GET", "/v2/models/{name}/ready"): "nobody",
    ("GET", "/v2/models/{name}/versions/{version}/ready"): "nobody",
    ("GET", "/login"): "nobody",
    ("POST", "/login"): "nobody",
    ("GET", "/v2/repository/index"): "read",
    ("POST", "/v2/repository/models/{name}/load"): "admin",
    ("POST", "/v2/repository/models/{name}/unload"): "admin",
    ("POST", "/v2/repository/models/{name}/versions/{version}/unload"): "admin",
    ("POST", "/v2/repository/models/{name}/versions/{version}/activate"): "admin",
    ("POST", "/api/monitor/{name}/{version}/restart"): "admin",
    ("GET", "/api/audit/verify"): "admin",
}


def test_every_route_and_role(start, guard_file, tmp_path):
    (tmp_path / "tokens").write_text(f"read:{READ}\nadmin:{ADMIN}\n")
    server = start(guard_file, "--token-file", "tokens")
    schema = httpx.get(f"{server.url}/openapi.json", headers={"authorization": f"Bearer {READ}"}).json()
    routes = {(m.upper(), p) for p, operations in schema["paths"].items() for m in operations} | set(ROUTES)
    routes |= {("GET", "/"), ("GET", "/openapi.json"), ("GET", "/api/stream"), ("GET", "/docs"), ("PUT", "/score")}
    assert len(routes) > 20
    for method, path in sorted(routes):
        url = server.url + path.format(name="absent", version="9", identifier="0" * 32)
        weakest = ROUTES.get((method, path), "read")
        for role, headers in (
            ("nobody", {}),
            ("nobody", {"authorization": "Bearer wrong-token-0123456789"}),
            ("nobody", {"authorization": f"Basic {ADMIN}"}),
            ("nobody", {"cookie": "pushforward_session=1.2.3"}),
            ("read", {"authorization": f"Bearer {READ}"}),
            ("admin", {"authorization": f"Bearer {ADMIN}"}),
        ):
            if path == "/api/stream" and role != "nobody":
                continue  # it does not end
            status = httpx.request(method, url, headers=headers, follow_redirects=False).status_code
            order = ("nobody", "read", "admin")
            if order.index(role) >= order.index(weakest):
                assert status not in (401, 403) or path == "/login", (method, path, role, status)
            else:
                want = {401, 303} if role == "nobody" else {403}  # 303: the page sends a browser to the form
                assert status in want, (method, path, role, status)
    log = server.log.read_text()
    assert READ not in log
    assert ADMIN not in log


def test_workers_share_one_truth(start, guard_file, other_guard_file, tmp_path):
    file = tmp_path / "orders.safetensors"
    shutil.copy(guard_file, file)
    server = start(file, "--workers", "2", "--durability", "strict")
    server.wait_for(lambda: httpx.get(f"{server.url}/readyz").status_code == 200)
    ids = []
    for _ in range(30):  # a new connection each time, so that both workers answer
        answer = httpx.post(f"{server.url}/score", json=[NORMAL], timeout=60)
        ids.append(answer.json()["rows"][0]["id"])
    events = server.client.get("/events", params={"limit": 100}).json()["events"]
    assert {event["id"] for event in events} == set(ids)
    shutil.copy(other_guard_file, file)
    assert server.client.post("/v2/repository/models/orders/load").json()["version"] == "2"
    versions = {httpx.post(f"{server.url}/score", json=[NORMAL]).json()["model_version"] for _ in range(20)}
    assert versions == {"2"}  # no worker answers with the old version after the answer to the reload
    text = httpx.get(f"{server.url}/metrics").text
    total = sum(
        float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("pushforward_rows_scored_total")
    )
    assert total == 50
    assert server.client.get("/api/audit/verify").json()["valid"]
    server.wait_for(lambda: sum(n for (n,) in _rows(tmp_path, "SELECT count FROM monitors")) == 50)
    children = subprocess.run(["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True).stdout.split()
    assert len(children) >= 2
    assert server.stop() == 0


def _rows(folder, query: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(folder / "pushforward-events.sqlite")) as connection:
        return connection.execute(query).fetchall()


def killed_at_random(start, guard_file, url: str, times: int) -> None:
    """`kill -9` under load, so many times; then every acknowledged event is in the store once and the chain verifies."""
    rng = random.Random(0)
    acknowledged: list[str] = []
    for _ in range(times):
        server = start(guard_file, "--durability", "strict", "--store", url)
        load = Load(server, clients=3)
        time.sleep(rng.uniform(0.1, 1.0))
        server.kill()
        load.stop()
        acknowledged += [body["rows"][0]["id"] for status, body in load.answers if status == 200]
    assert len(acknowledged) > 10 * times
    store = Store(url)
    with store.read() as connection:
        stored = list(connection.exec_driver_sql("SELECT id FROM events").scalars())
    report = verify(store)
    store.close()
    assert set(acknowledged) <= set(stored)
    assert len(set(stored)) == len(stored)
    assert report.valid, report.problems


def test_kill_9_loses_no_acknowledged_event(start, guard_file, store_url):
    killed_at_random(start, guard_file, store_url, 2)


@pytest.mark.slow
def test_kill_9_fifty_times_loses_no_acknowledged_event(start, guard_file, store_url):
    killed_at_random(start, guard_file, store_url, 50)


def test_a_database_that_goes_and_comes_back(start, guard_file, postgres):
    server = start(guard_file, "--durability", "strict", "--store", postgres.url())
    server.score(NORMAL)
    postgres.stop()
    try:
        answer = server.client.post("/score", json=[NORMAL])
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
        assert server.client.get("/livez").status_code == 200
        assert server.wait_for(lambda: server.client.get("/readyz").status_code == 503)
    finally:
        postgres.start()
    server.wait_for(lambda: server.client.post("/score", json=[NORMAL]).status_code == 200)
    server.wait_for(lambda: server.client.get("/readyz").status_code == 200)
    assert server.client.get("/api/audit/verify").json()["valid"]


def test_a_full_disk_refuses_and_then_goes_on(start, guard_file, tmp_path):
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("a small file system needs the right to mount one.")
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("this machine does not allow a mount.")
    try:
        server = start(guard_file, "--durability", "strict", "--store", f"sqlite:///{small}/s.sqlite")
        filler = small / "filler"
        descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
        with contextlib.suppress(OSError):
            while True:
                os.write(descriptor, bytes(4096))
        os.close(descriptor)
        statuses = {server.client.post("/score", json=[NORMAL] * 1000).status_code for _ in range(10)}
        assert 503 in statuses
        assert statuses <= {200, 503}
        filler.unlink()
        server.wait_for(lambda: server.client.post("/score", json=[STRANGE]).status_code == 200)
        assert server.client.get("/api/audit/verify").json()["valid"]
        server.stop()
    finally:
        subprocess.run(["umount", "-l", small], check=False)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["absent.safetensors"], "absent"),
        (["{guard}", "--host", "0.0.0.0"], "token-file"),
        (["{guard}", "--store", "mysql://x/y"], "store"),
        (["{guard}", "--store", "postgresql://u:secretword@127.0.0.1:1/x"], "store"),
        (["{guard}", "--durability", "often"], "durability"),
        (["{guard}", "--max-rows", "5000"], "max_rows (5000) must not be more than queue (4096)"),
        (["absent.safetensors", "--queue", "9"], "absent"),
        (["{guard}", "--durability", "none", "--store-inputs"], "stores no rows"),
        (["{guard}", "--token-file", "absent"], "token file"),
        (["a b={guard}"], "name of a model"),
    ],
)
def test_wrong_arguments_are_one_line(guard_file, tmp_path, monkeypatch, capsys, arguments, word):
    monkeypatch.chdir(tmp_path)
    assert main(["serve", *(text.format(guard=guard_file) for text in arguments), "--port", "0"]) == 1
    message = capsys.readouterr().err
    assert word in message
    assert "secretword" not in message
    assert message.count("\n") == 1


def test_rows_after_the_training_rows_are_counted_and_logged_once(start, tmp_path):
    """Their time does not raise the score, so nothing else says it."""
    rng = np.random.default_rng(0)
    days = np.datetime64("2026-01-01T00:00", "s") + rng.integers(0, 100, 300) * 86_400
    file = tmp_path / "days.safetensors"
    Guard(0.05, effort="fast", random_state=0).fit({"day": days, "a": rng.normal(size=300)}).save(file)
    server = start(file)
    row = {"day": "2026-02-01T00:00:00", "a": 0.1}

    def batches() -> float:
        name = "pushforward_batches_outside_training_time_total"
        lines = server.client.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{"))

    server.score(row)
    assert batches() == 0
    for _ in range(3):
        server.score({**row, "day": "2027-02-01T00:00:00"}, row)
    assert batches() == 3
    log = server.log.read_text()
    assert log.count("model days, version 1: column 'day': rows are after the normal rows that are known") == 1
    for _ in range(2):  # UTC or not changes the hour that is scored
        server.score({**row, "day": "2026-02-01T00:00:00Z"})
    assert batches() == 3
    assert server.log.read_text().count("model days, version 1: column 'day': 1 row has a time zone") == 1


def test_a_port_that_is_taken_leaves_the_store_as_it_is(guard_file, tmp_path):
    store = f"sqlite:///{tmp_path / 'store.sqlite'}"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = ServiceSettings(models=(("orders", str(guard_file)),), store=store, port=taken.getsockname()[1])
        with pytest.raises(StorageError, match=r"cannot listen on 127\.0\.0\.1:.*in use"):
            serve(settings)
    assert not (tmp_path / "store.sqlite").exists()


def test_a_second_service_does_not_take_the_store_of_the_first(start, guard_file, number_guard_file, tmp_path):
    first = start(guard_file)
    store = f"sqlite:///{tmp_path / 'pushforward-events.sqlite'}"  # the default, as of two services in one folder
    with pytest.raises(ConfigError, match="a store of its own"):
        prepare(ServiceSettings((("numbers", str(number_guard_file)),), store=store))
    answer = first.client.post("/score", json={"rows": [NORMAL]})
    assert (answer.status_code, answer.json()["model_name"]) == (200, "orders")
    first.stop()
    prepare(ServiceSettings((("numbers", str(number_guard_file)),), store=store))
