"""From the body of a request to rows, and from scores to the body of an answer, for each of the formats."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from pushforward.service.core import Result
from pushforward.service.inputs import Inputs, Reader
from pushforward.service.refusal import Refusal
from pushforward.service.served import LARGEST, ServedModel

__all__ = ["ARROW", "CSV", "JSON", "NPY", "parse_json", "read_invocations", "read_score", "score_answer", "table_rows"]

JSON, CSV, ARROW, NPY = "application/json", "text/csv", "application/vnd.apache.arrow.stream", "application/x-npy"
_PICTURES = ("image/png", "image/jpeg")
_NO_NUMBER = re.compile(rb"[:,\[]\s*-?(NaN|Infinity)")
_MOST_REASONS = 256  # rows of a request with reasons


def parse_json(body: bytes) -> Any:
    """The value of a JSON body.

    Raises:
        Refusal: 400.
    """
    try:
        return orjson.loads(body)
    except (orjson.JSONDecodeError, RecursionError) as error:
        absent = "; JSON has no NaN and no infinity: send null for a missing cell" if _NO_NUMBER.search(body) else ""
        raise Refusal(400, f"the body is not JSON: {str(error)[:200]}{absent}") from None


def read_score(reader: Reader, media: str, body: bytes) -> tuple[Inputs, dict[str, Any]]:
    """Rows and options of ``POST /score``.

    Args:
        reader: of the model.
        media: type of the content.
        body: of the request.
    """
    if media == CSV:
        return reader.csv(body), {}
    if media == ARROW:
        return reader.arrow(body), {}
    if media == NPY:
        return reader.array(body), {}
    if media in _PICTURES:
        return reader.pictures([body]), {}
    if media != JSON:
        raise Refusal(
            415, f"the content type {media!r:.80} is unknown: send {JSON}, {CSV}, {ARROW}, {NPY} or a picture."
        )
    content = parse_json(body)
    if isinstance(content, list):
        return reader.records(content), {}
    if not isinstance(content, dict):
        raise Refusal(422, 'the body must be an object such as {"rows": [{column: value}]}.')
    known = {"rows", "columns", "images", "reasons", "request"}
    options = {name: content[name] for name in ("reasons", "request") if name in content}
    if "rows" not in content and "images" not in content and set(content) - known:
        if reader.names and not set(content) & set(reader.names):
            raise Refusal(
                422,
                f'the body has the keys {", ".join(map(repr, content))[:200]}, and none is a column of the model: send {{"rows": [{{column: value}}]}}, '
                "or one row as {column: value}.",
            )
        return reader.records([content]), {}  # one row, as it is
    rows, names, images = content.get("rows"), content.get("columns"), content.get("images")
    if images is not None:
        if not isinstance(images, list):
            raise Refusal(422, "images must be a list.")
        return reader.image_list(images), options
    if isinstance(rows, list) and isinstance(names, list):
        return reader.split(names, rows), options
    if isinstance(rows, list) and names is None:
        return reader.records(rows), options
    if isinstance(names, dict) and rows is None:
        return reader.columns(names), options
    raise Refusal(422, "give rows as a list (with columns, a list of names, for rows that are lists), or images.")


def read_invocations(reader: Reader, media: str, body: bytes) -> Inputs:
    """Rows of MLflow's ``POST /invocations``: dataframe_split, dataframe_records, instances, inputs, or CSV."""
    if media == CSV:
        return reader.csv(body)
    if media != JSON:
        raise Refusal(415, f"the content type {media!r:.80} is unknown: send {JSON} or {CSV}.")
    content = parse_json(body)
    if not isinstance(content, dict):
        raise Refusal(400, "the body must be an object with dataframe_split, dataframe_records, instances or inputs.")
    given = [name for name in ("dataframe_split", "dataframe_records", "instances", "inputs") if name in content]
    if len(given) != 1:
        raise Refusal(400, "give one of dataframe_split, dataframe_records, instances and inputs.")
    value = content[given[0]]
    if given[0] == "dataframe_split":
        names, rows = (value.get(key) for key in ("columns", "data")) if isinstance(value, dict) else (None, None)
        if not isinstance(rows, list) or not (names is None or isinstance(names, list)):
            raise Refusal(422, "dataframe_split must be an object with columns and data.")
        return reader.records(rows) if names is None else reader.split(names, rows)
    if isinstance(value, dict):
        return reader.columns({name: cells if isinstance(cells, list) else [cells] for name, cells in value.items()})
    if not isinstance(value, list):
        raise Refusal(422, f"{given[0]} must be a list or an object.")
    return reader.image_list(value) if reader.images else reader.records(value)


def check_options(options: dict[str, Any], inputs: Inputs) -> tuple[bool, str | None]:
    """Whether reasons are wanted, and the client's identifier of the request.

    Raises:
        Refusal: 422.
    """
    reasons, request = options.get("reasons", False), options.get("request")
    if not isinstance(reasons, bool):
        raise Refusal(422, "reasons must be true or false.")
    if request is not None and not (isinstance(request, str) and 0 < len(request) <= 64 and request.isprintable()):
        raise Refusal(422, "request must be a printable text of at most 64 characters.")
    if reasons and len(inputs) > _MOST_REASONS:
        raise Refusal(413, f"a request with reasons may have {_MOST_REASONS} rows.")
    return reasons, request


def score_answer(model: ServedModel, results: Sequence[Result], reasons: bool) -> bytes:
    """The answer of ``POST /score``."""
    return orjson.dumps(
        {
            "model_name": model.name,
            "model_version": model.version,
            "alpha": model.guard.alpha,
            "rows": table_rows(results, reasons),
        }
    )


def table_rows(results: Sequence[Result], reasons: bool = False) -> list[dict[str, Any]]:
    """One object for each row."""
    rows = []
    for result in results:
        found = result.scores
        columns = (result.ids, found.p_value.tolist(), found.alarm.tolist(), found.score.tolist())
        for k, (identifier, p, alarm, score) in enumerate(zip(*columns, strict=True)):
            row: dict[str, Any] = {"id": identifier, "p_value": p, "alarm": alarm, "anomaly_score": score}
            if reasons:
                row["reasons"] = [{"column": name, "nats": nats} for name, nats in found.reasons.get(k, ())]
            rows.append(row)
    return rows


def arrays(results: Sequence[Result]) -> dict[str, Any]:
    """The results as arrays: ``p_value``, ``anomaly_score``, ``alarm``, and the events' ``id``."""
    scores = [result.scores for result in results]
    return {
        "p_value": np.concatenate([s.p_value for s in scores]),
        "anomaly_score": np.clip(np.concatenate([s.score for s in scores]), -LARGEST, LARGEST),
        "alarm": np.concatenate([s.alarm for s in scores]),
        "id": [identifier for result in results for identifier in result.ids],
    }
