"""`ServiceSettings`: every option of the service, checked before anything starts."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from pushforward.errors import ConfigError
from pushforward.numerics.checks import check_choice, check_integer, check_positive

__all__ = ["NAME", "ServiceSettings", "is_loopback", "model_files"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a model may be called; such a name is safe in a path, a label and a header."""


@dataclass(frozen=True)
class ServiceSettings:
    """Options of the service.

    Args:
        models: name and guard file of each model.
        host: address to listen on.
        port: port to listen on; 0 for any free port.
        store: SQLAlchemy URL of the store: ``sqlite:///FILE`` or ``postgresql+psycopg://...``.
        durability: what an answer promises. "strict": its events are on disk before the answer is sent. "fast": they are
            written within half a second; a crash of the machine or of the process loses the events of that time.
            "none": no events are stored.
        workers: processes that score.
        token_file: file with lines ``role:token``; required beyond loopback.
        allowed_hosts: further values of the Host header that are accepted on loopback.
        tls_cert: certificate chain, PEM.
        tls_key: private key of the certificate, PEM.
        max_batch: largest number of rows that are scored together.
        max_wait: longest time in seconds that a request waits for others to be scored with it.
        queue: largest number of rows that wait or are being scored in one process.
        max_rows: largest number of rows in one request.
        max_body: largest body in bytes.
        max_memory: bytes of all bodies that one process reads at a time.
        timeout: seconds in which a request must be answered.
        drain: seconds that requests in progress have after SIGTERM.
        store_inputs: whether inputs are stored with their events. They then disclose every value that clients send to
            everybody who may read the store, its backups, or the page.
        retention_days: age at which events are deleted; None to keep them.
        alert_file: TOML file of receivers and rules.
        audit_key: file of the private key that signs segments of the audit chain; it is made if it does not exist.
        public_url: URL under which people reach the page, for links in alerts.
        access_log: whether every request is a line of the log: the client's address, the method, the path without its query, the
            status, milliseconds, and the role of the token. No content is in it.
        public_key: file of the key with which every guard file must be signed (:func:`~pushforward.io.sign`); None accepts any.

    Raises:
        ConfigError: for an option that is not possible, or a combination that would be open to everybody.

    Example:
        >>> from pushforward.service import ServiceSettings
        >>> settings = ServiceSettings(models=(("orders", "orders.safetensors"),), store="sqlite:///events.sqlite")
        >>> settings.port, settings.durability
        (8000, 'fast')
    """

    models: tuple[tuple[str, str], ...]
    host: str = "127.0.0.1"
    port: int = 8000
    store: str = "sqlite:///pushforward-events.sqlite"
    durability: str = "fast"
    workers: int = 1
    token_file: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    tls_cert: str | None = None
    tls_key: str | None = None
    max_batch: int = 256
    max_wait: float = 0.002
    queue: int = 4096
    max_rows: int = 4096
    max_body: int = 16 * 2**20
    max_memory: int = 256 * 2**20
    timeout: float = 30.0
    drain: float = 30.0
    store_inputs: bool = False
    retention_days: float | None = None
    alert_file: str | None = None
    audit_key: str | None = None
    public_url: str | None = None
    public_key: str | None = None
    access_log: bool = False

    def __post_init__(self) -> None:
        if not self.models:
            raise ConfigError("give at least one guard file to serve.")
        for name, _ in self.models:
            if not NAME.fullmatch(name):
                raise ConfigError(
                    f"{name!r:.80} cannot be the name of a model: use letters, digits, '.', '_' and '-', at most 64 (NAME=FILE "
                    "gives a file another name)."
                )
        check_choice("durability", self.durability, ("strict", "fast", "none"))
        for given, option in ((self.alert_file is not None, "alerts"), (self.store_inputs, "store_inputs")):
            if self.durability == "none" and given:
                raise ConfigError(
                    f'durability="none" stores no rows, and {option} needs them: use durability="fast", or leave {option} out.'
                )
        check_integer("port", self.port, 0, most=65535)
        for option in ("workers", "max_batch", "queue", "max_rows", "max_body", "max_memory"):
            check_integer(option, getattr(self, option))
        check_positive("max_wait", self.max_wait, zero=True)
        for option in ("timeout", "drain"):
            check_positive(option, getattr(self, option))
        check_positive("retention_days", self.retention_days, optional=True)
        if self.max_rows > self.queue:
            raise ConfigError(f"max_rows ({self.max_rows}) must not be more than queue ({self.queue}).")
        if self.max_body > self.max_memory:
            raise ConfigError(f"max_body ({self.max_body}) must not be more than max_memory ({self.max_memory}).")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("TLS needs both a certificate and its key.")
        if not self.loopback and self.token_file is None:
            raise ConfigError(
                f"{self.host} can be reached from other machines: give --token-file, or listen on 127.0.0.1."
            )

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def model_files(arguments: list[str]) -> tuple[tuple[str, str], ...]:
    """The name and the file of each argument ``FILE`` or ``NAME=FILE``; a file without a name is called as its stem.

    >>> model_files(["credit.safetensors", "night=models/b.safetensors"])
    (('credit', 'credit.safetensors'), ('night', 'models/b.safetensors'))
    """
    found = []
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not equals or "/" in name:
            name, path = Path(argument).stem, argument
        found.append((name, path))
    if len({name for name, _ in found}) < len(found):
        raise ConfigError("two files have the same name: give one of them another, NAME=FILE.")
    return tuple(found)
