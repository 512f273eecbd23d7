"""The Open Inference Protocol, version 2: tensors of a request as rows, and scores as tensors of an answer.

A table is one tensor for each column, ``[n]`` or ``[n, 1]``, or, where all columns are numbers, one tensor ``[n, columns]``.
Images are one tensor of integers, or one BYTES tensor of PNG or JPEG files. Inputs may use the binary extension (raw
little-endian data after the JSON); answers are JSON.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from pushforward.service.answers import arrays, parse_json
from pushforward.service.core import Result
from pushforward.service.inputs import Inputs, Reader
from pushforward.service.refusal import Refusal
from pushforward.service.served import ServedModel

__all__ = ["infer_answer", "metadata", "read_infer"]

_TYPES = {
    "BOOL": "?", "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "<i1", "INT16": "<i2",
    "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
_OUTPUTS = {"p_value": "FP64", "alarm": "BOOL", "anomaly_score": "FP64", "id": "BYTES"}


def read_infer(reader: Reader, body: bytes, header_length: str | None) -> tuple[Inputs, dict[str, Any]]:
    """Rows of an infer request, and the request's other members.

    Args:
        reader: of the model.
        body: of the request.
        header_length: the header Inference-Header-Content-Length: the length of the JSON before binary data.
    """
    binary = memoryview(b"")
    if header_length is not None:
        if not header_length.isdecimal() or len(header_length) > 12 or int(header_length) > len(body):
            raise Refusal(400, "Inference-Header-Content-Length must be the length of the JSON in the body.")
        body, binary = body[: int(header_length)], memoryview(body)[int(header_length) :]
    content = parse_json(body)
    if not isinstance(content, dict) or not isinstance(content.get("inputs"), list) or not content["inputs"]:
        raise Refusal(400, "the body must be an object with a list of inputs.")
    identifier = content.get("id")
    if identifier is not None and not (
        isinstance(identifier, str) and len(identifier) <= 64 and identifier.isprintable()
    ):
        raise Refusal(400, "id must be a printable text of at most 64 characters.")
    wanted = content.get("outputs")
    if wanted is not None:
        if not isinstance(wanted, list) or not all(
            isinstance(o, dict) and isinstance(o.get("name"), str) for o in wanted
        ):
            raise Refusal(400, "outputs must be a list of objects with a name.")
        unknown = [output["name"] for output in wanted if output["name"] not in _OUTPUTS]
        if unknown:
            raise Refusal(400, f"there is no output {unknown[0]!r:.80}; the outputs are {', '.join(_OUTPUTS)}.")
    tensors: dict[str, Any] = {}
    for tensor in content["inputs"]:
        name, values, binary = _tensor(tensor, binary)
        if name in tensors:
            raise Refusal(400, f"two inputs have the name {name!r:.80}.")
        tensors[name] = values
    if len(binary):
        raise Refusal(400, "there are more binary data than the inputs state.")
    return _rows(reader, tensors), content


def _tensor(tensor: Any, binary: memoryview) -> tuple[str, Any, memoryview]:
    """Name and values of one tensor, and the binary data after it."""
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
        raise Refusal(400, "an input must be an object with name, shape, datatype and data.")
    name, shape, kind = tensor["name"], tensor.get("shape"), tensor.get("datatype")
    if not isinstance(shape, list) or not shape or not all(type(n) is int and 0 <= n < 2**31 for n in shape):
        raise Refusal(400, f"the shape of input {name!r:.80} must be a list of integers.")
    if len(shape) > 5 or kind not in (*_TYPES, "BYTES"):
        raise Refusal(400, f"input {name!r:.80} has an unknown datatype or too many dimensions.")
    count = math.prod(shape)
    parameters = tensor.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is not None:
        if type(size) is not int or not 0 <= size <= len(binary):
            raise Refusal(400, f"binary_data_size of input {name!r:.80} does not fit the body.")
        return name, _binary(name, binary[:size], shape, kind), binary[size:]
    data = tensor.get("data")
    if not isinstance(data, list):
        raise Refusal(400, f"the data of input {name!r:.80} must be a list.")
    if kind == "BYTES":
        flat = data
        while flat and all(type(item) is list for item in flat):
            flat = [inner for item in flat for inner in item]
        if len(flat) != count or not all(item is None or isinstance(item, str) for item in flat):
            raise Refusal(400, f"the data of input {name!r:.80} must be {count} texts.")
        return name, _column(flat, shape), binary
    return name, _numbers(name, data, shape, kind), binary


def _numbers(name: str, data: list[Any], shape: list[int], kind: str) -> np.ndarray:
    """The numbers of a tensor in JSON, of its datatype; float64 with NaN where some are null, which are missing cells."""
    try:
        found = np.asarray(data)
        if found.dtype.kind not in "biufO" or (found.dtype == object and any(type(v) is str for v in found.flat)):
            raise ValueError
        if kind == "UINT64" and found.dtype.kind == "f":
            # numpy makes float64 of integers on both sides of 2^63, which rounds them, 2^64 - 1 to a number that is too large.
            whole = np.asarray(data, dtype=object)
            if all(type(v) is int and v >= 0 for v in whole.flat):
                found = whole.astype(np.uint64)
        array = found.astype(np.float64)
    except (ValueError, TypeError, OverflowError):
        raise Refusal(400, f"the data of input {name!r:.80} are not numbers, or their lists are ragged.") from None
    count = math.prod(shape)
    if array.size != count:
        raise Refusal(400, f"input {name!r:.80} has {array.size} values and its shape says {count}.")
    array = array.reshape(shape)
    if kind in ("FP16", "FP32", "FP64"):
        return array
    low, high = (0, 1) if kind == "BOOL" else (int(np.iinfo(_TYPES[kind]).min), int(np.iinfo(_TYPES[kind]).max))
    exact = found.reshape(shape) if found.dtype.kind in "iu" else array  # float64 rounds integers above 2^53
    present = exact[~np.isnan(array)]
    wrong = (present != np.rint(present)) | (present < low) | (present >= high + 1)
    if wrong.any():
        raise Refusal(
            400, f"input {name!r:.80} has the value {present[wrong][0]:g}, which {kind} does not have: send it as FP64."
        )
    # Integers and flags stay what they are, because a column of texts reads 1 and true, not 1.0.
    return array if present.size < array.size else exact.astype(_TYPES[kind])


def _binary(name: str, data: memoryview, shape: list[int], kind: str) -> Any:
    count = math.prod(shape)
    if kind != "BYTES":
        if len(data) != count * np.dtype(_TYPES[kind]).itemsize:
            raise Refusal(400, f"the binary data of input {name!r:.80} do not fit its shape.")
        return np.frombuffer(bytearray(data), _TYPES[kind]).reshape(shape)
    items, at = [], 0
    while at + 4 <= len(data) and len(items) < count:
        length = struct.unpack_from("<I", data, at)[0]
        if at + 4 + length > len(data):
            break
        items.append(bytes(data[at + 4 : at + 4 + length]))
        at += 4 + length
    if at != len(data) or len(items) != count:
        raise Refusal(400, f"the binary data of input {name!r:.80} do not fit its shape.")
    return _column(items, shape)


def _column(items: list[Any], shape: list[int]) -> list[Any]:
    if len(shape) == 1 or shape[1:] == [1]:
        return items
    raise Refusal(400, "a BYTES input must have the shape [n] or [n, 1].")


def _rows(reader: Reader, tensors: dict[str, Any]) -> Inputs:
    if reader.images:
        if len(tensors) != 1:
            raise Refusal(400, "this model reads one input, the images.")
        values = next(iter(tensors.values()))
        if isinstance(values, np.ndarray):
            return reader.numbers(values)
        try:
            return reader.pictures(
                v if isinstance(v, bytes) else base64.b64decode(v or "", validate=True) for v in values
            )
        except (binascii.Error, ValueError):
            raise Refusal(400, "an image is not base64.") from None
    if len(tensors) == 1:
        only = next(iter(tensors.values()))
        if isinstance(only, np.ndarray) and only.ndim == 2 and (only.shape[1] > 1 or len(reader.names) == 1):
            return reader.numbers(only)
    columns = {}
    for name, values in tensors.items():
        if isinstance(values, np.ndarray):
            if values.ndim > 2 or (values.ndim == 2 and values.shape[1] != 1):
                raise Refusal(400, f"input {name!r:.80} must have the shape [n] or [n, 1], one input for each column.")
            values = values.reshape(-1)
        columns[name] = values
    return reader.columns(columns)


def infer_answer(model: ServedModel, results: Sequence[Result], request: dict[str, Any]) -> bytes:
    """The answer of an infer request."""
    found = arrays(results)
    names = [output["name"] for output in request["outputs"]] if request.get("outputs") else list(_OUTPUTS)
    outputs = [
        {
            "name": name,
            "shape": [len(found["id"])],
            "datatype": _OUTPUTS[name],
            "data": found[name] if name == "id" else found[name].tolist(),
        }
        for name in dict.fromkeys(names)
    ]
    answer: dict[str, Any] = {"model_name": model.name, "model_version": model.version, "outputs": outputs}
    if request.get("id") is not None:
        answer["id"] = request["id"]
    return orjson.dumps(answer)


def metadata(model: ServedModel, versions: list[str]) -> dict[str, Any]:
    """The metadata of a model."""
    reader = model.reader
    if reader.images:
        top = getattr(model.guard.score_, "top", 255)
        kind = "UINT8" if top < 2**8 else "UINT16" if top < 2**16 else "INT64"
        inputs = [{"name": "images", "datatype": kind, "shape": [-1, *_image_shape(model)]}]
    else:
        inputs = [
            {"name": name, "datatype": "FP64" if number else "BYTES", "shape": [-1, 1]}
            for name, number in zip(reader.names, reader.numeric, strict=True)
        ]
    outputs = [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in _OUTPUTS.items()]
    return {"name": model.name, "versions": versions, "platform": "pushforward", "inputs": inputs, "outputs": outputs}


def _image_shape(model: ServedModel) -> list[int]:
    shape = getattr(model.guard.score_, "shape", None)
    return [int(n) for n in shape] if shape is not None else [-1, -1, -1]
