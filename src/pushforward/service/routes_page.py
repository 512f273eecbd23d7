"""Routes of the page: HTML, its files, its data, and a stream of server-sent events."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator
from pathlib import Path as File
from typing import Any, Literal
from urllib.parse import parse_qs

import numpy as np
import orjson
from fastapi import FastAPI, Path, Query, Request
from jinja2 import Environment, FileSystemLoader
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from pushforward.service.access import SESSION_SECONDS
from pushforward.service.core import Service
from pushforward.service.gate import COOKIE, read_body
from pushforward.service.overview import overview
from pushforward.service.refusal import Refusal
from pushforward.service.served import ServedModel
from pushforward.service.store.eventlog import find_event

__all__ = ["add"]

_HERE = File(__file__).parent
_FILES = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "event.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_EVENT = Path(pattern="^[0-9a-f]{32}$")
_MOST_STREAMS = 100


def add(app: FastAPI) -> None:
    """Add the routes."""
    pages = Environment(loader=FileSystemLoader(_HERE / "templates"), autoescape=True)
    pages.filters["when"] = lambda seconds: time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
    pages.filters["figure"] = lambda value: f"{value:.4g}"
    _add_pages(app, pages)
    _add_login(app, pages)
    _add_data(app)


def _service(request: Request) -> Service:
    return request.app.state.service


def _html(pages: Environment, name: str, status: int = 200, **values: Any) -> HTMLResponse:
    return HTMLResponse(pages.get_template(name).render(**values), status)


def _add_pages(app: FastAPI, pages: Environment) -> None:
    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> HTMLResponse:
        access = _service(request).access
        return _html(pages, "page.html", role=request.scope["pushforward_role"], open=access.is_open)

    @app.get("/event/{identifier}", include_in_schema=False)
    async def event_page(request: Request, identifier: str) -> HTMLResponse:
        service = _service(request)
        found = None
        if len(identifier) == 32 and identifier.isalnum():
            found = await asyncio.to_thread(_find, service, identifier)
        if found is None:
            return _html(pages, "absent.html", 404)
        values = found["inputs"]
        picture = isinstance(values, list)
        largest = max((abs(nats) for _, nats in found["reasons"] or ()), default=1.0) or 1.0
        alpha = next((m.guard.alpha for m in service.models.all() if m.digest == found["digest"]), None)
        return _html(pages, "event.html", event=found, picture=picture, largest=largest, alpha=alpha)

    @app.get("/event/{identifier}/image.png", include_in_schema=False)
    async def picture(request: Request, identifier: str = _EVENT) -> Response:
        found = await asyncio.to_thread(_find, _service(request), identifier)
        if found is None or not isinstance(found["inputs"], list):
            raise Refusal(404, "this event has no picture.")
        return Response(await asyncio.to_thread(_png, found["inputs"]), media_type="image/png")

    @app.get("/static/{name}", include_in_schema=False)
    async def static(name: str) -> Response:
        kind = _FILES.get(name)  # a fixed list, so that no name is ever a path
        if kind is None:
            raise Refusal(404, "there is no such file.")
        return Response(
            (_HERE / "static" / name).read_bytes(), media_type=kind, headers={"cache-control": "max-age=300"}
        )

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return Response((_HERE / "static" / "icon.svg").read_bytes(), media_type="image/svg+xml")


def _add_login(app: FastAPI, pages: Environment) -> None:
    @app.get("/login", include_in_schema=False)
    async def form(request: Request) -> HTMLResponse:
        return _html(pages, "login.html", next=_inner(request.query_params.get("next")), wrong=False)

    @app.post("/login", include_in_schema=False)
    async def login(request: Request) -> Response:
        body = await read_body(request.app.state.gate, request.scope, request.receive)
        if len(body) > 4096:
            raise Refusal(413, "the form is too large.")
        fields = parse_qs(body.decode("utf-8", "replace"))
        target = _inner(fields.get("next", ["/"])[0])
        session = _service(request).access.new_session(fields.get("token", [""])[0].strip())
        if session is None:
            await asyncio.sleep(0.5)
            return _html(pages, "login.html", 401, next=target, wrong=True)
        answer = RedirectResponse(target, 303)
        secure = request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
        answer.set_cookie(
            COOKIE, session, max_age=SESSION_SECONDS, httponly=True, samesite="strict", secure=secure, path="/"
        )
        return answer

    @app.post("/logout", include_in_schema=False)
    async def logout() -> Response:
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE, path="/")
        return answer


def _add_data(app: FastAPI) -> None:
    cache: dict[tuple[str, str, int], tuple[float, bytes]] = {}
    making: dict[tuple[str, str, int], asyncio.Task[bytes]] = {}
    streams = 0

    async def make(service: Service, chosen: ServedModel, hours: int) -> bytes:
        key = (chosen.name, chosen.version, hours)
        try:
            found = orjson.dumps(await asyncio.to_thread(overview, service, chosen, hours))
        finally:
            del making[key]
        if len(cache) > 200:
            cache.clear()
        cache[key] = (time.monotonic(), found)
        return found

    async def state(service: Service, model: str | None, version: str | None, hours: int) -> bytes:
        """The overview as JSON, made at most once a second for all who look at the same."""
        chosen = service.models.find(model, version)
        key = (chosen.name, chosen.version, hours)
        made, found = cache.get(key, (0.0, b""))
        if time.monotonic() - made <= 0.9:
            return found
        if key not in making:
            making[key] = asyncio.create_task(make(service, chosen, hours))
        return await asyncio.shield(making[key])  # one that leaves does not end it for the others

    @app.get("/api/overview")
    async def data(
        request: Request,
        model: str | None = Query(None, max_length=64),
        version: str | None = Query(None, max_length=32),
        hours: Literal["1", "24", "168", "720"] = "24",
    ) -> Response:
        """What the page shows of a model."""
        return Response(await state(_service(request), model, version, int(hours)), media_type="application/json")

    @app.get("/api/stream", include_in_schema=False)
    async def stream(
        request: Request,
        model: str | None = Query(None, max_length=64),
        version: str | None = Query(None, max_length=32),
        hours: Literal["1", "24", "168", "720"] = "24",
    ) -> Response:
        nonlocal streams
        service = _service(request)
        service.models.find(model, version)
        if streams >= _MOST_STREAMS:
            raise Refusal(429, "too many pages are open.", retry_after=30)

        async def events() -> AsyncIterator[bytes]:
            nonlocal streams
            streams += 1
            try:
                yield b"retry: 2000\n\n"
                # The token is looked at again and again, so that a page ends when its token is removed.
                while not service.draining.is_set() and role_of(request) is not None:
                    try:
                        found = await state(service, model, version, int(hours))
                        yield b"data: " + found + b"\n\n"
                    except Exception as error:  # the store may be gone for a while; the page says so
                        yield b"event: problem\ndata: " + orjson.dumps(str(error)) + b"\n\n"
                    try:
                        async with asyncio.timeout(1.0):
                            await service.draining.wait()
                    except TimeoutError:
                        continue
            finally:
                streams -= 1

        return StreamingResponse(events(), media_type="text/event-stream")


def role_of(request: Request) -> str | None:
    """The role of a request at present."""
    return _service(request).access.role(request.headers.get("authorization"), request.cookies.get(COOKIE))


def _inner(target: str | None) -> str:
    """A path of this service; anything else becomes the start, so that the form leads nowhere else."""
    if (
        not target
        or not target.startswith("/")
        or target.startswith("//")
        or "\\" in target
        or not target.isprintable()
    ):
        return "/"
    return target


def _find(service: Service, identifier: str) -> dict[str, Any] | None:
    with service.store.read() as connection:
        return find_event(connection, identifier)


def _png(values: list[Any]) -> bytes:
    """An image ``(channels, height, width)`` as PNG, enlarged; where values exceed 255, the largest is white."""
    from PIL import Image

    array = np.asarray(values, np.float64)
    top = 255.0 if array.max() <= 255 else array.max()
    pixels = np.clip(np.moveaxis(array, 0, -1) * (255.0 / top), 0, 255).astype(np.uint8)
    shown = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels[..., :3])
    factor = max(1, 256 // max(shown.size))
    sink = io.BytesIO()
    shown.resize((shown.width * factor, shown.height * factor), Image.Resampling.NEAREST).save(sink, "PNG")
    return sink.getvalue()
