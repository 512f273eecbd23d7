"""`Store`: the database of the service, SQLite or PostgreSQL, opened, migrated, and read and written in transactions."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from weakref import WeakSet

from sqlalchemy import Connection, NullPool, create_engine, event, make_url, select, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from pushforward.errors import ConfigError, StorageError
from pushforward.service.store import tables

__all__ = ["Store"]

_MIGRATIONS = Path(__file__).parents[1] / "migrations"
_ABSENT = ("42P01", "42703")  # of PostgreSQL, for a table and for a column


class Store:
    """The database of the service.

    SQLite runs with a write-ahead log; ``durable`` chooses whether a commit waits for the disk. PostgreSQL always waits
    unless its server was set up otherwise.

    Args:
        url: SQLAlchemy URL, ``sqlite:///FILE`` or ``postgresql+psycopg://USER:PASSWORD@HOST/NAME``.
        durable: whether a commit is on disk when it returns.

    Raises:
        ConfigError: for another database, or a URL that cannot be read. No error shows the password of a URL.
    """

    def __init__(self, url: str, *, durable: bool = True) -> None:
        try:
            parsed = make_url(url)
        except ArgumentError:
            raise ConfigError("the URL of the store cannot be read: give sqlite:///FILE or postgresql://...") from None
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        self.sqlite = parsed.get_backend_name() == "sqlite"
        if not self.sqlite and parsed.get_backend_name() != "postgresql":
            raise ConfigError(f"the store must be sqlite or postgresql; got {parsed.get_backend_name()}.")
        if self.sqlite and parsed.database in (None, "", ":memory:"):
            raise ConfigError("the store must be a file, so that it is there after a restart: give sqlite:///FILE.")
        self.url = parsed
        options: dict[str, Any] = (
            {"connect_args": {"timeout": 15}}
            if self.sqlite
            else {
                "pool_pre_ping": True,
                "connect_args": {"connect_timeout": 5, "options": "-c statement_timeout=30000"},
            }
        )
        try:
            self.engine = create_engine(parsed, pool_size=8, max_overflow=8, pool_timeout=10, **options)
        except (NoSuchModuleError, ModuleNotFoundError):
            raise ConfigError(
                "a PostgreSQL store needs psycopg: pip install 'pushforward[serve]' 'psycopg[binary]'."
            ) from None
        self._connections: WeakSet[Any] = WeakSet()
        if self.sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite(durable))
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            event.listen(self.engine, "connect", lambda connection, _: self._connections.add(connection))
        self._options = options

    def __repr__(self) -> str:
        return f"Store({self.shown})"

    @property
    def shown(self) -> str:
        """The URL without a password, which may be among its parameters too."""
        return self.url.difference_update_query(["password", "sslpassword"]).render_as_string(hide_password=True)

    @property
    def path(self) -> Path | None:
        """The file of an SQLite store."""
        return Path(str(self.url.database)) if self.sqlite else None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading."""
        with self._errors(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction; writers of SQLite wait for each other at its start, so that it never fails in the middle."""
        with self._errors(), self.engine.connect() as connection:
            connection = connection.execution_options(pushforward_write=True)
            with connection.begin():
                yield connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            cause_text = (str(cause).splitlines() or [type(error).__name__])[0][:200]
            if self.sqlite and cause_text == "unable to open database file":
                cause_text += (
                    f" {self.path}: SQLite must be able to write it and files beside it. Give a file in a folder that can be "
                    "written, and copy a store there that is in another folder."
                )
            if cause_text.startswith(("no such table", "no such column")) or getattr(cause, "sqlstate", "") in _ABSENT:
                cause_text = (
                    f"{self.shown} is not a store of this version of pushforward ({cause_text}). Give the store of a service; the start of "
                    "`pushforward serve` brings one of an earlier version to this version."
                )
            raise StorageError(f"the store cannot be used: {cause_text}") from error

    def migrate(self) -> None:
        """Bring the tables to this version, from nothing or from any earlier version.

        Raises:
            StorageError: if the store cannot be reached, or a newer pushforward wrote it.
        """
        from alembic.migration import MigrationContext
        from alembic.operations import Operations
        from alembic.script import ScriptDirectory
        from alembic.util.exc import CommandError

        if self.path is not None and not self.path.parent.is_dir():
            raise StorageError(
                f"the store {self.path} cannot be made: its folder does not exist. Make the folder first."
            )
        script = ScriptDirectory(str(_MIGRATIONS))
        steps = {"fn": lambda revision, _: script._upgrade_revs("head", revision)}
        try:
            with self.write() as connection:
                if not self.sqlite:
                    connection.execute(text("SELECT pg_advisory_xact_lock(7089223)"))  # one process migrates at a time
                context = MigrationContext.configure(connection, opts=steps)
                with Operations.context(context):
                    context.run_migrations()
        except CommandError as error:
            raise StorageError(f"a newer pushforward wrote this store: {error}") from error

    def get(self, connection: Connection, key: str, default: Any = None) -> Any:
        """A value of the table ``state``."""
        value = connection.execute(select(tables.state.c.value).where(tables.state.c.key == key)).scalar()
        return default if value is None else json.loads(value)

    def lock(self, connection: Connection, key: str, default: Any = None) -> Any:
        """A value of the table ``state`` that nobody else reads by ``lock`` before this transaction ends."""
        if not self.sqlite:  # SQLite's writers already wait for each other at the start of the transaction
            connection.execute(text("SELECT pg_advisory_xact_lock(7089224, hashtext(:key))"), {"key": key})
        return self.get(connection, key, default)

    def put(self, connection: Connection, key: str, value: Any) -> None:
        """Set a value of the table ``state``."""
        self.upsert(connection, tables.state, {"key": key, "value": json.dumps(value)}, ("key",))

    def upsert(self, connection: Connection, table: Any, row: dict[str, Any], keys: tuple[str, ...]) -> None:
        """Insert a row, or replace the row with the same keys."""
        insert = self.insert(table).values(row)
        rest = {name: insert.excluded[name] for name in row if name not in keys}
        connection.execute(insert.on_conflict_do_update(index_elements=list(keys), set_=rest))

    def insert(self, table: Any) -> Any:
        """The INSERT of this database, which can say what happens on a conflict."""
        if self.sqlite:
            from sqlalchemy.dialects.sqlite import insert
        else:
            from sqlalchemy.dialects.postgresql import insert
        return insert(table)

    def end_if_frozen(self) -> bool:
        """End the connections of a PostgreSQL that gives no answer to a new one; whether it gave none.

        A server that stands still keeps its connections, and their threads would wait for ever.
        """
        if self.sqlite:
            return False
        from psycopg.errors import ConnectionTimeout

        probe = create_engine(self.url, poolclass=NullPool, connect_args=self._options["connect_args"])
        try:
            probe.connect().close()
        except DBAPIError as error:
            if not isinstance(error.orig, ConnectionTimeout):
                return False  # it answers, or the connections have ended
        else:
            return False
        for connection in list(self._connections):
            # The thread that waits gets an error; to close a connection that another thread uses is not safe.
            with suppress(Exception), socket.socket(fileno=os.dup(connection.pgconn.socket)) as copy:
                copy.shutdown(socket.SHUT_RDWR)
        return True

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _prepare_sqlite(durable: bool) -> Any:
    def prepare(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        cursor.execute("PRAGMA busy_timeout=15000")
        cursor.close()

    return prepare


def _begin_sqlite(connection: Any) -> None:
    write = connection.get_execution_options().get("pushforward_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
