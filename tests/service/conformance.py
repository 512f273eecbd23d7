"""Conformance with the Open Inference Protocol's REST part, against any server: ``python conformance.py URL MODEL COLUMNS``.

It checks what the specification states of each endpoint, with nothing from pushforward.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request


def call(url: str, body: object = None, method: str | None = None) -> tuple[int, object]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            text, status = answer.read(), answer.status
    except urllib.error.HTTPError as error:
        text, status = error.read(), error.code
    return status, json.loads(text) if text.strip() else None


def check(url: str, model: str, columns: int) -> list[str]:
    """One line for each statement of the specification that does not hold."""
    failed: list[str] = []

    def require(statement: str, condition: bool) -> None:
        if not condition:
            failed.append(statement)

    status, about = call(f"{url}/v2")
    require("server metadata: 200 with name, version and extensions", status == 200 and isinstance(about, dict)
            and isinstance(about.get("name"), str) and isinstance(about.get("version"), str)
            and isinstance(about.get("extensions"), list))  # fmt: skip
    for probe in ("live", "ready"):
        status, _ = call(f"{url}/v2/health/{probe}")
        require(f"health {probe}: 200", status == 200)
    status, about = call(f"{url}/v2/models/{model}")
    good = (
        status == 200
        and isinstance(about, dict)
        and about.get("name") == model
        and isinstance(about.get("platform"), str)
    )
    require("model metadata: name and platform", good)
    for kind in ("inputs", "outputs"):
        tensors = about.get(kind) if isinstance(about, dict) else None
        require(f"model metadata: {kind} have name, datatype and shape", isinstance(tensors, list) and all(
            isinstance(t["name"], str) and isinstance(t["datatype"], str) and all(isinstance(n, int) for n in t["shape"])
            for t in tensors))  # fmt: skip
    versions = about.get("versions", []) if isinstance(about, dict) else []
    require("model metadata: versions are texts", all(isinstance(version, str) for version in versions))
    paths = [f"{url}/v2/models/{model}", *(f"{url}/v2/models/{model}/versions/{version}" for version in versions)]
    body = {
        "id": "42",
        "inputs": [{"name": "x", "shape": [2, columns], "datatype": "FP64", "data": [0.5] * (2 * columns)}],
    }
    for path in paths:
        require(f"{path}/ready: 200", call(f"{path}/ready")[0] == 200)
        status, answer = call(f"{path}/infer", body)
        require(f"{path}/infer: 200", status == 200)
        if status != 200 or not isinstance(answer, dict):
            continue
        require("infer: model_name", answer.get("model_name") == model)
        require("infer: the id of the request", answer.get("id") == "42")
        for tensor in answer["outputs"]:
            size = 1
            for n in tensor["shape"]:
                size *= n
            require(f"infer: {tensor['name']} has as many values as its shape says", len(tensor["data"]) == size)
        names = [tensor["name"] for tensor in answer["outputs"]]
        status, answer = call(f"{path}/infer", body | {"outputs": [{"name": names[0]}]})
        require(
            "infer: only the requested outputs", status == 200 and [t["name"] for t in answer["outputs"]] == names[:1]
        )  # type: ignore[index]
        nested = {"inputs": [body["inputs"][0] | {"data": [[0.5] * columns] * 2}]}
        require("infer: data may be nested", call(f"{path}/infer", nested)[0] == 200)
    for path, wrong in (
        (f"{url}/v2/models/absent", None),
        (f"{url}/v2/models/absent/infer", body),
        (f"{url}/v2/models/{model}/infer", {"inputs": []}),
        (f"{url}/v2/models/{model}/infer", {"inputs": [body["inputs"][0] | {"shape": [3, columns]}]}),
        (f"{url}/v2/models/{model}/infer", body | {"outputs": [{"name": "absent"}]}),
    ):
        status, answer = call(path, wrong)
        stated = isinstance(answer, dict) and isinstance(answer.get("error"), str)
        require(f"{path}: a status of 4xx with an error text for {str(wrong)[:60]}", 400 <= status < 500 and stated)
    status, index = call(f"{url}/v2/repository/index", {}, "POST")
    require("repository index: name and state", status == 200 and all({"name", "state"} <= set(m) for m in index))  # type: ignore[union-attr]
    return failed


if __name__ == "__main__":
    problems = check(sys.argv[1].rstrip("/"), sys.argv[2], int(sys.argv[3]))
    print("\n".join(problems) or "conforms")
    sys.exit(bool(problems))
