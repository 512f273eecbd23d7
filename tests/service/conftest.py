"""A small guard, a server as a real process, and a PostgreSQL that belongs to the tests."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from service_helpers import Server, free_port, rows_like_training

from pushforward import Guard


@pytest.fixture(scope="session")
def guard_file(tmp_path_factory) -> Path:
    """A guard of :func:`rows_like_training` with alpha 0.05."""
    path = tmp_path_factory.mktemp("guard") / "orders.safetensors"
    Guard(0.05, n_estimators=1, max_steps=40, random_state=0).fit(rows_like_training(400, seed=0)).save(path)
    return path


@pytest.fixture(scope="session")
def other_guard_file(tmp_path_factory) -> Path:
    """Another guard of the same columns."""
    path = tmp_path_factory.mktemp("guard") / "other.safetensors"
    Guard(0.1, n_estimators=1, max_steps=10, random_state=1).fit(rows_like_training(200, seed=5)).save(path)
    return path


@pytest.fixture(scope="session")
def number_guard_file(tmp_path_factory) -> Path:
    """A guard of an array of numbers."""
    path = tmp_path_factory.mktemp("guard") / "numbers.safetensors"
    x = np.random.default_rng(0).normal(size=(300, 3))
    Guard(0.05, n_estimators=1, max_steps=20, random_state=0).fit(x).save(path)
    return path


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Server]]:
    """Starts servers that are stopped at the end of the test."""
    started: list[Server] = []

    def start_one(*arguments: str, **options: Any) -> Server:
        started.append(Server(tmp_path, *map(str, arguments), **options))
        return started[-1]

    yield start_one
    for server in started:
        server.kill()


@pytest.fixture(scope="session")
def server(guard_file, number_guard_file, tmp_path_factory) -> Iterator[Server]:
    """A server that tests share which change nothing but add events."""
    options = ("--durability", "strict", "--store-inputs", "--max-body", "200000", "--max-rows", "1000")
    running = Server(tmp_path_factory.mktemp("server"), str(guard_file), str(number_guard_file), *options)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory) -> Iterator[Any]:
    """A PostgreSQL server of its own; call it for the URL of a new, empty database."""
    found = shutil.which("postgres") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/postgres")), None)
    if found is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql).")
    pytest.importorskip("psycopg", reason="psycopg is not installed (pip install 'psycopg[binary]').")
    binaries, port = Path(os.path.realpath(found)).parent, free_port()
    folder = Path("/tmp") / f"pushforward-postgres-{os.getpid()}"
    folder.mkdir(mode=0o755)
    as_user: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres.")
        os.chown(folder, user.pw_uid, user.pw_gid)
        as_user = ["runuser", "-u", "postgres", "--"]
    # Tests stop processes and not the machine. With fsync a start after a crash waits for the disk for each file of each database
    # that tests made, longer than the minute that pg_ctl waits.
    data, options = folder / "data", f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    run = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    subprocess.run([*as_user, binaries / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync"], **run)

    def control(*words: str) -> None:
        log = folder / "log"
        try:
            subprocess.run([*as_user, binaries / "pg_ctl", "-D", data, "-l", log, "-w", "-t", "300", *words], **run)
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"PostgreSQL: {words[-1]} failed: {log.read_text()[-2000:]}") from error

    control("-o", options, "start")
    names = iter(range(10**6))

    class Postgres:
        def url(self) -> str:
            import psycopg

            name = f"test{next(names)}"
            with psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres", autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name}")
            return f"postgresql://postgres@127.0.0.1:{port}/{name}"

        def stop(self) -> None:
            control("-m", "immediate", "stop")

        def start(self) -> None:
            control("-o", options, "start")

    running = Postgres()
    yield running
    with contextlib.suppress(RuntimeError):
        running.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request, tmp_path) -> str:
    """An empty store of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.sqlite'}"
    return request.getfixturevalue("postgres").url()
