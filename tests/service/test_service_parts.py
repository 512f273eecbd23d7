"""Settings, access, the queue, the recorder and drift, without a server."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import threading
import time
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from service_helpers import limit_pages
from sqlalchemy import event, select
from starlette.responses import Response

from pushforward.detection import Monitor
from pushforward.errors import ConfigError, InputError, StorageError
from pushforward.estimators import Guard
from pushforward.io import read, write
from pushforward.service import ServiceSettings, model_files, routes_page
from pushforward.service.access import Access, host_name, is_foreign
from pushforward.service.batching import Batcher
from pushforward.service.drift import ALPHA, Drift, bound
from pushforward.service.gate import Gate
from pushforward.service.inputs import Inputs
from pushforward.service.keeper import Keeper
from pushforward.service.metrics import Metrics
from pushforward.service.recorder import Recorder
from pushforward.service.refusal import Refusal
from pushforward.service.served import LARGEST
from pushforward.service.store import Store, tables
from pushforward.service.store.eventlog import Event, append_events, delete_old, event_ids
from pushforward.service.store.modelbook import register, unload

MODELS = (("m", "m.safetensors"),)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"models": ()}, "at least one"),
        ({"models": (("../x", "f"),)}, "name of a model"),
        ({"models": (("a\r\nb", "f"),)}, "name of a model"),
        ({"host": "0.0.0.0"}, "token"),
        ({"host": "192.168.1.5"}, "token"),
        ({"host": "example.com"}, "token"),
        ({"durability": "maybe"}, "durability"),
        ({"port": 70000}, "port"),
        ({"workers": 0}, "workers"),
        ({"max_rows": 10_000}, "queue"),
        ({"timeout": 0}, "timeout"),
        ({"tls_cert": "c.pem"}, "key"),
    ],
)
def test_impossible_or_open_settings_are_refused(options, word):
    with pytest.raises(ConfigError, match=word):
        ServiceSettings(**({"models": MODELS} | options))


def test_two_files_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="same name"):
        model_files(["a/x.safetensors", "b/x.safetensors"])


# -- access ------------------------------------------------------------------------------------------------------------

READ, ADMIN = "r" * 20, "a" * 20


@pytest.fixture
def tokens(tmp_path):
    file = tmp_path / "tokens"
    file.write_text(f"# comment\nread:{READ}\nadmin:{ADMIN}\n")
    return file


def test_roles_of_tokens(tokens):
    access = Access(str(tokens), b"secret")
    assert access.role(f"Bearer {READ}", None) == "read"
    assert access.role(f"bearer {ADMIN}", None) == "admin"
    for wrong in (
        "",
        "Bearer",
        "Bearer ",
        f"Basic {ADMIN}",
        f"Bearer {ADMIN}x",
        f"Bearer {ADMIN[:-1]}",
        "Bearer \udcff",
    ):
        assert access.role(wrong, None) is None
    assert access.role(None, None) is None
    assert Access(None, b"").role(None, None) == "admin"


def test_rotation_without_a_restart(tokens):
    access = Access(str(tokens), b"secret")
    session = access.new_session(READ)
    assert access.role(None, session) == "read"
    import hashlib

    tokens.write_text(f"read:sha256:{hashlib.sha256(b'n' * 20).hexdigest()}\n")
    access._checked = -10.0  # as if a second had passed
    assert access.role(f"Bearer {'n' * 20}", None) == "read"
    assert access.role(f"Bearer {READ}", None) is None
    assert access.role(None, session) is None  # the session ends with its token
    for damaged in (b"nonsense", b"admin:\xff\xfe" + b"a" * 20):
        tokens.write_bytes(damaged)
        access._checked = -10.0
        assert access.role(f"Bearer {'n' * 20}", None) == "read"  # a damaged file changes nothing
        with pytest.raises(ConfigError):
            Access(str(tokens), b"")


def test_sessions_cannot_be_forged(tokens):
    access = Access(str(tokens), b"secret")
    session = access.new_session(ADMIN)
    assert session is not None
    assert access.role(None, session) == "admin"
    ends, digest, signature = session.split(".")
    forged = [f"{int(ends) + 1}.{digest}.{signature}", f"{ends}.{digest}.{'0' * 64}", "", "..", "a.b.c", session[:-1]]
    assert [access.role(None, cookie) for cookie in forged] == [None] * len(forged)
    assert Access(str(tokens), b"other").role(None, session) is None
    assert access.new_session("x" * 20) is None


@pytest.mark.parametrize("text", ["", "root:aaaaaaaaaaaaaaaaaaaaaa", "admin:short", "admin:sha256:zz", "just a line"])
def test_token_files_that_are_refused(tmp_path, text):
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        Access(str(file), b"")
    assert "aaaa" not in str(error.value)  # no secret in an error
    with pytest.raises(StorageError):
        Access(str(tmp_path / "absent"), b"")


def test_other_sites_are_recognized():
    assert host_name("LocalHost:80") == "localhost"
    assert not is_foreign(None, None, "localhost:8000")
    assert not is_foreign("http://localhost:8000", "same-origin", "localhost:8000")
    for origin, site in (("http://evil.example", None), ("null", None), (None, "cross-site"), (None, "same-site"),
                         ("http://localhost:9000", None), ("http://[", None)):  # fmt: skip
        assert is_foreign(origin, site, "localhost:8000")


@pytest.mark.parametrize(
    ("allowed", "header"),
    [("Box:8000", "box:8000"), ("box", "box:8000"), ("box:8000", "box"), ("fd00::1", "[fd00::1]:8000"), ("[fd00::1]", "[fd00::1]")],
)  # fmt: skip
def test_an_allowed_host_may_be_given_as_its_header(allowed, header):
    settings = ServiceSettings(MODELS, allowed_hosts=(allowed,))
    gate = Gate(None, settings, Access(None, b""), SimpleNamespace())
    scope = {"path": "/livez", "method": "GET", "query_string": b"", "headers": [(b"host", header.encode())]}
    gate._check(scope)
    with pytest.raises(Refusal, match="--allowed-host"):
        gate._check(scope | {"headers": [(b"host", b"other:8000")]})


# -- the queue -----------------------------------------------------------------------------------------------------------


class Doubler:
    """Counts batches and doubles rows."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.batches: list[int] = []
        self.seconds = seconds
        self.gate = threading.Event()
        self.gate.set()

    def score(self, model, parts):
        self.gate.wait(10)
        time.sleep(self.seconds)
        self.batches.append(sum(len(part.inputs) for part in parts))
        if any((part.inputs.data < 0).any() for part in parts):
            raise InputError("negative")
        return [part.inputs.data * 2 for part in parts]

    async def finish(self, results):
        return None


def rows(*values: float) -> Inputs:
    return Inputs("matrix", np.array(values, float)[:, None])


def run_queue(body, worker: Doubler, **options):
    async def main():
        settings = {"max_batch": 8, "max_wait": 0.0, "capacity": 20} | options
        batcher = Batcher(worker.score, worker.finish, **settings)
        batcher.start()
        try:
            return await body(batcher)
        finally:
            worker.gate.set()
            await batcher.stop()
            assert batcher.rows == 0

    return asyncio.run(main())


MODEL, OTHER = (SimpleNamespace(in_use=0, name=n) for n in "ab")


def test_requests_that_wait_are_scored_together_and_answered_apart():
    worker = Doubler()

    async def body(batcher):
        worker.gate.clear()
        first = asyncio.create_task(batcher.submit(MODEL, rows(1)))
        await asyncio.sleep(0.05)
        others = [asyncio.create_task(batcher.submit(MODEL, rows(k, k))) for k in range(2, 6)]
        await asyncio.sleep(0.05)
        worker.gate.set()
        return [np.concatenate(await task).ravel().tolist() for task in (first, *others)]

    assert run_queue(body, worker) == [[2], [4, 4], [6, 6], [8, 8], [10, 10]]
    assert worker.batches == [1, 8]
    assert MODEL.in_use == 0


def test_a_queue_that_stops_answers_what_is_being_scored():
    worker = Doubler(0.2)

    async def body(batcher):
        task = asyncio.create_task(batcher.submit(MODEL, rows(1)))
        await asyncio.sleep(0.05)
        await batcher.stop()
        return task.done()

    assert run_queue(body, worker)


def test_a_batch_is_finished_in_the_thread_of_its_scores_where_nobody_waits():
    worker, now, later = Doubler(), [], []

    def finish_now(results):
        now.append(len(results))
        if len(now) == 2:
            raise Refusal(503, "the disk is full")
        return True

    async def finish(results):
        later.append(len(results))

    async def main():
        batcher = Batcher(worker.score, finish, max_batch=8, max_wait=0.0, capacity=100, finish_now=finish_now)
        batcher.start()
        assert np.concatenate(await batcher.submit(MODEL, rows(1))).ravel().tolist() == [2]
        with pytest.raises(Refusal, match="disk is full"):
            await batcher.submit(MODEL, rows(1))
        worker.gate.clear()
        first = asyncio.create_task(batcher.submit(MODEL, rows(1)))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(batcher.submit(MODEL, rows(1)))
        await asyncio.sleep(0.05)
        worker.gate.set()
        await asyncio.gather(first, second)
        await batcher.stop()

    asyncio.run(main())
    assert now == [1, 1, 1]
    assert later == [1]  # of the batch during which another request waited


def test_a_full_queue_refuses_with_a_time_to_come_back():
    worker = Doubler()

    async def body(batcher):
        worker.gate.clear()
        tasks = [asyncio.create_task(batcher.submit(MODEL, rows(*range(5)))) for _ in range(4)]
        await asyncio.sleep(0.05)
        with pytest.raises(Refusal) as error:
            await batcher.submit(MODEL, rows(1))
        worker.gate.set()
        await asyncio.gather(*tasks)
        await asyncio.sleep(0.05)
        await batcher.submit(MODEL, rows(1))  # and then it is normal again
        return error.value

    refusal = run_queue(body, worker)
    assert refusal.status == 429
    assert refusal.retry_after >= 1


def test_a_bad_request_does_not_spoil_those_beside_it():
    worker = Doubler()

    async def body(batcher):
        worker.gate.clear()
        tasks = [asyncio.create_task(batcher.submit(MODEL, rows(v))) for v in (1, -1, 3)]
        await asyncio.sleep(0.05)
        worker.gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    good, bad, also_good = run_queue(body, worker)
    assert isinstance(bad, InputError)
    assert (good[0].item(), also_good[0].item()) == (2, 6)


def test_long_requests_are_scored_in_parts_and_let_others_pass():
    worker = Doubler(seconds=0.02)
    done = []

    async def body(batcher):
        async def one(name, inputs):
            found = np.concatenate(await batcher.submit(MODEL, inputs)).ravel()
            np.testing.assert_array_equal(found, 2 * inputs.data.ravel())
            done.append(name)

        long = asyncio.create_task(one("long", rows(*range(40))))
        await asyncio.sleep(0.01)
        await asyncio.gather(long, one("short", rows(7)))

    run_queue(body, worker, capacity=100)
    assert done == ["short", "long"]
    assert max(worker.batches) <= 8


def test_models_are_not_mixed_and_clients_that_left_are_not_scored():
    worker = Doubler()

    async def body(batcher):
        worker.gate.clear()
        first = asyncio.create_task(batcher.submit(MODEL, rows(1)))
        await asyncio.sleep(0.05)
        tasks = [asyncio.create_task(batcher.submit(m, rows(2))) for m in (MODEL, OTHER, MODEL)]
        gone = asyncio.create_task(batcher.submit(MODEL, rows(3, 3)))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.sleep(0)
        worker.gate.set()
        await asyncio.gather(first, *tasks)

    run_queue(body, worker)
    assert sorted(worker.batches) == [1, 1, 2]


def test_a_batch_waits_only_for_requests_that_are_on_the_way():
    worker = Doubler()

    async def alone(batcher):
        start = time.monotonic()
        await batcher.submit(MODEL, rows(1))
        return time.monotonic() - start

    assert run_queue(alone, worker, max_wait=2.0, others=lambda: 1) < 1.0
    worker.batches.clear()

    async def two(batcher):
        first = asyncio.create_task(batcher.submit(MODEL, rows(1)))
        await asyncio.sleep(0.1)
        await asyncio.gather(first, batcher.submit(MODEL, rows(2)))

    run_queue(two, worker, max_wait=2.0, others=lambda: 2)
    assert worker.batches == [2]


# -- the recorder ----------------------------------------------------------------------------------------------------


def some_events(n: int, score: float = 1.0) -> list[Event]:
    return [Event(i, time.time(), "m", "1", "d", None, score, 0.5, False, None, None) for i in event_ids(n)]


def count(store: Store) -> int:
    with store.read() as connection:
        return len(connection.execute(select(tables.events.c.id)).all())


@pytest.fixture
def store(tmp_path):
    found = Store(f"sqlite:///{tmp_path / 's.sqlite'}")
    found.migrate()
    yield found
    found.close()


def test_strict_events_are_there_when_the_call_returns(store):
    recorder = Recorder(store, "strict")

    async def body():
        await asyncio.gather(*(recorder.add(some_events(3)) for _ in range(10)))
        return count(store)

    assert asyncio.run(body()) == 30
    recorder.stop()


def test_events_are_recorded_in_the_calling_thread_only_where_they_must_be_on_disk(store):
    strict, fast = Recorder(store, "strict"), Recorder(store, "fast")
    assert strict.add_now(some_events(3))
    assert count(store) == 3
    assert not strict.add_now([])
    assert not fast.add_now(some_events(2))
    assert count(store) == 3
    strict.stop()
    fast.stop()


def test_fast_events_are_there_within_half_a_second_and_at_the_end(store):
    recorder = Recorder(store, "fast")
    start = time.monotonic()
    asyncio.run(recorder.add(some_events(3)))
    assert time.monotonic() - start < 0.2
    time.sleep(1.0)
    assert count(store) == 3
    asyncio.run(recorder.add(some_events(2)))
    recorder.stop()
    assert count(store) == 5


def test_a_store_that_fails_refuses_strict_and_keeps_fast(store, monkeypatch):
    import pushforward.service.recorder as module

    broken = threading.Event()
    broken.set()

    def append(where, batch, **options):
        if broken.is_set():
            raise StorageError("the disk is full")
        append_events(where, batch, **options)

    monkeypatch.setattr(module, "append_events", append)
    strict, fast = Recorder(store, "strict"), Recorder(store, "fast")
    with pytest.raises(Refusal, match="disk is full") as error:
        asyncio.run(strict.add(some_events(1)))
    assert error.value.status == 503
    with pytest.raises(Refusal, match="disk is full"):
        strict.add_now(some_events(1))
    assert strict.waiting == 0
    asyncio.run(fast.add(some_events(4)))
    time.sleep(0.5)
    assert fast.error == "the disk is full"
    assert fast.waiting == 4
    broken.clear()
    asyncio.run(strict.add(some_events(1)))
    strict.stop()
    fast.stop()
    assert count(store) == 5
    assert fast.error is None


@pytest.mark.parametrize("comes_back", [True, False])
def test_events_that_wait_are_tried_for_some_seconds_after_the_end(store, monkeypatch, caplog, comes_back):
    import pushforward.service.recorder as module

    broken, clock = threading.Event(), [0.0]
    broken.set()

    def append(where, batch, **options):
        if broken.is_set():
            raise StorageError("the disk is full")
        append_events(where, batch, **options)

    monkeypatch.setattr(module, "append_events", append)
    short = SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda _: time.sleep(0.01))
    monkeypatch.setattr(module, "time", short)
    recorder = Recorder(store, "fast")
    asyncio.run(recorder.add(some_events(4)))
    time.sleep(0.1)
    clock[0] += 3600  # it failed for an hour
    end = threading.Thread(target=recorder.stop)
    end.start()
    time.sleep(0.2)
    if comes_back:
        broken.clear()
    clock[0] += 10 if comes_back else 30
    end.join()
    assert (count(store), "4 events are lost: the disk is full" in caplog.text) == (4 * comes_back, not comes_back)


def test_a_recorder_tries_a_store_that_was_full_without_a_request(store):
    recorder = Recorder(store, "strict")
    limit_pages(store, 8)
    with pytest.raises(Refusal, match="full"):
        recorder.add_now(some_events(1000))
    with store.write() as connection:
        store.put(connection, "small", 1)  # fits, and proves nothing for a batch
    recorder.try_again()
    assert "full" in (recorder.error or "")
    limit_pages(store, None)
    recorder.try_again()
    assert recorder.error is None
    recorder.stop()
    assert count(store) == 0


# -- drift ---------------------------------------------------------------------------------------------------------------


def test_the_bounds_of_all_segments_add_up_to_alpha():
    total = sum(math.exp(-bound(k)) for k in range(1, 200_000))
    assert total < ALPHA
    assert total == pytest.approx(ALPHA, rel=1e-4)


def drift_of(store: Store) -> dict:
    with store.read() as connection:
        return dict(connection.execute(select(tables.monitors)).mappings().one())


def test_drift_is_the_monitor_of_the_library_and_survives_a_restart(store, guard_file):
    register(store, "m", guard_file)
    scores = np.concatenate([np.linspace(0, 5, 40), np.full(60, 50.0)])
    calibration = Guard.load(guard_file).calibrator_.scores
    want = Monitor(calibration, math.exp(-bound(1)), seed=1)
    drift = Drift(store)
    for start in range(0, 100, 20):
        append_events(store, [e for s in scores[start : start + 20] for e in some_events(1, float(s))])
        if start == 40:
            drift = Drift(store)  # a new process reads the state from the store
        drift.update()
        want.update(scores[start : start + 20])
        found = drift_of(store)
        assert (found["count"], found["cursor"]) == (start + 20, start + 20)
        assert found["log_evidence"] == pytest.approx(want.log_evidence, rel=1e-9)
    assert want.alarm
    assert drift_of(store)["alarm_at"] is not None
    assert drift.restart("m", "1")
    found = drift_of(store)
    assert (found["segment"], found["alarm_at"], found["count"]) == (2, None, 0)
    assert not drift.restart("m", "9")


def test_segments_follow_each_other(store, guard_file, monkeypatch):
    import pushforward.service.drift as module

    monkeypatch.setattr(module, "SEGMENT", 50)
    monkeypatch.setattr(module, "_SNAPSHOT_EVERY", 20)
    register(store, "m", guard_file)
    calibration = Guard.load(guard_file).calibrator_.scores
    rng = np.random.default_rng(0)
    scores = rng.choice(calibration, 120)
    append_events(store, [e for s in scores for e in some_events(1, float(s))])
    for _ in range(5):
        drift = Drift(store)  # each time from the last snapshot
        drift.update()
    found = drift_of(store)
    assert (found["segment"], found["count"], found["cursor"]) == (3, 20, 120)
    want = Monitor(calibration, math.exp(-bound(3)), seed=3)
    want.update(scores[100:])
    assert found["log_evidence"] == pytest.approx(want.log_evidence, rel=1e-9)


def test_two_processes_count_each_event_once(store, guard_file):
    register(store, "m", guard_file)
    append_events(store, some_events(10, 3.0))
    one, two = Drift(store), Drift(store)
    one.update()
    two.update()
    append_events(store, some_events(10, 4.0))
    two.update()
    one.update()
    one.update()
    assert drift_of(store)["count"] == 20


def test_an_overview_is_made_once_for_all_who_look_at_the_same(monkeypatch):
    made = []

    def slow(service, model, hours):
        made.append(hours)
        time.sleep(0.2)
        if hours == 1:
            raise StorageError("gone")
        return {"hours": hours}

    monkeypatch.setattr(routes_page, "overview", slow)
    app = FastAPI(exception_handlers={StorageError: lambda *_: Response(status_code=503)})
    routes_page.add(app)
    models = SimpleNamespace(find=lambda *_: SimpleNamespace(name="m", version="1"))
    app.state.service = SimpleNamespace(models=models)

    async def look() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            first = asyncio.create_task(client.get("/api/overview?hours=24"))
            await asyncio.sleep(0.05)
            others = [client.get(f"/api/overview?hours={hours}") for hours in (24, 1, 24, 1, 168)]
            first.cancel()
            answers = await asyncio.gather(*others)
            answers.append(await client.get("/api/overview?hours=1"))  # an error is not kept
            return [answer.status_code for answer in answers]

    assert asyncio.run(look()) == [200, 503, 200, 503, 200, 503]
    assert sorted(made) == [1, 1, 24, 168]


@pytest.mark.parametrize("late", [False, True])
def test_a_monitor_that_another_process_restarted_begins_anew(store, guard_file, monkeypatch, late):
    register(store, "m", guard_file)
    leader, other = Drift(store), Drift(store)
    append_events(store, some_events(100, 50.0))
    leader.update()
    assert drift_of(store)["alarm_at"] is not None
    if late:  # the restart comes after the leader looked at the segments
        advance = leader._advance

        def restart_first(*arguments):
            monkeypatch.setattr(leader, "_advance", advance)
            assert other.restart("m", "1")
            append_events(store, some_events(100, 50.0))
            return advance(*arguments)

        monkeypatch.setattr(leader, "_advance", restart_first)
        leader.update()
    else:
        assert other.restart("m", "1")
        leader.update()
        assert leader.evidence["m", "1"] == 0
        append_events(store, some_events(100, 50.0))
    leader.update()
    found = drift_of(store)
    want = Monitor(Guard.load(guard_file).calibrator_.scores, math.exp(-bound(2)), seed=2)
    want.update(np.full(100, 50.0))
    assert (found["segment"], found["count"]) == (2, 100)
    assert found["log_evidence"] == pytest.approx(want.log_evidence, rel=1e-9)
    assert found["alarm_at"] is not None


def test_a_restart_that_comes_while_the_leader_writes_is_not_overwritten(store_url, guard_file):
    store = Store(store_url)
    store.migrate()
    register(store, "m", guard_file)
    leader, other = Drift(store), Drift(store)
    leader.update()
    append_events(store, some_events(100, 50.0))
    restarts: list[threading.Thread] = []

    def restart(connection, cursor, statement, *_):
        if statement.startswith("SELECT monitors.cursor, monitors.segment, monitors.alarm_at") and not restarts:
            restarts.append(threading.Thread(target=other.restart, args=("m", "1")))
            restarts[0].start()
            restarts[0].join(0.5)  # it waits for the writer

    event.listen(store.engine, "after_cursor_execute", restart)
    leader.update()
    restarts[0].join()
    found = drift_of(store)
    assert (found["segment"], found["count"], found["cursor"], found["alarm_at"]) == (2, 0, 100, None)
    store.close()


def test_infinite_scores_are_equal_to_those_of_the_calibration_rows(store, guard_file, tmp_path):
    header, tensors = read(guard_file, kind="guard")
    tensors["calibration"] = tensors["calibration"].sort().values
    tensors["calibration"][-3:] = math.inf
    write(tmp_path / "m.safetensors", header, tensors)
    register(store, "m", tmp_path / "m.safetensors")
    append_events(store, some_events(5, LARGEST))
    Drift(store).update()
    want = Monitor(Guard.load(tmp_path / "m.safetensors").calibrator_.scores, math.exp(-bound(1)), seed=1)
    want.update(np.full(5, math.inf))
    assert drift_of(store)["log_evidence"] == pytest.approx(want.log_evidence, rel=1e-9)


@pytest.mark.parametrize("gone", ["", "other", "m"])
def test_retention_deletes_events_of_quiet_and_unloaded_models_and_drift_goes_on(store, guard_file, gone):
    register(store, "m", guard_file)
    register(store, "other", guard_file)  # never asked for anything
    scores = np.random.default_rng(0).normal(size=40)
    append_events(store, [e for s in scores[:30] for e in some_events(1, float(s))])
    drift = Drift(store)
    drift.update()
    if gone:
        unload(store, gone)
        drift.update()
    drift.save_before(time.time())
    assert delete_old(store, time.time()) == 30
    register(store, "m", guard_file)
    append_events(store, [e for s in scores[30:] for e in some_events(1, float(s))])
    restarted = Drift(store)
    restarted.update()
    want = Monitor(Guard.load(guard_file).calibrator_.scores, math.exp(-bound(1)), seed=1)
    want.update(scores)
    assert restarted.evidence["m", "1"] == pytest.approx(want.log_evidence, rel=1e-9)


def test_retention_keeps_what_a_monitor_still_repeats(store, guard_file):
    register(store, "m", guard_file)
    append_events(store, some_events(10, 3.0))
    Drift(store).update()
    assert delete_old(store, time.time()) == 0
    young = Drift(store)
    young.save_before(time.time() - 60)  # nothing is that old
    assert delete_old(store, time.time()) == 0


def test_the_evidence_of_a_version_that_was_unloaded_is_zero_and_is_read_while_models_are_added(store, guard_file):
    register(store, "m", guard_file)
    append_events(store, some_events(100, 50.0))
    keeper = Keeper(ServiceSettings(MODELS, store=store.url.render_as_string()), store, "a", SimpleNamespace())
    keeper.leads = True
    keeper.drift.update()
    assert keeper.evidence["m", "1"] > bound(1)
    for number, _ in enumerate(keeper.evidence.items()):
        keeper.drift.evidence["other", str(number)] = 0.0  # by the thread that follows the streams
    unload(store, "m")
    keeper.drift.update()
    assert keeper.evidence["m", "1"] == 0
    keeper.close()


def test_an_old_version_without_rows_does_not_search_all_events_again(store, guard_file, other_guard_file):
    register(store, "m", other_guard_file)
    register(store, "m", guard_file)
    append_events(store, [event._replace(version="2") for event in some_events(30, 3.0)])
    drift = Drift(store)
    drift.update()
    assert drift._streams["m", "1"].looked == 30
    append_events(store, some_events(5, 3.0))  # version 1 is asked again
    drift.update()
    with store.read() as connection:
        column = tables.monitors.c
        counts = dict(connection.execute(select(column.version, column.count)).all())
    assert counts == {"1": 5, "2": 30}


def test_gauges_of_a_worker_that_was_killed_are_forgotten(tmp_path, monkeypatch):
    from pushforward.service.metrics import _forget_dead

    gone = subprocess.Popen(["true"])
    gone.wait()
    names = [f"gauge_livesum_{pid}.db" for pid in (gone.pid, os.getpid())] + [f"counter_{gone.pid}.db"]
    for name in names:
        (tmp_path / name).touch()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    _forget_dead()
    assert {path.name for path in tmp_path.iterdir()} == set(names[1:])


def test_the_metrics_say_when_a_version_was_unloaded():
    metrics, one, two = (
        Metrics(),
        SimpleNamespace(key=("m", "1"), digest="a" * 64),
        SimpleNamespace(key=("m", "2"), digest="b" * 64),
    )
    metrics.loaded([one, two])
    metrics.loaded([two])
    lines = metrics.text().decode().splitlines()
    found = {line[-3:] for line in lines if line.startswith("pushforward_model_info{") and 'model_version="1"' in line}
    assert found == {"0.0"}
    assert any(line.endswith("1.0") for line in lines if line.startswith("pushforward_model_info{"))
