"""Prometheus metrics of the service: of one process, or of all workers together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

from pushforward.service.served import Scores, ServedModel

__all__ = ["Metrics"]

_MODEL = ("model_name", "model_version")
_LEVELS = (0.001, 0.005, 0.01, 0.05, *(round(0.1 * k, 1) for k in range(1, 11)))


class Metrics:
    """The metrics that `/metrics` shows; names begin with ``pushforward_``, labels name the model and its version only."""

    def __init__(self) -> None:
        self._registry = r = CollectorRegistry()
        # With several workers each writes to files of a common folder, and any of them can answer for all.
        self._shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        p = "pushforward_"
        self.requests = Counter(f"{p}requests", "Requests by status code.", (*_MODEL, "code"), registry=r)
        self.duration = Histogram(
            f"{p}request_duration_seconds",
            "Time from the request to its answer.",
            _MODEL,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=r,
        )
        self.in_progress = Gauge(
            f"{p}requests_in_progress", "Requests that wait for their answer.", registry=r, multiprocess_mode="livesum"
        )
        self.batch_size = Histogram(
            f"{p}batch_size",
            "Rows scored together.",
            _MODEL,
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
            registry=r,
        )
        self.queue_length = Gauge(
            f"{p}queue_length", "Rows that wait or are being scored.", registry=r, multiprocess_mode="livesum"
        )
        self.rows = Counter(f"{p}rows_scored", "Rows scored.", _MODEL, registry=r)
        self.alarms = Counter(f"{p}alarms", "Alarms.", _MODEL, registry=r)
        self.other_times = Counter(
            f"{p}batches_outside_training_time",
            "Batches with instants clearly before or after those of the training rows.",
            _MODEL,
            registry=r,
        )
        self.p_value = Histogram(f"{p}p_value", "P-values of scored rows.", _MODEL, buckets=_LEVELS, registry=r)
        self.drift = Gauge(
            f"{p}drift_log_evalue",
            "Log of the drift martingale, nats.",
            _MODEL,
            registry=r,
            multiprocess_mode="mostrecent",
        )
        self.waiting_events = Gauge(
            f"{p}events_waiting", "Events that are not yet in the store.", registry=r, multiprocess_mode="livesum"
        )
        self.info = Gauge(
            f"{p}model_info",
            "1 for each loaded version, 0 after it was unloaded.",
            (*_MODEL, "digest"),
            registry=r,
            multiprocess_mode="livemax",
        )
        self._loaded: set[tuple[str, str, str]] = set()

    def loaded(self, models: Iterable[ServedModel]) -> None:
        """Say which versions are loaded now."""
        present = {(*model.key, model.digest[:12]) for model in models}
        for key in self._loaded - present:
            self.info.labels(*key).set(0)
        for key in present:
            self.info.labels(*key).set(1)
        self._loaded |= present

    def scored(self, model: ServedModel, found: Scores) -> None:
        """Count the rows of one batch."""
        rows = len(found.score)
        self.batch_size.labels(*model.key).observe(rows)
        self.rows.labels(*model.key).inc(rows)
        self.alarms.labels(*model.key).inc(int(found.alarm.sum()))
        if found.other_times:
            self.other_times.labels(*model.key).inc()
        histogram = self.p_value.labels(*model.key)
        for p in np.asarray(found.p_value).tolist():
            histogram.observe(p)

    def text(self) -> bytes:
        """The exposition format of Prometheus."""
        if self._shared:
            _forget_dead()
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)
            return generate_latest(registry)
        return generate_latest(self._registry)


def _forget_dead() -> None:
    """Remove the gauges of workers that ended without a word."""
    for file in Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob("gauge_live*_*.db"):
        number = file.stem.rpartition("_")[2]
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            with contextlib.suppress(FileNotFoundError):  # another worker was faster
                multiprocess.mark_process_dead(int(number))
        except (ValueError, PermissionError):
            continue
