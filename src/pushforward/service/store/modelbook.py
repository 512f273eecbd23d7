"""Which models are served, in which version: the same for every process, because it is in the store."""

from __future__ import annotations

import hashlib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select

from pushforward.errors import ConfigError, SignatureError, StorageError
from pushforward.io import read as read_file
from pushforward.io.input_file import InputFile, unchanged
from pushforward.io.signature import check_signature, signature_path
from pushforward.service.store import audit, tables
from pushforward.service.store.database import Store

__all__ = [
    "Entry",
    "activate",
    "check_others",
    "entries",
    "generation",
    "keep_signed",
    "read_content",
    "read_signatures",
    "register",
    "unload",
    "write_signed",
]

_LARGEST_FILE = 512 * 2**20
_ALIVE = 10.0  # seconds after its last report in which a process counts as running


@dataclass(frozen=True)
class Entry:
    """A version of a model.

    Attributes:
        name: of the model.
        version: "1", "2", ...
        digest: SHA-256 of the guard file.
        loaded: whether it can be asked for.
        active: whether it answers requests that name no version.
        time: at which it was registered, seconds since 1970.
    """

    name: str
    version: str
    digest: str
    loaded: bool
    active: bool
    time: float


def entries(connection: Connection) -> list[Entry]:
    """All versions of all models, in the order of their registration."""
    rows = connection.execute(select(tables.models).order_by(tables.models.c.id)).mappings()
    return [Entry(r["name"], r["version"], r["digest"], bool(r["loaded"]), bool(r["active"]), r["time"]) for r in rows]


def generation(store: Store, connection: Connection) -> int:
    """A number that grows with each change of the models."""
    return int(store.get(connection, "generation", 0))


def read_content(connection: Connection, digest: str) -> bytes:
    """The guard file with this digest, as it was registered."""
    content = connection.execute(select(tables.files.c.content).where(tables.files.c.digest == digest)).scalar()
    if content is None or hashlib.sha256(content).hexdigest() != digest:
        raise StorageError(f"the store has no intact guard file {digest[:12]}.")
    return bytes(content)


def read_signatures(store: Store, connection: Connection) -> dict[str, bytes]:
    """The signatures of guard files that were registered with a key, by digest."""
    return {digest: bytes.fromhex(text) for digest, text in store.get(connection, "signatures", {}).items()}


def write_signed(folder: str | Path, entry: Entry, content: bytes, signature: bytes | None) -> Path:
    """Write a registered guard file with its signature into a folder, to load it with a key.

    Raises:
        SignatureError: if it was registered without a signature.
    """
    path = Path(folder, "guard.safetensors")
    path.write_bytes(content)
    if signature is None:
        raise SignatureError(
            f"version {entry.version} of {entry.name!r} came into the store without a signature: sign its file and load it again."
        )
    signature_path(path).write_bytes(signature)
    return path


def keep_signed(store: Store, entry: Entry, public_key: str) -> None:
    """Unload the other versions of a model that are not signed with a key, such as those that were served without it before.

    Where one of them was active, the given version, which is signed, takes its place.
    """
    with store.write() as connection:
        store.lock(connection, "chain")
        signatures = read_signatures(store, connection)
        others = [e for e in entries(connection) if e.name == entry.name and e.version != entry.version and e.loaded]
        gone = [other for other in others if not _is_signed(connection, other, signatures, public_key)]
        for other in gone:
            _set_unloaded(store, connection, other)
        if any(other.active for other in gone):
            _set_active(connection, entry.name, entry.version)
            _changed(store, connection, "activate", entry.name, entry.version, entry.digest)


def _is_signed(connection: Connection, entry: Entry, signatures: dict[str, bytes], public_key: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            content = read_content(connection, entry.digest)
            path = write_signed(folder, entry, content, signatures.get(entry.digest))
            check_signature(content, path, public_key)
        except StorageError:
            return False
    return True


def register(
    store: Store, name: str, path: str | Path, *, activate_known: bool = False, public_key: str | None = None
) -> Entry:
    """Copy a guard file into the store as the next version of a model, which becomes the active one.

    A file that the model already has stays the version that it is. It becomes active with ``activate_known``, if no other
    version is loaded, or if the last file that was registered for the model was another one. With a key, the signature of the
    bytes that are copied is verified and kept, so that every process verifies the copy that it loads.

    Raises:
        SignatureError: if a key is given, and the file is not signed with it.
        StorageError: if the file is not an intact guard file; the store then does not change.
    """
    file = Path(path)
    with unchanged([InputFile(str(path), str(path), None, "safetensors")]):  # what is copied is what was checked
        read_file(path, kind="guard")
        if file.stat().st_size > _LARGEST_FILE:
            raise StorageError(f"{path} has more than {_LARGEST_FILE // 2**20} MiB.")
        content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if public_key is not None:
        check_signature(content, path, public_key)
    with store.write() as connection:
        store.lock(connection, "chain")
        column = tables.models.c
        known = [entry for entry in entries(connection) if entry.name == name]
        same = next((entry for entry in known if entry.digest == digest), None)
        insert = store.insert(tables.files).values(digest=digest, content=content).on_conflict_do_nothing()
        connection.execute(insert)
        if public_key is not None:
            signatures = store.get(connection, "signatures", {})
            store.put(connection, "signatures", signatures | {digest: signature_path(path).read_bytes().hex()})
        last = store.get(connection, "files", {})
        changed = last.get(name, digest) != digest  # an earlier file is back; else a choice of a version stays
        store.put(connection, "files", last | {name: digest})
        if same is None:
            version = str(1 + max((int(entry.version) for entry in known), default=0))
            row = {"name": name, "version": version, "digest": digest, "loaded": True, "active": False}
            connection.execute(tables.models.insert().values(**row, time=time.time()))
        else:
            version = same.version
            if same.loaded and same.active:
                return same
            connection.execute(
                tables.models.update().where(column.name == name, column.version == version).values(loaded=True)
            )
        if same is None or activate_known or changed or not any(entry.active and entry.loaded for entry in known):
            _set_active(connection, name, version)
        _changed(store, connection, "load", name, version, digest)
        return next(e for e in entries(connection) if (e.name, e.version) == (name, version))


def activate(store: Store, name: str, version: str) -> bool:
    """Let a loaded version answer requests that name no version; False if there is no such version."""
    with store.write() as connection:
        store.lock(connection, "chain")
        found = [e for e in entries(connection) if (e.name, e.version) == (name, version) and e.loaded]
        if not found:
            return False
        if not found[0].active:
            _set_active(connection, name, version)
            _changed(store, connection, "activate", name, version, found[0].digest)
        return True


def unload(store: Store, name: str, version: str | None = None) -> bool:
    """Stop serving a model, or one version of it; False if it is not loaded.

    Raises:
        ConfigError: for the active version while others are loaded, since nobody said which of them takes its place.
    """
    with store.write() as connection:
        store.lock(connection, "chain")
        loaded = [e for e in entries(connection) if e.name == name and e.loaded]
        gone = [e for e in loaded if version in (None, e.version)]
        if not gone:
            return False
        rest = [e for e in loaded if e not in gone]
        if rest and any(e.active for e in gone):
            raise ConfigError(
                f"version {version} of {name!r} answers requests that name no version: activate another one first (loaded: "
                f"{', '.join(e.version for e in rest)}), or unload the whole model."
            )
        for entry in gone:
            _set_unloaded(store, connection, entry)
        return True


def keep_only(store: Store, names: list[str]) -> None:
    """Unload every model that is not one of these names."""
    for name in _others(store, names):
        unload(store, name)


def check_others(store: Store, names: list[str], wait: float = _ALIVE + 2) -> None:
    """Check that no running service has models that :func:`keep_only` would take from it.

    Args:
        store: of the service.
        names: of the models.
        wait: seconds after which a process that was killed is forgotten.

    Raises:
        ConfigError: if one has.
    """
    end = time.monotonic() + wait
    while others := _others(store, names):
        with store.read() as connection:
            if slowest_worker(connection) is None:
                return
        if time.monotonic() > end:
            raise ConfigError(
                f"the store is used by a running service with the model {others[0]!r}, which would end there: give this service a "
                "store of its own with --store, or stop the other one first."
            )
        time.sleep(0.2)


def _others(store: Store, names: list[str]) -> list[str]:
    """The loaded models that are not one of these names."""
    with store.read() as connection:
        return sorted({entry.name for entry in entries(connection) if entry.loaded} - set(names))


def report_worker(store: Store, worker: str, number: int) -> None:
    """Note that a process is alive and serves this generation of the models."""
    with store.write() as connection:
        now, column = time.time(), tables.workers.c
        store.upsert(connection, tables.workers, {"id": worker, "seen": now, "generation": number}, ("id",))
        # A time in the future was written before the clock was set back.
        connection.execute(tables.workers.delete().where((column.seen < now - 60) | (column.seen > now + 60)))


def forget_worker(store: Store, worker: str) -> None:
    """Note that a process ends."""
    with store.write() as connection:
        connection.execute(tables.workers.delete().where(tables.workers.c.id == worker))


def slowest_worker(connection: Connection, seconds: float = _ALIVE) -> int | None:
    """The smallest generation that a process reported in the last seconds."""
    now, column = time.time(), tables.workers.c
    alive = (column.seen > now - seconds) & (column.seen <= now + seconds)
    return connection.execute(select(func.min(column.generation)).where(alive)).scalar()


def _set_active(connection: Connection, name: str, version: str) -> None:
    column = tables.models.c
    connection.execute(tables.models.update().where(column.name == name).values(active=False))
    chosen = tables.models.update().where(column.name == name, column.version == version)
    connection.execute(chosen.values(active=True))


def _set_unloaded(store: Store, connection: Connection, entry: Entry) -> None:
    column = tables.models.c
    chosen = tables.models.update().where(column.name == entry.name, column.version == entry.version)
    connection.execute(chosen.values(loaded=False, active=False))
    _changed(store, connection, "unload", entry.name, entry.version, entry.digest)


def _changed(store: Store, connection: Connection, what: str, name: str, version: str, digest: str) -> None:
    store.put(connection, "generation", int(store.get(connection, "generation", 0)) + 1)
    detail: dict[str, Any] = {"model": name, "version": version, "digest": digest}
    audit.append(store, connection, what, detail=detail)
