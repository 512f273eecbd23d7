"""A guard with too few calibration rows for its rate raises no alarm, and stops nothing of the service."""

from __future__ import annotations

import logging
import threading
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from service_helpers import STRANGE
from sqlalchemy import delete, select

import pushforward as pf
from pushforward.errors import StorageError
from pushforward.service import ServiceSettings
from pushforward.service.alert_rules import Rule
from pushforward.service.keeper import Keeper
from pushforward.service.overview import _p_values, overview
from pushforward.service.served import ServedModel
from pushforward.service.store import Store, eventlog, tables
from pushforward.service.store.audit import verify
from pushforward.service.store.eventlog import Event, append_events, delete_old, event_ids
from pushforward.service.store.modelbook import Entry, register

RULES = """
[[receiver]]
name = "ops"
url = "http://127.0.0.1:9/"

[[rule]]
name = "many"
kind = "rate"

[[rule]]
name = "none"
kind = "silent"
minutes = 0.0001
"""


@pytest.fixture(scope="module")
def quiet_file(tmp_path_factory) -> str:
    rows = np.random.default_rng(0).normal(size=(80, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        guard = pf.Guard(0.01, n_estimators=1, max_steps=20, random_state=0).fit(rows)
    assert guard.level_ == 0
    path = tmp_path_factory.mktemp("quiet") / "m.safetensors"
    guard.save(path)
    return str(path)


@pytest.fixture
def store(tmp_path):
    found = Store(f"sqlite:///{tmp_path / 's.sqlite'}")
    found.migrate()
    yield found
    found.close()


def some_events(count: int, when: float) -> list[Event]:
    return [Event(i, when, "m", "1", "d", None, 1.3, 0.5, False, None, None) for i in event_ids(count)]


def served(path: str) -> ServedModel:
    return ServedModel(Entry("m", "1", "d", True, True, time.time()), pf.Guard.load(path), 500)


def keeper_of(store: Store, path: str, tmp_path, **options) -> Keeper:
    (tmp_path / "alerts.toml").write_text(RULES)
    settings = ServiceSettings(
        (("m", path),), store=store.url.render_as_string(), alert_file=str(tmp_path / "alerts.toml"), **options
    )
    return Keeper(settings, store, "a", SimpleNamespace(active=lambda: [served(path)]))  # pyright: ignore


def test_rules_retention_and_seals_go_on(store, quiet_file, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(eventlog, "BLOCK", 16)
    register(store, "m", quiet_file)
    append_events(store, some_events(30, time.time()))
    keeper = keeper_of(store, quiet_file, tmp_path, retention_days=1)
    keeper._sealed -= 7200
    with caplog.at_level(logging.ERROR):
        keeper._work()
    assert not caplog.records
    with store.read() as connection:
        assert connection.execute(select(tables.alerts.c.rule)).scalars().all() == ["none"]
        assert "seal" in connection.execute(select(tables.audit.c.kind)).scalars().all()
        assert connection.execute(select(tables.blocks.c.start)).scalars().all() == [0]


@pytest.mark.parametrize(
    ("days", "window", "kept"), [(None, 10, [0, 20]), (5, 10, [0]), (40, 10, [0, 20, 35]), (5, 30 * 1440, [0, 20])]
)
def test_old_counts_go_with_the_events_or_after_a_month(store, quiet_file, tmp_path, days, window, kept):
    register(store, "m", quiet_file)
    now = time.time()
    for age in (0, 20, 35, 50):
        append_events(store, some_events(1, now - 86400 * age))
    keeper = keeper_of(store, quiet_file, tmp_path, retention_days=days)
    keeper.alerting.rules = [Rule("many", "rate", minutes=window)]
    keeper._work()
    with store.read() as connection:
        minutes = connection.execute(select(tables.minutes.c.minute)).scalars().all()
    assert sorted(round(now / 86400 - minute / 1440) for minute in minutes) == kept


def test_scores_and_reasons_change_no_filter_of_warnings(guard_file, monkeypatch):
    def enter(*_):
        raise AssertionError("the filters are of all threads")

    model = served(str(guard_file))
    rows = model.reader.records([STRANGE, {**STRANGE, "age": None, "amount": None}])
    monkeypatch.setattr(warnings.catch_warnings, "__enter__", enter)
    assert model.score(rows).alarm.all()  # a cell of `amount` that is missing is a warning elsewhere
    assert model.reasons(rows, [0, 1])
    served(str(guard_file))


def test_a_part_that_fails_stops_no_other_unless_the_store_is_gone(store, quiet_file, tmp_path, caplog, monkeypatch):
    register(store, "m", quiet_file)
    keeper = keeper_of(store, quiet_file, tmp_path)
    keeper._sealed -= 7200

    def fail(*_):
        raise ValueError("a defect")

    monkeypatch.setattr(keeper.alerting, "check", fail)
    with caplog.at_level(logging.ERROR):
        keeper._work()
        keeper._work()
    assert [record.getMessage() for record in caplog.records] == ["alerts fail at present: a defect"]  # said once
    with store.read() as connection:
        assert "seal" in connection.execute(select(tables.audit.c.kind)).scalars().all()

    def gone(*_):
        raise StorageError("the store cannot be used")

    monkeypatch.setattr(keeper.drift, "update", gone)
    with pytest.raises(StorageError, match="cannot be used"):
        keeper._work()


def test_the_end_waits_for_a_round_that_goes_on(store, quiet_file, tmp_path, monkeypatch):
    register(store, "m", quiet_file)
    keeper = keeper_of(store, quiet_file, tmp_path)
    keeper.leads = True
    running: list[int] = []

    def update():
        running.append(1)
        assert len(running) == 1
        time.sleep(0.3)
        running.pop()

    monkeypatch.setattr(keeper.drift, "update", update)
    errors: list[str] = []
    monkeypatch.setattr("pushforward.service.keeper._log.error", lambda *text: errors.append(str(text)))
    round_ = threading.Thread(target=keeper._work)
    round_.start()
    time.sleep(0.1)
    keeper.close()
    round_.join()
    assert not errors


def test_the_page_has_no_band(store, quiet_file):
    append_events(store, some_events(30, time.time()))
    service = SimpleNamespace(
        store=store, store_problem=None, settings=SimpleNamespace(durability="strict"), batcher=SimpleNamespace(rows=0),
        models=SimpleNamespace(is_active=lambda model: True, all=list),
    )  # fmt: skip
    found = overview(service, served(quiet_file), 24)  # pyright: ignore[reportArgumentType]
    assert (found["rows"], found["alarm_count"], found["band"]) == (30, 0, [0.0, 0.0])
    assert {(bar["low"], bar["high"]) for bar in found["bars"]} == {(0.0, 0.0)}


@pytest.mark.parametrize("rows", [0, 40, 4000])
def test_counts_of_p_values_of_normal_rows_are_in_their_band(store, rows):
    calibration, model = 99, SimpleNamespace(name="m", version="1")
    model.guard = SimpleNamespace(calibrator_=SimpleNamespace(scores=np.zeros(calibration)))
    counts: list[int] = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        known, new = np.sort(rng.random(calibration)), rng.random(rows)
        p = (1 + calibration - np.searchsorted(known, new)) / (calibration + 1)
        append_events(store, [e._replace(p_value=float(v)) for e, v in zip(some_events(rows, 1.0), p, strict=True)])
        with store.write() as connection:
            found = _p_values(connection, model)  # pyright: ignore[reportArgumentType]
            connection.execute(delete(tables.events))
        assert found["rows"] == rows == sum(found["counts"])
        counts += found["counts"]
    outside = sum(not found["low"] <= count <= found["high"] for count in counts)
    assert outside <= 0.03 * len(counts)  # 1% is expected at most
    assert found["high"] < 0.2 * rows + 10


def test_many_old_events_go_in_steps_of_whole_batches(store_url, quiet_file, request):
    store = Store(store_url)
    store.migrate()
    request.addfinalizer(store.close)
    register(store, "m", quiet_file)
    now = time.time()
    for size in (4, 4, 25, 4, 3):
        append_events(store, some_events(size, now))
    steps = []
    while gone := delete_old(store, time.time() + 1, most=10):
        steps.append(gone)
    assert steps == [8, 25, 7]
    report = verify(store)
    assert (report.valid, report.events, report.deleted) == (True, 0, 5)


def test_the_keeper_deletes_some_events_in_each_round(store, quiet_file, tmp_path, monkeypatch):
    from pushforward.service import keeper as module

    monkeypatch.setattr(module, "_ROWS", 10)
    register(store, "m", quiet_file)
    for _ in range(3):
        append_events(store, some_events(9, time.time()))
    keeper = keeper_of(store, quiet_file, tmp_path, retention_days=1e-9)
    left = []
    for _ in range(5):
        keeper._work()
        with store.read() as connection:
            left.append(len(connection.execute(select(tables.events.c.id)).all()))
    assert left == [18, 9, 0, 0, 0]
    assert keeper._cleaned > 0
