"""Who may do what: bearer tokens with roles, sessions of the page, and the checks against other web sites."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from pushforward.errors import ConfigError, StorageError

__all__ = ["ROLES", "SESSION_SECONDS", "Access", "allowed_name", "host_name", "is_foreign", "new_secret"]

ROLES = ("read", "admin")
"""Roles in ascending order: "read" scores, labels and looks; "admin" also changes models and monitors, and reads the audit."""
SESSION_SECONDS = 12 * 3600
_SHORTEST_TOKEN = 16


class Access:
    """Checks tokens and sessions.

    The token file has one ``role:token`` a line, with the token itself or ``sha256:`` and its hexadecimal digest. Lines that
    begin with # are comments. The file is read again when it changes, so tokens rotate without a restart: add the new one,
    move the clients, remove the old one. A file that cannot be read or understood later changes nothing.

    Args:
        token_file: None lets everybody who can connect do everything, which only loopback allows.
        secret: with which sessions are signed, the same for all workers.

    Raises:
        ConfigError: for a file that is not one of tokens.
        StorageError: for a file that cannot be read.
    """

    def __init__(self, token_file: str | None, secret: bytes) -> None:
        self._file = None if token_file is None else Path(token_file)
        self._secret = secret
        self._digests: dict[bytes, str] = {}
        self._stamp: tuple[int, int, int] | None = None
        self._checked = -1.0
        if self._file is not None:
            try:
                self._stamp, self._digests = _stamp(self._file), _read_tokens(self._file)
            except OSError as error:
                raise StorageError(f"cannot read the token file {self._file}: {error.strerror or error}.") from error

    @property
    def is_open(self) -> bool:
        """Whether no token is needed."""
        return self._file is None

    def role_of_token(self, token: str) -> str | None:
        """The role of a token; None for one that is not in the file. All tokens are compared, each in constant time."""
        self._refresh()
        digest, found = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest(), None
        for known, role in self._digests.items():
            if hmac.compare_digest(known, digest):
                found = role
        return found

    def role(self, authorization: str | None, cookie: str | None) -> str | None:
        """The role of a request by its ``Authorization`` header or its session cookie."""
        if self.is_open:
            return "admin"
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            return self.role_of_token(token.strip()) if scheme.lower() == "bearer" else None
        return None if cookie is None else self._role_of_session(cookie)

    def new_session(self, token: str) -> str | None:
        """A signed cookie for a token; it ends after 12 hours, or when the token is removed from the file."""
        if self.role_of_token(token) is None:
            return None
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
        text = f"{int(time.time()) + SESSION_SECONDS}.{digest[:32]}"
        return f"{text}.{self._sign(text)}"

    def _role_of_session(self, cookie: str) -> str | None:
        self._refresh()
        text, _, signature = cookie.rpartition(".")
        ends, _, prefix = text.partition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(text).encode()):
            return None
        if not ends.isdecimal() or len(ends) > 12 or int(ends) < time.time():
            return None
        return next((role for digest, role in self._digests.items() if digest.hex()[:32] == prefix), None)

    def _sign(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()

    def _refresh(self) -> None:
        """Read the file again if it changed, at most once a second."""
        if self._file is None or time.monotonic() - self._checked < 1:
            return
        self._checked = time.monotonic()
        with contextlib.suppress(OSError, ConfigError):
            stamp = _stamp(self._file)
            if stamp != self._stamp:
                self._digests = _read_tokens(self._file)
                self._stamp = stamp


def host_name(host: str) -> str:
    """The name in a Host header, without the port.

    >>> host_name("localhost:8000"), host_name("[::1]:80")
    ('localhost', '::1')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def allowed_name(host: str) -> str:
    """The name that a Host header has for a host that is allowed, which may be given with or without a port and brackets.

    >>> allowed_name("Box.example:8000"), allowed_name("[fd00::1]:80"), allowed_name("fd00::1")
    ('box.example', 'fd00::1', 'fd00::1')
    """
    return host.lower() if host.count(":") > 1 and not host.startswith("[") else host_name(host)


def is_foreign(origin: str | None, fetch_site: str | None, host: str | None) -> bool:
    """Whether a browser says that a page of another site made a request.

    Args:
        origin: the Origin header.
        fetch_site: the Sec-Fetch-Site header.
        host: the Host header. Host and port are compared, not the scheme, because a proxy may end TLS.
    """
    if fetch_site is not None and fetch_site not in ("same-origin", "none"):
        return True
    if origin is None:
        return False
    try:
        parts = urlsplit(origin)
        return origin == "null" or parts.netloc.lower() != (host or "").lower()
    except ValueError:
        return True


def _stamp(file: Path) -> tuple[int, int, int]:
    status = file.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read_tokens(file: Path) -> dict[bytes, str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ConfigError(f"the token file {file} is not UTF-8 text: write lines such as admin:TOKEN.") from None
    found = dict(_tokens(lines, file))
    if not found:
        raise ConfigError(f"the token file {file} has no token: write lines such as admin:TOKEN.")
    return found


def _tokens(lines: Iterable[str], file: Path) -> Iterable[tuple[bytes, str]]:
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        role, _, token = line.partition(":")
        if role not in ROLES:  # the line is not shown, because it contains a secret
            raise ConfigError(f"line {number} of the token file {file} must be read:TOKEN or admin:TOKEN.")
        if token.startswith("sha256:"):
            try:
                digest = bytes.fromhex(token[7:])
            except ValueError:
                digest = b""
            if len(digest) != 32:
                raise ConfigError(
                    f"line {number} of the token file {file} does not have 64 hexadecimal digits, the SHA-256 of a token: write the token itself, or all digits."
                )
            yield digest, role
        elif len(token) < _SHORTEST_TOKEN:
            raise ConfigError(
                f"line {number} of the token file {file} has a token of fewer than {_SHORTEST_TOKEN} characters: make one "
                'with python -c "import secrets; print(secrets.token_urlsafe(32))".'
            )
        else:
            yield hashlib.sha256(token.encode()).digest(), role


def new_secret() -> str:
    """A new secret for sessions, hexadecimal."""
    return os.urandom(32).hex()
