"""Routes that score: ``/score``, the Open Inference Protocol and MLflow's."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI, Path, Query, Request
from starlette.responses import JSONResponse, Response

import pushforward
from pushforward.service import answers, inference_protocol
from pushforward.service.core import Result, Service
from pushforward.service.gate import read_body
from pushforward.service.inputs import Inputs
from pushforward.service.refusal import Refusal
from pushforward.service.served import ServedModel
from pushforward.service.settings import NAME

__all__ = ["add", "direct"]

_LARGE = 64 * 1024  # a body that is longer is read in a thread, so that it does not delay others
_READERS = ThreadPoolExecutor(2, thread_name_prefix="read")  # of their own: the others may all wait for the store
_NAME = Path(pattern=f"^{NAME.pattern}$", description="Name of the model.")
_VERSION = Path(pattern="^[0-9]{1,9}$", description="Version of the model.")
_JSON = "application/json"
_INFER = re.compile(rf"/v2/models/({NAME.pattern})(?:/versions/([0-9]{{1,9}}))?/infer")


def add(app: FastAPI) -> None:
    """Add the routes."""
    _add_score(app)
    _add_protocol(app)
    _add_mlflow(app)


async def _scored(
    request: Request,
    model: ServedModel,
    read: Callable[[str, bytes], tuple[Inputs, dict[str, Any]]],
    reasons: bool | None = None,
) -> tuple[list[Result], dict[str, Any]]:
    """Read the body, score it in the queue, and return the results and the request's options."""
    service: Service = request.app.state.service
    request.scope["pushforward_model"] = model.key
    if service.draining.is_set():
        raise Refusal(503, "the service is stopping.", retry_after=5)
    service.batcher.check_space()  # before the body is read, so that overload costs little
    body = await read_body(request.app.state.gate, request.scope, request.receive)
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if len(body) > _LARGE:
        inputs, options = await asyncio.get_running_loop().run_in_executor(_READERS, read, media, body)
    else:
        inputs, options = read(media, body)
    if reasons is not None:
        options["reasons"] = reasons
    wanted, identifier = answers.check_options(
        {"reasons": options.get("reasons", False), "request": options.get("request")}, inputs
    )
    results = await service.batcher.submit(model, inputs, reasons=wanted, request=identifier)
    return results, options


def _add_score(app: FastAPI) -> None:
    content = {
        _JSON: {"schema": _SCORE_REQUEST, "example": {"rows": [{"amount": 12.5, "country": "NO"}], "reasons": True}},
        answers.CSV: {"schema": {"type": "string"}},
        **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in (answers.ARROW, answers.NPY, "image/png", "image/jpeg")},
    }  # fmt: skip
    extra = {"requestBody": {"required": True, "content": content}}

    @app.post(
        "/score",
        summary="Score rows of a table, or images",
        openapi_extra=extra,
        responses={200: {"content": {_JSON: {"schema": _SCORE_ANSWER}}, "description": "One result for each row."}},
        response_class=Response,
    )
    async def score(
        request: Request,
        model: str | None = Query(None, description="Name of the model; the first by default.", max_length=64),
        version: str | None = Query(None, description="Version; the active one by default.", max_length=32),
        reasons: bool | None = Query(None, description="Whether to say which columns made each row unlikely."),
    ) -> Response:
        """Answer with `p_value`, `alarm`, `anomaly_score` and the event's `id` of each row."""
        return await _score(request, model, version, reasons)


async def _score(request: Request, model: str | None, version: str | None, reasons: bool | None) -> Response:
    service: Service = request.app.state.service
    chosen = service.models.find(model, version)
    results, options = await _scored(
        request, chosen, lambda media, body: answers.read_score(chosen.reader, media, body), reasons
    )
    return Response(answers.score_answer(chosen, results, bool(options.get("reasons"))), media_type=_JSON)


async def _infer(request: Request, name: str, version: str | None) -> Response:
    model = request.app.state.service.models.find(name, version)
    length = request.headers.get("inference-header-content-length")

    def read(media: str, body: bytes) -> tuple[Inputs, dict[str, Any]]:
        if media not in ("", _JSON, "application/octet-stream"):
            raise Refusal(415, f"the content type {media!r:.80} is unknown: send {_JSON}.")
        inputs, content = inference_protocol.read_infer(model.reader, body, length)
        return inputs, {"request": content.get("id") or None, "content": content}

    results, options = await _scored(request, model, read)
    return Response(inference_protocol.infer_answer(model, results, options["content"]), media_type=_JSON)


def direct(scope: MutableMapping[str, Any]) -> Callable[[Request], Awaitable[Response]] | None:
    """The handler of a request that scores, where its path and parameters are plain; None for all others.

    These requests are many. The layers of FastAPI take more time than the rest of an answer, and all that they would
    check here is checked by these few lines; what does not fit goes through them and is refused by them.
    """
    path, query = scope["path"], scope["query_string"]
    if scope["method"] != "POST":
        return None
    if path == "/score" and not query:
        return lambda request: _score(request, None, None, None)
    found = _INFER.fullmatch(path)
    if found is None or query:
        return None
    name, version = found.groups()
    return lambda request: _infer(request, name, version)


def _add_protocol(app: FastAPI) -> None:
    @app.get("/v2", summary="Metadata of the server", tags=["Open Inference Protocol"])
    async def server() -> dict[str, Any]:
        return {
            "name": "pushforward",
            "version": pushforward.__version__,
            "extensions": ["binary_tensor_data", "model_repository"],
        }

    @app.head("/v2/health/live", include_in_schema=False)
    @app.get("/v2/health/live", tags=["Open Inference Protocol"])
    async def live() -> dict[str, bool]:
        """Whether the process answers."""
        return {"live": True}

    @app.head("/v2/health/ready", include_in_schema=False)
    @app.get("/v2/health/ready", tags=["Open Inference Protocol"], responses={503: {"description": "Not ready."}})
    async def ready(request: Request) -> JSONResponse:
        """Whether all models can be asked."""
        is_ready = request.app.state.service.ready
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    async def model_metadata(request: Request, name: str = _NAME, version: str | None = None) -> dict[str, Any]:
        """What the model reads and answers."""
        service: Service = request.app.state.service
        model = service.models.find(name, version)
        versions = [other.version for other in service.models.all() if other.name == name]
        return inference_protocol.metadata(model, versions)

    async def model_ready(request: Request, name: str = _NAME, version: str | None = None) -> dict[str, Any]:
        """Whether the model can be asked."""
        request.app.state.service.models.find(name, version)
        return {"name": name, "ready": True}

    async def infer(request: Request, name: str = _NAME, version: str | None = None) -> Response:
        """Score tensors."""
        return await _infer(request, name, version)

    body = {"requestBody": {"required": True, "content": {_JSON: {"schema": _INFER_REQUEST}}}}
    answer: dict[int | str, dict[str, Any]] = {
        200: {
            "content": {_JSON: {"schema": _INFER_ANSWER}},
            "description": "Tensors p_value, alarm, anomaly_score and id.",
        }
    }
    for path, with_version in (("/v2/models/{name}", False), ("/v2/models/{name}/versions/{version}", True)):
        kind: dict[str, Any] = {"tags": ["Open Inference Protocol"]}
        suffix = "_version" if with_version else ""
        wrap = _with_version if with_version else _without_version
        app.add_api_route(path, wrap(model_metadata), methods=["GET"], operation_id=f"metadata{suffix}", **kind)
        app.add_api_route(f"{path}/ready", wrap(model_ready), methods=["GET"], operation_id=f"ready{suffix}", **kind)
        app.add_api_route(f"{path}/ready", wrap(model_ready), methods=["HEAD"], include_in_schema=False)
        app.add_api_route(
            f"{path}/infer", wrap(infer), methods=["POST"], operation_id=f"infer{suffix}", openapi_extra=body,
            responses=answer, response_class=Response, **kind,
        )  # fmt: skip


def _with_version(handler: Callable[..., Any]) -> Callable[..., Any]:
    async def call(request: Request, name: str = _NAME, version: str = _VERSION) -> Any:
        return await handler(request, name, version)

    call.__doc__ = handler.__doc__
    return call


def _without_version(handler: Callable[..., Any]) -> Callable[..., Any]:
    async def call(request: Request, name: str = _NAME) -> Any:
        return await handler(request, name, None)

    call.__doc__ = handler.__doc__
    return call


def _add_mlflow(app: FastAPI) -> None:
    content = {_JSON: {"schema": _INVOCATIONS}, answers.CSV: {"schema": {"type": "string"}}}

    @app.post(
        "/invocations",
        tags=["MLflow"],
        summary="Score by the first model, as an MLflow server does",
        openapi_extra={"requestBody": {"required": True, "content": content}},
        response_class=Response,
        responses={
            200: {"content": {_JSON: {"schema": _INVOCATIONS_ANSWER}}, "description": "One result for each row."}
        },
    )
    async def invocations(request: Request) -> Response:
        """Score `dataframe_split`, `dataframe_records`, `instances`, `inputs` or CSV."""
        model = request.app.state.service.models.find()
        results, _ = await _scored(
            request, model, lambda media, body: (answers.read_invocations(model.reader, media, body), {})
        )
        return Response(answers.orjson.dumps({"predictions": answers.table_rows(results)}), media_type=_JSON)

    @app.head("/ping", include_in_schema=False)
    @app.get("/ping", tags=["MLflow"])
    async def ping() -> Response:
        """Whether the process answers."""
        return Response(b"\n", media_type="text/plain")

    @app.head("/livez", include_in_schema=False)
    @app.get("/livez", tags=["health"])
    async def livez() -> dict[str, bool]:
        """Whether the process answers."""
        return {"live": True}

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", tags=["health"], responses={503: {"description": "Not ready."}})
    async def readyz(request: Request) -> JSONResponse:
        """Whether requests can be answered; and why the store cannot be used, if it cannot."""
        service: Service = request.app.state.service
        ok = service.ready
        return JSONResponse(
            {"ready": ok, "store": "unreachable" if service.store_problem else "ok"}, 200 if ok else 503
        )


_CELL = {"type": ["string", "number", "boolean", "null"]}
_RECORDS = {"type": "array", "minItems": 1, "items": {"type": ["object", "array"]}}
_SCORE_REQUEST = {
    "type": "object",
    "properties": {
        "rows": _RECORDS,
        "columns": {"type": "array", "items": {"type": "string"}},
        "images": {"type": "array", "minItems": 1},
        "reasons": {"type": "boolean"},
        "request": {"type": "string", "maxLength": 64, "minLength": 1},
    },
}
_ROW = {
    "type": "object",
    "required": ["id", "p_value", "alarm", "anomaly_score"],
    "properties": {
        "id": {"type": "string"},
        "p_value": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "alarm": {"type": "boolean"},
        "anomaly_score": {"type": "number"},
        "reasons": {
            "type": "array",
            "items": {"type": "object", "properties": {"column": {"type": "string"}, "nats": {"type": "number"}}},
        },
    },
}
_SCORE_ANSWER = {
    "type": "object",
    "required": ["model_name", "model_version", "rows"],
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "alpha": {"type": "number"},
        "rows": {"type": "array", "items": _ROW},
    },
}
_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "minItems": 1, "maxItems": 5, "items": {"type": "integer", "minimum": 0}},
        "datatype": {"enum": ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16",
                              "FP32", "FP64", "BYTES"]},
        "parameters": {"type": "object"},
        "data": {"type": "array"},
    },
}  # fmt: skip
_INFER_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string", "maxLength": 64},
        "parameters": {"type": "object"},
        "inputs": {"type": "array", "minItems": 1, "items": _TENSOR},
        "outputs": {"type": "array", "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}},
    },
}  # fmt: skip
_INFER_ANSWER = {
    "type": "object",
    "required": ["model_name", "model_version", "outputs"],
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "outputs": {"type": "array", "items": _TENSOR},
    },
}
_INVOCATIONS = {
    "type": "object",
    "properties": {
        "dataframe_split": {
            "type": "object",
            "properties": {"columns": {"type": "array", "items": {"type": "string"}}, "data": {"type": "array"}},
        },
        "dataframe_records": {"type": "array", "items": {"type": "object"}},
        "instances": {"type": ["array", "object"]},
        "inputs": {"type": ["array", "object"]},
    },
}
_INVOCATIONS_ANSWER = {
    "type": "object",
    "required": ["predictions"],
    "properties": {"predictions": {"type": "array", "items": _ROW}},
}
