"""Routes of operation: models, events, feedback, monitors, audit, metrics."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Literal

from fastapi import FastAPI, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.responses import Response

from pushforward.errors import ConfigError, StorageError
from pushforward.service.core import Service
from pushforward.service.refusal import Refusal
from pushforward.service.settings import NAME
from pushforward.service.store import audit
from pushforward.service.store.eventlog import add_feedback, find_event, find_events, search_end
from pushforward.service.store.modelbook import Entry, activate, entries, register, unload

__all__ = ["add"]

_NAME = Path(pattern=f"^{NAME.pattern}$", description="Name of the model.")
_VERSION = Path(pattern="^[0-9]{1,9}$", description="Version of the model.")
_EVENT = Path(pattern="^[0-9a-f]{32}$", description="Identifier of the event.")
_log = logging.getLogger("pushforward.service")


class Feedback(BaseModel):
    """What a person says about an event."""

    model_config = ConfigDict(extra="forbid")
    id: str = Field(pattern="^[0-9a-f]{32}$", description="The event.")
    label: Literal["anomaly", "normal", "unclear"]
    note: str | None = Field(None, max_length=1000)

    @field_validator("note")
    @classmethod
    def _has_no_nul(cls, note: str | None) -> str | None:
        if note is not None and "\0" in note:
            raise ValueError("a note must not have the character NUL: leave it out")
        return note


def add(app: FastAPI) -> None:
    """Add the routes."""
    _add_repository(app)
    _add_events(app)
    _add_operation(app)


def _service(request: Request) -> Service:
    return request.app.state.service


async def _follow(service: Service) -> None:
    """Take over a change, and wait until the other processes did too."""
    await service.refresh()
    if not await service.wait_for_workers():
        raise Refusal(503, "the change is stored, and a process has not taken it over yet.", retry_after=2)


def _add_repository(app: FastAPI) -> None:
    tags: list[Any] = ["Open Inference Protocol"]

    @app.post("/v2/repository/index", tags=tags)
    @app.get("/v2/repository/index", tags=tags, include_in_schema=False)
    async def index(request: Request) -> list[dict[str, Any]]:
        """All versions of all models."""
        service = _service(request)
        loaded = {model.key for model in service.models.all()}
        known = await asyncio.to_thread(_entries, service)  # a store that does not answer must not stop the scores
        return [
            {
                "name": entry.name,
                "version": entry.version,
                "state": "READY" if (entry.name, entry.version) in loaded else "UNAVAILABLE",
                "reason": "" if (entry.name, entry.version) in loaded else "unloaded",
                "active": entry.active,
                "digest": entry.digest,
            }
            for entry in known
        ]

    @app.post("/v2/repository/models/{name}/load", tags=tags)
    async def load(request: Request, name: str = _NAME) -> dict[str, Any]:
        """Read the guard file of the model again; a new file becomes the next version and the active one.

        The version that was active stays loaded, so that it can be switched to. A damaged file changes nothing, nor does one
        that is not signed with the key of the service, if it has one.
        """
        service = _service(request)
        path = dict(service.settings.models).get(name)
        if path is None:
            raise Refusal(404, f"no file was given for a model {name!r:.80} when the service started.")
        try:
            entry = await asyncio.to_thread(_load, service, name, path)
        except (StorageError, ConfigError) as error:
            _log.info("model %s: its file was refused: %s", name, error)
            raise Refusal(
                409, f"the file of {name!r} cannot be served, and the model goes on as it was: {error}"
            ) from None
        await _follow(service)
        return {"name": entry.name, "version": entry.version, "digest": entry.digest}

    @app.post("/v2/repository/models/{name}/unload", tags=tags)
    async def unload_model(request: Request, name: str = _NAME) -> dict[str, Any]:
        """Stop serving a model; requests in progress are answered."""
        return await _unload(request, name, None)

    @app.post("/v2/repository/models/{name}/versions/{version}/unload", tags=tags)
    async def unload_version(request: Request, name: str = _NAME, version: str = _VERSION) -> dict[str, Any]:
        """Stop serving one version of a model; requests in progress are answered.

        The version that answers requests which name no version stays as long as another one is loaded: activate that one first.
        """
        return await _unload(request, name, version)

    @app.post("/v2/repository/models/{name}/versions/{version}/activate", tags=tags)
    async def switch(request: Request, name: str = _NAME, version: str = _VERSION) -> dict[str, Any]:
        """Let another loaded version answer requests that name no version."""
        service = _service(request)
        if not await asyncio.to_thread(activate, service.store, name, version):
            raise Refusal(404, f"there is no loaded version {version} of {name!r:.80}.")
        await _follow(service)
        return {"name": name, "version": version}


async def _unload(request: Request, name: str, version: str | None) -> dict[str, Any]:
    service = _service(request)
    try:
        found = await asyncio.to_thread(unload, service.store, name, version)
    except ConfigError as error:
        _log.info("model %s: not unloaded: %s", name, error)
        raise Refusal(409, str(error)) from None
    if not found:
        raise Refusal(404, f"{name!r:.80} is not loaded.")
    await _follow(service)
    return {"name": name}


def _load(service: Service, name: str, path: str) -> Any:
    """Register a file after a full load of it, so that a damaged one never reaches the store."""
    from pushforward.estimators import Guard

    key = service.settings.public_key
    Guard.load(path, public_key=key)
    return register(service.store, name, path, activate_known=True, public_key=key)


def _add_events(app: FastAPI) -> None:
    @app.post("/feedback", status_code=201)
    async def feedback(request: Request, item: Feedback) -> dict[str, str]:
        """Label an event as anomaly, normal or unclear."""
        service = _service(request)
        if not await asyncio.to_thread(add_feedback, service.store, item.id, item.label, item.note):
            raise Refusal(404, "there is no such event (with the default durability it is stored after half a second).")
        return {"id": item.id, "label": item.label}

    @app.get("/events")
    async def events(
        request: Request,
        model: str | None = Query(None, max_length=64),
        version: str | None = Query(None, max_length=32),
        alarm: bool | None = None,
        text: str | None = Query(None, max_length=100, description="Part of the id, the request or the reasons."),
        label: Literal["anomaly", "normal", "unclear"] | None = None,
        since: float | None = Query(None, ge=0, le=1e11, description="Seconds since 1970."),
        until: float | None = Query(None, ge=0, le=1e11),
        before: int | None = Query(
            None, ge=0, le=2**62, description="Only events with a smaller seq, for the next page."
        ),
        limit: int = Query(100, ge=1, le=1000),
    ) -> dict[str, Any]:
        """Stored events, the newest first; `next` is the `before` of the next page, null at the end.

        With `text` a page is of at most 100,000 events that are read, so it may have fewer events than `limit`, also none.
        """
        found, end = await asyncio.to_thread(
            _find, _service(request), model=model, version=version, alarm=alarm, text=text, label=label, since=since,
            until=until, before=before, limit=limit,
        )  # fmt: skip
        return {"events": found, "next": found[-1]["seq"] if len(found) == limit else end}

    @app.get("/events/{identifier}")
    async def event(request: Request, identifier: str = _EVENT) -> dict[str, Any]:
        """One event with its feedback."""
        found = await asyncio.to_thread(_find_one, _service(request), identifier)
        if found is None:
            raise Refusal(404, "there is no such event.")
        return found


def _entries(service: Service) -> list[Entry]:
    with service.store.read() as connection:
        return entries(connection)


def _find_one(service: Service, identifier: str) -> dict[str, Any] | None:
    with service.store.read() as connection:
        return find_event(connection, identifier)


def _find(service: Service, **conditions: Any) -> tuple[list[dict[str, Any]], int | None]:
    """Events, and the ``seq`` from where a search for a text goes on."""
    with service.store.read() as connection:
        end = None
        if conditions["text"]:
            end = search_end(connection, conditions["model"], conditions["before"])
        return find_events(connection, first=end, **conditions), end


def _add_operation(app: FastAPI) -> None:
    @app.head("/metrics", include_in_schema=False)
    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics(request: Request) -> Response:
        """Metrics for Prometheus."""
        service = _service(request)
        service.metrics.queue_length.set(service.batcher.rows)
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.post("/api/monitor/{name}/{version}/restart")
    async def restart(request: Request, name: str = _NAME, version: str = _VERSION) -> dict[str, Any]:
        """Begin a new segment of the drift monitor, after an alarm was dealt with."""
        service = _service(request)
        if not await asyncio.to_thread(service.keeper.drift.restart, name, version):
            raise Refusal(404, "there is no such monitor.")
        return {"name": name, "version": version}

    @app.get("/api/audit/verify")
    async def verify(request: Request) -> dict[str, Any]:
        """Recompute the audit chain. On a large store this takes a while; the command `pushforward audit` has no limit."""
        report = await asyncio.to_thread(audit.verify, _service(request).store)
        return {"valid": report.valid, "entries": report.entries, "events": report.events, "sealed": report.sealed,
                "key": report.key, "deleted": report.deleted, "problems": list(report.problems)}  # fmt: skip
