"""Alerts: rules, the payload of Alertmanager, signatures, a receiver that is dead for a while, and one real server."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import socket
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from service_helpers import NORMAL, STRANGE
from sqlalchemy import event, select, update

from pushforward.detection import realized_interval
from pushforward.errors import ConfigError, StorageError
from pushforward.service import ServiceSettings
from pushforward.service import alerting as sending
from pushforward.service.alert_rules import ModelFacts, Receiver, Rule, check_rule, read_alert_file
from pushforward.service.alerting import Alerting
from pushforward.service.core import Service
from pushforward.service.drift import _row
from pushforward.service.server import prepare
from pushforward.service.store import Store, tables
from pushforward.service.store.eventlog import Event, append_events, event_ids

SECRET = "a-secret-of-the-receiver"
MODEL = ModelFacts("m", "1", 0.05, "marginal", 0.05, 200, 0.0)


class Hook:
    """A receiver; ``status`` is what it answers, None closes the connection without an answer."""

    def __init__(self, status: int | None = 200) -> None:
        self.status = status
        self.got: list[tuple[dict[str, str], bytes]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if hook.status is None:
                    return
                if hook.status == 200:
                    hook.got.append((dict(self.headers.items()), body))
                self.send_response(hook.status)
                self.end_headers()

            def log_message(self, *arguments) -> None:
                return

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def hook():
    found = Hook()
    yield found
    found.close()


@pytest.fixture
def store(store_url):
    found = Store(store_url)
    found.migrate()
    yield found
    found.close()


def write_file(folder, hook: Hook, *rules: str):
    (folder / "secret").write_text(SECRET + "\n")
    receiver = f'[[receiver]]\nname = "ops"\nurl = "{hook.url}"\nsecret_file = "secret"\n'
    file = folder / "alerts.toml"
    file.write_text(receiver + "".join(f"[[rule]]\n{rule}\n" for rule in rules))
    return file


def add(store: Store, count: int, alarms: int, when: float | None = None) -> None:
    now = time.time() if when is None else when
    append_events(
        store,
        [Event(i, now, "m", "1", "d", None, 1.0, 0.01, k < alarms, None, None) for k, i in enumerate(event_ids(count))],
    )


def verified(headers: dict[str, str], body: bytes) -> bool:
    """What a receiver does, by the documentation alone."""
    headers = {name.lower(): value for name, value in headers.items()}
    text = headers["x-pushforward-timestamp"].encode() + b"." + body
    want = "sha256=" + hmac.new(SECRET.encode(), text, hashlib.sha256).hexdigest()
    return hmac.compare_digest(want, headers["x-pushforward-signature"])


def test_an_alert_fires_once_and_is_resolved(store, tmp_path, hook):
    alerting = Alerting(
        store, *read_alert_file(write_file(tmp_path, hook, 'name = "any"\nkind = "alarm"\nminutes = 5')), "http://p"
    )
    now = time.time()
    alerting.check([MODEL], now)
    assert alerting.deliver(now) == 0
    add(store, 3, 1)
    for step in range(5):  # deduplicated
        alerting.check([MODEL], now + step)
        alerting.deliver(now + step)
    assert len(hook.got) == 1
    headers, body = hook.got[0]
    assert verified(headers, body)
    assert not verified(headers, body + b" ")
    sent = json.loads(body)
    assert (sent["version"], sent["status"], sent["receiver"], sent["truncatedAlerts"]) == ("4", "firing", "ops", 0)
    assert set(sent) == {"version", "groupKey", "truncatedAlerts", "status", "receiver", "groupLabels", "commonLabels",
                         "commonAnnotations", "externalURL", "alerts"}  # fmt: skip
    (alert,) = sent["alerts"]
    assert set(alert) == {"status", "labels", "annotations", "startsAt", "endsAt", "generatorURL", "fingerprint"}
    assert alert["labels"]["alertname"] == "any"
    assert alert["labels"]["model_name"] == "m"
    assert alert["endsAt"] == "0001-01-01T00:00:00Z"
    assert alert["annotations"]["page"].startswith("http://p/event/")
    alerting.check([MODEL], now + 600)
    alerting.deliver(now + 600)
    resolved = json.loads(hook.got[1][1])["alerts"][0]
    assert resolved["status"] == "resolved"
    assert resolved["fingerprint"] == alert["fingerprint"]
    assert resolved["startsAt"] == alert["startsAt"]
    assert resolved["endsAt"] > resolved["startsAt"]
    alerting.close()


def test_an_alert_that_goes_on_is_repeated(store, tmp_path, hook):
    file = write_file(tmp_path, hook, 'name = "any"\nkind = "alarm"\nminutes = 1000\nrepeat = 60')
    alerting = Alerting(store, *read_alert_file(file))
    add(store, 1, 1)
    now = time.time()
    for minutes in (0, 30, 59, 61, 90):
        alerting.check([MODEL], now + 60 * minutes)
        alerting.deliver(now + 60 * minutes)
    assert len(hook.got) == 2
    assert len({json.loads(body)["alerts"][0]["startsAt"] for _, body in hook.got}) == 1
    alerting.close()


@pytest.mark.parametrize("status", [500, 404, 302, None])
def test_a_dead_receiver_loses_nothing_and_the_order_stays(store, tmp_path, hook, status):
    file = write_file(tmp_path, hook, 'name = "any"\nkind = "alarm"\nminutes = 5')
    alerting = Alerting(store, *read_alert_file(file))
    hook.status = status
    add(store, 1, 1)
    now = time.time()
    alerting.check([MODEL], now)
    tries = 0
    with store.read() as connection:
        query = select(tables.deliveries.c.tries)
        for second in range(120):
            alerting.deliver(now + second)
        tries = max(connection.execute(query).scalars())
    assert 5 <= tries <= 9  # 1, 2, 4, ... seconds between tries
    alerting.check([MODEL], now + 600)  # resolved while the receiver is dead
    alerting.deliver(now + 600)
    assert hook.got == []
    alerting.close()
    hook.status = 200
    alerting = Alerting(store, *read_alert_file(file))  # after a restart
    for second in range(0, 1200, 60):
        alerting.deliver(now + 700 + second)
    assert [json.loads(body)["status"] for _, body in hook.got] == ["firing", "resolved"]
    ids = [dict(headers.items())["x-pushforward-delivery"] for headers, _ in hook.got]
    assert len(set(ids)) == 2
    alerting.close()


def test_a_clock_that_is_set_back_does_not_stop_deliveries(store, tmp_path, hook):
    file = write_file(tmp_path, hook, 'name = "any"\nkind = "alarm"\nminutes = 5')
    alerting = Alerting(store, *read_alert_file(file))
    add(store, 1, 1)
    alerting.check([MODEL])
    with store.write() as connection:
        connection.execute(update(tables.deliveries).values(next_try=time.time() + 86400))
    assert alerting.deliver() == 1
    alerting.close()


def test_events_from_before_the_clock_was_set_back_are_not_of_the_last_minutes(store):
    now = time.time()
    add(store, 50, 0, when=now - 700)
    add(store, 50, 50, when=now + 86400)
    rules = [Rule("a", "alarm"), Rule("r", "rate"), Rule("s", "silent")]
    with store.read() as connection:
        found = [check_rule(connection, rule, MODEL, now, "") is not None for rule in rules]
        assert found == [False, False, True]
        found = [check_rule(connection, rule, MODEL, now + 86400 - 30, "") is not None for rule in rules]
        assert found == [True, True, False]  # the clocks of two machines may differ by seconds


def test_an_alert_is_repeated_after_the_clock_was_set_back(store, tmp_path, hook):
    file = write_file(tmp_path, hook, 'name = "any"\nkind = "alarm"\nminutes = 1000\nrepeat = 60')
    alerting = Alerting(store, *read_alert_file(file))
    now = time.time()
    add(store, 1, 1, when=now - 600)
    for later in (600, 0, 1800, 3700):
        alerting.check([MODEL], now + later)
    assert len(firings(store)) == 3
    alerting.close()


def test_the_rule_of_alarms_reads_no_old_events(tmp_path):
    store = Store(f"sqlite:///{tmp_path / 's.sqlite'}")
    store.migrate()
    add(store, 3, 3, when=time.time() - 7200)
    add(store, 2, 1)
    asked = []
    event.listen(store.engine, "before_cursor_execute", lambda *call: asked.append(call[2:4]))
    with store.read() as connection:
        found = check_rule(connection, Rule("a", "alarm"), MODEL, time.time(), "")
        assert found is not None
        assert found.annotations["summary"].startswith("1 alarm in")
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {asked[-1][0]}", asked[-1][1]).all()
    assert "alarms_by_time (model=? AND time>? AND time<?)" in plan[0][-1]
    store.close()


def test_the_rate_rule_fires_by_the_bound_of_theory(store):
    rule = Rule("r", "rate", minutes=60, probability=0.999)
    with store.read() as connection:
        assert check_rule(connection, rule, MODEL, time.time(), "") is None
    add(store, 100, 5)  # the promised rate
    with store.read() as connection:
        assert check_rule(connection, rule, MODEL, time.time(), "") is None
    add(store, 100, 40)
    with store.read() as connection:
        found = check_rule(connection, rule, MODEL, time.time(), "")
        assert found is not None
        assert "45 alarms among 200 rows" in found.annotations["summary"]
        assert check_rule(connection, rule, MODEL, time.time() + 7200, "") is None


@pytest.mark.parametrize(("calibration", "rows", "alpha"), [(500, 394, 0.01), (1000, 49, 0.001)])
def test_the_rate_rule_is_quiet_at_its_bound(store, calibration, rows, alpha):
    model = replace(MODEL, alpha=alpha, calibration_rows=calibration)
    rule = Rule("r", "rate", minutes=60, probability=0.999)
    most = realized_interval(calibration, rows, alpha, 0.998)[1]
    add(store, rows, round(most * rows))
    with store.read() as connection:
        assert check_rule(connection, rule, model, time.time(), "") is None


def firings(store: Store) -> list[tuple[str, str, str]]:
    """Receiver, status and rule of every message, in order."""
    with store.read() as connection:
        column = tables.deliveries.c
        found = connection.execute(select(column.receiver, column.body).order_by(column.time, column.receiver)).all()
    bodies = [(receiver, json.loads(body)) for receiver, body in found]
    return [(receiver, body["status"], body["commonLabels"]["alertname"]) for receiver, body in bodies]


@pytest.mark.parametrize("minutes", [1, 2, 10])
def test_a_rate_that_stays_too_high_for_twenty_minutes_fires_once(tmp_path, minutes):
    store = Store(f"sqlite:///{tmp_path / 's.sqlite'}", durable=False)
    store.migrate()
    alerting = Alerting(store, [Receiver("ops", "http://h", None)], [Rule("r", "rate", minutes, receivers=("ops",))])
    begin, rows = 60 * 29_000_000, dict.fromkeys(range(29_000_000, 29_000_020), 0)
    for second in range(0, 1200, 10):  # half of the rows are alarms, where 5% are promised
        minute = (begin + second) // 60
        rows[minute] += 4
        count = {"model": "m", "version": "1", "minute": minute, "rows": rows[minute], "alarms": rows[minute] // 2}
        with store.write() as connection:
            store.upsert(connection, tables.minutes, count, ("model", "version", "minute"))
        alerting.check([MODEL], begin + second)
    assert firings(store) == [("ops", "firing", "r")]
    alerting.check([MODEL], begin + 1200 + 60 * minutes + 59)  # the window has less than a minute more than it says
    assert firings(store) == [("ops", "firing", "r"), ("ops", "resolved", "r")]
    alerting.close()
    store.close()


def test_the_window_of_a_rate_says_how_long_it_is(store):
    begin = 60 * 29_000_000
    add(store, 20, 20, when=begin + 5)
    add(store, 10, 10, when=begin - 1)  # of the minute before
    with store.read() as connection:
        found = check_rule(connection, Rule("r", "rate", minutes=1), MODEL, begin + 90, "")
        assert found is not None
        assert "20 alarms among 20 rows (100.00%) in the last 1.5 minutes" in found.annotations["summary"]


OTHER = Receiver("other", "http://h", None)


@pytest.mark.parametrize(
    ("rules", "new"),
    [
        ([], []),
        ([Rule("renamed", "silent", 1, receivers=("ops",))], [("ops", "firing", "renamed")]),
        ([Rule("quiet", "silent", 60, receivers=("other",))], []),
    ],
    ids=["removed", "renamed", "with another receiver"],
)
def test_who_got_firing_gets_resolved_whatever_became_of_the_rule(store, rules, new):
    now, model = time.time(), ModelFacts("m", "1", 0.05, "marginal", 0.05, 200, time.time() - 600)
    receivers = [Receiver("ops", "http://h", None), OTHER]
    old = Rule("quiet", "silent", 1, receivers=("gone", "ops"))
    before = Alerting(store, [*receivers, Receiver("gone", "http://h", None)], [old])
    before.check([model], now)
    after = Alerting(store, receivers, rules)  # the file has neither the rule as it was nor the receiver "gone"
    for second in (5, 10):
        after.check([model], now + second)
    sent = [("gone", "firing", "quiet"), ("ops", "firing", "quiet")]
    assert sorted(firings(store)) == sorted([*sent, *new, ("ops", "resolved", "quiet")])
    before.close()
    after.close()


def test_an_alert_of_an_earlier_version_is_resolved_at_the_receivers_of_its_rule(store):
    now, model = time.time(), ModelFacts("m", "1", 0.05, "marginal", 0.05, 200, time.time() - 600)
    alerting = Alerting(store, [OTHER], [Rule("quiet", "silent", 1, receivers=("other",))])
    alerting.check([model], now)
    with store.write() as connection:
        store.put(connection, "told", {})  # it did not keep who got the message
    alerting.check([], now + 5)
    assert [status for _, status, _ in firings(store)] == ["firing", "resolved"]
    alerting.close()


def test_the_drift_and_silence_rules(store):
    drift, silent = Rule("d", "drift"), Rule("s", "silent", minutes=10)
    now = time.time()
    with store.write() as connection:
        connection.execute(tables.monitors.insert().values(_row(("m", "1"), 0, 1)))
        assert check_rule(connection, drift, MODEL, now, "") is None
        connection.execute(update(tables.monitors).values(alarm_at=now))
        assert check_rule(connection, drift, MODEL, now, "") is not None
    new = ModelFacts("m", "1", 0.05, "marginal", 0.05, 200, now)
    with store.read() as connection:
        assert check_rule(connection, silent, new, now + 60, "") is None  # it has just started
        assert check_rule(connection, silent, new, now + 660, "") is not None
    add(store, 1, 0, when=now + 650)
    with store.read() as connection:
        assert check_rule(connection, silent, new, now + 660, "") is None


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("x = 1", "receiver"),
        ("[[receiver]]\nname = 'a'", "url"),
        ("[[receiver]]\nname = 'a'\nurl = 'file:///etc/passwd'", "http"),
        ("[[receiver]]\nname = 'a'\nurl = 'http://h'\nmore = 1", "unknown key"),
        ("[[rule]]\nname = 'a'\nkind = 'often'", "has the kind 'often'; it must be one of alarm"),
        ("[[rule]]\nname = 'a'", "name and kind"),
        ("[[rule]]\nname = 'a'\nkind = 'alarm'\nminutes = -1", "numbers above 0 as minutes"),
        ("[[rule]]\nname = 'a'\nkind = 'rate'\nminutes = 0.5", r"minutes = 0\.5, .* give at least 1 for the kind rate"),
        (f"[[rule]]\nname = '{'a' * 65}'\nkind = 'alarm'", "at most 64 characters"),
        ("[[rule]]\nname = 'a'\nkind = 'alarm'\nreceivers = ['x']", "does not exist"),
        ("[[", "TOML"),
    ],
)
def test_alert_files_that_are_refused(tmp_path, text, word):
    file = tmp_path / "alerts.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=word):
        read_alert_file(file)
    with pytest.raises(StorageError, match=r"absent\.toml: No such file or directory\.$"):
        read_alert_file(tmp_path / "absent.toml")


def test_a_real_server_sends_a_signed_webhook(start, guard_file, tmp_path, hook):
    file = write_file(tmp_path, hook, 'name = "any"\nkind = "alarm"', 'name = "drift"\nkind = "drift"')
    server = start(guard_file, "--alerts", file, "--public-url", "https://guards.example")
    row = server.score(NORMAL, STRANGE)[1]
    headers, body = server.wait_for(
        lambda: next((got for got in hook.got if json.loads(got[1])["commonLabels"]["kind"] == "alarm"), None)
    )
    assert verified(headers, body)
    assert json.loads(body)["alerts"][0]["annotations"]["event"] == row["id"]
    assert SECRET not in server.log.read_text()
    for _ in range(8):
        server.score(*[STRANGE] * 20)
    server.wait_for(lambda: any(json.loads(b)["commonLabels"]["kind"] == "drift" for _, b in hook.got))


def test_many_messages_of_a_dead_receiver_do_not_stop_another(store, tmp_path, hook):
    file = write_file(tmp_path, hook, 'name = "any"\nkind = "alarm"\nminutes = 5')
    file.write_text(
        file.read_text() + '[[receiver]]\nname = "dead"\nurl = "http://127.0.0.1:9/"\nsecret_file = "secret"\n'
    )
    alerting = Alerting(store, *read_alert_file(file))
    now = time.time()
    old = [
        {"id": f"{k}", "receiver": "dead", "body": "{}", "time": now - 5000 + k, "next_try": now - 1, "tries": 0,
         "done": None, "error": None} for k in range(1100)
    ]  # fmt: skip
    mine = {
        "id": "mine",
        "receiver": "ops",
        "body": "{}",
        "time": now,
        "next_try": now,
        "tries": 0,
        "done": None,
        "error": None,
    }
    with store.write() as connection:
        connection.execute(tables.deliveries.insert().values([*old, mine]))
    assert alerting.deliver(now + 1) == 1
    assert len(hook.got) == 1
    alerting.close()


class Drip:
    """A receiver that never ends: with a header, or with a part of its body, ten times a second."""

    def __init__(self, first: bytes, more: bytes) -> None:
        self._first, self._more, self.stopped = first, more, threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while not self.stopped.is_set():
            try:
                connection = self._listener.accept()[0]
            except OSError:  # closed
                return
            threading.Thread(target=self._drip, args=(connection,), daemon=True).start()

    def _drip(self, connection: socket.socket) -> None:
        with connection:
            connection.recv(65536)
            part = self._first
            while not self.stopped.wait(0.1):
                try:
                    connection.sendall(part)
                except OSError:
                    return
                part = self._more

    def close(self) -> None:
        self.stopped.set()
        self._listener.close()


@pytest.fixture
def two_receivers(tmp_path, hook):
    """A rule with a receiver that never ends (by its first and further bytes) and one that answers at once."""
    store = Store(f"sqlite:///{tmp_path / 's.sqlite'}")
    store.migrate()
    add(store, 1, 1)
    made = []

    def make(first: bytes, more: bytes) -> tuple[Store, Alerting]:
        drip = Drip(first, more)
        receivers = [Receiver("a slow one", drip.url, None), Receiver("ops", hook.url, None)]
        rule = Rule("any", "alarm", 5, receivers=("a slow one", "ops"))
        made.extend([Alerting(store, receivers, [rule]), drip])
        return store, made[0]

    yield make
    for thing in made:
        thing.close()
    store.close()


def test_a_receiver_that_never_ends_its_headers_delays_no_other_and_has_a_deadline(two_receivers, hook, monkeypatch):
    monkeypatch.setattr(sending, "_DEADLINE", 2.0, raising=False)
    store, alerting = two_receivers(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n")
    now, taken = time.time(), []
    alerting.check([MODEL], now)
    thread = threading.Thread(target=lambda: taken.append(alerting.deliver(now)), daemon=True)
    thread.start()
    thread.join(1.0)
    assert len(hook.got) == 1
    thread.join(5.0)
    assert taken == [1]
    with store.read() as connection:
        errors = connection.execute(select(tables.deliveries.c.error).where(tables.deliveries.c.done.is_(None)))
        assert errors.scalars().all() == ["no answer within 2 seconds"]


def test_messages_go_on_while_one_receiver_is_busy(two_receivers, hook):
    _, alerting = two_receivers(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n")
    now = time.time()
    alerting.check([MODEL], now)
    alerting.deliver(wait=False)
    alerting.check([MODEL], now + 600)
    end = time.monotonic() + 5
    while len(hook.got) < 2 and time.monotonic() < end:
        alerting.deliver(now + 600, wait=False)
        time.sleep(0.05)
    assert [json.loads(body)["status"] for _, body in hook.got] == ["firing", "resolved"]
    assert not alerting._sending["a slow one"].done()


def test_the_body_of_an_answer_is_not_waited_for(two_receivers, hook):
    _, alerting = two_receivers(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n", b"x")
    now, taken = time.time(), []
    alerting.check([MODEL], now)
    thread = threading.Thread(target=lambda: taken.append(alerting.deliver(now)), daemon=True)
    thread.start()
    thread.join(3.0)
    assert taken == [2]


def test_messages_stay_in_order_when_the_clock_is_set_back(store, tmp_path, hook):
    alerting = Alerting(
        store, *read_alert_file(write_file(tmp_path, hook, 'name = "any"\nkind = "alarm"\nminutes = 5'))
    )
    add(store, 1, 1)
    now = time.time()
    alerting.check([MODEL], now)  # firing
    with store.write() as connection:
        connection.execute(tables.events.delete())
    alerting.check([MODEL], now - 3600)  # resolved, by a clock that was an hour ahead
    alerting.deliver(now + 1)
    assert [json.loads(body)["status"] for _, body in hook.got] == ["firing", "resolved"]
    alerting.close()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('[receiver]\nname = "a"\nurl = "http://h/"', r"begin it with the line \[\[receiver\]\]"),
        ('receiver = "a"', r"\[\[receiver\]\]"),
        ("rule = [1]", r"\[\[rule\]\]"),
        ('[[receiver]]\nname = "a"\nurl = "http://[::1"', "cannot be read"),
        ('[[receiver]]\nname = "a"\nurl = "http://h:99999/"', "cannot be read"),
        (
            '[[receiver]]\nname = "ops"\nurl = "http://h/"\n[[rule]]\nname = "a"\nkind = "alarm"\nreceivers = "ops"',
            "a list of names as receivers",
        ),
    ],
)
def test_slips_in_an_alert_file_are_named(tmp_path, text, word):
    file = tmp_path / "alerts.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=word):
        read_alert_file(file)


def test_an_alert_file_is_utf8_whatever_the_locale(tmp_path, monkeypatch):
    (tmp_path / "alerts.toml").write_bytes('[[rule]]\nname = "Überschuß"\nkind = "alarm"\n'.encode())
    # As in a locale of Latin-1.
    monkeypatch.setattr(
        Path, "read_text", lambda path, encoding=None, errors=None: path.read_bytes().decode(encoding or "latin-1")
    )
    assert [rule.name for rule in read_alert_file(tmp_path / "alerts.toml")[1]] == ["Überschuß"]


def test_a_rule_of_a_model_that_is_not_served_is_a_warning(guard_file, tmp_path, hook, caplog):
    file = write_file(tmp_path, hook, 'name = "typo"\nkind = "alarm"\nmodel = "ordrs"')
    settings = ServiceSettings(
        (("orders", str(guard_file)),), store=f"sqlite:///{tmp_path / 's.sqlite'}", alert_file=str(file)
    )
    prepare(settings)
    logger = logging.getLogger("pushforward.service")
    logger.addHandler(caplog.handler)
    try:
        Service(settings).store.close()
    finally:
        logger.removeHandler(caplog.handler)
    assert "'typo' is for the model 'ordrs', which is not served" in caplog.text
