"""The audit chain: every change of the store as an entry whose hash covers the entry before it.

An entry contains digests and no inputs, so payloads can be deleted after their retention time and the chain still
verifies. ``hash = SHA-256(seq | time | kind | digest | previous hash | detail)``. A segment ends with a signature of the
hash (Ed25519), so an auditor with the public key sees whether anybody rewrote the chain before that entry.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select

from pushforward.errors import StorageError
from pushforward.service.store import tables
from pushforward.service.store.database import Store

__all__ = ["Report", "SigningKey", "append", "digest_of_events", "seal", "verify"]

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
                with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                    out.write(pem)
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


def digest_of_events(rows: Iterable[Sequence[Any]]) -> str:
    """SHA-256 of events, each given as its values in the order of the table, without ``seq`` and ``batch``."""
    found = hashlib.sha256()
    for row in rows:
        found.update(json.dumps(list(row), separators=(",", ":")).encode())
        found.update(b"\n")
    return found.hexdigest()


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
        problems: one sentence for each thing that does not fit.
    """

    entries: int
    events: int
    deleted: int
    sealed: int
    problems: tuple[str, ...]

    @property
    def valid(self) -> bool:
        """Whether nothing was changed, removed or inserted."""
        return not self.problems


def verify(store: Store, public_key: str | None = None) -> Report:
    """Recompute every hash of the chain, every signature, and the digest of all events that are still there.

    Args:
        store: to verify.
        public_key: hexadecimal key that all signatures must be from. Without it the key in each seal is used, which
            shows damage, but not a forger who signs with a key of his own.
    """
    problems: list[str] = []
    entries = events = deleted = sealed = retained_from = 0
    previous, expected, last_batch = None, None, 0
    event = tables.events.c
    with store.read() as connection:
        head = store.get(connection, "chain", {"seq": 0, "hash": _START})
        retention = select(tables.audit.c.detail).where(tables.audit.c.kind == "retention")
        for text in connection.execute(retention).scalars():
            retained_from = max(retained_from, json.loads(text)["through"])
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
                if _signed(row, public_key):
                    sealed = seq
                else:
                    problems.append(f"the signature of entry {seq} is wrong.")
            if row["kind"] == "events":
                query = select(*(event[name] for name in _FIELDS)).where(event.batch == seq).order_by(event.seq)
                content = connection.execute(query).all()
                if not content and seq <= retained_from:
                    deleted += 1
                elif digest_of_events(content) != row["digest"]:
                    problems.append(f"the events of entry {seq} were changed or deleted.")
                events += len(content)
                last_batch = seq
            previous, expected, entries = row["hash"], seq + 1, entries + 1
        if entries and (previous != head["hash"] or (expected or 1) - 1 != head["seq"]):
            problems.append("the last entries are missing.")
        stray = connection.execute(
            select(func.count()).where(event.batch.between(last_batch + 1, head["seq"]))
        ).scalar()
        if stray:
            problems.append(f"{stray} events belong to no entry.")
    return Report(entries, events, deleted, sealed, tuple(problems[:100]))


def _hash(seq: int, when: float, kind: str, digest: str, previous: str, detail: str | None) -> str:
    return hashlib.sha256("|".join((str(seq), repr(when), kind, digest, previous, detail or "")).encode()).hexdigest()


def _signed(row: Any, public_key: str | None) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = public_key or json.loads(row["detail"])["key"]
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(
            bytes.fromhex(row["signature"] or ""), row["hash"].encode()
        )
        return True
    except (InvalidSignature, ValueError, KeyError, TypeError):
        return False
