"""Alerts: rules become firing and resolved alerts in the store, and deliveries that are tried until a receiver took them."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import random
import time
import uuid
from typing import Any

import httpx
from sqlalchemy import select

from pushforward.service.alert_rules import Firing, ModelFacts, Receiver, Rule, check_rule
from pushforward.service.store import Store, tables

__all__ = ["Alerting", "payload", "signature"]

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 300.0
_NEVER = "0001-01-01T00:00:00Z"
_KEEP_DONE = 7 * 86400.0
_log = logging.getLogger("pushforward.service")


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

    Args:
        store: of the service.
        receivers: of the alert file.
        rules: of the alert file.
        url: of the page.
    """

    def __init__(self, store: Store, receivers: list[Receiver], rules: list[Rule], url: str = "") -> None:
        self.store, self.rules, self.url = store, rules, url.rstrip("/")
        self.receivers = {receiver.name: receiver for receiver in receivers}
        self._client = httpx.Client(timeout=10, follow_redirects=False, trust_env=False)

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
            if going is not None and now - going["notified"] < 60 * rule.repeat:
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

    def _write(self, row: dict[str, Any], old: dict[str, Any] | None, receivers: tuple[str, ...]) -> None:
        """Write an alert and its deliveries, unless another process changed it since it was read."""
        column = tables.alerts.c
        with self.store.write() as connection:
            self.store.lock(connection, "alerts")
            query = select(column.status, column.notified).where(column.fingerprint == row["fingerprint"])
            present = connection.execute(query).first()
            before = None if old is None else (old["status"], old["notified"])
            if (None if present is None else tuple(present)) != before:
                return
            self.store.upsert(connection, tables.alerts, row, ("fingerprint",))
            for name in receivers:
                body = json.dumps(payload(name, row, self.url))
                new = {"id": uuid.uuid4().hex, "receiver": name, "body": body, "time": row["notified"],
                       "next_try": row["notified"], "tries": 0, "done": None, "error": None}  # fmt: skip
                connection.execute(tables.deliveries.insert().values(new))

    def deliver(self, now: float | None = None) -> int:
        """Try the deliveries that are due, the oldest of each receiver first; the number that were taken."""
        now = time.time() if now is None else now
        column = tables.deliveries.c
        query = select(tables.deliveries).where(column.done.is_(None)).order_by(column.time, column.id).limit(1000)
        waiting: list[dict[str, Any]] = []
        with self.store.read() as connection:
            names = connection.execute(select(column.receiver).where(column.done.is_(None)).distinct()).scalars()
            for name in list(names):  # each has its own limit, so that one that is gone does not stop the others
                rows = connection.execute(query.where(column.receiver == name)).mappings()
                waiting += [dict(row) for row in rows]
        taken, blocked = 0, set()
        for row in waiting:
            # A delivery waits for the earlier ones of its receiver, so that "resolved" never overtakes "firing".
            # A pause that is longer than the longest was written before the clock was set back.
            if row["receiver"] in blocked or now < row["next_try"] <= now + 2 * _LONGEST_PAUSE:
                blocked.add(row["receiver"])
                continue
            error = self._send(row)
            if error is None:
                change: dict[str, Any] = {"done": now, "tries": row["tries"] + 1, "error": None}
                taken += 1
            else:
                pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(row["tries"], 20)) * random.uniform(0.8, 1.2)
                change = {"next_try": now + pause, "tries": row["tries"] + 1, "error": error[:300]}
                blocked.add(row["receiver"])
            with self.store.write() as connection:
                connection.execute(tables.deliveries.update().where(column.id == row["id"]).values(change))
        with self.store.write() as connection:
            connection.execute(tables.deliveries.delete().where(column.done < now - _KEEP_DONE))
        return taken

    def _send(self, row: dict[str, Any]) -> str | None:
        """Send one delivery; why it failed, None if the receiver took it."""
        receiver = self.receivers.get(row["receiver"])
        if receiver is None:
            return None  # it was removed from the file
        body, stamp = row["body"].encode(), str(int(time.time()))
        headers = {
            "content-type": "application/json",
            "x-pushforward-delivery": row["id"],
            "x-pushforward-timestamp": stamp,
        }
        if receiver.secret is not None:
            headers["x-pushforward-signature"] = signature(receiver.secret, stamp, body)
        try:
            answer = self._client.post(receiver.url, content=body, headers=headers)
        except httpx.HTTPError as error:
            return type(error).__name__
        except Exception as error:  # a URL that httpx does not read
            return type(error).__name__
        return None if 200 <= answer.status_code < 300 else f"status {answer.status_code}"

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"
