"""The store on SQLite and on PostgreSQL: migrations, events, the audit chain, models, retention."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import threading
import time
from contextlib import closing
from importlib.resources import files
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from alembic.script import ScriptDirectory
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import delete, func, select, text, update

from pushforward.errors import ConfigError, StorageError
from pushforward.io import read, write
from pushforward.service import overview
from pushforward.service.drift import Drift
from pushforward.service.refusal import Refusal
from pushforward.service.routes_admin import _find
from pushforward.service.served import Models
from pushforward.service.server import prepare
from pushforward.service.settings import ServiceSettings
from pushforward.service.store import Store, eventlog, modelbook, tables
from pushforward.service.store.audit import SigningKey, append, seal, verify
from pushforward.service.store.eventlog import (
    Event,
    add_feedback,
    append_events,
    delete_old,
    delete_old_counts,
    event_ids,
    find_event,
    find_events,
    note_times,
    per_bucket,
)
from pushforward.service.store.modelbook import (
    activate,
    check_others,
    entries,
    forget_worker,
    generation,
    read_content,
    register,
    report_worker,
    slowest_worker,
    unload,
)

MIGRATIONS = ScriptDirectory(str(files("pushforward.service") / "migrations"))


@pytest.fixture
def store(store_url):
    found = Store(store_url)
    found.migrate()
    yield found
    found.close()


def some_events(n: int, *, model: str = "m", when: float | None = None, alarm: bool = False) -> list[Event]:
    now = time.time() if when is None else when
    return [
        Event(i, now, model, "1", "d" * 64, "req", 1.0 + k / 3, 0.1, alarm, json.dumps([["a", 0.1]]), None)
        for k, i in enumerate(event_ids(n))
    ]


def test_migrations_make_the_tables_of_the_code_and_can_be_repeated(store):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    store.migrate()
    with store.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []


@pytest.mark.parametrize("steps", [["0001_first"], ["0001_first", "0002_event_numbers"]])
def test_a_store_of_an_earlier_version_keeps_its_events_and_numbers_go_on(store_url, steps):
    import importlib

    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    store = Store(store_url)
    with store.write() as connection:
        context = MigrationContext.configure(connection)
        with Operations.context(context):
            for step in steps:
                importlib.import_module(f"pushforward.service.migrations.versions.{step}").upgrade()
        context.stamp(MIGRATIONS, steps[-1][:4])
    batch = some_events(3)
    append_events(store, batch)
    store.migrate()
    with store.write() as connection:
        assert [event["id"] for event in find_events(connection)] == [event.id for event in reversed(batch)]
        connection.execute(delete(tables.events))
    append_events(store, some_events(1))
    with store.read() as connection:
        assert [event["seq"] for event in find_events(connection)] == [4]
    store.close()


def test_a_store_of_a_newer_version_is_refused(store):
    with store.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StorageError, match="newer pushforward"):
        store.migrate()


@pytest.mark.parametrize(
    "url", ["mysql://h/d", "sqlite://", "sqlite:///:memory:", "nonsense", "postgresql+psycopg2broken://h/d"]
)
def test_other_stores_are_refused(url):
    with pytest.raises(ConfigError, match="store"):
        Store(url)


def test_no_error_and_no_repr_shows_the_password():
    store = Store("postgresql://user:secretword@127.0.0.1:1/none")
    assert "secretword" not in repr(store)
    with pytest.raises(StorageError) as error, store.read():
        pass
    assert "secretword" not in str(error.value)
    assert "secretword" not in repr(Store("postgresql://user@127.0.0.1:1/none?password=secretword&sslmode=require"))


def test_a_store_in_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"absent/s\.sqlite cannot be made: its folder does not exist"):
        Store(f"sqlite:///{tmp_path / 'absent' / 's.sqlite'}").migrate()


def test_a_store_that_cannot_be_opened_is_named(tmp_path):
    store = Store(f"sqlite:///{tmp_path}")
    with pytest.raises(
        StorageError, match=rf"unable to open database file {tmp_path}: SQLite must be able to write it"
    ):
        store.migrate()
    store.close()


def test_an_audit_key_that_cannot_be_used_is_named_before_the_start(guard_file, tmp_path, capsys, monkeypatch):
    from pushforward.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.sqlite.key").write_text("no key")
    monkeypatch.setattr("uvicorn.supervisors.Multiprocess.run", lambda *_: pytest.fail("it was started"))
    command = ["serve", str(guard_file), "--port", "0", "--store", "sqlite:///s.sqlite", "--workers", "2"]
    assert main(command) == 1
    printed = capsys.readouterr()
    assert "cannot use the audit key s.sqlite.key" in printed.err
    assert "serves" not in printed.out
    with closing(sqlite3.connect("s.sqlite")) as connection:
        assert connection.execute("SELECT COUNT(*) FROM models").fetchone() == (0,)


def test_events_come_back_as_they_went_in(store):
    batch = some_events(3)
    append_events(store, batch)
    append_events(store, some_events(2, alarm=True))
    with store.read() as connection:
        found = find_events(connection, alarm=False)
        assert [event["id"] for event in found] == [event.id for event in reversed(batch)]
        assert found[0]["score"] == batch[-1].score
        assert found[0]["reasons"] == [["a", 0.1]]
        assert len(find_events(connection, alarm=True)) == 2
        assert len(find_events(connection, text=batch[0].id)) == 1
        assert len(find_events(connection, text="%")) == 0  # a pattern is a text here
        assert [e["seq"] for e in find_events(connection, after=1, limit=2)] == [2, 3]
        assert per_bucket(connection, "m", None, 0, time.time() + 60, 60)[0][1:] == (5, 2)


def test_a_batch_that_is_written_twice_is_there_once(store):
    batch = some_events(4)
    append_events(store, batch)
    append_events(store, batch)
    with store.read() as connection:
        assert connection.execute(select(func.count()).select_from(tables.events)).scalar() == 4
    assert verify(store).valid


def test_feedback(store):
    batch = some_events(1)
    append_events(store, batch)
    assert add_feedback(store, batch[0].id, "normal", "checked")
    assert add_feedback(store, batch[0].id, "anomaly", None)
    assert not add_feedback(store, "0" * 32, "normal", None)
    with store.read() as connection:
        found = find_event(connection, batch[0].id)
        assert [item["label"] for item in found["feedback"]] == ["normal", "anomaly"]
        assert found["label"] == "anomaly"  # the last word
        assert find_event(connection, "0" * 32) is None


def test_the_chain_of_an_honest_store_verifies(store, tmp_path):
    key = SigningKey(tmp_path / "key.pem")
    for _ in range(3):
        append_events(store, some_events(5))
    assert seal(store, key) == 4
    assert seal(store, key) is None  # nothing new
    report = verify(store, key.public)
    assert (report.valid, report.entries, report.events, report.sealed) == (True, 4, 15, 4)
    assert (tmp_path / "key.pem").stat().st_mode & 0o077 == 0
    assert SigningKey(tmp_path / "key.pem").public == key.public


@pytest.mark.parametrize("links", [True, False])
def test_processes_that_start_together_have_one_audit_key(tmp_path, monkeypatch, links):
    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    generate, others = Ed25519PrivateKey.generate, []

    def generate_later():
        if not others and links:  # another worker makes the key at the same time
            others.append(None)
            others[0] = SigningKey(tmp_path / "key.pem")
        return generate()

    monkeypatch.setattr(Ed25519PrivateKey, "generate", generate_later)
    key = SigningKey(tmp_path / "key.pem")
    assert [other.public for other in others] == [key.public] * links
    assert SigningKey(tmp_path / "key.pem").public == key.public
    assert [file.name for file in tmp_path.iterdir()] == ["key.pem"]
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600


def test_a_disk_that_is_full_leaves_no_half_of_an_audit_key(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="No space left"):
            SigningKey(tmp_path / "key.pem")
    assert list(tmp_path.iterdir()) == []
    SigningKey(tmp_path / "key.pem")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (update(tables.events).where(tables.events.c.seq == 2).values(alarm=True), "events of entry 1"),
        (update(tables.events).where(tables.events.c.seq == 2).values(score=0.0), "events of entry 1"),
        (delete(tables.events).where(tables.events.c.seq == 2), "events of entry 1"),
        (text("update events set request = x'00ff' where seq = 2"), "events of entry 1"),
        (delete(tables.audit).where(tables.audit.c.seq == 2), "does not follow"),
        (delete(tables.audit).where(tables.audit.c.seq == 3), "last entries are missing"),
        (update(tables.audit).where(tables.audit.c.seq == 1).values(time=1.0), "hash of entry 1"),
        (update(tables.audit).where(tables.audit.c.seq == 3).values(signature="00" * 64), "signature of entry 3"),
    ],
)
def test_every_change_of_the_past_is_found(tmp_path, change, problem):
    store = Store(f"sqlite:///{tmp_path / 's.sqlite'}")
    store.migrate()
    append_events(store, some_events(3))
    append_events(store, some_events(3))
    seal(store, SigningKey(tmp_path / "k.pem"))
    assert verify(store).valid
    with store.write() as connection:
        connection.execute(change)
    assert any(problem in found for found in verify(store).problems)
    store.close()


def test_a_store_that_was_emptied_is_found(store):
    assert verify(store).problems == ()
    append_events(store, some_events(3))
    with store.write() as connection:
        connection.execute(delete(tables.events))
        connection.execute(delete(tables.audit))
    assert verify(store).problems == ("the last entries are missing.",)


def test_a_forged_chain_with_another_key_is_found(tmp_path):
    store = Store(f"sqlite:///{tmp_path / 's.sqlite'}")
    store.migrate()
    append_events(store, some_events(3))
    seal(store, SigningKey(tmp_path / "forger.pem"))
    assert verify(store).valid
    real = SigningKey(tmp_path / "real.pem").public
    assert not verify(store, real).valid
    with store.write() as connection:  # a chain that was written anew without a signature
        connection.execute(delete(tables.audit).where(tables.audit.c.kind == "seal"))
        last = connection.execute(select(tables.audit.c.hash)).scalar_one()
        store.put(connection, "chain", {"seq": 1, "hash": last})
    assert verify(store).valid
    assert [found[:18] for found in verify(store, real).problems] == ["no entry is signed"]
    store.close()


def test_retention_deletes_payloads_and_the_chain_still_verifies(store):
    append_events(store, some_events(4))
    add_feedback(store, some_events(1)[0].id, "normal", None)
    time.sleep(0.05)
    middle = time.time()
    append_events(store, some_events(3))
    assert delete_old(store, middle) == 4
    report = verify(store)
    assert (report.valid, report.events, report.deleted) == (True, 3, 1)
    with store.write() as connection:  # deletion without the entry that says so is found
        connection.execute(delete(tables.events))
    assert not verify(store).valid


def test_writers_of_two_connections_make_one_chain(store, store_url):
    other = Store(store_url)
    failures = []

    def write(which: Store) -> None:
        try:
            for _ in range(20):
                append_events(which, some_events(2))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(s,)) for s in (store, other, store)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert failures == []
    report = verify(store)
    assert (report.valid, report.entries, report.events) == (True, 60, 120)


def test_models_get_versions_and_one_is_active(store, guard_file, other_guard_file):
    first = register(store, "orders", guard_file)
    assert (first.version, first.active) == ("1", True)
    assert register(store, "orders", guard_file).version == "1"  # the same file changes nothing
    second = register(store, "orders", other_guard_file)
    assert (second.version, second.active) == ("2", True)
    assert activate(store, "orders", "1")
    with store.read() as connection:
        assert [(e.version, e.active) for e in entries(connection)] == [("1", True), ("2", False)]
        before = generation(store, connection)
        assert read_content(connection, first.digest) == guard_file.read_bytes()
    assert not activate(store, "orders", "7")
    assert register(store, "orders", other_guard_file).active is False  # an operator's choice survives a restart
    with pytest.raises(ConfigError, match=r"activate another one first .loaded: 2."):
        unload(store, "orders", "1")  # nobody said that version 2 should answer
    assert activate(store, "orders", "2")
    assert unload(store, "orders", "1")
    assert not unload(store, "orders", "1")
    with store.read() as connection:
        assert [(e.version, e.loaded, e.active) for e in entries(connection)] == [
            ("1", False, False),
            ("2", True, True),
        ]
        assert generation(store, connection) > before
    assert verify(store).valid


def test_a_file_that_was_put_back_before_a_restart_is_served_again(store, guard_file, other_guard_file):
    register(store, "orders", guard_file)
    register(store, "orders", other_guard_file)
    back = register(store, "orders", guard_file)
    assert (back.version, back.active) == ("1", True)
    assert activate(store, "orders", "2")
    assert not register(store, "orders", guard_file).active  # the file did not change, so the choice stays


def test_the_first_model_stays_the_first_when_it_is_loaded_again(store, guard_file, other_guard_file):
    register(store, "a", guard_file)
    register(store, "b", guard_file)
    models = Models(store, ["a", "b"], 100)
    models.refresh()
    register(store, "a", other_guard_file)
    models.refresh()
    assert models.find().key == ("a", "2")
    with pytest.raises(Refusal, match=r"the model 'a' has no version '9' that is loaded; loaded: .*2"):
        models.find("a", "9")
    with pytest.raises(Refusal, match="no model 'c'; the models are: a, b"):
        models.find("c")
    swapped = Models(store, ["b", "a"], 100)
    swapped.refresh()
    assert swapped.find().name == "b"


def test_a_damaged_guard_file_does_not_enter_the_store(store, guard_file, tmp_path):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(guard_file.read_bytes()[:-100])
    with pytest.raises(StorageError):
        register(store, "orders", damaged)
    with store.read() as connection:
        assert entries(connection) == []


def test_a_guard_file_that_is_replaced_while_it_is_read_does_not_enter_the_store(
    store, guard_file, tmp_path, monkeypatch
):
    path = tmp_path / "orders.safetensors"
    path.write_bytes(guard_file.read_bytes())

    def read_first(name, **options):
        read(name, **options)
        path.write_bytes(guard_file.read_bytes()[:-100])

    monkeypatch.setattr(modelbook, "read_file", read_first)
    with pytest.raises(StorageError, match="changed while it was read"):
        register(store, "orders", path)
    with store.read() as connection:
        assert entries(connection) == []


def test_sqlite_runs_with_a_write_ahead_log(tmp_path):
    store = Store(f"sqlite:///{tmp_path / 's.sqlite'}")
    store.migrate()
    with store.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
    store.close()
    with closing(sqlite3.connect(tmp_path / "s.sqlite")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_events_are_exported_to_parquet(store, tmp_path):
    from pyarrow import parquet

    from pushforward.service.store.export import export_events

    batch = some_events(5)
    append_events(store, batch)
    add_feedback(store, batch[2].id, "normal", None)
    assert export_events(store, tmp_path / "events.parquet") == 5
    table = parquet.read_table(tmp_path / "events.parquet")
    assert table["id"].to_pylist() == [event.id for event in batch]
    assert table["label"].to_pylist() == [None, None, "normal", None, None]
    assert table["score"].to_pylist() == [event.score for event in batch]


FORGERIES = {
    "an event in an entry of another kind": "insert into events(id,time,model,version,digest,score,p_value,alarm,batch) "
    "select 'f' || substr(id, 2), time, model, version, digest, score, 0.5, false, (select max(seq) from audit where kind = 'load') "
    "from events where seq = 1",
    "an event of an entry that does not exist": "insert into events(id,time,model,version,digest,score,p_value,alarm,batch) "
    "select 'f' || substr(id, 2), time, model, version, digest, score, 0.5, false, 1000000000 from events where seq = 1",
    "a label": "update feedback set label = 'anomaly' where seq = 1",
    "the time of a label": "update feedback set time = time + 1 where seq = 1",
    "a note": "update feedback set note = 'another' where seq = 2",
    "labels deleted": "delete from feedback",
    "a label added": "insert into feedback(event, time, label) select id, time, 'normal' from events where seq = 4",
    "a second label added": "insert into feedback(event, time, label) select event, time, 'normal' from feedback where seq = 1",
    "a label of no event": "insert into feedback(event, time, label) values ('00000000000000000000000000000000', 1.0, 'normal')",
    "a model": "update models set digest = '00' where version = '1'",
    "the file of a model": "update files set content = substr(content, 2)",
    "no file of a model": "delete from files",
    "the entry of a label": "update audit set detail = 'x' where kind = 'feedback'",
    "the entry of a model": "update audit set detail = null where kind = 'load'",
    "the position": "update state set value = 'x' where key = 'chain'",
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_the_audit_finds_forged_events_labels_and_models(store, guard_file, forgery):
    register(store, "orders", guard_file)
    batch = some_events(5)
    append_events(store, batch)
    add_feedback(store, batch[2].id, "normal", None)
    add_feedback(store, batch[3].id, "unclear", "a note")
    add_feedback(store, batch[2].id, "anomaly", None)
    assert verify(store).problems == ()
    with store.write() as connection:
        connection.execute(text(FORGERIES[forgery]))
    assert not verify(store).valid


def test_labels_go_with_their_events(store):
    batch = some_events(5)
    append_events(store, batch)
    add_feedback(store, batch[2].id, "normal", None)
    assert delete_old(store, time.time() + 1) == 5
    assert verify(store).valid


def test_labels_of_earlier_versions_are_compared_by_what_their_entries_have(store):
    batch = some_events(5)
    append_events(store, batch)
    with store.write() as connection:
        row = {"event": batch[0].id, "time": 1.0, "label": "normal", "note": "anything"}
        connection.execute(tables.feedback.insert().values(**row))
        append(store, connection, "feedback", detail={"event": batch[0].id, "label": "normal"})
    assert verify(store).valid
    with store.write() as connection:
        connection.execute(update(tables.feedback).values(label="anomaly"))
    assert not verify(store).valid


def test_events_are_found_by_their_last_label(store):
    batch = some_events(5)
    append_events(store, batch)
    add_feedback(store, batch[2].id, "anomaly", None)
    add_feedback(store, batch[3].id, "anomaly", None)
    add_feedback(store, batch[2].id, "normal", None)
    with store.read() as connection:
        for label, expected in (("anomaly", [batch[3].id]), ("normal", [batch[2].id]), ("unclear", [])):
            assert [event["id"] for event in find_events(connection, label=label)] == expected


def test_the_audit_command(tmp_path, capsys, monkeypatch):
    from pushforward.cli import main

    url = f"sqlite:///{tmp_path / 's.sqlite'}"
    store = Store(url)
    store.migrate()
    append_events(store, some_events(5))
    key = SigningKey(tmp_path / "key.pem")
    seal(store, key)
    assert main(["audit", url, "--export", str(tmp_path / "e.parquet")]) == 0
    shown = capsys.readouterr().out
    assert "valid" in shown
    assert key.public in shown
    assert main(["audit", url, "--public-key", key.public.upper()]) == 0
    assert main(["audit", url, "--public-key", "0" * 64]) == 1
    assert "NOT VALID" in capsys.readouterr().out
    for wrong in ("zz", "key.pem", key.public + "00"):
        assert main(["audit", url, "--public-key", wrong]) == 1
        shown = capsys.readouterr()
        assert "NOT VALID" not in shown.out
        assert "64 hexadecimal digits" in shown.err
    with store.write() as connection:
        connection.execute(update(tables.events).where(tables.events.c.seq == 2).values(p_value=0.9))
    store.close()
    assert main(["audit", url]) == 1
    assert "NOT VALID" in capsys.readouterr().out
    monkeypatch.setenv("PUSHFORWARD_STORE", url)  # as serve reads it, so that no password is among the arguments
    assert main(["audit"]) == 1
    assert "NOT VALID" in capsys.readouterr().out
    assert main(["audit", f"sqlite:///{tmp_path / 'absent.sqlite'}"]) == 1
    other = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE accounts (id INTEGER)")
    capsys.readouterr()
    assert main(["audit", f"sqlite:///{other}"]) == 1
    assert "other.sqlite is not a store of this version of pushforward" in capsys.readouterr().err


def test_processes_of_a_clock_that_was_set_back_are_not_waited_for(store):
    with store.write() as connection:
        row = {"id": "gone", "seen": time.time() + 3600, "generation": 0}
        connection.execute(tables.workers.insert().values(row))
    report_worker(store, "here", 3)
    with store.read() as connection:
        assert slowest_worker(connection) == 3
        assert connection.execute(select(tables.workers.c.id)).scalars().all() == ["here"]
    forget_worker(store, "here")
    with store.read() as connection:
        assert slowest_worker(connection) is None


def test_a_version_that_cannot_be_loaded_is_left_out_unless_it_is_active(store, guard_file, tmp_path, caplog):
    header, tensors = read(guard_file, kind="guard")
    del tensors["calibration"]
    broken = tmp_path / "broken.safetensors"
    write(broken, header, tensors)
    register(store, "orders", broken)
    with pytest.raises(StorageError, match="calibration"):
        Models(store, ["orders"], 100).refresh()
    register(store, "orders", guard_file)
    models = Models(store, ["orders"], 100)
    assert models.refresh()
    assert [model.version for model in models.all()] == ["2"]
    assert "version 1, is left out" in caplog.text


def test_a_version_with_a_damaged_file_stops_neither_the_others_nor_drift_nor_retention(
    store, guard_file, other_guard_file, caplog
):
    register(store, "orders", other_guard_file)
    append_events(store, some_events(4, model="orders"))
    Drift(store).update()
    register(store, "orders", guard_file)
    append_events(store, [event._replace(version="2") for event in some_events(3, model="orders")])
    with store.write() as connection:
        damaged = tables.files.c.digest == entries(connection)[0].digest
        connection.execute(update(tables.files).where(damaged).values(content=b"x"))
    models, drift = Models(store, ["orders"], 100), Drift(store)
    assert models.refresh()
    assert [model.version for model in models.all()] == ["2"]
    drift.update()
    drift.update()
    with store.read() as connection:
        column = tables.monitors.c
        found = dict(connection.execute(select(column.version, column.count)).all())
    assert found == {"1": 4, "2": 3}
    assert caplog.text.count("version 1: its drift is not followed: the store has no intact guard file") == 1
    drift.save_before(time.time())
    assert delete_old(store, time.time()) == 7


def test_a_guard_that_cannot_be_loaded_does_not_enter_the_store(guard_file, tmp_path):
    header, tensors = read(guard_file, kind="guard")
    del tensors["calibration"]
    write(tmp_path / "orders.safetensors", header, tensors)
    url = f"sqlite:///{tmp_path / 's.sqlite'}"
    settings = ServiceSettings(models=(("orders", str(tmp_path / "orders.safetensors")),), store=url)
    with pytest.raises(StorageError, match="calibration"):
        prepare(settings)
    (tmp_path / "orders.safetensors").write_bytes(guard_file.read_bytes())
    prepare(settings)
    store = Store(url)
    assert Models(store, ["orders"], 100).refresh()
    store.close()


def test_the_export_does_not_replace_the_store(tmp_path, capsys):
    from pushforward.cli import main

    path = tmp_path / "s.sqlite"
    store = Store(f"sqlite:///{path}")
    store.migrate()
    append_events(store, some_events(5))
    seal(store, SigningKey(f"{path}.key"))
    store.close()
    before = path.read_bytes()
    for name in ("s.sqlite", "s.sqlite.key"):
        assert main(["audit", f"sqlite:///{path}", "--export", str(tmp_path / name)]) == 1
        assert "--force" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_wrong_clock_does_not_make_young_events_old(store):
    batches = [some_events(1) for _ in range(4)]
    for batch in batches:
        append_events(store, batch)
    now, column = time.time(), tables.audit.c
    with store.write() as connection:  # old, young, at a start before the clock was set, and while it was a year ahead
        for seq, when in ((1, now - 9000), (2, now - 60), (3, 10.0), (4, now + 3e7)):
            connection.execute(update(tables.audit).where(column.seq == seq).values(time=when))
    assert delete_old(store, now - 3600) == 1
    with store.read() as connection:
        assert {event["id"] for event in find_events(connection)} == {batch[0].id for batch in batches[1:]}
    with store.write() as connection:
        connection.execute(update(tables.audit).where(column.seq == 2).values(time=now - 8000))
    assert delete_old(store, now - 3600) == 2
    with store.read() as connection:
        assert [event["id"] for event in find_events(connection)] == [batches[3][0].id]


@pytest.mark.parametrize("most", [1, 100])
def test_old_counts_of_minutes_and_points_of_drift_are_deleted(store, guard_file, most):
    register(store, "m", guard_file)
    now = 60.0 * int(time.time() // 60)
    with store.write() as connection:
        for k, when in enumerate((now - 9000, now - 8000, now - 60, now)):
            key = {"model": "m", "version": "1"}
            connection.execute(tables.minutes.insert().values(**key, minute=int(when // 60), rows=5, alarms=1))
            connection.execute(tables.drift.insert().values(**key, seq=k, time=when, log_evidence=0.0, bound=5.0))
    counts = []
    while not counts or counts[-1]:
        counts.append(delete_old_counts(store, now - 60, most))
    assert counts == ([2, 2, 0] if most == 1 else [4, 0])
    with store.read() as connection:
        minutes = connection.execute(select(tables.minutes.c.minute).order_by(tables.minutes.c.minute)).scalars().all()
        assert minutes == [int(now // 60) - 1, int(now // 60)]
        assert connection.execute(select(tables.drift.c.seq).order_by(tables.drift.c.seq)).scalars().all() == [2, 3]


def test_the_page_shows_the_highest_points_of_drift_and_the_last(store, monkeypatch):
    monkeypatch.setattr(overview, "_POINTS", 4)
    now = time.time()
    heights = [0.0, 3.0, 1.0, 2.0, -1.0, 0.5, 4.5, 1.5]
    key = {"model": "m", "version": "1"}
    with store.write() as connection:
        other = {"cursor": 8, "segment": 1, "count": 8, "log_evidence": 1.5, "bound": 5.0, "snapshot_cursor": 0}
        connection.execute(tables.monitors.insert().values(**key, **other))
        for k, height in enumerate(heights):  # two points in each fourth, where databases agree on the parts
            when = now - 4000 + 1000 * (k // 2) + 100 + 200 * (k % 2)
            row = {"seq": k, "time": when, "log_evidence": height, "bound": 5.0}
            connection.execute(tables.drift.insert().values(**key, **row))
        connection.execute(
            tables.drift.insert().values(**key | row | {"seq": 9, "time": now - 5000, "log_evidence": 9.0})
        )
    model = SimpleNamespace(name="m", version="1")
    with store.read() as connection:
        found = overview._drift(connection, model, now - 4000, now)  # pyright: ignore
        empty = overview._drift(connection, model, now + 1, now + 2)  # pyright: ignore
    assert found is not None
    assert [point[1] for point in found["points"]] == [3.0, 2.0, 0.5, 4.5, 1.5]
    assert empty is not None
    assert empty["points"] == []


@pytest.mark.parametrize("model", [None, "m"])
def test_a_search_for_a_text_reads_some_events_at_a_time_and_finds_all(store, monkeypatch, model):
    monkeypatch.setattr(eventlog, "SEARCHED", 3)
    batch = [event._replace(request="wanted" if k in (0, 1, 7) else "r") for k, event in enumerate(some_events(9))]
    append_events(store, batch)
    append_events(store, some_events(4, model="other"))
    options = {"model": model, "text": "wanted", "limit": 2}
    found, end = _find(SimpleNamespace(store=store), before=None, **options)  # pyright: ignore
    assert [event["seq"] for event in found] == ([] if model is None else [8])
    pages = 0
    while end is not None:
        more, end = _find(SimpleNamespace(store=store), before=end, **options)  # pyright: ignore
        found, pages = found + more, pages + 1
    assert [event["id"] for event in found] == [batch[k].id for k in (7, 1, 0)]
    assert pages == (3 if model else 4)


def test_a_search_by_time_finds_all_whatever_the_order_of_times(store, monkeypatch):
    monkeypatch.setattr(eventlog, "BLOCK", 4)
    rng = np.random.default_rng(0)
    times = np.concatenate([np.arange(40.0), np.arange(10.0), rng.uniform(0, 60, 30), 50 + np.arange(21.0)])  # clocks

    def compare():
        with store.read() as connection:
            everything = find_events(connection, limit=200)
            assert everything
            for _ in range(40):
                since, until = sorted(rng.choice([*times, *rng.uniform(-5, 75, 20)], 2))
                searches: list[dict[str, Any]] = [
                    {"since": since},
                    {"until": until},
                    {"since": since, "until": until, "model": "m"},
                ]
                for options in searches:
                    limit, before = int(rng.integers(1, 12)), int(rng.integers(1, 120))
                    want = [e for e in everything if options.get("since", -9) <= e["time"] <= options.get("until", 99)]
                    want = [e for e in want if options.get("model") in (None, e["model"])]
                    assert find_events(connection, **options, limit=200) == want
                    assert find_events(connection, **options, limit=limit) == want[:limit]
                    page = [e for e in want if e["seq"] < before][:limit]
                    assert find_events(connection, **options, limit=limit, before=before) == page
                    forward = [e for e in reversed(want) if e["seq"] > before][:limit]
                    assert find_events(connection, **options, limit=limit, after=before) == forward

    def noted():
        with store.read() as connection:
            return connection.execute(select(tables.blocks).order_by(tables.blocks.c.start)).all()

    for begin in range(0, len(times), 3):
        for k, when in enumerate(times[begin : begin + 3]):
            append_events(store, some_events(1, model="m" if k else "other", when=when))
        if begin % 5 == 0:
            note_times(store, most=2)
    compare()
    while (before := noted()) or True:
        note_times(store, most=2)
        if noted() == before:
            break
    numbers = [row.start for row in noted()]
    assert numbers == list(range(0, 100, 4))
    assert tuple(noted()[1]) == (4, 3.0, 6.0)  # numbers begin at 1
    compare()
    with store.write() as connection:
        connection.execute(delete(tables.events).where(tables.events.c.seq.between(20, 41)))
    compare()
    with store.write() as connection:
        connection.execute(update(tables.audit).where(tables.audit.c.seq <= 60).values(time=1.0))
    delete_old(store, 100.0)
    assert [row.start for row in noted()] == list(range(60, 100, 4))  # event 61 is the oldest
    compare()
    delete_old(store, time.time() + 30)
    assert noted() == []
    with store.read() as connection:
        assert find_events(connection, since=0.0) == []
    times = np.arange(30.0)
    append_events(store, [e for when in times for e in some_events(1, model="m", when=when)])
    note_times(store)
    assert [row.start for row in noted()] == list(range(100, 128, 4))  # the emptied blocks before are left out
    compare()


def test_a_search_by_time_reads_no_events_of_other_times(tmp_path, monkeypatch):
    monkeypatch.setattr(eventlog, "BLOCK", 64)
    store = Store(f"sqlite:///{tmp_path / 's.sqlite'}")
    store.migrate()
    for minute in range(20):
        append_events(store, some_events(500, when=60.0 * minute))
    note_times(store, most=1000)
    steps = 0

    def step():
        nonlocal steps
        steps += 1

    with store.read() as connection:
        raw = connection.connection.dbapi_connection
        assert raw is not None
        searches: list[dict[str, Any]] = [
            {"until": 60.0},
            {"since": 2000.0},
            {"since": 60.0, "until": 60.0},
            {"until": 60.0, "model": "m"},
        ]
        for options in searches:
            steps = 0
            raw.set_progress_handler(step, 100)
            find_events(connection, **options, limit=10)
            raw.set_progress_handler(None, 0)
            assert steps < 150, options  # with all events it is more than 500
    store.close()


def test_connections_of_a_postgresql_that_stands_still_are_ended():
    pytest.importorskip("psycopg", reason="psycopg is not installed (pip install 'psycopg[binary]').")

    class Waiting:
        def __init__(self, own: socket.socket) -> None:
            self.pgconn = SimpleNamespace(socket=own.fileno())

    own, other = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as silent, own, other:  # it takes connections and says nothing
        store = Store(f"postgresql://user@127.0.0.1:{silent.getsockname()[1]}/none?sslmode=disable")
        waiting = Waiting(own)
        store._connections.add(waiting)
        assert store.end_if_frozen()
        assert own.recv(1) == b""  # a thread that waits goes on
        silent.close()
        assert not store.end_if_frozen()  # refused: the connections have ended by themselves
    store.close()


def test_events_are_found_by_any_letters_of_their_reasons(store):
    [event] = some_events(1)
    append_events(store, [event._replace(reasons=json.dumps([["Größe", 1.5], ['a "b"', 0.5], ["国", 0.2]]))])
    with store.read() as connection:
        for text_, count in (("Größe", 1), ("röß", 1), ("国", 1), ('"b"', 1), ("Große", 0)):
            assert len(find_events(connection, text=text_)) == count, text_


def test_a_running_service_keeps_its_models(store, guard_file, other_guard_file):
    register(store, "orders", guard_file)
    check_others(store, ["other"])
    report_worker(store, "here", 1)
    check_others(store, ["orders", "other"])  # nothing would end
    with pytest.raises(ConfigError, match=r"running service with the model 'orders'.*--store"):
        check_others(store, ["other"], wait=0.3)
    forget_worker(store, "here")
    check_others(store, ["other"], wait=0.3)
    register(store, "other", other_guard_file)
    models = Models(store, ["other"], 100)  # a process answers by no model that it was not given
    models.refresh()
    assert [model.name for model in models.all()] == ["other"]
    unload(store, "other")
    models.refresh()
    with pytest.raises(Refusal, match="there is no model"):
        models.find()
