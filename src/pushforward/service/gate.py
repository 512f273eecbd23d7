"""`Gate`: the ASGI layer in front of every route: host, access, size, time, headers of the answer, counts."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import quote

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from pushforward.errors import PushforwardError
from pushforward.service.access import Access, allowed_name, host_name, is_foreign
from pushforward.service.metrics import Metrics
from pushforward.service.refusal import Refusal, as_refusal
from pushforward.service.settings import ServiceSettings

__all__ = ["COOKIE", "Gate", "public", "read_body"]

COOKIE = "pushforward_session"
_OPEN = {"/livez", "/readyz", "/ping", "/v2/health/live", "/v2/health/ready", "/login", "/favicon.ico"}
_SCORING = re.compile(r"/score|/invocations|/v2/models/[^/]+(/versions/[^/]+)?/infer")
_READY = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/ready")
_ADMIN = ("/v2/repository/models/", "/api/audit", "/api/monitor")
_MEMBERS = 1000
"""Parts of a gzip body at most."""
_SHORT_BODY = 64 * 1024
"""Bytes of a body that is not scored."""
_ANSWER_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
]
_log = logging.getLogger("pushforward.service")
_access = logging.getLogger("pushforward.service.access")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def public(path: str) -> bool:
    """Whether a path needs no token: health, the form for the token, and the files of the page, which contain no data."""
    return path in _OPEN or path.startswith("/static/") or _READY.fullmatch(path) is not None


class Gate:
    """What every request passes before it reaches its route.

    Args:
        app: the routes.
        settings: limits and hosts.
        access: tokens.
        metrics: counts.
        direct: finds the handler of a route that scores, which is called without the layers of ``app``; None for others.
    """

    def __init__(
        self,
        app: Any,
        settings: ServiceSettings,
        access: Access,
        metrics: Metrics,
        direct: Callable[[Scope], Callable[[Request], Awaitable[Response]] | None] = lambda _: None,
    ) -> None:
        self.app, self.settings, self.access, self.metrics, self.direct = app, settings, access, metrics, direct
        self.scoring = 0
        """Requests to score that are in progress: they may still come to the queue, wait in it, or are being answered."""
        self.body_bytes = 0
        """Bytes of the bodies in memory."""
        names = {"localhost", "127.0.0.1", "::1", *map(allowed_name, settings.allowed_hosts)}
        self._hosts = names if settings.loopback else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
                return
            await self.app(scope, receive, send)
            return
        start, status = time.monotonic(), 0
        limited, scores = self._limited(scope["path"]), _SCORING.fullmatch(scope["path"]) is not None

        async def answer(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", []), *_ANSWER_HEADERS]
                if not any(name == b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
                if scope["scheme"] == "https":
                    headers.append((b"strict-transport-security", b"max-age=31536000"))
                message = {**message, "headers": headers}
            await send(message)

        self.scoring += scores
        self.metrics.in_progress.inc()
        if not scores:
            receive = _short(receive)
        try:
            self._check(scope)
            handler = self.direct(scope)
            if handler is not None:
                scope["app"] = self.app
                async with asyncio.timeout(self.settings.timeout):
                    response = await handler(Request(scope, receive))  # pyright: ignore[reportArgumentType]
                await response(scope, receive, answer)  # pyright: ignore[reportArgumentType]
            elif limited:
                async with asyncio.timeout(self.settings.timeout):
                    await self.app(scope, receive, answer)
            else:
                await self.app(scope, receive, answer)
        except PushforwardError as error:
            if status:
                raise
            await send_refusal(answer, as_refusal(error))
        except TimeoutError:
            if not status:
                text = f"no answer within {self.settings.timeout:g} seconds: send fewer rows, or try again later."
                await send_refusal(answer, Refusal(504, text))
        except Exception as error:
            if status:
                raise
            # The content of a request stays out of the log: only the kind of the error and the route are written.
            _log.exception("unexpected %s at %s", type(error).__name__, scope["path"][:200].encode("ascii", "replace"))
            await send_refusal(answer, Refusal(500, "unexpected error; the log of the service has the details."))
        finally:
            self.scoring -= scores
            self.metrics.in_progress.dec()
            if limited:
                name, version = scope.get("pushforward_model", ("", ""))
                self.metrics.requests.labels(name, version, str(status or 499)).inc()
                if name:
                    self.metrics.duration.labels(name, version).observe(time.monotonic() - start)
            if self.settings.access_log:
                _log_access(scope, status or 499, time.monotonic() - start)

    @staticmethod
    def _limited(path: str) -> bool:
        return path != "/api/stream"

    def _check(self, scope: Scope) -> None:
        """Refuse a request that must not reach a route; note its role in the scope."""
        found: dict[bytes, bytes] = dict(scope["headers"])
        host = found.get(b"host", b"").decode("latin-1")
        if self._hosts is not None and host_name(host) not in self._hosts:
            raise Refusal(403, "this Host is not served: use localhost, or start the service with --allowed-host.")
        path, method = scope["path"], scope["method"]
        if "\0" in path or b"%00" in scope["query_string"]:  # PostgreSQL has no such texts
            raise Refusal(400, "the URL has the character NUL: leave it out.")
        if method not in ("GET", "HEAD", "OPTIONS"):
            origin, site = (_text(found.get(name)) for name in (b"origin", b"sec-fetch-site"))
            if is_foreign(origin, site, host):
                raise Refusal(403, "requests from pages of other sites are refused.")
        role = self.access.role(_text(found.get(b"authorization")), _cookie(found.get(b"cookie")))
        scope["pushforward_role"] = role
        if public(path):
            return
        if role is None:
            if method == "GET" and path_of_page(path) and b"text/html" in found.get(b"accept", b""):
                query = scope["query_string"].decode("latin-1")
                raise Refusal(303, quote(quote(path) + (f"?{query}" if query else "")))
            raise Refusal(401, "a token is needed: send the header Authorization: Bearer TOKEN.")
        if role != "admin" and path.startswith(_ADMIN):
            raise Refusal(403, "this needs a token with the role admin.")


def _log_access(scope: Scope, status: int, seconds: float) -> None:
    """A line for a request. The path is quoted, so that no line break of a client makes a second line."""
    client, path = (scope.get("client") or ("-",))[0], quote(scope["path"])[:200]
    role = scope.get("pushforward_role") or "-"
    _access.info("%s %s %s %d %.1fms %s", client, scope["method"], path, status, 1000 * seconds, role)


def path_of_page(path: str) -> bool:
    """Whether a browser shows this path as a page."""
    return path == "/" or path.startswith("/event/")


def _short(receive: Receive) -> Receive:
    """The body of a request that does not score, with a small limit: it has no rows, and some of these routes need no token."""
    size = 0

    async def limited() -> MutableMapping[str, Any]:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > _SHORT_BODY:
            # Refusals become 400 where FastAPI reads a body, but not errors of HTTP.
            text = f"a body that is not scored may have {_SHORT_BODY} bytes: send less."
            raise HTTPException(413, text, {"connection": "close"})
        return message

    return limited


async def read_body(gate: Gate, scope: Scope, receive: Receive) -> bytes:
    """The body of a request, within the limits on its size, on the memory of all bodies, and on its time.

    Raises:
        Refusal: 400, 408, 413, 415 or 429.
    """
    settings = gate.settings
    headers: dict[bytes, bytes] = dict(scope["headers"])
    encoding = headers.get(b"content-encoding", b"identity").lower()
    if encoding not in (b"identity", b"gzip"):
        raise Refusal(415, "the body has an unknown Content-Encoding: send it plain or with gzip.")
    stated = headers.get(b"content-length", b"")
    if stated.isdigit() and (len(stated) > 15 or int(stated) > settings.max_body):
        raise _too_large(settings)
    inflate = _Gzip() if encoding == b"gzip" else None
    parts: list[bytes] = []
    size = received = 0
    try:
        end = asyncio.get_running_loop().time() + settings.timeout / 2
        while True:
            try:
                async with asyncio.timeout_at(end):
                    message = await receive()
            except TimeoutError:
                raise Refusal(408, f"the body did not arrive within {settings.timeout / 2:g} seconds.") from None
            if message["type"] == "http.disconnect":
                raise Refusal(400, "the connection ended before the body.")
            data = message.get("body", b"")
            received += len(data)
            if inflate is not None:
                data = inflate.add(data, settings.max_body + 1 - size)
            if max(size + len(data), received) > settings.max_body:
                raise _too_large(settings)
            if gate.body_bytes + len(data) > settings.max_memory:
                raise Refusal(429, "too many large requests at a time: try again later.", retry_after=1)
            size += len(data)
            gate.body_bytes += len(data)
            parts.append(data)
            if not message.get("more_body", False):
                break
        if inflate is not None and not inflate.complete:
            raise Refusal(400, "the gzip body is cut off.")
        return b"".join(parts)
    finally:
        gate.body_bytes -= size


class _Gzip:
    """A gzip body that comes in pieces. It may have several members, one after the other, as joined files have."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(31)
        self._members = 1

    @property
    def complete(self) -> bool:
        """Whether a member has ended and no other has begun."""
        return self._member.eof

    def add(self, data: bytes, most: int) -> bytes:
        """The content of the next piece, or its first ``most`` bytes if there is more.

        Raises:
            Refusal: 400 for data that are not gzip.
        """
        found = b""
        while data and len(found) < most:
            if self._member.eof:
                data = data.lstrip(b"\0")  # padding of a block, which gzip ignores too
                if not data:
                    break
                self._member, self._members = zlib.decompressobj(31), self._members + 1
                if self._members > _MEMBERS:
                    raise Refusal(400, f"the gzip body has more than {_MEMBERS} parts: compress it as a whole.")
            try:
                found += self._member.decompress(data, most - len(found))
            except zlib.error:
                raise Refusal(400, "the body is not gzip.") from None
            data = self._member.unused_data if self._member.eof else b""
        return found


async def send_refusal(send: Send, refusal: Refusal) -> None:
    """Answer with a status and ``{"error": text}``."""
    body = orjson.dumps({"error": refusal.text.encode("utf-8", "replace").decode()})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refusal.retry_after is not None:
        headers.append((b"retry-after", str(refusal.retry_after).encode()))
    if refusal.status == 303:
        body = b""
        headers = [(b"location", b"/login?next=" + refusal.text.encode()), (b"content-length", b"0")]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refusal.status in (408, 413, 415):
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _too_large(settings: ServiceSettings) -> Refusal:
    return Refusal(413, f"a body may have {settings.max_body} bytes: send the rows in several requests.")


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _cookie(header: bytes | None) -> str | None:
    if header is None:
        return None
    try:
        found = SimpleCookie(header.decode("latin-1")).get(COOKIE)
    except CookieError:
        return None
    return None if found is None else found.value
