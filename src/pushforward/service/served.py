"""The models of one process: loaded from the store, replaced without a pause, dropped when nothing uses them."""

from __future__ import annotations

import logging
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pushforward.data.cells import INSTANTS
from pushforward.errors import ConfigError, PushforwardError, SchemaWarning, SignatureError, StorageError, collected
from pushforward.estimators import Guard
from pushforward.service.inputs import Inputs, Reader
from pushforward.service.refusal import Refusal
from pushforward.service.store import Store
from pushforward.service.store.modelbook import Entry, entries, generation, read_content, read_signatures, write_signed

__all__ = ["LARGEST", "Models", "Scores", "ServedModel"]

_log = logging.getLogger("pushforward.service")

LARGEST = float(np.finfo(np.float64).max)
"""An infinite score in an answer and in the store, because JSON has no infinity."""
_OTHER_TIMES = "column .*: rows are (after|before) the normal rows that are known"
_OTHER_ZONES = r"column .*: \d+ rows? ha(ve|s) (a|no) time zone"
_LEAST = 0.05  # nats: a reason with less is shown as 0.0
_FEW = 32  # up to so many rows, a compiled guard is faster than one that fills up its batch


@dataclass(frozen=True)
class Scores:
    """What a guard says of some rows: arrays ``(rows,)``, the reasons of those rows for which they were computed, and a sentence
    for each column with instants clearly before or after the normal rows that are known, and for each whose rows have a time zone where those had none, or
    none where those had one."""

    score: np.ndarray
    p_value: np.ndarray
    alarm: np.ndarray
    reasons: dict[int, list[tuple[str, float]]] = field(default_factory=dict)
    other_times: tuple[str, ...] = ()
    other_zones: tuple[str, ...] = ()


class ServedModel:
    """One version of a model in memory.

    Args:
        entry: its description in the store.
        guard: fitted.
        max_rows: largest number of rows in a request.
    """

    def __init__(self, entry: Entry, guard: Guard, max_rows: int) -> None:
        self.name, self.version, self.digest, self.time = entry.name, entry.version, entry.digest, entry.time
        self.guard, self.reader = guard, Reader(guard, max_rows)
        self.in_use = 0
        columns = self.reader.schema.columns if self.reader.schema is not None else ()
        self._has_instants = any(column.time in INSTANTS for column in columns)
        self._few = self._compiled(guard)

    @property
    def key(self) -> tuple[str, str]:
        """Name and version."""
        return self.name, self.version

    def score(self, inputs: Inputs) -> Scores:
        """Score rows, without reasons.

        Raises:
            PushforwardError: for rows that the guard does not read.
        """
        guard = self._few if len(inputs) <= _FEW else self.guard
        # An unseen category raises the score, which is the answer; a later row does not, so only those warnings are kept.
        with collected(SchemaWarning) as caught:
            found = guard.assess(self._rows(inputs))
        known = [str(warning) for warning in caught] if self._has_instants else []
        zones = tuple(sentence for sentence in known if re.match(_OTHER_ZONES, sentence))
        times = tuple(sentence for sentence in known if re.match(_OTHER_TIMES, sentence))
        score = (
            np.nan_to_num(found["anomaly_score"], nan=LARGEST, posinf=LARGEST, neginf=-LARGEST) + 0.0
        )  # SQLite has no -0.0
        return Scores(score, found["p_value"], found["alarm"].astype(bool), {}, times, zones)

    def reasons(self, inputs: Inputs, rows: Sequence[int], k: int = 5) -> dict[int, list[tuple[str, float]]]:
        """The columns that made some of the rows unlikely, with their nats; nothing for a guard that cannot say."""
        if not rows or inputs.kind == "images":
            return {}
        index = np.asarray(rows)
        chosen = inputs.data[index] if inputs.kind == "matrix" else inputs.data.take(index)
        try:
            with collected(SchemaWarning):
                found = self.guard.explain(self._rows(Inputs(inputs.kind, chosen)))
        except ConfigError:
            return {}
        top = {row: found.top(i, k) for i, row in enumerate(rows)}
        return {
            row: [(name, float(np.clip(nats, -LARGEST, LARGEST))) for name, nats in each if nats >= _LEAST] or each[:1]
            for row, each in top.items()
        }

    def facts(self) -> dict[str, Any]:
        """What an operator sees of it."""
        guard = self.guard
        return {
            "name": self.name,
            "version": self.version,
            "digest": self.digest,
            "time": self.time,
            "reads": "images" if guard.reads_images else "table",
            "columns": list(self.reader.names),
            "alpha": guard.alpha,
            "level": guard.level_,
            "guarantee": guard.guarantee,
            "delta": guard.delta,
            "calibration_rows": len(guard.calibrator_.scores),
        }

    def _rows(self, inputs: Inputs) -> Any:
        if inputs.kind != "matrix" or self.reader.schema is None or self.reader.schema.positional:
            return inputs.data
        import pyarrow as pa

        return pa.table([pa.array(column) for column in inputs.data.T], names=list(self.reader.names))

    @staticmethod
    def _compiled(guard: Guard) -> Guard:
        """A compiled copy for few rows; the guard itself where it cannot be compiled."""
        if guard.reads_images:
            return guard
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "guard.safetensors")
            guard.save(path)
            try:
                return Guard.load(path).compile()
            except PushforwardError:
                return guard


class Models:
    """The models that one process serves, kept equal to the store.

    :meth:`refresh` loads what is new before it replaces anything, and the replacement is one assignment: a request sees the
    models before or after it, and a request that began with an older version ends with it.

    Args:
        store: of the service.
        names: of the models, the one first that answers requests that name none; others of the store are not served.
        max_rows: largest number of rows in a request.
        public_key: file of the key with which every version must be signed; None accepts any.
    """

    def __init__(self, store: Store, names: Sequence[str], max_rows: int, public_key: str | None = None) -> None:
        self.store, self.names, self.max_rows, self.public_key = store, tuple(names), max_rows, public_key
        self.generation = -1
        self._served: dict[tuple[str, str], ServedModel] = {}
        self._active: dict[str, str] = {}

    def refresh(self) -> bool:
        """Load and drop versions as the store says; False if nothing had changed.

        Raises:
            StorageError: if an active guard cannot be loaded; the models then do not change. Others are left out.
        """
        with self.store.read() as connection:
            number = generation(self.store, connection)
            if number == self.generation:
                return False
            wanted = [entry for entry in entries(connection) if entry.loaded and entry.name in self.names]
            contents: dict[str, bytes | StorageError] = {}
            for entry in wanted:
                if (entry.name, entry.version) not in self._served:
                    try:
                        contents[entry.digest] = read_content(connection, entry.digest)
                    except StorageError as error:
                        contents[entry.digest] = error
            signatures = read_signatures(self.store, connection) if self.public_key is not None else {}
        served = {}
        for entry in wanted:
            key = (entry.name, entry.version)
            try:
                served[key] = self._served.get(key) or self._load(
                    entry, contents[entry.digest], signatures.get(entry.digest)
                )
            except StorageError as error:
                if entry.active:
                    raise
                _log.error("model %s, version %s, is left out: %s", entry.name, entry.version, error)
        found = {entry.name: entry.version for entry in wanted if entry.active}
        active = {name: found[name] for name in self.names if name in found}  # as the operator gave them
        self._log_changes(served, active)
        self._served, self._active, self.generation = served, active, number
        return True

    def _load(self, entry: Entry, content: bytes | StorageError, signature: bytes | None) -> ServedModel:
        """A model from the bytes of its guard file, after it scored nothing of consequence: the first call is slow."""
        if isinstance(content, StorageError):
            raise content
        with tempfile.TemporaryDirectory() as folder:
            if self.public_key is None:
                path = Path(folder, "guard.safetensors")
                path.write_bytes(content)
            else:
                path = write_signed(folder, entry, content, signature)
            try:
                guard = Guard.load(path, public_key=self.public_key)
            except SignatureError:  # its message names the copy
                raise SignatureError(
                    f"version {entry.version} of {entry.name!r} in the store is not signed with the key of {self.public_key}: sign "
                    "its file with this key and load it again."
                ) from None
        model = ServedModel(entry, guard, self.max_rows)
        _warm_up(model)
        return model

    def _log_changes(self, served: dict[tuple[str, str], ServedModel], active: dict[str, str]) -> None:
        """One line for each version that is loaded, activated or unloaded in this process."""
        for key, model in served.items():
            if key not in self._served:
                _log.info("model %s, version %s: loaded (SHA-256 %s)", *key, model.digest)
        for name, version in active.items():
            if self._active.get(name) != version:
                _log.info("model %s, version %s: activated", name, version)
        for key in self._served:
            if key not in served:
                _log.info("model %s, version %s: unloaded", *key)

    def find(self, name: str | None = None, version: str | None = None) -> ServedModel:
        """The model that a request asks for: the first without a name, the active version without a version.

        Raises:
            Refusal: 404 if there is none.
        """
        name = next(iter(self._active), None) if name is None else name
        version = self._active.get(name or "") if version is None else version
        found = self._served.get((name or "", version or ""))
        if found is None:
            known = ", ".join(self._active) or "none"
            versions = ", ".join(loaded for model, loaded in self._served if model == name)
            if versions:
                raise Refusal(
                    404, f"the model {name!r:.80} has no version {version!r:.40} that is loaded; loaded: {versions}."
                )
            what = f"{name!r:.80}" + (f" in version {version!r:.40}" if version else "")
            raise Refusal(404, f"there is no model {what}; the models are: {known}.")
        return found

    def all(self) -> list[ServedModel]:
        """Every loaded version."""
        return list(self._served.values())

    def active(self) -> list[ServedModel]:
        """The active version of every model."""
        return [self._served[key] for key in self._active.items() if key in self._served]

    def is_active(self, model: ServedModel) -> bool:
        """Whether it answers requests that name no version."""
        return self._active.get(model.name) == model.version


def _warm_up(model: ServedModel) -> None:
    reader, start = model.reader, time.monotonic()
    if reader.images or not reader.all_numeric:
        return
    for rows in (1, 2 * _FEW):
        if time.monotonic() - start < 5:
            model.score(Inputs("matrix", np.zeros((rows, len(reader.names)))))
