"""Alerts: rules become firing and resolved alerts in the store, and deliveries that are tried until a receiver took them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import httpx
from sqlalchemy import Connection, func, select

from pushforward.service.alert_rules import AHEAD, Firing, ModelFacts, Receiver, Rule, check_rule
from pushforward.service.store import Store, tables

__all__ = ["Alerting", "payload", "signature"]

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 300.0
_NEVER = "0001-01-01T00:00:00Z"
_KEEP_DONE = 7 * 86400.0
_DEADLINE = 10.0  # seconds from the first packet to the end of the headers of the answer
_LAST_SECONDS = 2.0  # that messages in progress have when the service stops


def signature(secret: bytes, stamp: str, body: bytes) -> str:
    """The header X-Pushforward-Signature: HMAC-SHA256 of ``stamp.body``, where stamp is X-Pushforward-Timestamp.

    The time is signed too, so that a receiver can refuse an old copy.

    >>> signature(b"secret", "0", b"{}")[:14]
    'sha256=4bbe8d3'
    """
    return "sha256=" + hmac.new(secret, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def fingerprint(labels: dict[str, str]) -> str:
    """16 hexadecimal digits that are the same for the same labels."""
    return hashlib.sha256(json.dumps(labels, sort_keys=True).encode()).hexdigest()[:16]


def payload(receiver: str, row: dict[str, Any], url: str) -> dict[str, Any]:
    """The body of Alertmanager's webhook, version 4, for one alert of the store."""
    labels, annotations = json.loads(row["labels"]), json.loads(row["annotations"])
    group = {"alertname": labels["alertname"], "model_name": labels["model_name"]}
    alert = {
        "status": row["status"],
        "labels": labels,
        "annotations": annotations,
        "startsAt": _iso(row["starts"]),
        "endsAt": _NEVER if row["ends"] is None else _iso(row["ends"]),
        "generatorURL": annotations.get("page", url),
        "fingerprint": row["fingerprint"],
    }
    key = ", ".join(f"{name}={json.dumps(value)}" for name, value in sorted(group.items()))
    return {
        "version": "4",
        "groupKey": f"{{}}:{{{key}}}",
        "truncatedAlerts": 0,
        "status": row["status"],
        "receiver": receiver,
        "groupLabels": group,
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": url,
        "alerts": [alert],
    }


class Alerting:
    """Checks rules and sends what changed.

    An alert and its deliveries are written in one transaction, and a delivery stays in the store until its receiver answered
    with 2xx, so neither a crash nor a dead receiver loses one. A receiver may get a delivery twice, if it answered and the
    process died before it noted that; ``X-Pushforward-Delivery`` is then the same.

    Each receiver has a thread of its own while a delivery to it is due, so one that is slow delays no other.

    Args:
        store: of the service.
        receivers: of the alert file.
        rules: of the alert file.
        url: of the page.
    """

    def __init__(self, store: Store, receivers: list[Receiver], rules: list[Rule], url: str = "") -> None:
        self.store, self.rules, self.url = store, rules, url.rstrip("/")
        self.receivers = {receiver.name: receiver for receiver in receivers}
        self._tls = httpx.create_ssl_context(trust_env=False)
        self._sending: dict[str, Future[int]] = {}
        self._stopping = threading.Event()

    def check(self, models: list[ModelFacts], now: float | None = None) -> None:
        """Compare every rule with the store, and write what fires, goes on, or ended."""
        now = time.time() if now is None else now
        firing: dict[str, tuple[Rule, Firing]] = {}
        with self.store.read() as connection:
            for rule in self.rules:
                for model in models:
                    if rule.model not in (None, model.name):
                        continue
                    found = check_rule(connection, rule, model, now, self.url)
                    if found is not None:
                        firing[fingerprint(found.labels)] = (rule, found)
            column = tables.alerts.c
            known = {r["fingerprint"]: dict(r) for r in connection.execute(
                select(tables.alerts).where((column.status == "firing") | column.fingerprint.in_(list(firing)))
            ).mappings()}  # fmt: skip
        for key, (rule, found) in firing.items():
            old = known.get(key)
            going = old if old is not None and old["status"] == "firing" else None
            # A time in the future is of a message that was sent before the clock was set back.
            if going is not None and -AHEAD <= now - going["notified"] < 60 * rule.repeat:
                continue
            row = {"fingerprint": key, "rule": rule.name, "labels": json.dumps(found.labels),
                   "annotations": json.dumps(found.annotations), "status": "firing",
                   "starts": now if going is None else going["starts"], "ends": None, "notified": now}  # fmt: skip
            self._write(row, old, rule.receivers)
        for key, old in known.items():
            if old["status"] == "firing" and key not in firing:
                rule = next((rule for rule in self.rules if rule.name == old["rule"]), None)
                row = {**old, "status": "resolved", "ends": now, "notified": now}
                self._write(row, old, () if rule is None else rule.receivers)

    def _write(self, row: dict[str, Any], old: dict[str, Any] | None, receivers: Sequence[str]) -> None:
        """Write an alert and its deliveries, unless another process changed it since it was read.

        "resolved" goes to the receivers that got "firing", also where the rule was renamed or removed, or has others now.
        """
        column = tables.alerts.c
        with self.store.write() as connection:
            self.store.lock(connection, "alerts")
            query = select(column.status, column.notified).where(column.fingerprint == row["fingerprint"])
            present = connection.execute(query).first()
            before = None if old is None else (old["status"], old["notified"])
            if (None if present is None else tuple(present)) != before:
                return
            self.store.upsert(connection, tables.alerts, row, ("fingerprint",))
            open_ = tables.deliveries.c
            for name in self._told(connection, row, receivers):
                body = json.dumps(payload(name, row, self.url))
                # Messages are sent in the order of their times, also where the clock was set back since the last one.
                mine = (open_.receiver == name) & open_.done.is_(None)
                latest = connection.execute(select(func.max(open_.time)).where(mine)).scalar() or 0.0
                new = {"id": uuid.uuid4().hex, "receiver": name, "body": body, "time": max(row["notified"], latest + 1e-3),
                       "next_try": row["notified"], "tries": 0, "done": None, "error": None}  # fmt: skip
                connection.execute(tables.deliveries.insert().values(new))

    def _told(self, connection: Connection, row: dict[str, Any], receivers: Sequence[str]) -> list[str]:
        """The receivers of a message; who got "firing" is kept in the store until "resolved" was sent."""
        told: dict[str, list[str]] = self.store.get(connection, "told", {})
        key, firing = row["fingerprint"], row["status"] == "firing"
        # An earlier version of pushforward did not keep who got "firing": these are the receivers of the rule then.
        before = told.pop(key, [] if firing else list(receivers))
        if firing:
            told[key] = sorted({*before, *receivers})
        self.store.put(connection, "told", told)
        return list(receivers) if firing else [name for name in before if name in self.receivers]

    def deliver(self, now: float | None = None, *, wait: bool = True) -> int:
        """Try the deliveries that are due, of all receivers at a time, the oldest of each first.

        Args:
            now: seconds since 1970; the clock by default.
            wait: whether to wait for all receivers. Without it, one that is still busy goes on, and is left alone until it is done.

        Returns:
            How many deliveries were taken, of the receivers that are done.

        Raises:
            StorageError: if the store cannot be used, now or since the last call.
        """
        for name in self._waiting(time.time() if now is None else now):
            if name not in self._sending:  # one thread a receiver, so that its messages stay in order
                self._sending[name] = _in_thread(self._send_all, self.receivers[name], now)
        taken = 0
        for name, sent in list(self._sending.items()):
            if wait or sent.done():
                del self._sending[name]
                taken += sent.result()
        return taken

    def _waiting(self, now: float) -> list[str]:
        """The receivers with open deliveries, after those to receivers that are no longer in the file were closed."""
        column = tables.deliveries.c
        with self.store.read() as connection:
            names = set(connection.execute(select(column.receiver).where(column.done.is_(None)).distinct()).scalars())
        with self.store.write() as connection:
            gone = column.done.is_(None) & column.receiver.in_(sorted(names - set(self.receivers)))
            connection.execute(tables.deliveries.update().where(gone).values(done=now))
            connection.execute(tables.deliveries.delete().where(column.done < now - _KEEP_DONE))
        return sorted(names & set(self.receivers))

    def _send_all(self, receiver: Receiver, given: float | None) -> int:
        """Send what is due to one receiver until one is not taken; the number that were.

        A delivery waits for the earlier ones of its receiver, so that "resolved" never overtakes "firing".
        """
        column, taken = tables.deliveries.c, 0
        query = select(tables.deliveries).where(column.done.is_(None), column.receiver == receiver.name)
        with self.store.read() as connection:
            rows = connection.execute(query.order_by(column.time, column.id).limit(1000)).mappings().all()
        for row in rows:
            now = time.time() if given is None else given
            # A pause that is longer than the longest was written before the clock was set back.
            if self._stopping.is_set() or now < row["next_try"] <= now + 2 * _LONGEST_PAUSE:
                break
            error = self._send(receiver, row["id"], row["body"].encode())
            if error is None:
                change: dict[str, Any] = {"done": now, "tries": row["tries"] + 1, "error": None}
            else:
                pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(row["tries"], 20)) * random.uniform(0.8, 1.2)
                change = {"next_try": now + pause, "tries": row["tries"] + 1, "error": error[:300]}
            with self.store.write() as connection:
                connection.execute(tables.deliveries.update().where(column.id == row["id"]).values(change))
            if error is not None:
                break
            taken += 1
        return taken

    def _send(self, receiver: Receiver, identifier: str, body: bytes) -> str | None:
        """Send one delivery; why it failed, None if the receiver took it."""
        stamp = str(int(time.time()))
        headers = {
            "content-type": "application/json",
            "x-pushforward-delivery": identifier,
            "x-pushforward-timestamp": stamp,
        }
        if receiver.secret is not None:
            headers["x-pushforward-signature"] = signature(receiver.secret, stamp, body)
        try:
            status = asyncio.run(self._post(receiver.url, body, headers))
        except TimeoutError:
            return f"no answer within {_DEADLINE:g} seconds"
        except Exception as error:  # of httpx, or a URL that httpx does not read
            return type(error).__name__
        return None if 200 <= status < 300 else f"status {status}"

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        """The status of the answer; its body is not read.

        One deadline is for the whole request: with a limit on each read, a receiver that sends a byte now and then has no end.
        """
        async with (
            asyncio.timeout(_DEADLINE),
            httpx.AsyncClient(timeout=None, follow_redirects=False, trust_env=False, verify=self._tls) as client,
            client.stream("POST", url, content=body, headers=headers) as answer,
        ):
            return answer.status_code

    def close(self) -> None:
        """Begin no further message, and wait a moment for those in progress; what is not taken stays in the store."""
        self._stopping.set()
        end = time.monotonic() + _LAST_SECONDS
        for sent in list(self._sending.values()):
            with contextlib.suppress(Exception):  # of the store, or the time is over
                sent.result(max(0.0, end - time.monotonic()))


def _in_thread(call: Callable[..., int], *arguments: Any) -> Future[int]:
    """Call in a thread that does not keep the process alive."""
    found: Future[int] = Future()

    def run() -> None:
        try:
            found.set_result(call(*arguments))
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=run, name="alert", daemon=True).start()
    return found


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"
