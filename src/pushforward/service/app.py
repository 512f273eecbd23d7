"""The routes of the service as an ASGI application."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pyarrow as pa
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

import pushforward
from pushforward.errors import PushforwardError
from pushforward.service import routes_admin, routes_page, routes_score
from pushforward.service.core import Service
from pushforward.service.gate import Gate
from pushforward.service.refusal import Refusal, as_refusal
from pushforward.service.settings import ServiceSettings

__all__ = ["create_app"]


def create_app(settings: ServiceSettings) -> Gate:
    """The application of one process; its models are loaded when the server starts it.

    Args:
        settings: of the service. The store must exist and have the models (see `pushforward.service.server.prepare`).
    """
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        _note_signals(service)
        try:
            yield
        finally:
            service.draining.set()
            await service.stop()

    app = FastAPI(
        title="pushforward",
        version=pushforward.__version__,
        summary="Anomaly scores with a promised false-alarm rate.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses={"4XX": {"description": "Refused; the body says why.", "content": _ERROR}},
    )
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    gate = Gate(app, settings, service.access, service.metrics, routes_score.direct)
    service.others = lambda: gate.scoring
    app.state.service, app.state.gate = service, gate
    routes_score.add(app)
    routes_admin.add(app)
    routes_page.add(app)
    app.add_exception_handler(Exception, _unexpected)
    for kind in (Refusal, PushforwardError):
        app.add_exception_handler(kind, _refused)
    return gate


_ERROR = {
    "application/json": {
        "schema": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
    }
}
_NO_JSON = "the body is not JSON in UTF-8: send it so, and not compressed."
_TOO_DEEP = "the body is nested too deeply: no request of this service needs more than a few levels."


async def _refused(_: Request, error: Exception) -> JSONResponse:
    """One sentence for an error that was raised on purpose."""
    assert isinstance(error, PushforwardError)
    refusal = as_refusal(error)
    headers = {} if refusal.retry_after is None else {"retry-after": str(refusal.retry_after)}
    return JSONResponse({"error": refusal.text.encode("utf-8", "replace").decode()}, refusal.status, headers)


async def _unexpected(_: Request, __: Exception) -> JSONResponse:
    """The server logs the error; the client does not see what it was."""
    return JSONResponse({"error": "unexpected error; the log of the service has the details."}, 500)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first.get("type") == "json_invalid":
        return JSONResponse({"error": _NO_JSON}, 422)
    if first.get("loc") == ("body",):  # as it is of another content type, which curl sends by default
        return JSONResponse({"error": "the body must be a JSON object of the content type application/json."}, 422)
    where = ".".join(str(part) for part in first.get("loc", ())[1:])
    return JSONResponse({"error": f"{where or 'the request'}: {first.get('msg', 'is not valid')}"[:300]}, 422)


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    # FastAPI's own error for a body that is not UTF-8, or nested too deeply, says no more than that there was one.
    cause = error.__cause__ if error.status_code == 400 else None
    text = str(error.detail) if cause is None else _TOO_DEEP if isinstance(cause, RecursionError) else _NO_JSON
    return JSONResponse({"error": text}, error.status_code, error.headers)


def _note_signals(service: Service) -> None:
    """Before the server handles SIGTERM or SIGINT, note that the service drains: streams of the page then end.

    pyarrow handles signals of its own while it reads CSV, and a SIGTERM at that time would end the reading and not the service.
    """
    pa.enable_signal_handlers(False)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            handler: Any = signal.getsignal(number)
            if not callable(handler):
                continue

            def drain(received: int, frame: Any, handler: Callable[..., Any] = handler) -> None:
                loop.call_soon_threadsafe(service.draining.set)
                handler(received, frame)

            signal.signal(number, drain)
        except ValueError:  # not the main thread, as in tests that run a server in a thread
            return
