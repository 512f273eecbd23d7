"""The audit chain: every change of the store as an entry whose hash covers the entry before it.

An entry contains digests and no inputs, so payloads can be deleted after their retention time and the chain still
verifies. ``hash = SHA-256(seq | time | kind | digest | previous hash | detail)``. A segment ends with a signature of the
hash (Ed25519), so an auditor with the public key sees whether anybody rewrote the chain before that entry.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, exists, func, select

from pushforward.errors import ConfigError, StorageError
from pushforward.service.store import tables
from pushforward.service.store.database import Store

__all__ = ["Report", "SigningKey", "append", "digest_of_events", "fact_of_label", "seal", "verify"]

_START = "0" * 64
_FIELDS = (
    "id", "time", "model", "version", "digest", "request", "score", "p_value", "alarm", "reasons", "inputs",
)  # fmt: skip


class SigningKey:
    """An Ed25519 key in a file that only its owner may read; it is made if it does not exist.

    Args:
        path: of the private key, PEM.

    Raises:
        StorageError: if the file cannot be read or made.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        file = Path(path)
        try:
            if not file.exists():
                pem = Ed25519PrivateKey.generate().private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                )
                _write_new(file, pem)
            key = serialization.load_pem_private_key(file.read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            raise StorageError(f"cannot use the audit key {path}: {error}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise StorageError(f"the audit key {path} is not an Ed25519 key: make one with pushforward keygen.")
        self._key = key
        self.public = key.public_key().public_bytes_raw().hex()

    def sign(self, text: str) -> str:
        """The signature of a text, hexadecimal."""
        return self._key.sign(text.encode()).hex()


def _write_new(file: Path, content: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all; one that another process made meanwhile stays."""
    temporary = file.with_name(f".pushforward-{secrets.token_hex(8)}.tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        try:
            os.link(temporary, file)  # unlike a rename, it replaces nothing
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def digest_of_events(rows: Iterable[Sequence[Any]]) -> str:
    """SHA-256 of events, each given as its values in the order of the table, without ``seq`` and ``batch``."""
    found = hashlib.sha256()
    for row in rows:
        # Bytes are never written; whoever changed the store may have put some there.
        found.update(json.dumps(list(row), separators=(",", ":"), default=repr).encode())
        found.update(b"\n")
    return found.hexdigest()


def fact_of_label(event: str, time: float, label: str, note: str | None) -> dict[str, Any]:
    """What the chain says of a label: all of it, but of the note its SHA-256."""
    said = None if note is None else hashlib.sha256(note.encode()).hexdigest()
    return {"event": event, "time": time, "label": label, "note": said}


def append(store: Store, connection: Connection, kind: str, digest: str = "", detail: Any = None) -> int:
    """Add an entry in the running transaction and return its number.

    The last entry is locked first, so that entries of several processes follow each other.
    """
    last = store.lock(connection, "chain", {"seq": 0, "hash": _START})
    seq, when = last["seq"] + 1, time.time()
    text = None if detail is None else json.dumps(detail, sort_keys=True)
    entry = _hash(seq, when, kind, digest, last["hash"], text)
    connection.execute(
        tables.audit.insert().values(
            seq=seq, time=when, kind=kind, digest=digest, previous=last["hash"], hash=entry, detail=text
        )
    )
    store.put(connection, "chain", {"seq": seq, "hash": entry})
    return seq


def seal(store: Store, key: SigningKey) -> int | None:
    """End the segment since the last seal with a signed entry; None if nothing was added since."""
    with store.write() as connection:
        store.lock(connection, "chain")
        column = tables.audit.c
        last = connection.execute(select(func.max(column.seq))).scalar() or 0
        sealed = connection.execute(select(func.max(column.seq)).where(column.kind == "seal")).scalar() or 0
        if last == sealed:
            return None
        seq = append(store, connection, "seal", detail={"from": sealed + 1, "to": last, "key": key.public})
        found = connection.execute(select(column.hash).where(column.seq == seq)).scalar_one()
        connection.execute(tables.audit.update().where(column.seq == seq).values(signature=key.sign(found)))
        return seq


@dataclass(frozen=True)
class Report:
    """What :func:`verify` found.

    Attributes:
        entries: number of entries of the chain.
        events: number of events whose content was compared with its digest.
        deleted: number of entries whose events were deleted after their retention time.
        sealed: number of the last entry with a valid signature, 0 without one.
        key: public key of that signature, hexadecimal; "" without one.
        problems: one sentence for each thing that does not fit.
    """

    entries: int
    events: int
    deleted: int
    sealed: int
    key: str
    problems: tuple[str, ...]

    @property
    def valid(self) -> bool:
        """Whether nothing was changed, removed or inserted."""
        return not self.problems


def verify(store: Store, public_key: str | None = None) -> Report:
    """Recompute every hash of the chain and every signature, and compare the events, labels and models with it.

    Args:
        store: to verify.
        public_key: hexadecimal key that all signatures must be from, of which there must be one, unless the chain is empty.
            Without it the key in each seal is used, which shows damage, but not a forger who signs with a key of his own, or
            not at all.

    Raises:
        ConfigError: if the key is not one.
    """
    _check_key(public_key)
    problems: list[str] = []
    entries = events = deleted = sealed = retained_from = 0
    previous, expected, key = None, None, ""
    labels: dict[str, list[dict[str, Any]]] = {}
    registered: set[tuple[str, str, str]] = set()
    with store.read() as connection:
        if not store.sqlite:  # SQLite reads one state of the store in a transaction anyway
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        try:
            head = store.get(connection, "chain", {"seq": 0, "hash": _START})
            head = {"seq": int(head["seq"]), "hash": str(head["hash"])}
        except (ValueError, KeyError, TypeError):
            return Report(0, 0, 0, 0, "", ("the position of the last entry cannot be read.",))
        retention = select(tables.audit.c.detail).where(tables.audit.c.kind == "retention")
        for text in connection.execute(retention).scalars():
            through = _detail(text).get("through")
            retained_from = max(retained_from, through if isinstance(through, int) else 0)
        rows = connection.execution_options(stream_results=True).execute(
            select(tables.audit).order_by(tables.audit.c.seq).where(tables.audit.c.seq <= head["seq"])
        )
        for row in rows.mappings():
            seq = row["seq"]
            if previous is None:
                previous, expected = (_START, 1) if seq == 1 else (row["previous"], seq)
                if seq != 1:
                    problems.append(f"the chain begins with entry {seq}.")
            if seq != expected or row["previous"] != previous:
                problems.append(f"entry {seq} does not follow entry {(expected or 1) - 1}.")
            found = _hash(seq, row["time"], row["kind"], row["digest"], row["previous"], row["detail"])
            if found != row["hash"]:
                problems.append(f"the hash of entry {seq} is wrong.")
            if row["kind"] == "seal":
                if signer := _signer(row, public_key):
                    sealed, key = seq, signer
                else:
                    problems.append(f"the signature of entry {seq} is wrong.")
            if row["kind"] == "events":
                content = _events_of(connection, seq)
                if not content and seq <= retained_from:
                    deleted += 1
                elif digest_of_events(content) != row["digest"]:
                    problems.append(f"the events of entry {seq} were changed or deleted.")
                events += len(content)
            elif row["kind"] == "feedback":
                fact = _detail(row["detail"])
                labels.setdefault(str(fact.get("event")), []).append(fact)
            elif row["kind"] == "load":
                fact = _detail(row["detail"])
                registered.add((str(fact.get("model")), str(fact.get("version")), str(fact.get("digest"))))
            previous, expected, entries = row["hash"], seq + 1, entries + 1
        if (previous or _START) != head["hash"] or (expected or 1) - 1 != head["seq"]:
            problems.append("the last entries are missing.")
        if entries and public_key is not None and not sealed:
            problems.append("no entry is signed with the given key; a service signs each hour and at its end.")
        problems += _strays(connection)
        problems += _wrong_labels(connection, labels)
        problems += _wrong_models(connection, registered)
    return Report(entries, events, deleted, sealed, key, tuple(problems[:100]))


def _check_key(public_key: str | None) -> None:
    if public_key is not None and not re.fullmatch("[0-9a-fA-F]{64}", public_key):
        raise ConfigError(
            f"the public key of the audit is 64 hexadecimal digits, and not {public_key!r:.80}: write down the one that "
            "pushforward audit STORE shows while you trust the store, and give that."
        )


def _detail(text: str | None) -> dict[str, Any]:
    """The detail of an entry; empty where it was changed to something else, which the hash of the entry shows."""
    try:
        found = json.loads(text or "")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _events_of(connection: Connection, seq: int) -> Sequence[Any]:
    """The stored events of an entry, in the order of their digest."""
    event = tables.events.c
    query = select(*(event[name] for name in _FIELDS)).where(event.batch == seq).order_by(event.seq)
    return connection.execute(query).all()


def _strays(connection: Connection) -> list[str]:
    """Events whose batch is not an entry of events."""
    column, batch = tables.audit.c, tables.events.c.batch
    # Not NOT IN, for which PostgreSQL compares each event with each of many entries.
    known = exists().where(column.seq == batch, column.kind == "events")
    count = connection.execute(select(func.count()).select_from(tables.events).where(~known)).scalar()
    return [f"{count} events belong to no entry."] if count else []


def _wrong_labels(connection: Connection, entries: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Events whose labels are not those of the entries; the labels of an event may be deleted with it."""
    rows = connection.execute(select(tables.feedback).order_by(tables.feedback.c.seq)).mappings()
    stored: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        stored.setdefault(row["event"], []).append(fact_of_label(row["event"], row["time"], row["label"], row["note"]))
    problems = []
    for event in [*entries, *(event for event in stored if event not in entries)]:
        facts, found = entries.get(event, ()), stored.get(event, [])
        # Entries of version 0.1 contain the event and the label alone.
        if len(facts) == len(found) and all(
            fact.items() <= one.items() for fact, one in zip(facts, found, strict=True)
        ):
            continue
        present = select(func.count()).where(tables.events.c.id == event)
        if found or connection.execute(present).scalar():
            problems.append(f"the labels of the event {event} were changed, deleted or added.")
    return problems


def _wrong_models(connection: Connection, registered: Set[tuple[str, str, str]]) -> list[str]:
    """Versions of models whose name, version and digest are in no entry, or whose file has another digest."""
    intact: dict[str, bool] = {}
    problems = []
    for model in connection.execute(select(tables.models)).mappings().all():
        digest = model["digest"]
        if digest not in intact:
            query = select(tables.files.c.content).where(tables.files.c.digest == digest)
            content = connection.execute(query).scalar()
            intact[digest] = content is not None and hashlib.sha256(content).hexdigest() == digest
        if (model["name"], model["version"], digest) not in registered or not intact[digest]:
            problems.append(
                f"version {model['version']} of the model {model['name']!r} is not the file that was loaded."
            )
    return problems


def _hash(seq: int, when: float, kind: str, digest: str, previous: str, detail: str | None) -> str:
    return hashlib.sha256("|".join((str(seq), repr(when), kind, digest, previous, detail or "")).encode()).hexdigest()


def _signer(row: Any, public_key: str | None) -> str:
    """The key that signed a seal, which must be the given one, if any; "" if the signature is not valid."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = public_key or json.loads(row["detail"])["key"]
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(
            bytes.fromhex(row["signature"] or ""), row["hash"].encode()
        )
        return key.lower()
    except (InvalidSignature, ValueError, KeyError, TypeError):
        return ""
