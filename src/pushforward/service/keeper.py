"""`Keeper`: what one process does for all: drift, alerts, deliveries, retention, times and seals. A lease in the store chooses it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

from sqlalchemy import select

from pushforward.errors import StorageError
from pushforward.estimators.guard_facts import trimmed_scores
from pushforward.service.alert_rules import ModelFacts, read_alert_file
from pushforward.service.alerting import Alerting
from pushforward.service.drift import Drift
from pushforward.service.served import Models, ServedModel
from pushforward.service.settings import ServiceSettings
from pushforward.service.store import Store, tables
from pushforward.service.store.audit import SigningKey, seal
from pushforward.service.store.eventlog import delete_old, delete_old_counts, note_times

__all__ = ["Keeper", "signing_key"]

_LEASE = 10.0
_STEP = 1.0
_SEAL_SECONDS = 3600.0
_ROWS = 20_000
"""Events that a round deletes."""
_COUNT_DAYS = 31.0
"""Days for which counts of minutes and points of drift stay where events stay for ever; the page shows 30."""
_log = logging.getLogger("pushforward.service")


class Keeper:
    """Runs in every process; does its work only in the process that has the lease.

    The lease is by the clock of the machine. If a clock jumps, two processes may have it for some seconds; each change is
    conditional on what it read, so nothing is counted twice.

    Args:
        settings: of the service.
        store: of the service.
        holder: identifier of this process.
        models: the models of this process.
    """

    def __init__(self, settings: ServiceSettings, store: Store, holder: str, models: Models) -> None:
        self.settings, self.store, self.holder, self.models = settings, store, holder, models
        receivers, rules = ([], []) if settings.alert_file is None else read_alert_file(settings.alert_file)
        names = [name for name, _ in settings.models]
        for rule in rules:
            if rule.model is not None and rule.model not in names:
                _log.warning(
                    "the alert rule %r is for the model %r, which is not served, so it never fires (served: %s).",
                    rule.name, rule.model, ", ".join(names),
                )  # fmt: skip
        self.alerting = Alerting(store, receivers, rules, settings.public_url or "")
        self._started = time.time()
        self.drift = Drift(store)
        self.key = signing_key(settings, store)
        self.leads = False
        self._sealed = time.monotonic()
        self._cleaned = -1e9
        self._error: str | None = None
        self._failing: dict[str, str] = {}
        # A round that is cancelled goes on in its thread, and `close` must not change the same monitors meanwhile.
        self._working = threading.Lock()

    @property
    def evidence(self) -> dict[tuple[str, str], float]:
        """The log of the drift martingale of each model that this process follows; 0 for one that it followed before."""
        return dict(self.drift.evidence) if self.leads else {}  # a copy, because another thread adds models

    async def run(self) -> None:
        """Work until cancelled."""
        # Deliveries have a task of their own, which waits for no receiver.
        await asyncio.gather(self._keep(), self._deliver())

    async def _deliver(self) -> None:
        while True:
            await asyncio.sleep(_STEP)
            try:
                if self.leads:
                    await asyncio.to_thread(self.alerting.deliver, wait=False)
            except Exception as error:
                _log.error("alerts are not sent at present: %s", error)
                await asyncio.sleep(5)

    async def _keep(self) -> None:
        while True:
            try:
                self.leads = await asyncio.to_thread(self._take_lease)
                if self.leads:
                    await asyncio.to_thread(self._work)
                else:
                    self.drift.forget()
                self._error = None
            except Exception as error:  # the store may be gone for a while
                self.leads = False
                if self._error is None:
                    _log.error("drift and alerts wait: %s", error)
                self._error = str(error)
            await asyncio.sleep(_STEP)

    def _work(self) -> None:
        """Do each part of the work. One that fails stops no other, unless the store is gone."""
        parts = {
            "drift": self.drift.update,
            "alerts": self._check,
            "retention": self._clean,
            "searches by time": lambda: note_times(self.store),
            "seals": self._seal,
        }
        with self._working:
            for name, part in parts.items():
                try:
                    part()
                    self._failing.pop(name, None)
                except StorageError:
                    raise
                except Exception as error:
                    if self._failing.get(name) != str(error):
                        _log.error("%s fail at present: %s", name, error)
                    self._failing[name] = str(error)

    def _check(self) -> None:
        if self.settings.alert_file is not None:  # also without a rule in it, so that the alerts of removed rules end
            self.alerting.check([self._facts(model) for model in self.models.active()])

    def _clean(self) -> None:
        """Delete some of what is too old, so that the lease does not end and no writer waits for long."""
        now, wall = time.monotonic(), time.time()
        if now - self._cleaned <= 60:
            return
        days, gone = self.settings.retention_days, 0
        if days is not None:
            self.drift.save_before(wall - 86400 * days)
            gone = delete_old(self.store, wall - 86400 * days, _ROWS)
        # A rule of the kind "rate" reads the counts of its window.
        windows = [60 * rule.minutes + 60 for rule in self.alerting.rules if rule.kind == "rate"]
        kept = max([86400 * (_COUNT_DAYS if days is None else days), *windows])
        if not gone + delete_old_counts(self.store, max(0.0, wall - kept), _ROWS):
            self._cleaned = now

    def _seal(self) -> None:
        now = time.monotonic()
        if self.key is not None and now - self._sealed > _SEAL_SECONDS:
            self._sealed = now
            seal(self.store, self.key)

    def _facts(self, model: ServedModel) -> ModelFacts:
        guard = model.guard
        return ModelFacts(
            model.name,
            model.version,
            guard.alpha,
            guard.guarantee,
            guard.delta,
            len(guard.calibrator_.scores),
            max(model.time, self._started),
            trimmed_scores(guard),
            guard.level_ == 0,
        )

    def close(self) -> None:
        """Sign the end of the chain and give the lease back."""
        self.alerting.close()
        if not self.leads:
            return
        try:
            with self._working:
                self.drift.update()
            if self.key is not None:
                seal(self.store, self.key)
            with self.store.write() as connection:
                column = tables.leases.c
                connection.execute(tables.leases.delete().where(column.name == "keeper", column.holder == self.holder))
        except Exception as error:
            _log.error("the audit chain was not sealed at the end: %s", error)

    def _take_lease(self) -> bool:
        """Take or prolong the lease; False if another process has it."""
        now = time.time()
        with self.store.write() as connection:
            column = tables.leases.c
            row = connection.execute(select(tables.leases).where(column.name == "keeper")).mappings().first()
            # A lease that ends further away than a lease lasts was written before the clock was set back.
            taken = row is not None and row["holder"] != self.holder and now < row["expires"] <= now + _LEASE
            if taken:
                return False
            new = {"name": "keeper", "holder": self.holder, "expires": now + _LEASE}
            self.store.upsert(connection, tables.leases, new, ("name",))
            return True


def signing_key(settings: ServiceSettings, store: Store) -> SigningKey | None:
    """The key of the settings; beside the file of an SQLite store by default; none for PostgreSQL."""
    if settings.durability == "none":
        return None
    if settings.audit_key is not None:
        return SigningKey(settings.audit_key)
    return None if store.path is None else SigningKey(f"{store.path}.key")
