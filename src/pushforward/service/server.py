"""Start the service: check, prepare the store, listen, run one process or several."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import socket
import ssl
import tempfile
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pushforward.errors import StorageError
from pushforward.estimators import Guard
from pushforward.io.atomic import reason
from pushforward.service.access import Access
from pushforward.service.alert_rules import read_alert_file
from pushforward.service.app import create_app
from pushforward.service.keeper import signing_key
from pushforward.service.settings import ServiceSettings
from pushforward.service.store import Store
from pushforward.service.store.modelbook import check_others, keep_only, keep_signed, register

__all__ = ["prepare", "serve"]

_HEADER_SECONDS = 10.0
_HEADER_BYTES = 64 * 2**10
_HEADERS = 200
_TOO_LARGE = b"the request line and the headers may have 64 KiB."


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol with limits on the time and the size of the headers of each request.

    Headers have ten seconds from the first byte of a request (of a connection, for its first one), 64 KiB and 200 lines. The
    size limit is on all that a client sends between two parts of a request that the parser gives out, so it holds for a line
    without an end, for extensions of chunks and for the headers after a body as well.
    """

    _deadline: asyncio.TimerHandle | None = None
    _unread = 0
    _progress = False

    def connection_made(self, transport: Any) -> None:
        """Start the time."""
        super().connection_made(transport)
        self._start_time()

    def data_received(self, data: bytes) -> None:
        """Parse, count what is not yet a part of a request, and start the time if no request is being answered."""
        self._progress = False
        super().data_received(data)
        if self.transport.is_closing():
            return
        self._unread = 0 if self._progress else self._unread + len(data)
        idle = self.cycle is None or self.cycle.response_complete
        if self._unread > _HEADER_BYTES:
            self._refuse(idle)
        elif idle and self._deadline is None:
            self._start_time()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._progress = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Refuse too many headers, which the answer 400 follows."""
        if len(self.headers) >= _HEADERS:
            raise ValueError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop the time."""
        self._progress = True
        self._stop_time()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body has arrived."""
        self._progress = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request ends."""
        self._progress = True
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the time."""
        self._stop_time()
        super().connection_lost(exc)

    def _start_time(self) -> None:
        self._deadline = self.loop.call_later(_HEADER_SECONDS, self._close)

    def _stop_time(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, idle: bool) -> None:
        """Answer 431, unless another answer is being written, and close the connection."""
        if idle:
            head = "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
            self.transport.write(
                f"{head}content-length: {len(_TOO_LARGE)}\r\nconnection: close\r\n\r\n".encode() + _TOO_LARGE
            )
        self._close()

    def _close(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()


def prepare(settings: ServiceSettings) -> None:
    """Make or migrate the store, and register the guard files in it.

    Raises:
        StorageError: if the store, the audit key, a guard file or the certificate cannot be used, such as a guard that is not
            signed with the key of the settings.
        ConfigError: for a token file that cannot be understood, or a store of a running service with other models.
    """
    Access(settings.token_file, b"")  # errors of the files are shown before anything starts
    if settings.tls_cert is not None and settings.tls_key is not None:
        _check_tls(settings.tls_cert, settings.tls_key)
    for _, path in settings.models:
        # Before the store has it, from where every later start would load it.
        Guard.load(path, public_key=settings.public_key)
    if settings.alert_file is not None:
        read_alert_file(settings.alert_file)
    store = Store(settings.store)
    try:
        store.migrate()
        signing_key(settings, store)  # a process of several that cannot use it would be started again and again
        names = [name for name, _ in settings.models]
        check_others(store, names)
        for name, path in settings.models:
            entry = register(store, name, path, public_key=settings.public_key)
            if settings.public_key is not None:
                keep_signed(store, entry, settings.public_key)
        keep_only(store, names)
    finally:
        store.close()


def serve(settings: ServiceSettings) -> int:
    """Serve until SIGTERM or SIGINT, then answer what was accepted.

    Returns:
        The exit code.

    Raises:
        ConfigError, StorageError: before it listens, if it cannot.
    """
    listener = _listen(settings)  # first, so that the store stays as it is where the port is taken
    try:
        prepare(settings)
    except BaseException:
        listener.close()
        raise
    shared = tempfile.mkdtemp(prefix="pushforward-metrics-") if settings.workers > 1 else None
    if shared is not None:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared  # read by the workers, which are started after this
    config = uvicorn.Config(
        functools.partial(create_app, settings),
        factory=True,
        http=Protocol,
        ws="none",
        lifespan="on",
        workers=settings.workers,
        log_config=_LOGGING,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_worker_healthcheck=60,  # a worker imports torch before it can answer
        timeout_graceful_shutdown=max(1, round(settings.drain)),
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    scheme = "http" if settings.tls_cert is None else "https"
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    names = ", ".join(name for name, _ in settings.models)
    print(f"pushforward serves {names} at {scheme}://{shown}:{port}/", flush=True)
    try:
        if settings.workers == 1:
            server = uvicorn.Server(config)
            server.run(sockets=[listener])
            return 0 if server.started else 3
        from uvicorn.supervisors import Multiprocess

        Multiprocess(config, sockets=[listener]).run()
        return 0
    except KeyboardInterrupt:
        return 0
    finally:
        listener.close()
        if shared is not None:
            shutil.rmtree(shared, ignore_errors=True)


def _check_tls(certificate: str, key: str) -> None:
    """Read a certificate and its key: a process of several that cannot read them would be started again and again."""
    encrypted = False

    def password() -> bytes:
        nonlocal encrypted
        encrypted = True
        return b""

    for path in (certificate, key):
        try:
            open(path, "rb").close()
        except OSError as error:
            raise StorageError(f"cannot read {path}: {reason(error)}.") from error
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password)
    except (OSError, ValueError) as error:
        if not encrypted:  # else OpenSSL asks for the password when the server starts
            raise StorageError(
                f"{certificate} and {key} are not a certificate and its key: {reason(error)}."
            ) from error


def _listen(settings: ServiceSettings) -> socket.socket:
    listener = None
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
        listener.set_inheritable(True)
        return listener
    except OSError as error:
        if listener is not None:
            listener.close()
        raise StorageError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}.") from error


_LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"err": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}},
    "loggers": {
        "uvicorn": {"handlers": ["err"], "level": "WARNING", "propagate": False},
        "pushforward.service": {"handlers": ["err"], "level": "INFO", "propagate": False},
    },
}
